"""FID, IS and KID by their formulas, their conditions of comparability, and the reference of a data set."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
from processes import CONFIG, finished, verb
from scipy.linalg import sqrtm
from small_features import MATRIX, NETWORK, cut, features_of, gathered, images, random_weights

from genjax.api import evaluate_stream
from genjax.api.evaluate import evaluate
from genjax.api.load import load
from genjax.api.train import train
from genjax.core.errors import UserError
from genjax.data import Data, Digits, Scale
from genjax.metrics.distances.mmd import kernel_distance
from genjax.metrics.features import fid, reference
from genjax.parallel.mesh import make_mesh
from genjax.training import experiment as experiments


def flat(colour):
    return np.broadcast_to(np.array(colour, np.uint8), (2, 2, 3))


def test_inception_score_of_known_probabilities_in_consecutive_parts():
    """Two kinds of images with probabilities p and p': exp(H((p + p') / 2) - H(p)) at equal counts."""
    odds = np.exp([4.0, 0.0, 1.0])
    p = odds / odds.sum()
    entropy = lambda q: -(q * np.log(q)).sum()
    both = np.exp(entropy((p + p[[1, 0, 2]]) / 2) - entropy(p))
    x = np.stack([flat((255, 0, 0)), flat((0, 255, 0))] * 6 + [flat((255, 0, 0))] * 4)
    found = gathered(cut(x, 3), 16, splits=4)
    np.testing.assert_allclose(found.scores, [both, both, both, 1.0], rtol=1e-5)


def test_fid_and_kid_are_the_formulas():
    a, b = images(40), images(60, seed=1, bright=200)
    made, real = (gathered([x], len(x)) for x in (a, b))
    report = fid.inception_report(NETWORK, made, real, "these")
    x, y = features_of(a), features_of(b)
    c, d = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    shift = x.mean(axis=0) - y.mean(axis=0)
    assert report["fid"] == pytest.approx(
        shift @ shift + np.trace(c + d - 2 * np.real(sqrtm(c @ d))), rel=1e-5
    )
    assert report["inception_score"] == pytest.approx(made.scores.mean())
    assert report["inception_score_std"] == pytest.approx(np.std(made.scores))
    value, std = kernel_distance(x, x[::-1] + 0.1, subsets=3)
    k = lambda x, y: (x @ y.T / 3 + 1) ** 3
    off = 1 - np.eye(40)
    within = sum((k(z, z) * off).sum() for z in (x, x + 0.1)) / (40 * 39)
    assert value == pytest.approx(within - 2 * k(x, x + 0.1).mean(), rel=1e-9)
    assert std < 1e-12


def test_kid_of_subsets_is_that_of_some_rows_of_each_side():
    """By linearity the mean over all pairs of subsets is the value on all rows."""
    x, y = features_of(images(4)), features_of(images(4, seed=1, bright=200))
    every = [
        kernel_distance(x[list(i)], y[list(j)], subsets=1)[0]
        for i in itertools.combinations(range(4), 3)
        for j in itertools.combinations(range(4), 3)
    ]
    assert np.mean(every) == pytest.approx(kernel_distance(x, y, subsets=1)[0], rel=1e-9)
    found = [kernel_distance(x, y, subsets=1, size=3, seed=seed)[0] for seed in range(120)]
    same = np.isclose(found, np.array(every)[:, None], rtol=1e-9, atol=0)
    np.testing.assert_array_equal(same.sum(axis=0), 1)
    assert same.any(axis=1).all()
    mean, std = kernel_distance(x, y, subsets=120, size=3)
    assert abs(mean - np.mean(every)) < 4 * np.std(every) / 120**0.5
    assert std == pytest.approx(np.std(every), rel=0.3)


def of(count, size=3, weights="digest", data="train split"):
    moments = reference.Moments(count, np.zeros(size), np.eye(size) * (count - 1))
    return reference.Statistics(moments, np.eye(size, dtype=np.float32), np.ones(10), weights, data)


OTHER = dataclasses.replace(NETWORK, original=False)
FOREIGN = dataclasses.replace(of(2, weights="", data=""), scores=np.empty(0))


def test_reasons_against_comparison_are_reported():
    ready, real, wanted = of(50_000, data="samples"), of(60_000), "train split"
    for words, case in {
        "yes": (NETWORK, ready, real, wanted),
        "no: other weights than FID's": (OTHER, ready, real, wanted),
        "no: 49,999 samples, not 50,000": (NETWORK, of(49_999), real, wanted),
        "no: the reference's file does not describe its images": (NETWORK, ready, FOREIGN, wanted),
        "no: the reference is of the train split, not of the test split": (
            NETWORK,
            ready,
            real,
            "test split",
        ),
        "no: the reference's covariance is singular, 3 for 3 features": (NETWORK, ready, of(3), wanted),
        "no: 3 samples, not 50,000; the samples' covariance is singular, 3 for 3 features": (
            NETWORK,
            of(3),
            real,
            wanted,
        ),
    }.items():
        network, made, known, published = case
        found = fid.comparable(network, made.moments.count, known.count, known.data, published)
        assert found == words
    own = dataclasses.replace(NETWORK, name="classifier", digest="", original=False)
    assert fid.comparable(own, 50_000, 60_000).startswith("no: features of this data's own (classifier)")


def test_only_the_original_weights_give_the_name_fid():
    mine, others = (fid.inception_report(net, of(20), of(30)) for net in (NETWORK, OTHER))
    assert {"fid", "inception_score", "inception_score_std", "kid", "kid_std"} <= {*mine}
    named = [name for name in others if name in mine and name not in ("features", "weights", "comparable")]
    assert named == ["samples", "reference", "reference_samples"]
    assert "other weights" in others["weights"]
    assert not {"fid", "inception_score", "kid"} & {*others}
    stranger = fid.inception_report(NETWORK, of(20), FOREIGN)
    assert stranger["reference"].startswith("unknown")
    assert stranger["kid"].startswith("none")
    assert stranger["fid"] == pytest.approx(0.0, abs=1e-9)


DIGITS = Data(Digits(), (Scale(0.0, 16.0),))


@pytest.fixture
def inception_reference(tmp_path, monkeypatch):
    monkeypatch.setattr(fid, "load_network", lambda path: NETWORK)
    lines = []
    made = fid.open_reference(
        DIGITS, tmp_path / "weights", tmp_path / "stats.npz", make_mesh(), lines.append, 500
    )
    assert lines[-1] == f"wrote {tmp_path / 'stats.npz'}"
    return made


def test_the_training_split_is_the_reference_and_is_saved(inception_reference, tmp_path, monkeypatch):
    train = DIGITS.load("train")[np.arange(1437)]["x"]
    grey = np.rint(train * (255 / 16)).reshape(1437, -1).mean(axis=1) / 255
    assert inception_reference.statistics.count == 1437
    np.testing.assert_allclose(
        inception_reference.statistics.moments.mean, np.full(3, grey.mean()), rtol=1e-5
    )
    np.testing.assert_allclose(
        inception_reference.statistics.moments.covariance, np.full((3, 3), grey.var(ddof=1)), rtol=1e-4
    )
    said = {"step": 7, "objective.sampler": {"steps": 5}, "held_out": {}}
    report = inception_reference.report(train[:300], said)
    assert report["comparable"] == "no: 300 samples, not 50,000"
    assert report["reference"] == "train split of Digits()"
    assert (report["step"], report["objective.sampler"]) == (7, {"steps": 5})
    assert "held_out" not in report
    monkeypatch.setattr(fid, "gather_statistics", None)  # must not be called again
    again = fid.open_reference(DIGITS, tmp_path / "weights", tmp_path / "stats.npz", make_mesh())
    np.testing.assert_array_equal(again.statistics.features, inception_reference.statistics.features)


def test_invalid_samples_raise_one_line(inception_reference):
    x = np.zeros((40, 8, 8, 1), np.uint8)
    x[0] = 3
    for samples, words in [
        (x[1:], "all 39 samples are equal"),
        (x[:5], "samples: 5 images, at least 10"),
        (x + 14, r"integers 0 ... 16; these are not: uint8 14 ... 17"),
        (x.astype(np.float32), "these are not: float32"),
        (np.where(x == 3, np.nan, 0.5), "64 of 2560 values are NaN or infinite"),
        (np.concatenate([x, x], axis=-1), r"images \[n, h, w, 1 or 3\], not \(40, 8, 8, 2\)"),
    ]:
        with pytest.raises(UserError, match=words) as caught:
            inception_reference.report(samples)
        assert "\n" not in str(caught.value)
        assert inception_reference.try_report(samples, {}) == {"none": str(caught.value)}
    with pytest.raises(UserError, match="features are NaN or infinite"):
        gathered([images(30)], 30, dataclasses.replace(NETWORK, params={"matrix": MATRIX * np.nan}))
    with pytest.raises(UserError, match="1 of 240 values NaN"):
        gathered([np.where(np.arange(240).reshape(4, 4, 5, 3) == 7, np.nan, 1.0)], 30)


@pytest.mark.slow
@pytest.mark.optimised
def test_a_run_is_evaluated_with_random_weights_that_are_reported_as_other(tmp_path):
    """The whole network through the program; with a given reference, as processing 1,437 digits takes long."""
    weights, stats, workdir = tmp_path / "weights.safetensors", tmp_path / "stats.npz", tmp_path / "run"
    random_weights(weights)
    np.savez(stats, mu=np.zeros(2048), sigma=np.eye(2048))
    fast = [("steps", "2"), ("evaluation.num", "40"), ("evaluation.pictured", "16")]
    train(experiments.load("gan_digits", fast), workdir, spec="gan_digits")
    report = evaluate(load(workdir), weights, stats)["inception"]
    assert report["samples"] == 40
    assert report["frechet_other_weights"] > 0
    assert 1.0 <= report["class_score_other_weights"] <= 1008
    assert report["comparable"].startswith(
        "no: other weights than FID's; 40 samples, not 50,000; the samples' cov"
    )
    assert report["parameters_of"] == "moving average (EMA)"
    assert not {"fid", "inception_score", "kid"} & {*report}
    streamed = evaluate_stream.stream_workdir(
        workdir, [], features="inception", num=16, keep=True, inception=weights
    )
    assert (streamed["features"], streamed["weights"]) == (report["features"], report["weights"])
    assert streamed["comparable"].startswith(
        "no: other weights than FID's; 16 samples, not 50,000; the samples'"
    )
    assert streamed["feature_dim"] == 2048
    assert streamed["frechet"] > 0
    assert 0 <= streamed["precision"] <= 1
    assert not {"fid", "inception_score", "kid"} & {*streamed}
    with pytest.raises(UserError, match="give the weights too, inception=FILE"):
        evaluate(load(workdir), None, stats)
    with pytest.raises(UserError, match="no file of weights"):
        evaluate(load(workdir), tmp_path / "none.pth")


@pytest.mark.slow
def test_two_processes_compute_the_same_numbers_as_one(tmp_path):
    """1 x 2 and 2 x 1 devices: a reference of 50 images and all numbers."""
    x, few, run = DIGITS.load("train"), tmp_path / "few.npz", tmp_path / "run"
    rows = x[np.arange(90)]
    np.savez(
        few,
        x_train=rows["x"][:50],
        x_test=rows["x"][50:],
        y_train=rows["label"][:50],
        y_test=rows["label"][50:],
    )
    (tmp_path / "config.py").write_text(CONFIG)
    random_weights(tmp_path / "weights.safetensors")
    finished(1, 2, *verb("train", f"--config={tmp_path}/config.py:{few}", f"--workdir={run}"))
    found, real = [], []
    for count, devices in ((1, 2), (2, 1)):
        options = [f"--inception={tmp_path}/weights.safetensors", f"--reference={tmp_path}/{count}.npz"]
        finished(count, devices, *verb("evaluate", f"--workdir={run}", *options))
        found.append(json.loads((run / "evaluation.json").read_text())["inception"])
        with np.load(tmp_path / f"{count}.npz") as archive:
            real.append(dict(archive))
    assert int(real[1]["count"]) == 50
    for name in ("mu", "sigma", "features", "scores"):
        np.testing.assert_allclose(
            real[0][name], real[1][name], rtol=1e-3, atol=1e-5 * np.abs(real[0][name]).max()
        )
    assert found[0].pop("reference_file") != found[1].pop("reference_file")
    for name, value in found[0].items():
        assert found[1][name] == (pytest.approx(value, rel=1e-3) if isinstance(value, float) else value), name
    assert found[0]["samples"] == 64
