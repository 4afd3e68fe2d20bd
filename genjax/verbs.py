"""What the programs do, as functions of an experiment and a work directory: train, sample, evaluate."""

import dataclasses
import json
import time
from collections.abc import Iterable
from pathlib import Path

import jax
import numpy as np

from genjax import experiment as experiments
from genjax.checkpoint import Checkpoints
from genjax.completion import search, stream, with_draft
from genjax.decode.beam import Beam
from genjax.errors import UserError
from genjax.evaluate import Report, count_params, evaluate
from genjax.experiment import Experiment
from genjax.exports import export, write_arrays
from genjax.loop import Run, StopSignal, prepare, run_steps
from genjax.objective import Adapter
from genjax.pictures import curves
from genjax.sampling import draw_samples
from genjax.step import TrainState
from genjax.watch import draw_path, show, show_path
from genjax.writers import Writer

METRICS, EVALUATION, SAMPLES = "metrics.jsonl", "evaluation.json", "samples"
PICTURE_SEED = 0


def say(line: str) -> None:
    """Prints one line of progress, on the first process only."""
    if jax.process_index() == 0:
        print(line, flush=True)


def open_workdir(experiment: Experiment, spec: str, workdir: Path) -> None:
    """Makes a work directory, or checks that the one there is of the same experiment.

    Raises:
        UserError: it belongs to another experiment, or cannot be written.
    """
    if (workdir / experiments.DESCRIPTION).exists():
        experiments.check_resume(experiments.restore(workdir), experiment, workdir)
    elif workdir.is_dir() and any(workdir.iterdir()):
        raise UserError(f"{workdir} is not empty and holds no run: choose another --workdir")
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        if jax.process_index() == 0:
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
    """The newest intact checkpoint of a work directory.

    Raises:
        UserError: there is none, or it does not fit the experiment.
    """
    with Checkpoints(workdir / experiments.CHECKPOINTS) as checkpoints:
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


def train(experiment: Experiment, spec: str, workdir: Path) -> None:
    """Trains to the experiment's last step from wherever the work directory is, then evaluates.

    Args:
        experiment: what to run.
        spec: the config's name, kept in experiment.json.
        workdir: made if missing; a run found there is continued.

    Raises:
        UserError: the experiment, the directory or the machine does not allow it.
        SystemExit: 128 + signal after SIGTERM or SIGINT, with everything saved.
    """
    began = time.monotonic()
    run = prepare(experiment)
    open_workdir(experiment, spec, workdir)
    keep = (experiment.keep_last, experiment.keep_every)
    with Checkpoints(workdir / experiments.CHECKPOINTS, *keep) as checkpoints, StopSignal() as stop:
        if checkpoints.steps():
            start, state = checkpoints.restore(run.template())
            if start >= experiment.steps:
                say(
                    f"{workdir} is finished: {start} of {experiment.steps} steps are done; --config.steps=N goes on"
                )
                return
            say(f"continuing {workdir} after step {start}")
        else:
            start, state = 0, run.make_state()
        devices = f"{run.mesh.size} {jax.devices()[0].platform} devices"
        say(f"training {spec} for {experiment.steps - start} steps on {devices}")
        with Writer(workdir, experiment.steps, start, experiment.batch_size) as writer:

            def snapshot(step: int, state: TrainState) -> None:
                samples = draw_picture(run, state)
                writer.image(step, SAMPLES, show(experiment.data, samples))
                export(workdir / SAMPLES / f"{SAMPLES}_{step:08}", experiment.data, samples)

            state = run_steps(run, state, checkpoints, stop, writer.scalars, snapshot)
            if stop.received is not None:
                say(
                    f"stopped by signal {stop.received}: step {int(state.step)} is saved; the same command goes on"
                )
                raise SystemExit(128 + stop.received)
            snapshot(int(state.step), state)
    trained = time.monotonic()
    write_evaluation(run, state, workdir)
    say(f"took {trained - began:.0f} s to train, {time.monotonic() - trained:.0f} s to evaluate")
    say("files:\n" + "\n".join(f"  {line}" for line in inventory(workdir)))


def write_evaluation(run: Run, state: TrainState, workdir: Path) -> Report:
    """Evaluates and writes evaluation.json and the final pictures."""
    trained, (run, state) = count_params(state.params), plain(run, state)
    report, samples = evaluate(run.experiment, state, run.mesh, say)
    if trained != report["parameters"]:
        report["parameters_trained"] = trained
    if jax.process_index() == 0:
        (workdir / SAMPLES).mkdir(exist_ok=True)
        pictured = samples[: run.experiment.evaluation.pictured]
        show(run.experiment.data, pictured).save(workdir / SAMPLES / "evaluated.png")
        export(workdir / SAMPLES / "evaluated", run.experiment.data, pictured)
        if (workdir / METRICS).exists():
            curves(workdir / METRICS).save(workdir / SAMPLES / "curves.png")
        temporary = workdir / f"{EVALUATION}.tmp"
        temporary.write_text(json.dumps(report, indent=1) + "\n")
        temporary.replace(workdir / EVALUATION)
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


