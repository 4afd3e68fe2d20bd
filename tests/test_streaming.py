"""Streaming statistics: any partition into batches, devices or processes equals the whole set."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from processes import CONFIG, finished, verb
from scipy.spatial.distance import pdist
from scipy.special import softmax

from genjax.core.errors import UserError
from genjax.evaluation.streaming import compare_statistics
from genjax.metrics.distances.frechet import Moments
from genjax.metrics.distances.mmd import RBF, Polynomial, gaussian_mmd, kernel_distance, kernel_mmd
from genjax.metrics.distances.scores import ClassEntropy
from genjax.metrics.distances.streaming import (
    ClassScatter,
    FeatureStatistics,
    Hits,
    PrefixStatistics,
    Rows,
    scatter_ratios,
)
from genjax.metrics.features.extraction import FeatureNetwork, StreamBatch, local_rows, stream_statistics
from genjax.parallel.mesh import batch_sharding, make_mesh

RNG = np.random.default_rng(0)
COUNT, DIM = 403, 5
FEATURES = RNG.normal(size=(COUNT, DIM)) * [1.0, 3.0, 0.1, 10.0, 1.0] + [1e3, 0.0, 5.0, -40.0, 1.0]
LOGITS, LABELS = 3.0 * RNG.normal(size=(COUNT, 4)), RNG.integers(0, 4, COUNT)


def cut(seed):
    """A random partition of the examples into parts, some of them empty, out of order."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(COUNT)
    return np.split(order, np.sort(rng.integers(0, COUNT, 9)))


def seen(index):
    return FeatureStatistics.of(FEATURES[index], index, LOGITS[index], LABELS[index])


def close(a, b):
    """Both agree to 1e-9 of each statistic's size."""
    np.testing.assert_allclose(a.moments.mean, b.moments.mean, rtol=1e-9)
    scale = np.sqrt(np.outer(*[np.diag(b.moments.covariance)] * 2))
    np.testing.assert_allclose(a.moments.covariance / scale, b.moments.covariance / scale, atol=1e-9)
    assert a.entropy.score == pytest.approx(b.entropy.score, rel=1e-9)
    assert a.hits == b.hits
    assert a.scatter.mean_squares() == pytest.approx(b.scatter.mean_squares(), rel=1e-9)
    np.testing.assert_array_equal(a.rows.features(), b.rows.features())


@pytest.mark.parametrize("seed", range(4))
def test_any_partition_into_batches_equals_the_whole_set(seed):
    parts = [seen(index) for index in cut(seed)]
    left = functools.reduce(FeatureStatistics.merge, parts)
    half = len(parts) // 2
    right = functools.reduce(FeatureStatistics.merge, parts[half:]).merge(
        functools.reduce(FeatureStatistics.merge, parts[:half])
    )
    for merged in (left, right):
        close(merged, seen(np.arange(COUNT)))


@pytest.mark.parametrize("prefix", [1, 150, COUNT])
def test_prefix_statistics_cover_the_first_examples_and_all(prefix):
    parts = [PrefixStatistics.of(FEATURES[i], i, LOGITS[i], LABELS[i], prefix=prefix) for i in cut(prefix)]
    found, everything = functools.reduce(PrefixStatistics.merge, parts), seen(np.arange(COUNT))
    assert found.whole.rows is None
    close(dataclasses.replace(found.whole, rows=everything.rows), everything)
    if prefix > 1:
        close(found.first, seen(np.arange(prefix)))
    np.testing.assert_array_equal(found.first.rows.features(), FEATURES[:prefix])
    assert (found.first.moments.count, found.rest.moments.count) == (prefix, COUNT - prefix)


