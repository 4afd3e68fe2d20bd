"""Trains an experiment, in memory or in a work directory, from which it resumes."""

import functools
import os
import time
from pathlib import Path
from signal import SIGINT

import jax
import numpy as np

from genjax.api.evaluate import evaluate, report_lines
from genjax.api.load import TrainedRun
from genjax.core.errors import UserError
from genjax.core.objective import Adapter, HasValues
from genjax.data.source import Describes, capability
from genjax.evaluation.hardware import hardware
from genjax.evaluation.monitor import PeriodicEvaluation
from genjax.evaluation.sampling import draw_samples
from genjax.parallel import multihost
from genjax.parallel.console import say
from genjax.parallel.placement import bytes_held
from genjax.reports.exports import export
from genjax.reports.sampling_paths import show
from genjax.training import description
from genjax.training import experiment as experiments
from genjax.training.checkpoint import Checkpoints
from genjax.training.experiment import Experiment
from genjax.training.lock import Lock
from genjax.training.loop import Run, prepare, run_steps
from genjax.training.overfit import overfit
from genjax.training.profile import Window, traced
from genjax.training.signals import StopSignal
from genjax.training.step import TrainState
from genjax.training.workdir import (
    EVALUATION,
    IMPORTED,
    SAMPLES,
    TRAINED_ON,
    held,
    load_state,
    merge_adapters,
    open_workdir,
    read_report,
    restore_imported,
)
from genjax.training.writers import METRICS, Progress, Writer

TRACE = "trace"
PICTURE_SEED = 0


def train(
    experiment: Experiment,
    workdir: str | os.PathLike[str] | None = None,
    *,
    spec: str = "",
    profiled: Window | None = None,
    overfit_one_batch: bool = False,
) -> TrainedRun:
    """Trains to the experiment's last step; in a work directory, from its latest checkpoint on.

    Args:
        experiment: what to train.
        workdir: folder for checkpoints, metrics and samples, created if missing; None keeps everything in memory.
        spec: name of the config file that made the experiment, stored in experiment.json; "" for none.
        profiled: steps whose profiler trace is written to WORKDIR/trace; None for none.
        overfit_one_batch: train on one fixed batch instead, to check that every part learns, see
            `training.overfit`.

    Returns:
        The trained run, for `sample`, `evaluate` and `complete`.

    Raises:
        UserError: the experiment is invalid, does not match the work directory or does not fit the devices, or one
            batch could not be overfitted.
        KeyboardInterrupt: after SIGINT; a work directory holds a checkpoint, from which the same call resumes.
        SystemExit: 128 + signal after SIGTERM, likewise.
    """
    run = _prepared(experiment)
    workdir = None if workdir is None else Path(workdir).expanduser()
    if overfit_one_batch:
        if workdir is not None:
            raise UserError(f"workdir={workdir}: overfitting one batch writes no files, leave it out")
        return TrainedRun(run, overfit(run, say))
    if workdir is None:
        if profiled is not None:
            raise UserError("profiled=... writes a trace: give a workdir too")
        return _train_in_memory(run)
    with held(workdir) as lock:
        return _train_in_workdir(run, spec, workdir, profiled, lock)


def train_and_evaluate(
    experiment: Experiment, spec: str, workdir: Path, profiled: Window | None = None
) -> TrainedRun:
    """Trains in a work directory, then evaluates and lists the files; a run that is evaluated is left as it is.

    Args:
        experiment: the experiment.
        spec: config name, stored in experiment.json.
        workdir: work directory; created if missing.
        profiled: steps whose profiler trace is written to WORKDIR/trace; None for none.

    Returns:
        The trained run.

    Raises:
        UserError, KeyboardInterrupt, SystemExit: as `train`.
    """
    started, prepared, workdir = time.monotonic(), _prepared(experiment), workdir.expanduser()
    with held(workdir) as lock:
        run = _train_in_workdir(prepared, spec, workdir, profiled, lock)
        if run.taken == 0 and read_report(workdir).get("step") == int(run.state.step):
            return run
        trained = time.monotonic()
        for line in report_lines(evaluate(run)):
            say(line)
    say(f"training took {trained - started:.0f} s, evaluation {time.monotonic() - trained:.0f} s")
    if jax.process_index() == 0:
        say("files:\n" + "\n".join(f"  {line}" for line in output_files(workdir)))
    return run


def _train_in_memory(run: Run) -> TrainedRun:
    started, experiment, state = time.monotonic(), run.experiment, run.make_state()
    progress = Progress(experiment.steps, 0, experiment.batch_size)
    monitor = _periodic_evaluation(run, None, 0)
    _announce(run, state, 0)
    log = progress.show if jax.process_index() == 0 else lambda step, metrics: None
    measure = monitor.evaluate if monitor else lambda step, state: {}

    def evaluate(step: int, state: TrainState) -> bool:
        measure(step, state)
        return monitor is not None and monitor.should_stop()

    with StopSignal() as stop:
        state = run_steps(run, state, None, stop, log, lambda step, state: None, evaluate)
    progress.close()
    _report_stop(stop, monitor, int(state.step), None)
    kept = state if monitor is None or monitor.kept is None else monitor.kept
    notes = {TRAINED_ON: hardware(), "seconds_to_train": round(time.monotonic() - started, 3)}
    return TrainedRun(run, kept, taken=int(state.step), notes=notes)


