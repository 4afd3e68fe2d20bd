"""Finished runs, read from their work directories: experiment, command that reproduces it, evaluation."""

import json
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genjax.core.errors import UserError
from genjax.core.overrides import overrides
from genjax.data.source import Named, innermost
from genjax.evaluation.comparison import without_seed
from genjax.reports.sweep_table import flatten
from genjax.training import description
from genjax.training import experiment as experiments
from genjax.training.description import DESCRIPTION
from genjax.training.experiment import Experiment
from genjax.training.pretrained import workdirs
from genjax.training.workdir import EVALUATED_WITH, EVALUATION, TRAINED_ON, read_report

IGNORED = (  # fields that do not affect results
    "workdir",
    "seed",
    "log_every",
    "checkpoint_every",
    "sample_every",
    "keep_last",
    "keep_every",
    "steps_per_call",
)

# Entries of evaluation.json that are read here, with their types.
REQUIRED = ("step", "parameters")
ENTRIES: dict[str, tuple[type, ...]] = {
    "step": (int,),
    "parameters": (int,),
    "seconds_to_train": (int, float),
}
ENTRIES |= {TRAINED_ON: (str,), "sampler": (str,), "likelihood": (dict,), EVALUATED_WITH: (dict,)}


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """A work directory with an evaluation.

    Attributes:
        workdir: path.
        spec: config name as given to `train`.
        experiment: the restored experiment.
        report: contents of evaluation.json.
    """

    workdir: Path
    spec: str
    experiment: Experiment
    report: dict[str, Any]

    @property
    def config(self) -> tuple[str, str]:
        """(name, variant) of the config."""
        name, _, variant = self.spec.partition(":")
        return Path(name).stem, variant

    @property
    def data(self) -> str:
        """Name of the data set, or of its source's class."""
        source = innermost(self.experiment.data.source)
        return source.name if isinstance(source, Named) else type(source).__name__

    @property
    def command(self) -> str:
        """Arguments of `./launch/local.sh` that reproduce the run, without seed and fields that do not affect results.

        Directories are reduced to their last component.
        """
        name, variant = self.config
        if not name:
            return f"none: trained from Python, see {self.workdir / DESCRIPTION}"
        words = [f"train --config={name}" + (f":{Path(variant).name}" if variant else "")]
        if (usual := self._usual()) is not None:
            words += _flags(overrides(usual, self.experiment))
        changed = _flags(self.evaluated_with.items())
        return " ".join(words) + (f"; evaluate {' '.join(changed)}" if changed else "")

    def _usual(self) -> Experiment | None:
        """The experiment as the config defines it; None for a run of format 1 with a config that is not shipped.

        A config of format 1 calls classes with the arguments of that time: the shipped one of its name replaces it.
        """
        name, variant = self.config
        path = self.workdir / experiments.CONFIG_COPY
        if description.is_old(self.workdir):
            if name not in experiments.shipped():
                return None
            path = experiments.shipped()[name]
        return experiments.load(f"{path}" + (f":{variant}" if variant else ""))

    @property
    def evaluated_with(self) -> dict[str, str]:
        """Overrides of the evaluation alone, value by path."""
        return self.report.get(EVALUATED_WITH, {})

    @property
    def setting(self) -> str:
        """JSON shared by the runs of one line: the experiment without seed and fields that do not affect results."""
        described = without_seed(self.experiment)
        kept = {name: value for name, value in described.items() if name not in IGNORED}
        return json.dumps((kept, self.evaluated_with), sort_keys=True)

    @property
    def seconds(self) -> float:
        """Training seconds, including those of the pretrained models in it whose directories still exist."""
        stages = [self.report, *(read_report(path) for path in workdirs(self.experiment))]
        return sum(stage.get("seconds_to_train", 0.0) for stage in stages)


def _flags(changes: Iterable[tuple[str, str]]) -> list[str]:
    """Overrides as flags, without fields that do not affect results."""
    kept = ((path, text) for path, text in changes if path.rpartition(".")[2] not in IGNORED)
    return [shlex.quote(f"--config.{path}={text}") for path, text in kept]


def read_runs(folders: Sequence[Path]) -> list[FinishedRun]:
    """Reads work directories, except those of pretrained parts of another run's model.

    Raises:
        UserError: a folder has no work directory, or one is not evaluated or damaged.
    """
    if not folders:
        raise UserError("no runs to report: give at least one, run=DIR")
    found = [_read(workdir) for folder in folders for workdir in _workdirs(folder)]
    parts = {path.resolve() for run in found for path in workdirs(run.experiment)}
    return [run for run in found if run.workdir.resolve() not in parts]


def _workdirs(folder: Path) -> list[Path]:
    if (folder / DESCRIPTION).is_file():
        return [folder]
    inner = sorted(path.parent for path in folder.glob(f"*/{DESCRIPTION}"))
    if not inner:
        raise UserError(f"{folder} is not a work directory and contains none")
    return inner


def _read(workdir: Path) -> FinishedRun:
    report = read_report(workdir)
    if not report:
        raise UserError(f"{workdir} has not been evaluated: evaluate it first, workdir={workdir}")
    for name, kinds in ENTRIES.items():
        found = report.get(name, None if name in REQUIRED else kinds[0]())
        if not isinstance(found, kinds) or isinstance(found, bool):
            raise UserError(f"{workdir / EVALUATION} is damaged: {name}={found!r}")
    for name, value in flatten(report).items():
        if value < 0 and name.endswith(("_error", "_std")):
            raise UserError(f"{workdir / EVALUATION} is damaged: {name}={value}")
    experiment = experiments.restore(workdir)
    return FinishedRun(workdir, description.read(workdir)["config"], experiment, report)
