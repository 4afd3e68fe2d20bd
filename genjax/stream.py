"""Judges a trained run as `streamed` does: the features are fitted on a part of the training data, all else goes by."""

import json
from collections.abc import Iterable
from pathlib import Path

import jax
import numpy as np

from genjax.data import Data
from genjax.data.examples import Some
from genjax.errors import UserError, nearest
from genjax.evaluate import circumstances
from genjax.log_probs import Report
from genjax.metrics.classifier import train_classifier
from genjax.metrics.extraction import FeatureNetwork
from genjax.metrics.features import identity, of_classifier, random_convolutions
from genjax.streamed import stream_report
from genjax.verbs import flat, reopen_trained, say
from genjax.writers import write_whole

FITTED = 10_000  # training examples that the features are fitted on, at most half of all
STREAMED = "streamed.json"


def fit_network(data: Data, name: str, seed: int) -> tuple[FeatureNetwork, Some]:
    """A feature network fitted on a part of the training data, alike on every process, and the other part.

    Args:
        data: images or points.
        name: "classifier", "random_convolutions" or "identity"; empty for the first of them that suits the data.
        seed: of the network.

    Raises:
        UserError: there is no such network, or it does not suit the data.
    """
    train, suits = data.load("train"), ["random_convolutions"] if data.kind == "image" else ["identity"]
    if data.kind not in ("image", "points"):
        raise UserError(f"there are no features of {data.kind}: images and points can be streamed")
    suits = [*(["classifier"] if data.classes else []), *suits]
    if name and name not in suits:
        raise UserError(f"features '{name}' do not suit these data: {nearest(name, suits)}")
    count = min(FITTED, len(train) // 2)
    rows = Some(train, count)[np.arange(count)]
    name = name or suits[0]
    if name == "identity":
        space = identity(data.shape[0])
    elif name == "classifier":
        space = of_classifier(
            train_classifier(rows["x"], rows["label"].astype(np.int64), seed=seed), rows["x"]
        )
    else:
        space = random_convolutions(rows["x"], seed)
    assert space.network is not None
    return space.network, Some(train, len(train), count)


def stream_workdir(
    workdir: Path, overrides: Iterable[tuple[str, str]], *, features: str, num: int, keep: bool
) -> Report:
    """Judges a work directory's checkpoint and writes streamed.json; all processes of a run do so together.

    Args:
        workdir: of a trained run.
        overrides: of what training does not depend on.
        features: see `fit_network`.
        num: of samples, test examples and training examples, the same of each.
        keep: features, for the metrics that need pairs.

    Raises:
        UserError: no run there, or what `fit_network` and `stream_report` refuse.
    """
    run, state = reopen_trained(workdir, overrides)
    seed = run.experiment.evaluation.seed
    network, unseen = fit_network(run.experiment.data, features, seed)
    say(f"streaming {num} samples through {network.name}")
    report: Report = circumstances(run.experiment, state)
    report |= stream_report(
        run.experiment, state, run.mesh, network, num=num, seed=seed, keep=keep, unseen=unseen
    )
    if jax.process_index() == 0:
        write_whole(workdir / STREAMED, json.dumps(report, indent=1) + "\n")
        for line in flat(report):
            say(line)
    return report
