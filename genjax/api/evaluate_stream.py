"""Judges a trained run as `streamed` does: features are fitted on a part of the training data, or Inception's."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import jax
import numpy as np

from genjax.api.evaluate import flat
from genjax.core.errors import UserError, nearest
from genjax.data import Data
from genjax.data.examples import Some
from genjax.evaluation.evaluate import circumstances
from genjax.evaluation.likelihood import Report
from genjax.evaluation.streaming import stream_report
from genjax.metrics.features.classifier import train_classifier
from genjax.metrics.features.extraction import FeatureNetwork
from genjax.metrics.features.features import FeatureSpace, identity, of_classifier, random_convolutions
from genjax.metrics.features.inception import load_network
from genjax.parallel.console import say
from genjax.training.workdir import reopen_trained
from genjax.training.writers import write_whole

FITTED = 10_000  # training examples that the features are fitted on, at most half of all
STREAMED = "streamed.json"


def fit_network(
    data: Data, name: str, seed: int, inception: Path | None = None
) -> tuple[FeatureNetwork, Some]:
    """A feature network, alike on every process, and the training data that it was not fitted on.

    Args:
        data: images or points.
        name: "classifier", "random_convolutions" or "identity", fitted on a part of the training data, or "inception";
            empty for the first of them that suits the data.
        seed: of the network.
        inception: weights of "inception", which is what empty means then.

    Raises:
        UserError: there is no such network, it does not suit the data, or as `load_network`.
    """
    if data.kind not in ("image", "points"):
        raise UserError(f"there are no features of {data.kind}: images and points can be streamed")
    train, image = data.load("train"), data.kind == "image"
    suits = ["classifier"] * bool(data.classes) + ["random_convolutions" if image else "identity"]
    suits += ["inception"] * bool(image and data.levels and data.shape[-1] in (1, 3))
    name = name or ("inception" if inception else suits[0])
    if name not in suits:
        raise UserError(f"features '{name}' do not suit these data: {nearest(name, suits)}")
    if (name == "inception") != bool(inception):
        raise UserError("features 'inception' and the network's weights go together: --inception=FILE")
    if inception:
        return load_network(inception, data.levels), Some(train, len(train))
    count = min(FITTED, len(train) // 2)
    rows = Some(train, count)[np.arange(count)]
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
    return network, Some(train, len(train), count)


def stream_workdir(
    workdir: Path,
    overrides: Iterable[tuple[str, str]],
    *,
    features: str,
    num: int,
    keep: bool,
    inception: Path | None = None,
) -> Report:
    """Judges a work directory's checkpoint and writes streamed.json; all processes of a run do so together.

    Args:
        workdir: of a trained run.
        overrides: of what training does not depend on.
        features: see `fit_network`.
        num: of samples; and of test examples and reference examples, at most all of these: see `stream_report`.
        keep: features, for the metrics that need pairs.
        inception: see `fit_network`.

    Raises:
        UserError: no run there, or what `fit_network` and `stream_report` refuse.
    """
    run, state = reopen_trained(workdir, overrides)
    seed = run.experiment.evaluation.seed
    network, unseen = fit_network(run.experiment.data, features, seed, inception)
    report: Report = circumstances(run.experiment, state)
    report |= stream_report(
        run.experiment, state, run.mesh, network, num=num, seed=seed, keep=keep, unseen=unseen, report=say
    )
    if jax.process_index() == 0:
        write_whole(workdir / STREAMED, json.dumps(report, indent=1) + "\n")
        for line in flat(report):
            say(line)
    return report