def _train_in_workdir(
    run: Run, spec: str, workdir: Path, profiled: Window | None, lock: Lock | None
) -> TrainedRun:
    experiment = run.experiment
    open_workdir(experiment, spec, workdir)
    keep = (experiment.keep_last, experiment.keep_every)
    with Checkpoints(workdir / experiments.CHECKPOINTS, *keep) as checkpoints, StopSignal() as stop:
        if steps := multihost.broadcast(checkpoints.steps()):
            imported = steps == IMPORTED
            start, state = (
                (0, restore_imported(run, checkpoints)) if imported else checkpoints.restore(run.template())
            )
            monitor = _periodic_evaluation(run, workdir, start)
            if start >= experiment.steps or (monitor and monitor.should_stop()):
                default = f"config.steps={experiment.steps} must be larger to continue"
                reason = monitor.stop_reason() if monitor and monitor.should_stop() else default
                say(f"{workdir} is finished: {start} of {experiment.steps} steps are done; {reason}")
                return TrainedRun(run, load_state(run, workdir) if monitor else state, workdir)
            say(f"continuing {workdir} after step {start}")
        else:
            start, state, monitor = 0, run.make_state(), _periodic_evaluation(run, workdir, 0)
        _announce(run, state, start, spec)
        with traced(run, profiled, workdir / TRACE) as traced_run:
            state = _train(traced_run, state, workdir, checkpoints, stop, monitor, lock)
    done = int(state.step)
    kept = load_state(run, workdir) if monitor else state
    return TrainedRun(run, kept, workdir, done - start, {TRAINED_ON: hardware()})


def _prepared(experiment: Experiment) -> Run:
    _check_vocabulary(experiment)
    return prepare(experiments.check(experiment))


def _check_vocabulary(experiment: Experiment) -> None:
    """Checks that a model of text has as many values as its data have tokens.

    Raises:
        UserError: it has fewer; names both.
    """
    data, objective = experiment.data, experiment.objective
    while isinstance(objective, Adapter):
        objective = objective.inner
    if data.kind != "text" or data.transforms or not isinstance(objective, HasValues):
        return
    if data.levels > objective.values:
        raise UserError(
            f"{type(data.source).__name__} has {data.levels:,} tokens, the model {objective.values:,}: set "
            f"config.objective.values={data.levels}, or give another text"
        )


def _announce(run: Run, state: TrainState, start: int, spec: str = "") -> None:
    devices = f"{run.mesh.size} {jax.devices()[0].platform} devices"
    devices += f" of {jax.process_count()} processes" if jax.process_count() > 1 else ""
    name = spec or type(run.experiment.objective).__name__
    read = capability(run.experiment.data.source, Describes)
    if read is not None and jax.process_index() == 0:
        say(f"data: {read.describe()}")
    say(f"training {name} for {run.experiment.steps - start} steps on {devices}")
    whole, held = bytes_held(state)
    if held < whole:
        say(f"train state: {whole / 1e6:.1f} MB in total, {held / 1e6:.1f} MB per device")


def _periodic_evaluation(run: Run, workdir: Path | None, start: int) -> PeriodicEvaluation | None:
    """Periodic evaluation during training, if the experiment has a monitor."""
    if not run.experiment.monitor.every:
        return None
    return PeriodicEvaluation(run, workdir, start, say, functools.partial(merge_adapters, run))


def _train(
    run: Run,
    state: TrainState,
    workdir: Path,
    checkpoints: Checkpoints,
    stop: StopSignal,
    monitor: PeriodicEvaluation | None,
    lock: Lock | None,
) -> TrainState:
    """Trains to the last step, or until the monitor stops early, with periodic pictures and evaluations."""
    experiment, start = run.experiment, int(state.step)
    with Writer(workdir, experiment.steps, start, experiment.batch_size) as writer:

        def snapshot(step: int, state: TrainState) -> None:
            samples = draw_picture(run, state)
            writer.image(step, SAMPLES, show(experiment.data, samples))
            export(workdir / SAMPLES / f"{SAMPLES}_{step:08}", experiment.data, samples)

        def evaluate(step: int, state: TrainState) -> bool:
            assert monitor is not None
            writer.scalars(step, monitor.evaluate(step, state), shown=False)
            return monitor.should_stop()

        def log(step: int, values: dict[str, float]) -> None:  # called before each checkpoint
            if lock is not None:
                lock.check()
            writer.scalars(step, values)

        state = run_steps(run, state, checkpoints, stop, log, snapshot, evaluate)
        _report_stop(stop, monitor, int(state.step), workdir)
        snapshot(int(state.step), state)
    return state


def _report_stop(
    stop: StopSignal, monitor: PeriodicEvaluation | None, done: int, workdir: Path | None
) -> None:
    """Says why training stopped before the last step.

    Raises:
        KeyboardInterrupt, SystemExit: after a signal, see `train`.
    """
    if stop.received is not None:
        saved = (
            f"step {done} is saved; repeat the command to resume" if workdir else f"at step {done}, not saved"
        )
        say(f"stopped by signal {stop.received}: {saved}")
        raise KeyboardInterrupt if stop.received == SIGINT else SystemExit(128 + stop.received)
    if monitor and monitor.should_stop():
        say(f"stopped at step {done}: {monitor.stop_reason()}")


def draw_picture(run: Run, state: TrainState) -> np.ndarray:
    """Samples for a run's pictures, always from the same noise so that pictures of different steps are comparable."""
    run, state = merge_adapters(run, state)
    how = run.experiment.evaluation
    return draw_samples(
        run.experiment.objective,
        run.experiment.data,
        state.ema,
        state.extra,
        run.mesh,
        seed=PICTURE_SEED,
        num=how.pictured,
        batch_size=how.batch_size,
    )[0]


def output_files(workdir: Path) -> list[str]:
    """Paths of the files that a run writes."""
    names = [
        description.DESCRIPTION,
        experiments.CONFIG_COPY,
        METRICS,
        EVALUATION,
        f"{experiments.CHECKPOINTS}/",
    ]
    samples = sorted((workdir / SAMPLES).iterdir())
    return [str(workdir / name) for name in names] + [str(path) for path in samples]
