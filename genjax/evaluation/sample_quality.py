"""Draws samples of a run and measures their quality and their time."""

from collections.abc import Sequence

import jax
import numpy as np

from genjax.evaluation import evaluate
from genjax.evaluation.hardware import busy
from genjax.evaluation.sampling import draw_samples
from genjax.metrics.report import Judge
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
    "told_apart",
    "diversity",
    "near_copies",
)


def fit_judge(run: Run) -> Judge | None:
    """The judge of samples, fitted once; none for data without feature spaces, and on processes but the first."""
    data = run.experiment.data
    if data.kind == "text" or jax.process_index():
        return None
    say("fitting the feature spaces")
    return evaluate.fit_judge(data, run.experiment.evaluation.seed)


def measure(
    run: Run, state: TrainState, judge: Judge | None, num: int, seed: int
) -> tuple[dict[str, float], np.ndarray]:
    """Draws and judges samples of one setting.

    Args:
        run: ready, with the setting.
        state: its moving average draws.
        judge: of the data; None draws and judges nothing.
        num: samples, in two compiled calls or more: the first compiles, the others are timed.
        seed: of the samples.

    Returns:
        Numbers, without distances where all samples are equal, as there is nothing to compare; and the samples in the
        data's own units.

    Raises:
        UserError: there is a judge, and samples are not finite.
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
        finite=judge is not None,
        report=lambda done: stamps.append((done, busy())),
    )
    row: dict[str, float] = {}
    evaluations = getattr(getattr(experiment.objective, "sampler", None), "evaluations", None)
    if evaluations is not None:
        row["evaluations"] = float(evaluations)
    if len(stamps) > 1:
        row["seconds_per_1000"] = per_thousand(stamps)
    if judge is not None and (samples != samples[:1]).any():
        report = judge.report(samples, labels)
        row = {**{name: float(report[name]) for name in COLUMNS if name in report}, **row}
    return row, samples


def per_thousand(stamps: Sequence[tuple[int, float]]) -> float:
    """Seconds for 1000 samples, of all calls after the first; the last one draws as many as any, wanted or not.

    Args:
        stamps: after each call, how many of the wanted samples there are and the time in seconds.
    """
    (size, begun), (_, ended) = stamps[0], stamps[-1]
    return 1000.0 * (ended - begun) / (size * (len(stamps) - 1))
