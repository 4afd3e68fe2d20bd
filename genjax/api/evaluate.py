"""Evaluates a run and writes evaluation.json."""

import json
from collections.abc import Iterable
from pathlib import Path

import jax

from genjax.core.errors import UserError
from genjax.evaluation.evaluate import Report, count_params, evaluate
from genjax.evaluation.hardware import hardware
from genjax.metrics.features.fid import InceptionJudge, open_judge
from genjax.parallel.console import say
from genjax.reports.exports import export
from genjax.reports.pictures import curves
from genjax.reports.sampling_paths import show
from genjax.training.loop import Run
from genjax.training.step import TrainState
from genjax.training.workdir import (
    EVALUATED_WITH,
    EVALUATION,
    REFERENCE,
    SAMPLES,
    TRAINED_ON,
    load_state,
    plain,
    reopen,
)
from genjax.training.writers import METRICS, kept, write_whole


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
