"""How good a trained model is: its samples against the data, and its likelihood if it has one.

Every number is of the moving average of the parameters. What goes into it is reported with it: samples, sampler,
seed, steps, examples seen, parameters.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from genjax.core import tree
from genjax.core.errors import UserError
from genjax.core.objective import HasLogProb, HasTranslation, Objective
from genjax.data import Data, GaussianMixture
from genjax.data.decode_text import decode
from genjax.data.sources.pairs import halves
from genjax.evaluation.held_out import PARAMETERS, held_out_losses, translations
from genjax.evaluation.likelihood import Report, likelihood_report
from genjax.evaluation.sampling import draw_samples
from genjax.evaluation.text import text_numbers
from genjax.metrics.distances.collapse import collapse, twin_report
from genjax.metrics.distances.modes import Mixture, mode_report
from genjax.metrics.examined import Settings
from genjax.metrics.report import Judge, make_judge
from genjax.metrics.text.documents import novelty
from genjax.metrics.translation import translation_report
from genjax.training.experiment import Experiment
from genjax.training.step import TrainState


def count_params(params: Any) -> int:
    """Number of values in a tree of arrays."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def whole(data: Data, split: str) -> dict[str, np.ndarray]:
    """All examples of a split that fits in memory, in the data's own units."""
    examples = data.load(split)
    return examples[np.arange(len(examples))]


def fit_judge(data: Data, seed: int) -> Judge:
    """Fits what samples of images, points or sounds are judged by.

    Raises:
        UserError: the data are too few, or all equal; see `metrics.examined`.
    """
    train, test = whole(data, "train"), whole(data, "test")
    return make_judge(
        train=train["x"],
        test=test["x"],
        train_labels=train.get("label"),
        test_labels=test.get("label"),
        seed=seed,
        settings=Settings(rate=data.rate),
    )


def distances(judge: Judge, data: Data, samples: np.ndarray, labels: np.ndarray | None) -> Report:
    """How far samples are from a data set's, and in words what they miss.

    Args:
        judge: has the examples that samples are compared with.
        data: of images or points; a mixture's modes are counted.
        samples: in the data's own units.
        labels: the classes that they were asked for, if any.

    Returns:
        "distribution" (of samples that are all equal only their twins: there is nothing to compare), "modes" of a
        mixture, "collapse".
    """
    found: dict[str, float | str] = dict(twin_report(samples, judge.test.x))
    same = bool((samples == samples[:1]).all())
    if not same:
        found |= judge.report(samples, labels)
    numbers: Report = {"distribution": found}
    if isinstance(data.source, GaussianMixture):
        numbers["modes"] = mode_report(samples, Mixture(*data.source.modes()))
    words = "all samples are equal" if same else collapse(found | numbers.get("modes", {}))
    return numbers | {"collapse": words or "none"}


def distribution(data: Data, samples: np.ndarray, labels: np.ndarray | None, seed: int) -> Report:
    """What `distances` says; where data or samples are too few for it, that line as "not_measured"."""
    if len(samples) < Settings.least:
        words = f"samples: {len(samples)} examples, at least {Settings.least} are needed"
        return {"distribution": {"not_measured": words}}
    try:
        judge = fit_judge(data, seed)
    except UserError as error:
        return {"distribution": {"not_measured": str(error)}}
    return distances(judge, data, samples, labels)


def sampler_words(objective: Objective) -> str:
    """How samples come about: the sampler and how often it asks the network for one sample, where it has steps."""
    sampler = getattr(objective, "sampler", None)
    if sampler is None:
        return "none: the model draws directly"
    steps = getattr(sampler, "steps", None)
    asked = getattr(sampler, "evaluations", None)
    words = [f"{steps} steps"] * (steps is not None) + [f"{asked} evaluations a sample"] * (asked is not None)
    return ", ".join([type(sampler).__name__, *words])


def circumstances(experiment: Experiment, state: TrainState) -> Report:
    """What the numbers of an evaluation depend on: parameters, training, samples, sampler, settings."""
    objective, how, step = experiment.objective, experiment.evaluation, int(state.step)
    numbers: Report = {
        "step": step,
        "parameters_of": PARAMETERS,
        "parameters": count_params(state.params),
        "batch_size": experiment.batch_size,
        "examples_seen": step * experiment.batch_size,
        "samples": how.num,
        "sample_seed": how.seed,
        "sampler": sampler_words(objective),
    }
    free = {*tree.fields(objective)} - {*tree.untunable(objective)}
    settings = {f"objective.{name}": tree.describe(getattr(objective, name)) for name in sorted(free)}
    return numbers | settings


def evaluate(
    experiment: Experiment, state: TrainState, mesh: Mesh, report: Callable[[str], None] = lambda line: None
) -> tuple[Report, np.ndarray]:
    """Judges a trained model.

    Args:
        experiment: says how many samples, from which seed.
        state: its moving average is evaluated.
        mesh: the devices.
        report: called with a line of progress now and then.

    Returns:
        (numbers and words for json, samples in the data's own units); distances on the first process alone.
    """
    objective, data, how = experiment.objective, experiment.data, experiment.evaluation
    num = how.num
    samples, labels = draw_samples(
        objective,
        data,
        state.ema,
        state.extra,
        mesh,
        seed=how.seed,
        num=num,
        batch_size=how.batch_size,
        finite=True,
        report=lambda done: report(f"evaluate: {done}/{num} samples"),
    )
    numbers = circumstances(experiment, state)
    report("evaluate: held-out losses")
    numbers["held_out"] = held_out_losses(experiment, state, mesh)
    if isinstance(objective, HasLogProb) and objective.log_prob_kind:
        report("evaluate: likelihood")
        numbers["likelihood"] = likelihood_report(
            experiment, state, mesh, report=lambda line: report(f"evaluate: {line}")
        )
    if isinstance(objective, HasTranslation):
        report("evaluate: translations")
        known = halves(whole(data, "train")["x"]) if getattr(data.source, "paired", True) else None
        numbers["translation"] = translation_report(
            translations(experiment, state, mesh, seed=how.seed), known, data.levels
        )
    if documents := getattr(data.source, "documents", None):
        numbers["documents"] = novelty(decode(data, samples), documents("train"), documents("test"))
    if data.kind == "text" and jax.process_index() == 0:
        report("evaluate: text")
        numbers |= text_numbers(data, samples, how.seed)
    if data.kind != "text" and jax.process_index() == 0:
        report("evaluate: distances")
        numbers |= distribution(data, samples, labels, how.seed)
    return numbers, samples
