"""What the programs do, as functions of an experiment and a work directory: train, evaluate. See also `drawing`."""

import dataclasses
import functools
import json
import time
from collections.abc import Iterable
from pathlib import Path

import jax
import numpy as np

from genjax import distributed, pretrained
from genjax import experiment as experiments
from genjax.checkpoint import Checkpoints
from genjax.errors import UserError
from genjax.evaluate import Report, count_params, evaluate
from genjax.experiment import Experiment
from genjax.exports import export
from genjax.hardware import hardware
from genjax.loop import Run, prepare, run_steps
from genjax.metrics.fid import InceptionJudge, open_judge
from genjax.monitor import Looks
from genjax.objective import Adapter
from genjax.pictures import curves
from genjax.placement import bytes_held
from genjax.profile import Window, traced
from genjax.sampling import draw_samples
from genjax.step import TrainState
from genjax.stopping import StopSignal
from genjax.watch import show
from genjax.writers import METRICS, Writer, kept, write_whole

EVALUATION, SAMPLES, TRACE = "evaluation.json", "samples", "trace"
REFERENCE = "inception_reference.npz"
PICTURE_SEED = 0
TRAINED_ON = "trained_on"  # in evaluation.json: the machine
EVALUATED_WITH = "evaluated_with"  # there: what was set for the evaluation alone, value by path


def say(line: str) -> None:
    """Prints one line of progress, on the first process only."""
    if jax.process_index() == 0:
        print(line, flush=True)


def open_workdir(experiment: Experiment, spec: str, workdir: Path) -> None:
    """Makes a work directory, or checks that the one there is of the same experiment; on the first process.

    Raises:
        UserError: it belongs to another experiment, or cannot be written.
    """
    distributed.first(lambda: _open_workdir(experiment, spec, workdir))


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
        if distributed.agreed(checkpoints.steps()):
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


def write_evaluation(
    run: Run,
    state: TrainState,
    workdir: Path,
    training: Report,
    inception: InceptionJudge | None = None,
) -> Report:
    """Evaluates and writes evaluation.json and the final pictures.

    Args:
        run: of the work directory.
        state: its moving average is evaluated.
        workdir: written to; its metrics say how long training took.
        training: what else is known of it, to stand in the report.
        inception: judges the samples, too.

    Returns:
        What `evaluate` says, "inception" if asked for, "evaluated_on", "seconds_to_train" (wall clock, compiling and
        pictures included).
    """
    trained, (run, state) = count_params(state.params), plain(run, state)
    report, samples = evaluate(run.experiment, state, run.mesh, say)
    if inception is not None:
        say("evaluate: Inception")
        report["inception"] = inception.section(samples, report)
    if trained != report["parameters"]:
        report["parameters_trained"] = trained
    report |= {"evaluated_on": hardware(), **training}
    for row in kept(workdir / METRICS, report["step"]):
        report["seconds_to_train"] = row["time"]  # of the last line
    if jax.process_index() == 0:
        (workdir / SAMPLES).mkdir(exist_ok=True)
        pictured = samples[: run.experiment.evaluation.pictured]
        show(run.experiment.data, pictured).save(workdir / SAMPLES / "evaluated.png")
        export(workdir / SAMPLES / "evaluated", run.experiment.data, pictured)
        if (workdir / METRICS).exists():
            curves(workdir / METRICS).save(workdir / SAMPLES / "curves.png")
        write_whole(workdir / EVALUATION, json.dumps(report, indent=1) + "\n")
        for line in flat(report):
            say(line)
    return report


def flat(report: Report, prefix: str = "") -> Iterable[str]:
    """A nested report as lines "name: value"."""
    for name, value in report.items():
        if isinstance(value, dict) and "@type" not in value:
            yield from flat(value, f"{prefix}{name}.")
        elif isinstance(value, float):
            yield f"  {prefix}{name}: {value:.5g}"
        elif not isinstance(value, dict | list):
            yield f"  {prefix}{name}: {value}"


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


def evaluate_workdir(
    workdir: Path,
    overrides: Iterable[tuple[str, str]],
    inception: Path | None = None,
    reference: Path | None = None,
) -> Report:
    """Evaluates a work directory's checkpoint, see `load_state`, and writes its evaluation.json.

    Args:
        workdir: of a run.
        overrides: of what training does not depend on.
        inception: weights, for FID, IS and KID; see `metrics.fid`.
        reference: the file of real images' statistics; by default in the work directory.

    Raises:
        UserError: no run there, an override that only training could follow, or what `open_judge` refuses.
    """
    overrides = list(overrides)
    run, judge = reopen(workdir, overrides), None
    if inception:
        judge = open_judge(run.experiment.data, inception, reference or workdir / REFERENCE, run.mesh, say)
    elif reference:
        raise UserError(
            "--reference has statistics of Inception's features: give its weights, --inception=FILE"
        )
    path = workdir / EVALUATION
    before = json.loads(path.read_text()) if path.is_file() else {}
    training = {name: before[name] for name in (TRAINED_ON,) if name in before}
    said = training | ({EVALUATED_WITH: dict(overrides)} if overrides else {})
    report = write_evaluation(run, load_state(run, workdir), workdir, said, judge)
    say(f"wrote {workdir / EVALUATION}")
    return report
