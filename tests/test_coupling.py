"""Couplings of data and noise against the assignment solver of scipy and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from scipy.optimize import linear_sum_assignment

from genjax.core.errors import UserError
from genjax.diffusion.coupling import Independent, MinibatchOT, Sinkhorn, costs

KEY = jax.random.key(0)
SIZE = 48
exact = jax.jit(MinibatchOT().pair)


def batch(seed: int, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.RandomState(seed)
    return 0.5 * rng.randn(*shape).astype(np.float32) + 0.3, rng.randn(*shape).astype(np.float32)


def squared(x0: np.ndarray, eps: np.ndarray) -> np.ndarray:
    """Squared distances [b, b], dimensions averaged, by subtraction in float64."""
    difference = x0.astype(np.float64)[:, None] - eps.astype(np.float64)[None]
    return np.mean(difference.reshape(len(x0), len(eps), -1) ** 2, axis=-1)


@pytest.mark.parametrize("shape", [(SIZE, 2), (SIZE, 3, 2, 1)], ids=str)
def test_exact_coupling_is_the_optimal_assignment(shape):
    """The costs are the squared distances; the permutation is scipy's, with x0 in place."""
    for seed in range(3):
        x0, eps = batch(seed, shape)
        distance = squared(x0, eps)
        np.testing.assert_allclose(costs(jnp.asarray(x0), jnp.asarray(eps)), distance, atol=3e-6)
        _, order = linear_sum_assignment(distance)
        np.testing.assert_array_equal(exact(KEY, x0, eps), eps[order])
        assert not np.array_equal(order, np.arange(SIZE))
        np.testing.assert_array_equal(Independent().pair(KEY, jnp.asarray(x0), jnp.asarray(eps)), eps)


def test_optimal_coupling_in_one_dimension_is_sorted():
    x0, eps = batch(3, (SIZE, 1))
    paired = np.asarray(exact(KEY, x0, eps))[:, 0]
    ranks = lambda values: np.argsort(np.argsort(values))
    np.testing.assert_array_equal(ranks(paired), ranks(x0[:, 0]))
    np.testing.assert_array_equal(np.sort(paired), np.sort(eps[:, 0]))


def test_noise_is_permuted_within_equal_conditions():
    """With conditions the permutation is scipy's within each class, so that no noise crosses classes."""
    x0, eps = batch(4, (SIZE, 2))
    label = np.random.RandomState(1).randint(3, size=SIZE)
    x0 = x0 + 3.0 * label[:, None].astype(np.float32)
    paired = np.asarray(exact(KEY, x0, eps, np.eye(3, dtype=np.float32)[label]))
    for value in range(3):
        mine = label == value
        _, order = linear_sum_assignment(squared(x0[mine], eps[mine]))
        np.testing.assert_array_equal(paired[mine], eps[mine][order])
    drawn = jax.jit(Sinkhorn().pair)(KEY, x0, eps, np.eye(3, dtype=np.float32)[label])
    for value in range(3):
        assert {*np.asarray(drawn)[label == value, 0]} <= {*eps[label == value, 0]}


def test_the_plan_is_entropic_optimal_transport():
    """Marginals, the scaling form log P = f + g - c / reg, costs within reg log b of the least, and reg -> infinity."""
    x0, eps = batch(5, (SIZE, 2))
    cost = costs(jnp.asarray(x0), jnp.asarray(eps))
    plan = lambda reg, iterations: np.asarray(Sinkhorn(reg, iterations).log_plan(cost), np.float64)
    smooth = plan(0.5, 200)
    np.testing.assert_allclose(np.exp(smooth).sum(axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(np.exp(smooth).sum(axis=0), 1.0, atol=1e-4)
    scaled = smooth + np.asarray(cost, np.float64) / 0.5  # f_i + g_j: of rank one in differences
    rest = scaled - scaled[:, :1] - scaled[:1] + scaled[0, 0]
    np.testing.assert_allclose(rest, 0.0, atol=1e-4)
    distance = squared(x0, eps)
    least = np.mean(distance[linear_sum_assignment(distance)])
    for reg in (0.1, 0.02):
        gap = np.mean(np.sum(np.exp(plan(reg, 2000)) * distance, axis=1)) - least
        assert 0.0 < gap < reg * np.log(SIZE)
    np.testing.assert_allclose(plan(1e4, 10), -np.log(SIZE), atol=2e-3)


def test_draws_follow_the_plan():
    """Frequencies of row i's partner over many keys are row i of the plan, within 5 standard errors."""
    x0, eps = (jnp.asarray(value[:6]) for value in batch(6, (SIZE, 2)))
    coupling, num = Sinkhorn(reg=0.5), 4_000
    plan = np.exp(np.asarray(coupling.log_plan(costs(x0, eps)), np.float64))
    keys = jax.random.split(jax.random.key(1), num)
    drawn = np.asarray(jax.jit(jax.vmap(lambda key: coupling.pair(key, x0, eps)))(keys))
    seen = np.mean(drawn[:, :, None, 0] == np.asarray(eps)[None, None, :, 0], axis=0)
    assert np.all(np.abs(seen - plan) < 5 * np.sqrt(plan * (1 - plan) / num) + 1e-4)


def test_coupling_reduces_the_variance_of_velocities():
    """Var[x1 - x0 | x_1/2] from N(0.3, 0.5^2) to N(0, 1): known if independent, smaller if optimally coupled."""
    ours = jax.jit(jax.vmap(MinibatchOT().pair, (None, 0, 0)))
    x0, eps = batch(7, (200, SIZE, 1))

    def unexplained(x1: np.ndarray) -> float:
        x, v = 0.5 * (x0 + x1).ravel(), (x1 - x0).ravel()
        return float(np.var(v) * (1 - np.corrcoef(x, v)[0, 1] ** 2))

    before, after = 0.25, 1.0  # variances of data and of noise
    known = before + after - (0.5 * after - 0.5 * before) ** 2 / (0.25 * (before + after))
    assert abs(unexplained(eps) / known - 1) < 5 * np.sqrt(2 / x0.size)
    assert unexplained(np.asarray(ours(KEY, x0, eps))) < 0.1 * known


def test_sharded_batches_are_paired_as_a_whole():
    x0, eps = batch(8, (SIZE, 2))
    split = NamedSharding(Mesh(np.array(jax.devices()), ("data",)), PartitionSpec("data"))
    sharded = jax.jit(MinibatchOT().pair, in_shardings=(None, split, split), out_shardings=split)
    np.testing.assert_array_equal(sharded(KEY, x0, eps), exact(KEY, x0, eps))


def test_sinkhorn_without_regularization_raises():
    with pytest.raises(UserError, match="reg=0"):
        Sinkhorn(reg=0.0)
