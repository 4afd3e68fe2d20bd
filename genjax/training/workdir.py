"""Work directories: making, checking and reopening them."""

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax

from genjax.core.errors import UserError
from genjax.core.objective import Adapter
from genjax.parallel import multihost
from genjax.training import experiment as experiments
from genjax.training import pretrained
from genjax.training.checkpoint import Checkpoints
from genjax.training.experiment import Experiment
from genjax.training.loop import Run, prepare
from genjax.training.step import TrainState

EVALUATION = "evaluation.json"
SAMPLES = "samples"


REFERENCE = "inception_reference.npz"


TRAINED_ON = "trained_on"  # in evaluation.json: the machine


EVALUATED_WITH = "evaluated_with"  # there: what was set for the evaluation alone, value by path


def open_workdir(experiment: Experiment, spec: str, workdir: Path) -> None:
    """Makes a work directory, or checks that the one there is of the same experiment; on the first process.

    Raises:
        UserError: it belongs to another experiment, or cannot be written.
    """
    multihost.first(lambda: _open_workdir(experiment, spec, workdir))


def _open_workdir(experiment: Experiment, spec: str, workdir: Path) -> None:
    if (workdir / experiments.DESCRIPTION).exists():
        experiments.check_resume(experiments.restore(workdir), experiment, workdir)
    elif workdir.is_dir() and any(workdir.iterdir()):
        raise UserError(f"{workdir} is not empty and holds no run: choose another --workdir")
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        experiments.save(experiment, spec, workdir)
    except OSError as error:
        raise UserError(f"cannot write to {workdir}: {error.strerror}") from None


def reopen(workdir: Path, overrides: Iterable[tuple[str, str]]) -> Run:
    """Makes the run of a work directory ready again, with overrides of what training does not depend on.

    Raises:
        UserError: no run there, or an override that only training could follow.
    """
    overridden = experiments.restore(workdir, overrides)
    experiments.check_resume(experiments.restore(workdir), overridden, workdir)
    return prepare(overridden)


def load_state(run: Run, workdir: Path) -> TrainState:
    """The newest intact checkpoint of a work directory; of a run that is looked at, the best one.

    Raises:
        UserError: there is none, or it does not fit the experiment.
    """
    with Checkpoints(pretrained.trained(workdir, run.experiment)) as checkpoints:
        return checkpoints.restore(run.template())[1]


def plain(run: Run, state: TrainState) -> tuple[Run, TrainState]:
    """The run of an adapter's inner objective at its merged moving average; of any other objective as it is."""
    objective = run.experiment.objective
    if not isinstance(objective, Adapter):
        return run, state
    params, extra = jax.jit(objective.merged)(state.ema, state.extra)
    experiment = dataclasses.replace(run.experiment, objective=objective.inner)
    merged = dataclasses.replace(state, params=params, moments={}, extra=extra, ema=params)
    return plain(dataclasses.replace(run, experiment=experiment), merged)


def reopen_trained(workdir: Path, overrides: Iterable[tuple[str, str]]) -> tuple[Run, TrainState]:
    """What a work directory has learned, ready to be used; see `reopen`, `load_state` and `plain`."""
    run = reopen(workdir, overrides)
    return plain(run, load_state(run, workdir))


def read_report(workdir: Path) -> dict[str, Any]:
    """A run's evaluation.json; empty where there is none.

    Raises:
        UserError: it is damaged.
    """
    path = workdir / EVALUATION
    if not path.exists():
        return {}
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
