"""Evaluation of a trained model: samples against data, held-out losses, likelihood.

All numbers use the EMA parameters and are reported with their settings: samples, sampler, seed, steps, examples seen,
parameters.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from genjax.core import tree
from genjax.core.errors import UserError
from genjax.core.objective import HasLogProb, HasTranslation, Samples
from genjax.data import Data, GaussianMixture
from genjax.data.source import HasDocuments, capability, is_paired
from genjax.data.sources.pairs import halves
from genjax.data.text.decode_text import decode
from genjax.evaluation.held_out import PARAMETERS, held_out_losses, translations
from genjax.evaluation.likelihood import Report, likelihood_report
from genjax.evaluation.sampling import draw_samples
from genjax.evaluation.text import text_metrics
from genjax.metrics.distances.collapse import collapse, near_duplicate_report
from genjax.metrics.distances.modes import Mixture, mode_report
from genjax.metrics.inputs import Settings
from genjax.metrics.report import SampleReference, make_reference
from genjax.metrics.text.documents import novelty
from genjax.metrics.translation import translation_report
from genjax.training.experiment import Experiment
from genjax.training.step import TrainState


def count_params(params: Any) -> int:
    """Number of values in a tree of arrays."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def load_split(data: Data, split: str) -> dict[str, np.ndarray]:
    """All examples of a split that fits in memory, in the data's own units."""
    examples = data.load(split)
    return examples[np.arange(len(examples))]


def fit_reference(data: Data, seed: int) -> SampleReference:
    """Fits the reference for samples of images, points or sounds.

    Raises:
        UserError: too few data, or all equal; see `metrics.inputs`.
    """
    train, test = load_split(data, "train"), load_split(data, "test")
    return make_reference(
        train=train["x"],
        test=test["x"],
        train_labels=train.get("label"),
        test_labels=test.get("label"),
        seed=seed,
        settings=Settings(rate=data.rate),
    )


def compare_samples(
    reference: SampleReference, data: Data, samples: np.ndarray, labels: np.ndarray | None
) -> Report:
    """Distances between samples and data, and signs of collapse.

    Args:
        reference: the data's, fitted.
        data: images or points; modes are counted for a mixture.
        samples: [n, ...] in the data's own units.
        labels: the classes [n] that the samples were conditioned on, or None.

    Returns:
        "distribution" (only near-duplicates if all samples are equal), "modes" for a mixture, "collapse".
    """
    found: dict[str, float | str] = dict(near_duplicate_report(samples, reference.test.x))
    same = bool((samples == samples[:1]).all())
    if not same:
        found |= reference.report(samples, labels)
    numbers: Report = {"distribution": found}
    if isinstance(data.source, GaussianMixture):
        numbers["modes"] = mode_report(samples, Mixture(*data.source.modes()))
    words = "all samples are equal" if same else collapse(found | numbers.get("modes", {}))
    return numbers | {"collapse": words or "none"}


def sample_report(data: Data, samples: np.ndarray, labels: np.ndarray | None, seed: int) -> Report:
    """`compare_samples` with a newly fitted reference; {"not_measured": reason} with too few data or samples.

    Args:
        data: images, points or sounds.
        samples: [n, ...] in the data's own units.
        labels: the classes [n] that the samples were conditioned on, or None.
        seed: seed of the reference.

    Returns:
        See `compare_samples`.
    """
    if len(samples) < Settings.min_examples:
        words = f"samples: {len(samples)} examples, at least {Settings.min_examples} are needed"
        return {"distribution": {"not_measured": words}}
    try:
        reference = fit_reference(data, seed)
    except UserError as error:
        return {"distribution": {"not_measured": str(error)}}
    return compare_samples(reference, data, samples, labels)


def tunable_settings(node: Any, path: str = "objective") -> Report:
    """The fields, at any depth, that training does not depend on: sampler, guidance, threshold."""
    found: Report = {}
    free = {*tree.fields(node)} - {*tree.untunable(node)}
    for name, value in sorted(tree.fields(node).items()):
        if name in free:
            found[f"{path}.{name}"] = tree.describe(value)
        elif tree.is_node(value):
            found |= tunable_settings(value, f"{path}.{name}")
    return found


def evaluation_context(experiment: Experiment, state: TrainState) -> Report:
    """The settings that an evaluation's numbers depend on: parameters, training, samples, sampler, objective."""
    objective, config, step = experiment.objective, experiment.evaluation, int(state.step)
    numbers: Report = {
        "step": step,
        "parameters_of": PARAMETERS,
        "parameters": count_params(state.params),
        "batch_size": experiment.batch_size,
        "examples_seen": step * experiment.batch_size,
        "samples": config.num,
        "sample_seed": config.seed,
        "sampler": str(objective.sampling) if isinstance(objective, Samples) else "none",
    }
    return numbers | tunable_settings(objective)


def evaluate(
    experiment: Experiment, state: TrainState, mesh: Mesh, report: Callable[[str], None] = lambda line: None
) -> tuple[Report, np.ndarray]:
    """Evaluates a trained model.

    Args:
        experiment: the experiment; its `evaluation` gives the number and seed of samples.
        state: train state; its EMA parameters are evaluated.
        mesh: the devices.
        report: called with lines of progress.

    Returns:
        (report for JSON, samples in the data's own units); distances on the first process only.
    """
    objective, data, config = experiment.objective, experiment.data, experiment.evaluation
    num = config.num
    samples, labels = draw_samples(
        objective,
        data,
        state.ema,
        state.extra,
        mesh,
        seed=config.seed,
        num=num,
        batch_size=config.batch_size,
        finite=True,
        report=lambda done: report(f"evaluate: {done}/{num} samples"),
    )
    numbers = evaluation_context(experiment, state)
    report("evaluate: held-out losses")
    numbers["held_out"] = held_out_losses(experiment, state, mesh)
    if isinstance(objective, HasLogProb) and objective.log_prob_kind:
        report("evaluate: likelihood")
        numbers["likelihood"] = likelihood_report(
            experiment, state, mesh, report=lambda line: report(f"evaluate: {line}")
        )
    if isinstance(objective, HasTranslation):
        report("evaluate: translations")
        known = halves(load_split(data, "train")["x"]) if is_paired(data.source) else None
        numbers["translation"] = translation_report(
            translations(experiment, state, mesh, seed=config.seed), known, data.levels
        )
    if source := capability(data.source, HasDocuments):
        numbers["documents"] = novelty(
            decode(data, samples), source.documents("train"), source.documents("test")
        )
    if data.kind == "text" and jax.process_index() == 0:
        report("evaluate: text")
        numbers |= text_metrics(data, samples, config.seed)
    if data.kind != "text" and jax.process_index() == 0:
        report("evaluate: distances")
        numbers |= sample_report(data, samples, labels, config.seed)
    return numbers, samples
