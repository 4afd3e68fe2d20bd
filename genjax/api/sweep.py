"""A grid of overrides as runs, and their queue on one machine. See `sweep_summary` for what they found.

A run is a config with one combination of overrides; its work directory is ROOT/NAME, and the name is made of the
config and the overrides alone, so that the same sweep finds its runs again, whatever else it holds.
"""

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from genjax.api import supervise
from genjax.core.errors import UserError
from genjax.training.variations import Trial
from genjax.training.workdir import read_report

ROOT = Path(__file__).parents[2]


def evaluated(trial: Trial, root: Path) -> int | None:
    """The step that a run's evaluation is of; None where there is none, or a damaged one, which will be replaced."""
    try:
        return read_report(root / trial.name).get("step")
    except UserError:
        return None


def share(things: Sequence[Any], jobs: int, slot: int) -> list[Any]:
    """What the runs in one of `jobs` places may use: shares without overlap, where there are enough."""
    if jobs > len(things):
        return [things[slot % len(things)]] if things else []
    return list(things[slot * len(things) // jobs : (slot + 1) * len(things) // jobs])


class Queue:
    """Runs of a sweep on this machine, some at a time.

    Attributes:
        trials: what to run, in this order.
        root: where their work directories are.
        jobs: how many run at a time; they share the cores and the GPUs.
        retries: how often a failed run is started again; see `supervise`.
        pause: seconds before it is.
        program: trial -> the command of one run, see `command`.
        report: gets lines of progress.
    """

    def __init__(
        self,
        trials: Sequence[Trial],
        root: Path,
        *,
        jobs: int = 1,
        retries: int = 1,
        pause: float = 10.0,
        program: Callable[[Trial, Path, str], list[str]] | None = None,
        report: Callable[[str], None] = print,
    ) -> None:
        self.trials, self.root, self.jobs = list(trials), root, jobs
        self.retries, self.pause, self.report = retries, pause, report
        self.program = program or command
        self.codes: dict[str, int] = {}
        self.stopped: int | None = None
        self._signals: list[int] = []
        self._waiting = list(self.trials)
        self._running: dict[int, tuple[Trial, str, supervise.Job, float]] = {}

    def run(self) -> dict[str, int]:
        """Walks the queue to its end, or until it is stopped and all runs have saved and ended.

        Returns:
            The exit code of each run that was started, by name; 0 also for those found finished.
        """
        (self.root / "logs").mkdir(parents=True, exist_ok=True)
        while self._running or (self._waiting and self.stopped is None):
            while self._waiting and self.stopped is None and len(self._running) < self.jobs:
                slot = min({*range(self.jobs)} - {*self._running})
                self._begin(self._waiting.pop(0), slot)
            while self._signals:
                number = self._signals.pop(0)
                for _, _, job, _ in self._running.values():
                    job.stop(number)
            for slot in list(self._running):
                self._look(slot)
            time.sleep(supervise.POLL)
        return self.codes

    def stop(self, number: int) -> None:
        """Passes a signal on to all runs, soon; nothing is started after it. Signal handlers may call it."""
        self.stopped = number
        self._signals.append(number)

    def _begin(self, trial: Trial, slot: int, verb: str = "train") -> None:
        if verb == "train" and evaluated(trial, self.root) == trial.experiment().steps:
            self.report(f"{trial.name}: finished before")
            self.codes[trial.name] = 0
            return
        group = supervise.Group(
            [self.program(trial, self.root, verb)],
            log=self._log(trial),
            cores=share(sorted(os.sched_getaffinity(0)), self.jobs, slot)
            if hasattr(os, "sched_getaffinity")
            else None,
            env=environment(self.jobs, slot),
        )
        say = lambda line: self.report(f"{trial.name}: {line}")
        job = supervise.Job(group, self.retries, self.pause, say)
        job.start()
        self._running[slot] = (trial, verb, job, time.monotonic())
        self.report(f"{trial.name}: {verb} begins; its output: {self._log(trial)}")

    def _look(self, slot: int) -> None:
        trial, verb, job, began = self._running[slot]
        code = job.poll()
        if code is None:
            return
        del self._running[slot]
        self.codes[trial.name] = code
        if code == 0 and verb == "train" and self.stopped is None and evaluated(trial, self.root) is None:
            self._begin(trial, slot, "evaluate")  # it was killed between its last step and its evaluation
            return
        done = len(self.codes) - sum(1 for other, *_ in self._running.values() if other.name in self.codes)
        took = f"{time.monotonic() - began:.0f} s"
        said = "done" if code == 0 else f"ended with code {code}: {self._last_line(trial)}"
        self.report(f"{trial.name}: {said} ({took}; {done} of {len(self.trials)})")

    def _log(self, trial: Trial) -> Path:
        return self.root / "logs" / f"{trial.name}.txt"

    def _last_line(self, trial: Trial) -> str:
        lines = self._log(trial).read_text(errors="replace").splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip()), "no output")


def command(trial: Trial, root: Path, verb: str = "train") -> list[str]:
    """The command of one run: `train` its config, or `evaluate` its work directory."""
    words = trial.words(root) if verb == "train" else [f"--workdir={root / trial.name}"]
    return [str(ROOT / "launch" / "local.sh"), verb, *words]


def environment(jobs: int, slot: int, given: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment of a run: this Python, and its share of the GPUs that the sweep was told to use."""
    env = {**given, "GENJAX_PYTHON": sys.executable}
    if jobs > 1 and given.get("CUDA_VISIBLE_DEVICES"):
        env["CUDA_VISIBLE_DEVICES"] = ",".join(share(given["CUDA_VISIBLE_DEVICES"].split(","), jobs, slot))
    return env
