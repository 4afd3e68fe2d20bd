"""Finished runs, read from their work directories: what was run, the command that runs it again, what it found."""

import json
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genjax.core.errors import UserError
from genjax.core.overrides import overrides
from genjax.evaluation.comparison import without_seed
from genjax.training import experiment as experiments
from genjax.training.experiment import DESCRIPTION, Experiment
from genjax.training.pretrained import workdirs
from genjax.training.workdir import EVALUATED_WITH, read_report

QUIET = (
    "workdir",
    "seed",
    "log_every",
    "checkpoint_every",
    "sample_every",
    "keep_last",
    "keep_every",
    "steps_per_call",
)


@dataclass(frozen=True, eq=False)
class Finished:
    """A work directory with an evaluation.

    Attributes:
        workdir: where it is.
        spec: the config's name, as it was given to `train`.
        experiment: what was run.
        report: its evaluation.json.
    """

    workdir: Path
    spec: str
    experiment: Experiment
    report: dict[str, Any]

    @property
    def config(self) -> tuple[str, str]:
        """The config's name and variant."""
        name, _, variant = self.spec.partition(":")
        return Path(name).stem, variant

    @property
    def data(self) -> str:
        """The data's name."""
        source: Any = self.experiment.data.source
        source = getattr(source, "source", source)
        return str(getattr(source, "name", "")) or type(source).__name__

    @property
    def command(self) -> str:
        """The words of `./launch/local.sh` that run it, but for its seed and what no result depends on.

        Of directories the last name alone stands there: where they were is no part of a result.
        """
        name, variant = self.config
        words = [f"train --config={name}" + (f":{Path(variant).name}" if variant else "")]
        usual = experiments.load(
            f"{self.workdir / experiments.CONFIG_COPY}" + (f":{variant}" if variant else "")
        )
        words += _flags(overrides(usual, self.experiment))
        changed = _flags(self.evaluated_with.items())
        return " ".join(words) + (f"; evaluate {' '.join(changed)}" if changed else "")

    @property
    def evaluated_with(self) -> dict[str, str]:
        """What was set for the evaluation alone."""
        return self.report.get(EVALUATED_WITH, {})

    @property
    def setting(self) -> str:
        """What the runs of one line have in common: all but the seed, and what no result depends on."""
        described = without_seed(self.experiment)
        loud = {name: value for name, value in described.items() if name not in QUIET}
        return json.dumps((loud, self.evaluated_with), sort_keys=True)

    @property
    def seconds(self) -> float:
        """Of training, with that of the models within it whose directories are still there."""
        stages = [self.report, *(read_report(path) for path in workdirs(self.experiment))]
        return sum(stage.get("seconds_to_train", 0.0) for stage in stages)


def _flags(changes: Iterable[tuple[str, str]]) -> list[str]:
    """Changes as flags, but for those that no result depends on."""
    loud = ((path, text) for path, text in changes if path.rpartition(".")[2] not in QUIET)
    return [shlex.quote(f"--config.{path}={text}") for path, text in loud]


def read_runs(folders: Sequence[Path]) -> list[Finished]:
    """Reads all work directories, but those that only hold a part of another one's model.

    Raises:
        UserError: no work directory there, one without an evaluation, or a damaged one.
    """
    if not folders:
        raise UserError("there is nothing to report: give --run=DIR at least once")
    found = [_read(workdir) for folder in folders for workdir in _workdirs(folder)]
    parts = {path.resolve() for run in found for path in workdirs(run.experiment)}
    return [run for run in found if run.workdir.resolve() not in parts]


def _workdirs(folder: Path) -> list[Path]:
    if (folder / DESCRIPTION).is_file():
        return [folder]
    inner = sorted(path.parent for path in folder.glob(f"*/{DESCRIPTION}"))
    if not inner:
        raise UserError(f"{folder} is no work directory of a run, and holds none")
    return inner


def _read(workdir: Path) -> Finished:
    report = read_report(workdir)
    if not report:
        raise UserError(f"{workdir} has not been evaluated: ./launch/local.sh evaluate --workdir={workdir}")
    experiment = experiments.restore(workdir)
    spec = json.loads((workdir / DESCRIPTION).read_text())["config"]
    return Finished(workdir, spec, experiment, report)
