"""Trains an experiment in a work directory, resumes from the latest checkpoint, and evaluates at the end."""

import functools
import time
from pathlib import Path

import jax
import numpy as np

from genjax.api.evaluate import write_evaluation
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
from genjax.training.loop import Run, prepare, run_steps
from genjax.training.profile import Window, traced
from genjax.training.signals import StopSignal
from genjax.training.step import TrainState
from genjax.training.workdir import EVALUATION, SAMPLES, TRAINED_ON, load_state, merge_adapters, open_workdir
from genjax.training.writers import METRICS, Writer

TRACE = "trace"
PICTURE_SEED = 0


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


def train(experiment: Experiment, spec: str, workdir: Path, profiled: Window | None = None) -> None:
    """Trains to the experiment's last step, resuming from the latest checkpoint, then evaluates.

    Args:
        experiment: the experiment.
        spec: config name, stored in experiment.json.
        workdir: work directory; created if missing.
        profiled: steps whose profiler trace is written to WORKDIR/trace; None for none.

    Raises:
        UserError: the experiment is invalid, does not match the work directory, or does not fit the devices.
        SystemExit: 128 + signal after SIGTERM or SIGINT; a checkpoint is saved first.
    """
    started = time.monotonic()
    run = prepare(experiment)
    open_workdir(experiment, spec, workdir)
    keep = (experiment.keep_last, experiment.keep_every)
    with Checkpoints(workdir / experiments.CHECKPOINTS, *keep) as checkpoints, StopSignal() as stop:
        if multihost.broadcast(checkpoints.steps()):
            start, state = checkpoints.restore(run.template())
            monitor = _periodic_evaluation(run, workdir, start)
            if start >= experiment.steps or (monitor and monitor.should_stop()):
                default = "increase --config.steps to continue"
                reason = monitor.stop_reason() if monitor and monitor.should_stop() else default
                say(f"{workdir} is finished: {start} of {experiment.steps} steps are done; {reason}")
                return
            say(f"continuing {workdir} after step {start}")
        else:
            start, state, monitor = 0, run.make_state(), _periodic_evaluation(run, workdir, 0)
        devices = f"{run.mesh.size} {jax.devices()[0].platform} devices"
        devices += f" of {jax.process_count()} processes" if jax.process_count() > 1 else ""
        say(f"training {spec} for {experiment.steps - start} steps on {devices}")
        whole, held = bytes_held(state)
        if held < whole:
            say(f"train state: {whole / 1e6:.1f} MB in total, {held / 1e6:.1f} MB per device")
        with traced(run, profiled, workdir / TRACE) as traced_run:
            state = _train(traced_run, state, workdir, checkpoints, stop, monitor)
    trained = time.monotonic()
    write_evaluation(run, load_state(run, workdir) if monitor else state, workdir, {TRAINED_ON: hardware()})
    say(f"training took {trained - started:.0f} s, evaluation {time.monotonic() - trained:.0f} s")
    if jax.process_index() == 0:
        say("files:\n" + "\n".join(f"  {line}" for line in output_files(workdir)))


def _periodic_evaluation(run: Run, workdir: Path, start: int) -> PeriodicEvaluation | None:
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
) -> TrainState:
    """Trains to the last step, or until the monitor stops early, with periodic pictures and evaluations.

    Raises:
        SystemExit: 128 + signal after SIGTERM or SIGINT; a checkpoint is saved first.
    """
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

        state = run_steps(run, state, checkpoints, stop, writer.scalars, snapshot, evaluate)
        done = int(state.step)
        if stop.received is not None:
            say(f"stopped by signal {stop.received}: step {done} is saved; repeat the command to resume")
            raise SystemExit(128 + stop.received)
        if monitor and monitor.should_stop():
            say(f"stopped at step {done}: {monitor.stop_reason()}")
        snapshot(done, state)
    return state


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
