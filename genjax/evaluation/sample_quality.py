"""Quality and sampling time of a run's samples."""

from collections.abc import Sequence

import jax
import numpy as np

from genjax.core.objective import require_samples
from genjax.evaluation import distances
from genjax.evaluation.evaluate import own_metrics
from genjax.evaluation.hardware import busy
from genjax.evaluation.kinds import evaluation_of
from genjax.evaluation.sampling import draw_samples
from genjax.metrics.report import SampleReference
from genjax.parallel.console import say
from genjax.training.loop import Run
from genjax.training.step import TrainState

COLUMNS = (
    "frechet_ratio",
    "frechet_ratio_std",
    "label_accuracy",
    "precision",
    "recall",
    "recall_reference",
    "c2st_accuracy",
    "diversity",
    "near_copies",
)


def fit_reference(run: Run) -> SampleReference | None:
    """Fits the reference of a run's data; None for kinds that it does not compare, and on all processes but one."""
    data = run.experiment.data
    if not evaluation_of(data).compared or jax.process_index():
        return None
    say("fitting the feature spaces")
    return distances.fit_reference(data, run.experiment.evaluation.seed)


def measure(
    run: Run, state: TrainState, reference: SampleReference | None, num: int, seed: int
) -> tuple[dict[str, float], np.ndarray]:
    """Draws samples under one setting and evaluates them.

    Args:
        run: the prepared run, with the setting.
        state: train state; its EMA parameters are used.
        reference: the data's; None draws without computing distances.
        num: number of samples, drawn in at least two compiled calls: the first compiles, the others are timed.
        seed: seed of the samples.

    Returns:
        (numbers, samples in the data's own units); without distances if all samples are equal; with the
        experiment's own metrics.

    Raises:
        UserError: with a reference, samples are not finite.
    """
    experiment, stamps = run.experiment, []
    samples, labels = draw_samples(
        experiment.objective,
        experiment.data,
        state.ema,
        state.extra,
        run.mesh,
        seed=seed,
        num=num,
        batch_size=min(experiment.evaluation.batch_size, -(-num // 2)),
        finite=reference is not None,
        report=lambda done: stamps.append((done, busy())),
    )
    row: dict[str, float] = {}
    row["evaluations"] = float(require_samples(experiment.objective).sampling.evaluations)
    if len(stamps) > 1:
        row["seconds_per_1000"] = seconds_per_thousand(stamps)
    if reference is not None and (samples != samples[:1]).any():
        report = reference.report(samples, labels)
        row = {**{name: float(report[name]) for name in COLUMNS if name in report}, **row}
    if experiment.metrics and (reference is not None or not evaluation_of(experiment.data).compared):
        row |= own_metrics(experiment, samples, labels)
    return row, samples


def seconds_per_thousand(stamps: Sequence[tuple[int, float]]) -> float:
    """Seconds per 1000 samples over all calls after the first; the last batch is padded to full size.

    Args:
        stamps: (samples drawn so far, time in seconds) after each call.
    """
    (size, start), (_, end) = stamps[0], stamps[-1]
    return 1000.0 * (end - start) / (size * (len(stamps) - 1))