def test_statistics_equal_their_definitions():
    whole = seen(np.arange(COUNT))
    p = softmax(LOGITS, axis=1)
    np.testing.assert_allclose(whole.moments.covariance, np.cov(FEATURES, rowvar=False), rtol=1e-9)
    kl = (p * np.log(p / p.mean(axis=0)[None])).sum(axis=1)
    assert whole.entropy.score == pytest.approx(np.exp(kl.mean()), rel=1e-12)
    assert ClassEntropy.of(p).score == pytest.approx(whole.entropy.score, rel=1e-12)
    assert whole.hits.accuracy == np.mean(LOGITS.argmax(axis=1) == LABELS)
    for label, value in whole.scatter.mean_squares().items():
        assert value == pytest.approx((pdist(FEATURES[label == LABELS]) ** 2).mean(), rel=1e-9)


def test_scatter_ratio_of_a_scaled_set_and_of_one_point():
    usual = ClassScatter.of(FEATURES, LABELS)
    np.testing.assert_allclose(scatter_ratios(usual, ClassScatter.of(0.5 * FEATURES, LABELS)), 0.5, rtol=1e-9)
    collapsed = ClassScatter.of(FEATURES[LABELS.argsort()[[0] * 9]], np.zeros(9, np.int64))
    np.testing.assert_allclose(scatter_ratios(usual, collapsed), [0.0], atol=1e-9)


def exact_network():
    """Integer features and logits of bytes: exact in float32 in any order of summation."""
    matrix, head = RNG.integers(-3, 4, (6, DIM)), RNG.integers(-2, 3, (DIM, 4))
    return FeatureNetwork(
        "exact",
        DIM,
        {"matrix": jnp.asarray(matrix, jnp.float32), "head": jnp.asarray(head, jnp.float32)},
        lambda params, x: x.reshape(len(x), -1).astype(jnp.float32) @ params["matrix"],
        lambda params, features: features @ params["head"] / 64,
        lambda features: features / 7.0,
    )


def stream(x, labels, mesh, size):
    for start in range(0, len(x), size):
        rows = np.minimum(start + np.arange(size), len(x) - 1)
        yield StreamBatch(
            jax.device_put(x[rows], batch_sharding(mesh)), min(size, len(x) - start), np.asarray(labels)[rows]
        )


def test_eight_devices_equal_one_for_any_batches():
    x, network = RNG.integers(0, 256, (101, 2, 3, 1), np.uint8), exact_network()
    labels = RNG.integers(0, 4, 101)
    one = Mesh(np.array(jax.devices()[:1]), ("data",))
    features = x.reshape(101, -1).astype(np.float64) @ np.asarray(network.params["matrix"], np.float64) / 7.0
    logits = features * 7.0 @ np.asarray(network.params["head"], np.float64) / 64
    whole = FeatureStatistics.of(features, np.arange(101), logits, labels)
    for mesh, size in ((one, 101), (one, 30), (make_mesh("data:8"), 40), (make_mesh("data:2,tensor:4"), 16)):
        close(stream_statistics(network, mesh, stream(x, labels, mesh, size)), whole)
    sums = stream_statistics(network, one, stream(x, labels, one, 30), keep=False)
    assert sums.rows is None
    np.testing.assert_allclose(sums.moments.mean, whole.moments.mean, rtol=1e-9)


def test_each_row_is_assigned_once_where_devices_hold_replicas():
    mesh = make_mesh("data:2,tensor:4")
    x = np.arange(24.0, dtype=np.float32).reshape(8, 3)
    place, rows = local_rows(jax.device_put(x, batch_sharding(mesh)), 7)
    np.testing.assert_array_equal(place, np.arange(7))
    np.testing.assert_array_equal(rows, x[:7])


def test_kernel_distance_of_subsets_averages_to_the_full_estimate():
    x, y = FEATURES[:60] / 10, FEATURES[60:100] / 10 + 0.3
    whole = kernel_mmd(x, y, RBF((3.0,)))
    assert kernel_distance(x[:40], y, RBF((3.0,)), subsets=2) == pytest.approx(
        (kernel_mmd(x[:40], y, RBF((3.0,))), 0.0), abs=1e-12
    )
    mean, std = kernel_distance(x, y, RBF((3.0,)), subsets=600, size=12)
    assert abs(mean - whole) < 4 * std / np.sqrt(600)


