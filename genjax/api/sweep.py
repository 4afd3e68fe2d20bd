"""Runs a grid of overrides as a queue on one machine. `reports.sweep_table` summarises the results.

A run is a config with one combination of overrides. Its work directory is ROOT/NAME; the name depends on the config and
the overrides alone, so that a repeated or extended sweep finds its earlier runs.
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


def evaluated(trial: Trial, root: Path) -> int | None:
    """The step of a run's evaluation; None if it is missing or damaged (it is then replaced)."""
    try:
        return read_report(root / trial.name).get("step")
    except UserError:
        return None


def share(items: Sequence[Any], jobs: int, slot: int) -> list[Any]:
    """The part of a machine's cores or GPUs for one of `jobs` concurrent runs.

    Args:
        items: cores or GPUs.
        jobs: number of concurrent runs.
        slot: index of the run, 0 ... jobs - 1.

    Returns:
        A contiguous part; the parts are disjoint if there are at least `jobs` items, else single items are reused.
    """
    if jobs > len(items):
        return [items[slot % len(items)]] if items else []
    return list(items[slot * len(items) // jobs : (slot + 1) * len(items) // jobs])


class Queue:
    """Queue of the runs of a sweep on this machine.

    Attributes:
        trials: the runs in order.
        root: folder of their work directories.
        jobs: number of concurrent runs; they share the cores and the GPUs.
        retries: most restarts of a failed run, see `supervise`.
        pause: seconds before a restart.
        program: (trial, root, verb) -> command of one run, see `arguments`.
        report: callback for progress messages.
    """

    def __init__(
        self,
        trials: Sequence[Trial],
        root: Path,
        *,
        jobs: int = 1,
        retries: int = 1,
        pause: float = 10.0,
        program: Callable[[Trial, Path, str], list[str]],
        report: Callable[[str], None] = print,
    ) -> None:
        self.trials, self.root, self.jobs = list(trials), root, jobs
        self.retries, self.pause, self.report = retries, pause, report
        self.program = program
        self.codes: dict[str, int] = {}
        self.stopped: int | None = None
        self._signals: list[int] = []
        self._waiting = list(self.trials)
        self._running: dict[int, tuple[Trial, str, supervise.Job, float]] = {}

    def run(self) -> dict[str, int]:
        """Runs the queue until it is empty, or until it is stopped and all runs have saved and exited.

        Returns:
            Exit code of each started run by name; 0 for runs that were already finished.
        """
        (self.root / "logs").mkdir(parents=True, exist_ok=True)
        while self._running or (self._waiting and self.stopped is None):
            while self._waiting and self.stopped is None and len(self._running) < self.jobs:
                slot = min({*range(self.jobs)} - {*self._running})
                self._start(self._waiting.pop(0), slot)
            while self._signals:
                number = self._signals.pop(0)
                for _, _, job, _ in self._running.values():
                    job.stop(number)
            for slot in list(self._running):
                self._poll(slot)
            time.sleep(supervise.POLL)
        return self.codes

    def stop(self, number: int) -> None:
        """Forwards a signal to all runs at the next poll and starts no more; safe to call from a signal handler."""
        self.stopped = number
        self._signals.append(number)

    def _start(self, trial: Trial, slot: int, verb: str = "train") -> None:
        if verb == "train" and evaluated(trial, self.root) == trial.experiment().steps:
            self.report(f"{trial.name}: already finished")
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
        self.report(f"{trial.name}: {verb} started; log: {self._log(trial)}")

    def _poll(self, slot: int) -> None:
        trial, verb, job, started = self._running[slot]
        code = job.poll()
        if code is None:
            return
        del self._running[slot]
        self.codes[trial.name] = code
        if code == 0 and verb == "train" and self.stopped is None and evaluated(trial, self.root) is None:
            self._start(trial, slot, "evaluate")  # killed between its last step and its evaluation
            return
        done = len(self.codes) - sum(1 for other, *_ in self._running.values() if other.name in self.codes)
        took = f"{time.monotonic() - started:.0f} s"
        outcome = "done" if code == 0 else f"ended with code {code}: {self._last_line(trial)}"
        self.report(f"{trial.name}: {outcome} ({took}; {done} of {len(self.trials)})")

    def _log(self, trial: Trial) -> Path:
        return self.root / "logs" / f"{trial.name}.txt"

    def _last_line(self, trial: Trial) -> str:
        lines = self._log(trial).read_text(errors="replace").splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip()), "no output")


def arguments(trial: Trial, root: Path, verb: str = "train") -> list[str]:
    """The arguments of the program that does one run.

    Args:
        trial: the run.
        root: folder of the work directories.
        verb: "train" trains the config, "evaluate" evaluates the work directory.

    Returns:
        Words after the verb.
    """
    return trial.arguments(root) if verb == "train" else [f"--workdir={root / trial.name}"]


def environment(jobs: int, slot: int, given: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment of a run: this Python interpreter, and its share of CUDA_VISIBLE_DEVICES.

    Args:
        jobs: number of concurrent runs.
        slot: index of the run, 0 ... jobs - 1.
        given: the environment of the sweep.

    Returns:
        Environment variables.
    """
    env = {**given, "GENJAX_PYTHON": sys.executable}
    if jobs > 1 and given.get("CUDA_VISIBLE_DEVICES"):
        env["CUDA_VISIBLE_DEVICES"] = ",".join(share(given["CUDA_VISIBLE_DEVICES"].split(","), jobs, slot))
    return env
