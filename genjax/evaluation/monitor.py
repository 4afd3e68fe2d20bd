"""Periodic evaluation of samples during training: signs of collapse, the best state, early stopping.

GAN losses do not measure sample quality, and the last step need not be the best. Every `every` steps, samples of the
EMA are compared with a held-out quarter of the training data (not with test data, so that the final evaluation stays
unbiased by model selection, unless `metric` is a held-out loss). The state that is best by `metric` is kept in
WORKDIR/best, for sampling and evaluation. Results are written to the run's metrics, from which a resumed run restores
them.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from genjax.core.errors import UserError, nearest
from genjax.evaluation.distances import compare_samples, load_split
from genjax.evaluation.held_out import held_out_losses
from genjax.evaluation.kinds import evaluation_of
from genjax.evaluation.sampling import draw_samples
from genjax.metrics.distances.collapse import collapse
from genjax.metrics.report import SampleReference, Settings, make_reference
from genjax.parallel import multihost
from genjax.training.checkpoint import Checkpoints
from genjax.training.experiment import BEST, Monitor
from genjax.training.finite import check_state
from genjax.training.loop import Run
from genjax.training.step import TrainState
from genjax.training.writers import METRICS, metric_rows

PREFIX = "monitor/"
MAX_TRAIN = 20_000  # upper limit on the training examples used
SHOWN = ("frechet_ratio", "precision", "recall", "near_duplicates", "modes_covered", "high_quality")


def _fit_reference(run: Run) -> SampleReference:
    """Reference with a quarter of the training data as test set; only two folds, to save time."""
    rows, seed = load_split(run.experiment.data, "train"), run.experiment.evaluation.seed
    order = np.random.default_rng(seed).permutation(len(rows["x"]))[:MAX_TRAIN]
    test, train = np.split(order, [len(order) // 4])
    labels = rows.get("label")
    return make_reference(
        train=rows["x"][train],
        test=rows["x"][test],
        train_labels=None if labels is None else labels[train],
        test_labels=None if labels is None else labels[test],
        seed=seed,
        settings=Settings(folds=2, rate=run.experiment.data.rate),
    )


class PeriodicEvaluation:
    """The periodic evaluations of one run.

    Attributes:
        rows: results of each evaluation, oldest first.
        kept: the best state, where there is no work directory to keep it in.
    """

    def __init__(
        self,
        run: Run,
        workdir: Path | None,
        start: int,
        say: Callable[[str], None],
        plain: Callable[[TrainState], tuple[Run, TrainState]],
    ):
        """Restores the results up to step `start` from the run's metrics.

        Args:
            run: the prepared run, with its `monitor` settings.
            workdir: its work directory; None keeps the best state in memory.
            start: step from which training continues.
            say: called with a line per evaluation.
            plain: state -> (run, state) to draw samples from, with adapters merged.

        Raises:
            UserError: the data are neither images nor points, or earlier results lack the metric.
        """
        if not evaluation_of(run.experiment.data).monitored:
            raise UserError(f"config.monitor evaluates images and points, not {run.experiment.data.kind}")
        self._run, self._workdir, self._say, self._plain = run, workdir, say, plain
        self._reference: SampleReference | None = None
        self.kept: TrainState | None = None
        rows = metric_rows(workdir / METRICS, start) if workdir else ()
        found = lambda row: {
            name.removeprefix(PREFIX): float(value) for name, value in row.items() if name.startswith(PREFIX)
        }
        self.rows = [{"step": row["step"], **found(row)} for row in rows if found(row)]
        if self.rows and not any(self._settings.metric in row for row in self.rows):
            raise self._unknown(self.rows[-1])

    @property
    def _settings(self) -> Monitor:
        return self._run.experiment.monitor

    def best(self) -> dict[str, Any] | None:
        """The best row, None without rows; a missing or NaN metric ranks last."""
        sign = -1.0 if self._settings.largest else 1.0

        def loss(row: Mapping[str, float]) -> float:
            value = sign * row.get(self._settings.metric, math.nan)
            return math.inf if math.isnan(value) else value

        return min(self.rows, key=loss, default=None)

    def _unknown(self, found: Mapping[str, float]) -> UserError:
        metric, known = self._settings.metric, found.keys() - {"step"}
        return UserError(f"config.monitor.metric: there is no '{metric}': {nearest(metric, known)}")

    def evaluate(self, step: int, state: TrainState) -> dict[str, float]:
        """Evaluates the state, saves it if it is the best so far, and prints signs of collapse.

        Returns:
            "monitor/NAME" -> value, to be logged.

        Raises:
            UserError: `metric` is not among the results.
        """
        found = multihost.broadcast(
            self._measure(state)
        )  # rounding may differ between processes, and all must stop at the same step
        if self._settings.metric not in found:
            raise self._unknown(found)
        before = self.best()
        self.rows.append({"step": step, **found})
        if self.best() is not before:
            self._keep(step, state)
        shown = ", ".join(f"{name} {found[name]:.3g}" for name in SHOWN if name in found)
        words = collapse(found)
        self._say(f"monitor: step {step}: {shown}" + (f"; COLLAPSE: {words}" if words else ""))
        return {f"{PREFIX}{name}": value for name, value in found.items()}

    def _keep(self, step: int, state: TrainState) -> None:
        if self._workdir is None:
            self.kept = jax.tree.map(jnp.copy, state)  # the buffers of `state` are donated to the next step
            return
        with Checkpoints(self._workdir / BEST, keep_last=1) as checkpoints:
            check_state(state, checkpoints.latest())
            checkpoints.save(step, state)

    def _measure(self, state: TrainState) -> dict[str, float]:
        run, state = self._plain(state)
        experiment, settings = run.experiment, self._settings
        self._reference = self._reference or _fit_reference(run)
        samples, labels = draw_samples(
            experiment.objective,
            experiment.data,
            state.ema,
            state.extra,
            run.mesh,
            seed=experiment.evaluation.seed + 1,
            num=settings.num,
            batch_size=experiment.evaluation.batch_size,
        )
        report = compare_samples(self._reference, experiment.data, samples, labels)
        numbers = report["distribution"] | report.get("modes", {})
        found = {name: value for name, value in numbers.items() if isinstance(value, float)}
        if "frechet_ratio" not in found:  # all samples are equal: the worst value, and training continues
            found.setdefault(settings.metric, -math.inf if settings.largest else math.inf)
        losses = held_out_losses(experiment, state, run.mesh)
        return found | {f"held_out/{name}": value for name, value in losses.items()}

    def should_stop(self) -> bool:
        """Whether the last `patience` evaluations did not improve on an earlier one."""
        best, patience = self.best(), self._settings.patience
        if not patience or best is None:
            return False
        return len(self.rows) - 1 - self.rows.index(best) >= patience

    def stop_reason(self) -> str:
        """The reason for early stopping."""
        best, metric = self.best(), self._settings.metric
        assert best is not None
        later = len(self.rows) - 1 - self.rows.index(best)
        return f"{later} evaluations did not improve on {metric} {best[metric]:.4g} of step {best['step']}"
