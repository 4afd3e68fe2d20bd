"""Evaluates a run with `evaluation.streaming` in features fitted on part of the training data, or Inception's."""

from collections.abc import Callable, Iterable
from pathlib import Path

import jax
import numpy as np

from genjax.api.evaluate import report_lines
from genjax.core.errors import UserError, nearest
from genjax.data import Data
from genjax.data.examples import Subset
from genjax.evaluation.evaluate import evaluation_context
from genjax.evaluation.likelihood import Report
from genjax.evaluation.streaming import stream_report
from genjax.metrics.features.classifier import train_classifier
from genjax.metrics.features.extraction import FeatureNetwork
from genjax.metrics.features.features import FeatureSpace, identity, of_classifier, random_convolutions
from genjax.metrics.features.inception import load_network
from genjax.parallel.console import say
from genjax.training.workdir import reopen_trained, write_report

FITTED = 10_000  # most training examples to fit features on; at most half of the split
STREAMED = "streamed.json"


def fit_network(
    data: Data, name: str, seed: int, inception: Path | None = None
) -> tuple[FeatureNetwork, Subset]:
    """Fits or loads a feature network; the result is identical on every process.

    Args:
        data: images or points.
        name: "classifier", "random_convolutions" or "identity", fitted on part of the training data, or "inception".
            "" is "inception" if its weights are given, else the first of them that supports the data.
        seed: seed of the network.
        inception: weights file of "inception".

    Returns:
        (the network, the training examples that it was not fitted on).

    Raises:
        UserError: the network is unknown or does not support the data, or as `load_network`.
    """
    if data.kind not in ("image", "points"):
        raise UserError(f"no features for {data.kind}: streaming evaluation supports images and points")
    train, image = data.load("train"), data.kind == "image"
    suits = ["classifier"] * bool(data.classes) + ["random_convolutions" if image else "identity"]
    suits += ["inception"] * bool(image and data.levels and data.shape[-1] in (1, 3))
    name = name or ("inception" if inception else suits[0])
    if name not in suits:
        raise UserError(f"features '{name}' do not support these data: {nearest(name, suits)}")
    if (name == "inception") != bool(inception):
        raise UserError("features 'inception' and its weights need each other: inception=FILE")
    if inception:
        return load_network(inception, data.levels), Subset(train, len(train))
    count = min(FITTED, len(train) // 2)
    rows = Subset(train, count)[np.arange(count)]
    x = rows["x"]
    spaces: dict[str, Callable[[], FeatureSpace]] = {
        "classifier": lambda: of_classifier(
            train_classifier(x, rows["label"].astype(np.int64), seed=seed), x
        ),
        "random_convolutions": lambda: random_convolutions(x, seed),
        "identity": lambda: identity(data.shape[0]),
    }
    network = spaces[name]().network
    assert network is not None
    return network, Subset(train, len(train), count)


def stream_workdir(
    workdir: Path,
    overrides: Iterable[tuple[str, str]],
    *,
    features: str,
    num: int,
    keep: bool,
    inception: Path | None = None,
) -> Report:
    """Evaluates a work directory's checkpoint on all processes together and writes streamed.json.

    Args:
        workdir: work directory of a trained run.
        overrides: (path, value) overrides that do not affect training.
        features: name of the feature network, see `fit_network`.
        num: number of samples, and the most test and reference examples used, see `stream_report`.
        keep: keep the features of all examples, for metrics of pairs; otherwise only sums.
        inception: weights file, see `fit_network`.

    Returns:
        The report.

    Raises:
        UserError: there is no run, or as `fit_network` and `stream_report`.
    """
    run, state = reopen_trained(workdir, overrides)
    seed = run.experiment.evaluation.seed
    network, unseen = fit_network(run.experiment.data, features, seed, inception)
    report: Report = evaluation_context(run.experiment, state)
    report |= stream_report(
        run.experiment, state, run.mesh, network, num=num, seed=seed, keep=keep, unseen=unseen, report=say
    )
    if jax.process_index() == 0:
        write_report(workdir / STREAMED, report)
        for line in report_lines(report):
            say(line)
    return report
