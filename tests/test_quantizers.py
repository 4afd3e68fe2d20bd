"""Quantizers: analytic gradients, k-means, bijections of codes and indices, entropies by enumeration."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from sklearn.cluster import KMeans

from genjax.networks.vector_quantizers import (
    FSQ,
    LFQ,
    Codebook,
    Gumbel,
    MovingCodebook,
    Residual,
    perplexity,
    usage,
)

KEY = jax.random.key(0)
ALL = [
    Codebook(5, 3),
    MovingCodebook(5, 3),
    Gumbel(5, 3),
    FSQ((4, 3, 2)),
    LFQ(3),
    Residual(Codebook(5, 3), 2),
    Residual(MovingCodebook(5, 3), 3),
]


def normal(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32))


@pytest.mark.parametrize("quantizer", ALL, ids=repr)
def test_codes_are_integers_in_range_and_lookup_gives_the_decoders_input(quantizer):
    z = 2.0 * normal(0, 4, 3, 2, quantizer.features)
    params, carried = quantizer.init(KEY, z)
    found = quantizer.quantize(params, carried, z, KEY, None)
    assert found.codes.shape == (4, 3, 2, quantizer.stack)
    assert found.codes.dtype == jnp.int32
    assert 0 <= int(found.codes.min()) <= int(found.codes.max()) < quantizer.values
    np.testing.assert_allclose(quantizer.lookup(params, carried, found.codes), found.z, atol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, found.carried, carried)


def test_straight_through_gradient_matches_the_analytic_one():
    quantizer, z, a = Codebook(4, 3, commitment=0.7), normal(1, 6, 3), normal(2, 6, 3)
    codebook = normal(3, 4, 3)

    def loss(z, codebook):
        found = quantizer.quantize({"codebook": codebook}, {}, z, KEY, jnp.asarray(0))
        return jnp.sum(a * found.z**2) + found.cost

    of_z, of_codebook = jax.grad(loss, argnums=(0, 1))(z, codebook)
    distance = np.sum((np.asarray(z)[:, None] - np.asarray(codebook)[None]) ** 2, axis=2)
    chosen = distance.argmin(1)
    e = np.asarray(codebook)[chosen]
    np.testing.assert_allclose(of_z, 2 * a * e + 0.7 * 2 * (z - e) / z.size, rtol=1e-5, atol=1e-6)
    pulled = np.zeros((4, 3))
    np.add.at(pulled, chosen, np.asarray(2 * (e - z) / z.size))
    np.testing.assert_allclose(of_codebook, pulled, rtol=1e-5, atol=1e-6)


def test_with_decay_0_the_moving_codebook_is_k_means():
    centres = normal(4, 4, 2) * 5
    z = (centres[:, None] + normal(5, 4, 50, 2)).reshape(-1, 2)
    quantizer = MovingCodebook(4, 2, decay=0.0, revive=0.0)
    carried = {"codebook": z[:4], "sum": z[:4], "count": jnp.ones(4)}
    first = np.asarray(z[:4])
    move = jax.jit(lambda carried: quantizer.quantize({}, carried, z, KEY, jnp.asarray(0)).carried)
    for _ in range(30):
        carried = move(carried)
    lloyd = KMeans(4, init=first, n_init=1, max_iter=30, tol=0.0).fit(np.asarray(z))
    np.testing.assert_allclose(carried["codebook"], lloyd.cluster_centers_, rtol=1e-4, atol=1e-4)


def test_moving_codebook_matches_the_closed_form_of_its_averages():
    """With constant assignments N = g^t N_0 + (1 - g^t) n, likewise the sums; an unused code is unchanged."""
    z = jnp.asarray([[0.0, 1.0], [0.2, 1.0], [5.0, 5.0]])
    start = jnp.asarray([[0.0, 0.5], [5.0, 4.0], [90.0, 90.0]])
    quantizer = MovingCodebook(3, 2, decay=0.8, revive=0.0)
    carried = {"codebook": start, "sum": 3.0 * start, "count": jnp.full(3, 3.0)}
    for _ in range(5):
        carried = quantizer.quantize({}, carried, z, KEY, jnp.asarray(0)).carried
    old, new = 0.8**5, 1 - 0.8**5
    count = old * 3.0 + new * np.asarray([2.0, 1.0, 0.0])
    total = old * 3.0 * start + new * np.asarray([[0.2, 2.0], [5.0, 5.0], [0.0, 0.0]])
    np.testing.assert_allclose(carried["count"], count, rtol=1e-5)
    np.testing.assert_allclose(carried["codebook"], total / count[:, None], rtol=1e-5)


def test_only_dead_codes_are_reset_to_features():
    z = normal(6, 40, 2)
    start = jnp.asarray([[0.0, 0.0], [70.0, 70.0], [80.0, 80.0]])
    quantizer = MovingCodebook(3, 2, decay=0.5, revive=1.0)
    carried = {"codebook": start, "sum": start, "count": jnp.ones(3)}
    moved = quantizer.quantize({}, carried, z, KEY, jnp.asarray(0)).carried
    np.testing.assert_allclose(moved["codebook"][0], z.sum(0) / 41, atol=1e-5)
    for code in (1, 2):
        assert np.abs(np.asarray(z) - np.asarray(moved["codebook"][code])).sum(1).min() == 0
    assert np.all(np.asarray(moved["count"]) >= 1)


@pytest.mark.parametrize("quantizer", [FSQ((8, 5, 2)), FSQ((3, 4)), LFQ(5)], ids=repr)
def test_scalar_codes_and_indices_are_bijective(quantizer):
    every = jnp.arange(quantizer.values)[:, None]
    points = np.asarray(quantizer.lookup({}, {}, every))
    assert len(np.unique(points, axis=0)) == quantizer.values
    assert np.abs(points).max() <= 1.0
    z = 4.0 * normal(7, 20_000, quantizer.features)
    found = quantizer.quantize({}, {}, z, KEY, None)
    assert len(np.unique(found.codes)) == quantizer.values, "every index occurs"
    np.testing.assert_allclose(points[np.asarray(found.codes)[:, 0]], found.z, atol=1e-6)


def test_fsq_rounds_the_bounded_features_with_their_gradient():
    quantizer, z = FSQ((8, 5)), normal(8, 50, 2)
    middle = jnp.asarray([[4.0, 2.0]])
    np.testing.assert_allclose(
        quantizer.quantize({}, {}, z, KEY, None).z, jnp.round(quantizer.bounded(z)) / middle
    )
    np.testing.assert_allclose(quantizer.bounded(jnp.zeros((1, 2))), 0.0, atol=1e-6)
    through = jax.grad(lambda z: jnp.sum(jnp.sin(z) * quantizer.quantize({}, {}, z, KEY, None).z))(z)
    value = quantizer.quantize({}, {}, z, KEY, None).z
    smooth = jax.grad(lambda z: jnp.sum(jnp.sin(jax.lax.stop_gradient(z)) * quantizer.bounded(z) / middle))(z)
    np.testing.assert_allclose(through, smooth + jnp.cos(z) * value, rtol=1e-5, atol=1e-6)


def test_lfq_entropies_match_enumeration_of_all_codes():
    quantizer, z = LFQ(3, commitment=0.0, entropy=1.0, tau=0.8), normal(9, 7, 3)
    codes = np.asarray(quantizer.lookup({}, {}, jnp.arange(8)[:, None]))
    logits = -((np.asarray(z)[:, None] - codes[None]) ** 2).sum(2) / 0.8
    q = np.exp(logits - logits.max(1, keepdims=True))
    q /= q.sum(1, keepdims=True)
    expected = stats.entropy(q, axis=1).mean() - stats.entropy(q.mean(0))
    assert float(quantizer.quantize({}, {}, z, KEY, None).cost) == pytest.approx(expected, rel=1e-4)


def test_gumbel_samples_the_softmax_and_is_near_one_hot_at_low_temperature():
    logits, num = normal(10, 5), 4000
    z = jnp.broadcast_to(logits, (num, 5))
    quantizer = Gumbel(5, 5, weight=1.0, first=1.0, last=0.01, steps=10)
    params = {"codebook": jnp.eye(5)}
    assert [float(quantizer.temperature(jnp.asarray(s))) for s in (0, 5, 10, 99)] == pytest.approx(
        [1.0, 0.1, 0.01, 0.01]
    )
    at = lambda quantizer, step: quantizer.quantize(params, {}, z, KEY, jnp.asarray(step))
    soft, cold = at(quantizer, 0), at(quantizer, 10)
    p = np.asarray(jax.nn.softmax(logits), np.float64)
    counts = np.bincount(np.asarray(soft.codes)[:, 0], minlength=5)
    assert stats.chisquare(counts, p / p.sum() * num).pvalue > 1e-3
    assert float(soft.cost) == pytest.approx(np.log(5) - stats.entropy(p), abs=1e-5)
    sharp = jnp.max(cold.z, axis=1)
    assert float(jnp.mean(sharp > 0.95)) > 0.95 > float(jnp.mean(jnp.max(soft.z, axis=1) > 0.95))
    hard = at(Gumbel(5, 5, hard=True), 0)
    np.testing.assert_allclose(hard.z, jax.nn.one_hot(hard.codes[:, 0], 5), atol=1e-6)


def test_residual_stages_reduce_the_error_and_pass_the_gradient_once():
    z = normal(11, 300, 3)
    errors = []
    for depth in (1, 2, 4):
        quantizer = Residual(Codebook(16, 3), depth)
        params, _ = quantizer.init(KEY, z)
        given, back = jax.vjp(lambda z, q=quantizer, p=params: q.quantize(p, {}, z, KEY, None).z, z)
        errors.append(float(jnp.mean((given - z) ** 2)))
        np.testing.assert_allclose(back(jnp.ones_like(z))[0], 1.0, atol=1e-6)
    assert errors[2] < 0.5 * errors[1] < 0.25 * errors[0]


def test_perplexity_counts_equally_used_codes():
    assert float(perplexity(usage(jnp.arange(8) % 4, 16))) == pytest.approx(4.0, rel=1e-5)
    np.testing.assert_allclose(usage(jnp.asarray([[0, 0], [1, 3]]), 4), [0.5, 0.25, 0.0, 0.25])
