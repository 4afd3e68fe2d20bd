"""Evaluates a trained model; with a work directory, writes its evaluation.json and pictures."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from genjax.api.load import TrainedRun
from genjax.core.errors import UserError
from genjax.core.files import replacing, writing
from genjax.evaluation import evaluate as evaluation
from genjax.evaluation.evaluate import Report, count_params
from genjax.evaluation.hardware import hardware
from genjax.metrics.features.fid import InceptionReference, open_reference
from genjax.parallel.console import say
from genjax.reports.exports import export
from genjax.reports.pictures import curves
from genjax.reports.sampling_paths import show
from genjax.training.workdir import EVALUATION, REFERENCE, SAMPLES, write_report
from genjax.training.writers import METRICS, metric_rows


def evaluate(
    run: TrainedRun,
    inception: str | os.PathLike[str] | None = None,
    reference: str | os.PathLike[str] | None = None,
) -> dict[str, Any]:
    """Evaluates a trained model: distances of samples to unseen data, memorisation, held-out losses, likelihood.

    With a work directory it also writes evaluation.json and pictures there.

    Args:
        run: a trained model, from `train` or `load`; `experiment.evaluation` holds sizes and seeds.
        inception: weights file of Inception-v3 for FID, IS and KID, see `metrics.features.fid`; None skips them.
        reference: file with statistics of real images; None is inception_reference.npz in the work directory.

    Returns:
        The report: nested numbers by name, with the settings that they depend on.

    Raises:
        UserError: samples are not finite, a reference without weights, or as `open_reference`.
    """
    opened, state = run.merged()
    features = _open_inception(run, inception, reference)
    report, samples = evaluation.evaluate(opened.experiment, state, opened.mesh, say)
    if features is not None:
        say("evaluate: Inception")
        report["inception"] = features.try_report(samples, report)
    trained = count_params(run.state.params)
    if trained != report["parameters"]:
        report["parameters_trained"] = trained
    report |= {"evaluated_on": hardware(), **run.notes}
    if run.workdir is not None:
        _write(run, run.workdir, report, samples)
    return report


def _open_inception(
    run: TrainedRun, inception: str | os.PathLike[str] | None, reference: str | os.PathLike[str] | None
) -> InceptionReference | None:
    if inception is None:
        if reference is not None:
            raise UserError(
                f"reference={reference} holds statistics of Inception features: give the weights too, inception=FILE"
            )
        return None
    path = Path(reference) if reference else (run.workdir or Path()) / REFERENCE
    return open_reference(run.experiment.data, Path(inception), path, run.run.mesh, say)


def _write(run: TrainedRun, workdir: Path, report: Report, samples: np.ndarray) -> None:
    """Writes evaluation.json, with the seconds of training from the run's metrics, and the final pictures."""
    for row in metric_rows(workdir / METRICS, report["step"]):
        report["seconds_to_train"] = row["time"]  # the last row wins
    if jax.process_index() == 0:
        pictured = samples[: run.experiment.evaluation.pictured]
        images = {"evaluated.png": show(run.experiment.data, pictured)}
        if (workdir / METRICS).exists():
            images["curves.png"] = curves(workdir / METRICS)
        with writing(workdir):
            (workdir / SAMPLES).mkdir(exist_ok=True)
            for name, image in images.items():
                with replacing(workdir / SAMPLES / name) as path:
                    image.save(path)
            export(workdir / SAMPLES / "evaluated", run.experiment.data, pictured)
            write_report(workdir / EVALUATION, report)


def report_lines(report: Report, prefix: str = "") -> Iterable[str]:
    """Formats a nested report as lines "name: value"."""
    for name, value in report.items():
        if isinstance(value, dict) and "@type" not in value:
            yield from report_lines(value, f"{prefix}{name}.")
        elif isinstance(value, float):
            yield f"  {prefix}{name}: {value:.5g}"
        elif not isinstance(value, dict | list):
            yield f"  {prefix}{name}: {value}"