def sample(
    workdir: Path,
    overrides: Iterable[tuple[str, str]],
    *,
    num: int,
    seed: int,
    label: int | None = None,
    out: Path | None = None,
    trace: int = 0,
) -> Path:
    """Draws samples from a work directory alone; writes an npz, a picture beside it, and sounds or texts as such.

    Args:
        workdir: of a run with a checkpoint.
        overrides: of what sampling depends on, e.g. ("objective.sampler.steps", "20").
        num: how many.
        seed: of the samples.
        label: one class for all; None takes the classes in turn.
        out: the npz; None is WORKDIR/samples.npz.
        trace: states of the samples' paths to write and picture instead of the samples alone; 0 for none.

    Returns:
        Path of the npz: `samples` in the data's own units, `label` where the model has classes; of paths `times`
        and `states`.

    Raises:
        UserError: no run there, no such class, or an override that only training could follow.
    """
    if num < 1:
        raise UserError(f"--num={num} must be at least 1")
    run, state = reopen_trained(workdir, overrides)
    experiment = run.experiment
    if trace:
        times, states = draw_path(run, state, num, trace, seed, label)
        out = out or workdir / "paths.npz"
        write_arrays(out, show_path(run, state, times, states), times=times, states=states)
        say(f"wrote {out} and {out.with_suffix('.png')} (EMA parameters of step {int(state.step)})")
        return out
    samples, labels = draw_samples(
        experiment.objective,
        experiment.data,
        state.ema,
        state.extra,
        run.mesh,
        seed=seed,
        num=num,
        batch_size=experiment.evaluation.batch_size,
        label=label,
        report=lambda done: say(f"{done}/{num} samples"),
    )
    out = out or workdir / "samples.npz"
    arrays = {"samples": samples} if labels is None else {"samples": samples, "label": labels}
    write_arrays(out, show(experiment.data, samples[:400]), **arrays)
    if said := export(out.with_suffix(""), experiment.data, samples):
        say(said)
    say(f"wrote {out} and {out.with_suffix('.png')} (EMA parameters of step {int(state.step)})")
    return out


def complete(
    workdir: Path,
    overrides: Iterable[tuple[str, str]],
    prompts: list[str],
    *,
    seed: int,
    out: Path | None = None,
    beam: Beam | None = None,
    draft: Path | None = None,
    drafts: int = 4,
) -> Path:
    """Completes prompts with a work directory's model of text; one prompt is shown as it grows.

    Args:
        workdir: of a run with a checkpoint.
        overrides: of what decoding depends on, e.g. ("objective.decoding.top_k", "40").
        prompts: at least one.
        seed: of the draws.
        out: the text file to write; None is WORKDIR/completions.txt.
        beam: searches the best continuations instead of drawing one; each is shown with its score.
        draft: work directory of a smaller model that drafts for this one (speculative decoding).
        drafts: tokens that it drafts in a round.

    Returns:
        Path of the file.

    Raises:
        UserError: no run there, a model that completes nothing, or a prompt that it cannot read.
    """
    if beam is not None and draft is not None:
        raise UserError("--beams searches and --draft draws: say one of them")
    run, state = reopen_trained(workdir, overrides)
    texts: list[str] = []
    if beam is not None:
        found = [pair for pairs in search(run, state, prompts, beam) for pair in pairs]
        texts = [f"[{score:.4f}] {text}" for text, score in found]
        say("\n---\n".join(texts))
    elif draft is not None:
        texts, rate = with_draft(run, state, *reopen_trained(draft, ()), prompts, drafts, seed)
        say("\n---\n".join(texts))
        say(f"accepted {rate:.1%} of the drafts, {drafts} a round")
    else:
        texts = _show_stream(stream(run, state, prompts, seed), len(prompts))
    out = out or workdir / "completions.txt"
    try:
        out.write_text("\n---\n".join(texts) + "\n")
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}") from None
    say(f"wrote {out}")
    return out


def _show_stream(growing: Iterable[list[str]], prompts: int) -> list[str]:
    """Prints one prompt as it grows, several when they are done; gives what they are in the end."""
    texts, shown = [], 0
    for texts in growing:
        if prompts == 1 and jax.process_index() == 0:
            print(texts[0][shown:], end="", flush=True)
            shown = len(texts[0])
    say("" if prompts == 1 else "\n---\n".join(texts))
    return texts


def evaluate_workdir(workdir: Path, overrides: Iterable[tuple[str, str]]) -> Report:
    """Evaluates a work directory's newest checkpoint and writes its evaluation.json.

    Raises:
        UserError: no run there, or an override that only training could follow.
    """
    run = reopen(workdir, overrides)
    report = write_evaluation(run, load_state(run, workdir), workdir)
    say(f"wrote {workdir / EVALUATION}")
    return report
