"""Looks at a run's samples while it trains: what they miss, which step was the best, and when to stop.

A game's losses do not say how good its samples are, and its last step need not be its best. So every `every` steps
samples of the moving average are compared with a quarter of the training data (the test data choose nothing unless
`metric` is one of the held-out losses, so that what evaluation says of them is no choice's luck); the state that is
best by `metric` is kept in WORKDIR/best, and is what sampling and evaluation use. What was found is among the run's
metrics, from which a resumed run goes on.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from genjax.core.errors import UserError, nearest
from genjax.evaluation.evaluate import distances, whole
from genjax.evaluation.held_out import held_out_losses
from genjax.evaluation.sampling import draw_samples
from genjax.metrics.distances.collapse import collapse
from genjax.metrics.report import Judge, Settings, make_judge
from genjax.parallel import multihost
from genjax.training.checkpoint import Checkpoints
from genjax.training.experiment import BEST, Monitor
from genjax.training.loop import Run
from genjax.training.step import TrainState
from genjax.training.writers import METRICS, kept

PREFIX = "monitor/"
MOST = 20_000  # training examples that are used
SHOWN = ("frechet_ratio", "precision", "recall", "twins", "modes_covered", "high_quality")


def _judge(run: Run) -> Judge:
    """Features fitted on training data, and a quarter of those to compare with; two folds, as looks are many."""
    rows, seed = whole(run.experiment.data, "train"), run.experiment.evaluation.seed
    order = np.random.default_rng(seed).permutation(len(rows["x"]))[:MOST]
    test, train = np.split(order, [len(order) // 4])
    labels = rows.get("label")
    return make_judge(
        train=rows["x"][train],
        test=rows["x"][test],
        train_labels=None if labels is None else labels[train],
        test_labels=None if labels is None else labels[test],
        seed=seed,
        settings=Settings(folds=2, rate=run.experiment.data.rate),
    )


class Looks:
    """The looks of one run.

    Attributes:
        rows: what each look found, oldest first.
    """

    def __init__(
        self,
        run: Run,
        workdir: Path,
        start: int,
        say: Callable[[str], None],
        plain: Callable[[TrainState], tuple[Run, TrainState]],
    ):
        """Reads the looks up to step `start` of a run that goes on.

        Args:
            run: is looked at as its `monitor` says.
            workdir: its directory.
            start: step at which it goes on.
            say: gets a line for each look.
            plain: the run and the state to draw samples from, an adapter's merged.

        Raises:
            UserError: the data are neither images nor points, or there are looks and none has the metric.
        """
        if run.experiment.data.kind not in ("image", "points"):
            raise UserError(f"config.monitor looks at images and points, not at {run.experiment.data.kind}")
        self._run, self._workdir, self._say, self._plain = run, workdir, say, plain
        self._made: Judge | None = None
        rows = kept(workdir / METRICS, start)
        found = lambda row: {
            name.removeprefix(PREFIX): float(value) for name, value in row.items() if name.startswith(PREFIX)
        }
        self.rows = [{"step": row["step"], **found(row)} for row in rows if found(row)]
        if self.rows and not any(self._how.metric in row for row in self.rows):
            raise self._unknown(self.rows[-1])

    @property
    def _how(self) -> Monitor:
        return self._run.experiment.monitor

    def best(self) -> dict[str, Any] | None:
        """The best look; one without the metric, or whose metric is no number, is worse than any other."""
        sign = -1.0 if self._how.largest else 1.0

        def badness(row: Mapping[str, float]) -> float:
            value = sign * row.get(self._how.metric, math.nan)
            return math.inf if math.isnan(value) else value

        return min(self.rows, key=badness, default=None)

    def _unknown(self, found: Mapping[str, float]) -> UserError:
        metric, known = self._how.metric, found.keys() - {"step"}
        return UserError(f"config.monitor.metric: there is no '{metric}': {nearest(metric, known)}")

    def look(self, step: int, state: TrainState) -> dict[str, float]:
        """Judges the state, keeps it if it is the best so far, and says what it misses.

        Returns:
            Numbers to be logged.

        Raises:
            UserError: `metric` is none of those that were found.
        """
        found = multihost.agreed(
            self._measure(state)
        )  # others may round differently, and all must stop alike
        if self._how.metric not in found:
            raise self._unknown(found)
        before = self.best()
        self.rows.append({"step": step, **found})
        if self.best() is not before:
            with Checkpoints(self._workdir / BEST, keep_last=1) as checkpoints:
                checkpoints.save(step, state)
        shown = ", ".join(f"{name} {found[name]:.3g}" for name in SHOWN if name in found)
        words = collapse(found)
        self._say(f"monitor: step {step}: {shown}" + (f"; COLLAPSE: {words}" if words else ""))
        return {f"{PREFIX}{name}": value for name, value in found.items()}

    def _measure(self, state: TrainState) -> dict[str, float]:
        run, state = self._plain(state)
        experiment, how = run.experiment, self._how
        self._made = self._made or _judge(run)
        samples, labels = draw_samples(
            experiment.objective,
            experiment.data,
            state.ema,
            state.extra,
            run.mesh,
            seed=experiment.evaluation.seed + 1,
            num=how.num,
            batch_size=experiment.evaluation.batch_size,
        )
        report = distances(self._made, experiment.data, samples, labels)
        numbers = report["distribution"] | report.get("modes", {})
        found = {name: value for name, value in numbers.items() if isinstance(value, float)}
        if "frechet_ratio" not in found:  # equal samples, as bad as can be; they may get better
            found.setdefault(how.metric, -math.inf if how.largest else math.inf)
        losses = held_out_losses(experiment, state, run.mesh)
        return found | {f"held_out/{name}": value for name, value in losses.items()}

    def enough(self) -> bool:
        """Whether the last `patience` looks were no better than one before."""
        best, patience = self.best(), self._how.patience
        if not patience or best is None:
            return False
        return len(self.rows) - 1 - self.rows.index(best) >= patience

    def reason(self) -> str:
        """Why a run has stopped, in words."""
        best, metric = self.best(), self._how.metric
        assert best is not None
        later = len(self.rows) - 1 - self.rows.index(best)
        return f"{later} looks were no better than {metric} {best[metric]:.4g} of step {best['step']}"
