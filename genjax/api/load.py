"""A trained model, from `train` or from a work directory: what `sample`, `evaluate` and `complete` take."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genjax.core.errors import UserError, nearest
from genjax.data.source import HasClassNames, capability
from genjax.training import description
from genjax.training.experiment import Experiment
from genjax.training.loop import Run
from genjax.training.step import TrainState
from genjax.training.workdir import (
    EVALUATED_WITH,
    TRAINED_ON,
    load_state,
    merge_adapters,
    read_report,
    reopen,
)

Overrides = Mapping[str, Any] | Iterable[tuple[str, Any]]


@dataclass(frozen=True, eq=False)
class TrainedRun:
    """A trained model on its devices.

    Attributes:
        run: the experiment, prepared.
        state: parameters and their moving average, which samples and evaluations use.
        workdir: where its files are written; None for none.
        taken: steps taken by the call of `train` that returned it; 0 if the run was finished or is loaded.
        notes: further entries of its evaluation, such as the machine that trained it.
    """

    run: Run
    state: TrainState
    workdir: Path | None = None
    taken: int = 0
    notes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def experiment(self) -> Experiment:
        """The experiment, as configured."""
        return self.run.experiment

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes by label, from the work directory if there is one; empty if they have none."""
        if self.workdir is not None:
            return tuple(description.read(self.workdir).get(description.CLASS_NAMES, ()))
        named = capability(self.experiment.data.source, HasClassNames)
        return named.class_names if named else ()

    def label(self, asked: int | str | None) -> int | None:
        """The label of a class, given by number or name.

        Raises:
            UserError: no class has this name.
        """
        if not isinstance(asked, str):
            return asked
        names = self.class_names
        if asked in names:
            return names.index(asked)
        if asked.isdecimal():
            return int(asked)
        known = nearest(asked, names) if names else "the classes of this model have numbers, no names"
        raise UserError(f"label={asked}: {known}")

    def merged(self) -> tuple[Run, TrainState]:
        """The run and the state to sample with: adapters such as LoRA are merged."""
        return merge_adapters(self.run, self.state)

    def __repr__(self) -> str:
        name, where = type(self.experiment.objective).__name__, self.workdir or "in memory"
        return f"TrainedRun({name}, step {int(self.state.step)} of {self.experiment.steps}, {where})"


def load(workdir: str | os.PathLike[str], overrides: Overrides = ()) -> TrainedRun:
    """Loads the trained model of a work directory: the newest intact checkpoint, or the best one of a `Monitor`.

    Args:
        workdir: of a run with a checkpoint.
        overrides: values by field path, such as {"objective.sampler.steps": 20}; of tunable fields only.

    Returns:
        The run.

    Raises:
        UserError: there is no run, no intact checkpoint, or an override affects training.
    """
    workdir = Path(workdir).expanduser()
    items = overrides.items() if isinstance(overrides, Mapping) else overrides
    given = {path: str(value) for path, value in items}
    run = reopen(workdir, given.items())
    before = read_report(workdir)
    notes = {name: before[name] for name in (TRAINED_ON,) if name in before}
    notes |= {EVALUATED_WITH: given} if given else {}
    return TrainedRun(run, load_state(run, workdir), workdir, notes=notes)
