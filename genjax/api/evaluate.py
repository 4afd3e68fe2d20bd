"""Evaluates a run and writes evaluation.json."""

from collections.abc import Iterable
from pathlib import Path

import jax

from genjax.core.errors import UserError
from genjax.evaluation.evaluate import Report, count_params, evaluate
from genjax.evaluation.hardware import hardware
from genjax.metrics.features.fid import InceptionReference, open_reference
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
    merge_adapters,
    read_report,
    reopen,
    write_report,
)
from genjax.training.writers import METRICS, metric_rows


def write_evaluation(
    run: Run,
    state: TrainState,
    workdir: Path,
    training: Report,
    inception: InceptionReference | None = None,
) -> Report:
    """Evaluates a run and writes evaluation.json and the final pictures.

    Args:
        run: run of the work directory.
        state: its EMA parameters are evaluated.
        workdir: written to; its metrics give the training time.
        training: further entries of the report.
        inception: Inception features and reference statistics for FID, IS and KID; None skips them.

    Returns:
        The report of `evaluate` with "inception" (if given), "evaluated_on", "seconds_to_train" (wall-clock time,
        compilation and pictures included) and `training`.
    """
    trained, (run, state) = count_params(state.params), merge_adapters(run, state)
    report, samples = evaluate(run.experiment, state, run.mesh, say)
    if inception is not None:
        say("evaluate: Inception")
        report["inception"] = inception.try_report(samples, report)
    if trained != report["parameters"]:
        report["parameters_trained"] = trained
    report |= {"evaluated_on": hardware(), **training}
    for row in metric_rows(workdir / METRICS, report["step"]):
        report["seconds_to_train"] = row["time"]  # the last row wins
    if jax.process_index() == 0:
        (workdir / SAMPLES).mkdir(exist_ok=True)
        pictured = samples[: run.experiment.evaluation.pictured]
        show(run.experiment.data, pictured).save(workdir / SAMPLES / "evaluated.png")
        export(workdir / SAMPLES / "evaluated", run.experiment.data, pictured)
        if (workdir / METRICS).exists():
            curves(workdir / METRICS).save(workdir / SAMPLES / "curves.png")
        write_report(workdir / EVALUATION, report)
        for line in report_lines(report):
            say(line)
    return report


def report_lines(report: Report, prefix: str = "") -> Iterable[str]:
    """Formats a nested report as lines "name: value"."""
    for name, value in report.items():
        if isinstance(value, dict) and "@type" not in value:
            yield from report_lines(value, f"{prefix}{name}.")
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
        workdir: work directory of a run.
        overrides: (path, value) overrides that do not affect training.
        inception: weights file of Inception-v3 for FID, IS and KID, see `metrics.features.fid`; None skips them.
        reference: file with statistics of real images; None is inception_reference.npz in the work directory.

    Returns:
        The report.

    Raises:
        UserError: there is no run, an override affects training, or as `open_reference`.
    """
    overrides = list(overrides)
    run, inception_reference = reopen(workdir, overrides), None
    if inception:
        inception_reference = open_reference(
            run.experiment.data, inception, reference or workdir / REFERENCE, run.mesh, say
        )
    elif reference:
        raise UserError(
            "--reference holds statistics of Inception features: give the weights too, --inception=FILE"
        )
    before = read_report(workdir)
    training = {name: before[name] for name in (TRAINED_ON,) if name in before}
    entries = training | ({EVALUATED_WITH: dict(overrides)} if overrides else {})
    report = write_evaluation(run, load_state(run, workdir), workdir, entries, inception_reference)
    say(f"wrote {workdir / EVALUATION}")
    return report
