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
from genjax.data.source import HasDocuments, capability, is_paired
from genjax.data.sources.pairs import halves
from genjax.data.text.decode_text import decode
from genjax.evaluation.distances import load_split
from genjax.evaluation.held_out import PARAMETERS, held_out_losses, translations
from genjax.evaluation.kinds import evaluation_of
from genjax.evaluation.likelihood import Report, likelihood_report
from genjax.evaluation.sampling import draw_samples
from genjax.metrics.text.documents import novelty
from genjax.metrics.translation import translation_report
from genjax.training.experiment import Experiment
from genjax.training.step import TrainState


def count_params(params: Any) -> int:
    """Number of values in a tree of arrays."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


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
    if jax.process_index() == 0:
        report(f"evaluate: {data.kind}")
        numbers |= evaluation_of(data).evaluate(data, samples, labels, config.seed)
        if experiment.metrics:
            numbers["metrics"] = own_metrics(experiment, samples, labels)
    return numbers, samples


def own_metrics(experiment: Experiment, samples: np.ndarray, labels: np.ndarray | None) -> dict[str, float]:
    """The experiment's own metrics (`Experiment.metrics`) of samples against the test split.

    Args:
        experiment: has the metrics and the data.
        samples: [n, ...] in the data's own units.
        labels: the classes [n] that the samples were conditioned on, or None.

    Returns:
        "metric/name" -> value.

    Raises:
        UserError: two metrics have one name.
    """
    test, found = load_split(experiment.data, "test"), dict[str, float]()
    for metric in experiment.metrics:
        numbers = {
            f"{metric.name}/{key}": float(x) for key, x in metric.measure(samples, test, labels).items()
        }
        if same := numbers.keys() & found.keys():
            raise UserError(f"config.metrics: two metrics give '{sorted(same)[0]}': name them differently")
        found |= numbers
    return found
