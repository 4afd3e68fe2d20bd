"""What the programs do, as functions of an experiment and a work directory: train, evaluate. See also `drawing`."""

import functools
import time
from pathlib import Path

import jax
import numpy as np

from genjax.api.evaluate import write_evaluation
from genjax.evaluation.hardware import hardware
from genjax.evaluation.monitor import Looks
from genjax.evaluation.sampling import draw_samples
from genjax.parallel import multihost
from genjax.parallel.console import say
from genjax.parallel.placement import bytes_held
from genjax.reports.exports import export
from genjax.reports.sampling_paths import show
from genjax.training import experiment as experiments
from genjax.training.checkpoint import Checkpoints
from genjax.training.experiment import Experiment
from genjax.training.loop import Run, prepare, run_steps
from genjax.training.profile import Window, traced
from genjax.training.signals import StopSignal
from genjax.training.step import TrainState
from genjax.training.workdir import EVALUATION, SAMPLES, TRAINED_ON, load_state, open_workdir, plain
from genjax.training.writers import METRICS, Writer

TRACE = "trace"
PICTURE_SEED = 0


def draw_picture(run: Run, state: TrainState) -> np.ndarray:
    """The samples of a run's pictures: always from the same noise, so that pictures can be compared."""
    run, state = plain(run, state)
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
    """Trains to the experiment's last step from wherever the work directory is, then evaluates.

    Args:
        experiment: what to run.
        spec: the config's name, kept in experiment.json.
        workdir: made if missing; a run found there is continued.
        profiled: steps whose profiler trace is written to the work directory's folder "trace".

    Raises:
        UserError: the experiment, the directory or the machine does not allow it.
        SystemExit: 128 + signal after SIGTERM or SIGINT, with everything saved.
    """
    began = time.monotonic()
    run = prepare(experiment)
    open_workdir(experiment, spec, workdir)
    keep = (experiment.keep_last, experiment.keep_every)
    with Checkpoints(workdir / experiments.CHECKPOINTS, *keep) as checkpoints, StopSignal() as stop:
        if multihost.agreed(checkpoints.steps()):
            start, state = checkpoints.restore(run.template())
            looks = _looks(run, workdir, start)
            if start >= experiment.steps or (looks and looks.enough()):
                reason = looks.reason() if looks and looks.enough() else "--config.steps=N goes on"
                say(f"{workdir} is finished: {start} of {experiment.steps} steps are done; {reason}")
                return
            say(f"continuing {workdir} after step {start}")
        else:
            start, state, looks = 0, run.make_state(), _looks(run, workdir, 0)
        devices = f"{run.mesh.size} {jax.devices()[0].platform} devices"
        devices += f" of {jax.process_count()} processes" if jax.process_count() > 1 else ""
        say(f"training {spec} for {experiment.steps - start} steps on {devices}")
        whole, held = bytes_held(state)
        if held < whole:
            say(f"the state is {whole / 1e6:.1f} MB, of which a device holds {held / 1e6:.1f} MB")
        with traced(run, profiled, workdir / TRACE) as walked:
            state = _walk(walked, state, workdir, checkpoints, stop, looks)
    trained = time.monotonic()
    write_evaluation(run, load_state(run, workdir) if looks else state, workdir, {TRAINED_ON: hardware()})
    say(f"took {trained - began:.0f} s to train, {time.monotonic() - trained:.0f} s to evaluate")
    if jax.process_index() == 0:
        say("files:\n" + "\n".join(f"  {line}" for line in inventory(workdir)))


def _looks(run: Run, workdir: Path, start: int) -> Looks | None:
    """The looks at a run that is to be looked at."""
    if not run.experiment.monitor.every:
        return None
    return Looks(run, workdir, start, say, functools.partial(plain, run))


def _walk(
    run: Run,
    state: TrainState,
    workdir: Path,
    checkpoints: Checkpoints,
    stop: StopSignal,
    looks: Looks | None,
) -> TrainState:
    """Trains to the end, with pictures and looks on the way.

    Raises:
        SystemExit: 128 + signal after SIGTERM or SIGINT, with everything saved.
    """
    experiment, start = run.experiment, int(state.step)
    with Writer(workdir, experiment.steps, start, experiment.batch_size) as writer:

        def snapshot(step: int, state: TrainState) -> None:
            samples = draw_picture(run, state)
            writer.image(step, SAMPLES, show(experiment.data, samples))
            export(workdir / SAMPLES / f"{SAMPLES}_{step:08}", experiment.data, samples)

        def look(step: int, state: TrainState) -> bool:
            assert looks is not None
            writer.scalars(step, looks.look(step, state), shown=False)
            return looks.enough()

        state = run_steps(run, state, checkpoints, stop, writer.scalars, snapshot, look)
        done = int(state.step)
        if stop.received is not None:
            say(f"stopped by signal {stop.received}: step {done} is saved; the same command goes on")
            raise SystemExit(128 + stop.received)
        if looks and looks.enough():
            say(f"stopped at step {done}: {looks.reason()}")
        snapshot(done, state)
    return state


def inventory(workdir: Path) -> list[str]:
    """The files that a run leaves, for people to open."""
    names = [
        experiments.DESCRIPTION,
        experiments.CONFIG_COPY,
        METRICS,
        EVALUATION,
        f"{experiments.CHECKPOINTS}/",
    ]
    samples = sorted((workdir / SAMPLES).iterdir())
    return [str(workdir / name) for name in names] + [str(path) for path in samples]
