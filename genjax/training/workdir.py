"""Work directories: making, checking and reopening them."""

import contextlib
import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from genjax.core.errors import UserError
from genjax.core.files import beside, write_atomic, writing
from genjax.core.objective import Adapter
from genjax.parallel import multihost
from genjax.training import description, format_1, pretrained
from genjax.training import experiment as experiments
from genjax.training.checkpoint import Checkpoints, steps_in
from genjax.training.experiment import Experiment
from genjax.training.lock import LOCK, Lock, locked
from genjax.training.loop import Run, prepare
from genjax.training.step import TrainState
from genjax.training.writers import METRICS, rewrite_metrics

EVALUATION = "evaluation.json"
REPORT_FORMAT = 2  # of evaluation.json; reports without a format have the metric names of format 1
SAMPLES = "samples"
# The steps of a work directory of imported weights, which may be trained on any data in any way.
IMPORTED = [0]
REFERENCE = "inception_reference.npz"

# Keys of evaluation.json.
TRAINED_ON = "trained_on"  # the machine
EVALUATED_WITH = "evaluated_with"  # overrides of the evaluation alone, value by path


@contextlib.contextmanager
def held(workdir: Path) -> Iterator[Lock | None]:
    """Makes a work directory if it is missing, and holds it for one run; see `locked`.

    Raises:
        UserError: it holds other files than those of a run, another run is using it, or it cannot be written.
    """
    multihost.on_first_process(lambda: _make(workdir))
    with locked(workdir) as lock:
        yield lock


def _make(workdir: Path) -> None:
    unfinished, copy = (
        beside(workdir / name).name for name in (description.DESCRIPTION, experiments.CONFIG_COPY)
    )
    with writing(workdir):
        there = {path.name for path in workdir.iterdir()} if workdir.is_dir() else set[str]()
        own = {LOCK, copy, unfinished}  # of a run that was killed before it had a description
        own |= {experiments.CONFIG_COPY} if unfinished in there else set()
        if description.DESCRIPTION not in there and there - own:
            raise UserError(f"{workdir} is not empty and holds no run: choose another workdir=DIR")
        workdir.mkdir(parents=True, exist_ok=True)


def open_workdir(experiment: Experiment, spec: str, workdir: Path) -> None:
    """Describes the experiment in a work directory, or checks that an earlier run's is the same; on the first process.

    Args:
        experiment: as configured.
        spec: "FILE[:variant]" or a shipped config's name, as for `experiment.load`.
        workdir: see `held`.

    Raises:
        UserError: it holds another experiment, or more steps than this one has, or cannot be written.
    """
    multihost.on_first_process(lambda: _open_workdir(experiment, spec, workdir))


def _open_workdir(experiment: Experiment, spec: str, workdir: Path) -> None:
    if (workdir / description.DESCRIPTION).exists():
        steps, before = steps_in(workdir / experiments.CHECKPOINTS), experiments.restore(workdir)
        if steps == IMPORTED:
            before = dataclasses.replace(experiment, objective=before.objective)
        experiments.check_resume(before, experiment, workdir)
        done = max(steps, default=0)
        if done > experiment.steps:
            raise UserError(
                f"config.steps={experiment.steps}: {done} steps are done in {workdir}, give at least {done}"
            )
        if description.is_old(workdir) and (workdir / METRICS).exists():
            with writing(workdir):
                rewrite_metrics(workdir / METRICS)  # before `save` writes the present format
    with writing(workdir):
        experiments.save(experiment, spec, workdir)


def reopen(workdir: Path, overrides: Iterable[tuple[str, str]]) -> Run:
    """Prepares the run of a work directory again, with overrides of tunable fields.

    Raises:
        UserError: there is no run, or an override of a field that is not tunable.
    """
    overridden = experiments.restore(workdir, overrides)
    experiments.check_resume(experiments.restore(workdir), overridden, workdir)
    return prepare(overridden)


def load_state(run: Run, workdir: Path) -> TrainState:
    """The newest intact checkpoint of a work directory; with periodic evaluation (`Monitor`), the best one.

    Raises:
        UserError: there is no intact checkpoint, or it does not fit the experiment.
    """
    with Checkpoints(pretrained.checkpoint_folder(workdir, run.experiment)) as checkpoints:
        return checkpoints.restore(run.template())[1]


def restore_imported(run: Run, checkpoints: Checkpoints) -> TrainState:
    """The state of step 0 with the weights of a checkpoint that no training has made, and a new optimizer state.

    Raises:
        UserError: there is no intact checkpoint, or it does not fit the experiment.
    """
    fresh = dataclasses.replace(
        run, experiment=dataclasses.replace(run.experiment, initial=None)
    ).make_state()
    template = run.template()
    wanted = {"params": template.params, "ema": template.ema, "extra": template.extra}
    return dataclasses.replace(fresh, **checkpoints.restore(wanted, partial=True)[1])


def merge_adapters(run: Run, state: TrainState) -> tuple[Run, TrainState]:
    """Merges adapters (such as LoRA) into the objective that they adapt; returns other runs unchanged.

    Returns:
        The run of the inner objective, and its state with the merged moving average and no optimizer state.
    """
    objective = run.experiment.objective
    if not isinstance(objective, Adapter):
        return run, state
    params, extra = jax.jit(objective.merged)(state.ema, state.extra)
    experiment = dataclasses.replace(run.experiment, objective=objective.inner)
    merged = dataclasses.replace(state, params=params, opt_state={}, extra=extra, ema=params)
    return merge_adapters(dataclasses.replace(run, experiment=experiment), merged)


def reopen_trained(workdir: Path, overrides: Iterable[tuple[str, str]]) -> tuple[Run, TrainState]:
    """The run and the trained state of a work directory; see `reopen`, `load_state` and `merge_adapters`."""
    run = reopen(workdir, overrides)
    return merge_adapters(run, load_state(run, workdir))


def read_report(workdir: Path) -> dict[str, Any]:
    """A run's evaluation.json without its format; empty where there is none.

    Raises:
        UserError: it is damaged, or of a later format.
    """
    path = workdir / EVALUATION
    if not path.exists():
        return {}
    try:
        report = json.loads(path.read_text())
        stored = report.pop("format", 1)
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    if stored not in (1, REPORT_FORMAT):
        raise UserError(f"{path} has format {stored}; this genjax reads format {REPORT_FORMAT}")
    return report if stored == REPORT_FORMAT else format_1.upgrade_report(report)


def write_report(path: Path, report: Mapping[str, Any]) -> None:
    """Writes a report as JSON, with its format; see `read_report`."""
    write_atomic(path, json.dumps({"format": REPORT_FORMAT, **report}, indent=1) + "\n")