def test_gaussian_mmd_is_the_distance_of_mean_embeddings():
    """With the pairs i = j it is |mean phi(x) - mean phi(y)|^2: zero for equal sets, and by hand for two points."""
    x = FEATURES[:20]
    assert gaussian_mmd(x, x[::-1].copy()) == pytest.approx(0.0, abs=1e-9)
    a, b = np.zeros((2, 1)), np.full((3, 1), 10.0)
    assert gaussian_mmd(a, b) == pytest.approx(1000 * (2 - 2 * np.exp(-0.5)), rel=1e-12)
    every = Polynomial()
    pooled = np.concatenate([every(x, x).ravel(), every(a[:0], a[:0]).ravel()])
    assert kernel_mmd(x, x, every, unbiased=False) == pytest.approx(0.0, abs=1e-9 * pooled.mean())


def test_too_few_examples_for_a_covariance_are_marked():
    few, many = FeatureStatistics.of(FEATURES[:DIM], np.arange(DIM), keep=False), seen(np.arange(COUNT))
    assert few.moments.singular
    assert not Moments.of(FEATURES[: DIM + 1]).singular
    assert np.linalg.matrix_rank(few.moments.covariance / 100) < DIM
    found = compare_statistics(dataclasses.replace(many, rows=None), few)
    assert found["covariance"].startswith("singular (samples: 5 examples of 5 features)")
    assert "covariance" not in compare_statistics(many, seen(np.arange(200)))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            lambda: FeatureStatistics.of(np.full((3, 2), np.nan), np.arange(3)),
            "3 of 3 examples have features that are NaN",
        ),
        (
            lambda: stream_statistics(exact_network(), make_mesh("data:8"), iter([])),
            "exact: there are no examples",
        ),
        (lambda: seen(np.arange(3)).merge(seen(np.arange(3))).rows.features(), "occur twice"),
        (
            lambda: compare_statistics(
                seen(np.arange(9)), FeatureStatistics.of(FEATURES[:9, :2], np.arange(9))
            ),
            "5 dimensions",
        ),
        (lambda: gaussian_mmd(FEATURES, FEATURES, sigma=0.0), "sigma=0"),
    ],
)
def test_wrong_input_is_one_line(wrong, message):
    with pytest.raises(UserError, match=rf"\A[^\n]*{message}[^\n]*\Z"):
        wrong()


def test_empty_hits_and_rows_are_neutral_in_merge():
    assert Hits().merge(Hits(3, 2)) == Hits(3, 2)
    assert np.isnan(Hits().accuracy)
    nothing = Rows.of(FEATURES[:0], np.zeros(0, np.int64))
    np.testing.assert_array_equal(nothing.merge(Rows.of(FEATURES, np.arange(COUNT))).features(), FEATURES)


@pytest.mark.slow
def test_two_processes_report_the_same_as_one(tmp_path):
    """A tiny diffusion model of digits, evaluated on 1 x 2 and 2 x 1 devices: the same samples, the same numbers."""
    (tmp_path / "config.py").write_text(CONFIG)
    run = tmp_path / "run"
    finished(1, 2, *verb("train", f"--config={tmp_path}/config.py:digits", f"--workdir={run}"))
    found = []
    for count, devices in ((1, 2), (2, 1)):
        finished(count, devices, *verb("stream", f"--workdir={run}", "--num=150"))
        found.append(json.loads((run / "streamed.json").read_text()))
    assert [report.pop("processes") for report in found] == [1, 2]
    for name, value in found[0].items():
        assert found[1][name] == (
            pytest.approx(value, rel=1e-4, abs=1e-6) if isinstance(value, float) else value
        ), name
    assert found[0]["count"] == 150
    assert found[0]["features"] == "classifier"
    assert found[0]["frechet_ratio"] > 2.0
