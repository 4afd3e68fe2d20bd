"""Fréchet distance and kernel MMD against closed forms and independent formulas."""

import numpy as np
import pytest
from scipy.linalg import sqrtm

from genjax.core.errors import UserError
from genjax.metrics.distances.frechet import Moments, frechet
from genjax.metrics.distances.mmd import RBF, Polynomial, kernel_mmd


def gaussian(mean, covariance, count=11):
    return Moments(count, np.asarray(mean, np.float64), np.asarray(covariance, np.float64) * (count - 1))


def rows(seed, n, d):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + rng.normal(size=d)


def test_stream_and_merge_equal_the_whole_set():
    x = rows(0, 1000, 7) * 3.0 + 1000.0
    streamed = Moments.of_stream(np.split(x, [1, 17, 500]))
    merged = Moments.of(x[600:]).merge(Moments.of(x[:300]).add(x[300:600]))
    for moments in (streamed, merged):
        assert moments.count == 1000
        np.testing.assert_allclose(moments.mean, x.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(moments.covariance, np.cov(x, rowvar=False), rtol=1e-9, atol=1e-9)


def test_float32_input_loses_nothing_beyond_its_own_rounding():
    x = (rows(1, 400, 3) + 1e4).astype(np.float32)
    np.testing.assert_allclose(
        Moments.of(x).covariance, np.cov(x.astype(np.float64), rowvar=False), rtol=1e-9
    )


def test_frechet_of_diagonal_gaussians():
    value = frechet(gaussian([1, 2, 3], np.diag([4, 9, 0])), gaussian([0, 2, 5], np.diag([1, 25, 16])))
    assert value == pytest.approx((1 + 0 + 4) + (2 - 1) ** 2 + (3 - 5) ** 2 + (0 - 4) ** 2, rel=1e-12)


def test_frechet_of_covariances_that_do_not_commute():
    """For 2 x 2 matrices tr (AB)^{1/2} = sqrt(tr AB + 2 sqrt(det AB))."""
    a, b = np.array([[2.0, 1.0], [1.0, 1.0]]), np.array([[1.0, -0.5], [-0.5, 3.0]])
    root = np.sqrt(np.trace(a @ b) + 2 * np.sqrt(np.linalg.det(a @ b)))
    value = frechet(gaussian([0, 0], a), gaussian([0, 0], b))
    assert value == pytest.approx(np.trace(a) + np.trace(b) - 2 * root, rel=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_frechet_equals_the_formula_with_scipys_sqrtm(seed):
    x, y = rows(seed, 300, 12), rows(seed + 10, 200, 12)
    c, d = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    shift = x.mean(axis=0) - y.mean(axis=0)
    expected = shift @ shift + np.trace(c + d - 2 * np.real(sqrtm(c @ d)))
    assert frechet(Moments.of(x), Moments.of(y)) == pytest.approx(expected, rel=1e-9)


def test_frechet_of_fewer_examples_than_dimensions():
    """With rank-deficient C = A^T A / (n - 1), the root's trace is the nuclear norm of A_x A_y^T / (n - 1)."""
    x, y = rows(0, 9, 30), rows(1, 9, 30)
    a, b = x - x.mean(axis=0), y - y.mean(axis=0)
    shift = x.mean(axis=0) - y.mean(axis=0)
    root = np.linalg.norm(a @ b.T, "nuc")
    expected = shift @ shift + ((a**2).sum() + (b**2).sum() - 2 * root) / 8
    assert frechet(Moments.of(x), Moments.of(y)) == pytest.approx(expected, rel=1e-9)


def test_frechet_is_symmetric_and_zero_for_equal_moments():
    a, b = Moments.of(rows(0, 50, 8)), Moments.of(rows(1, 60, 8))
    assert frechet(a, b) == pytest.approx(frechet(b, a), rel=1e-10)
    assert 0.0 <= frechet(a, a) < 1e-10 * np.trace(a.covariance)


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_polynomial_mmd_equals_its_moment_expression(degree):
    """(g <x, y> + c)^p is an inner product of tensor powers, so sums over pairs are norms of sums."""
    x, y = rows(0, 23, 3), rows(1, 31, 3)
    kernel = Polynomial(degree, gamma=0.3, offset=0.7)

    def lift(z):  # features of the kernel: the p-th tensor power of (sqrt(g) z, sqrt(c))
        base = np.concatenate([np.sqrt(0.3) * z, np.full((len(z), 1), np.sqrt(0.7))], axis=1)
        power = np.ones((len(z), 1))
        for _ in range(degree):
            power = np.einsum("ni,nj->nij", power, base).reshape(len(z), -1)
        return power

    def within(z):
        total = z.sum(axis=0)
        return (total @ total - (z**2).sum()) / (len(z) * (len(z) - 1))

    u, v = lift(x), lift(y)
    expected = within(u) + within(v) - 2 * u.mean(axis=0) @ v.mean(axis=0)
    assert kernel_mmd(x, y, kernel) == pytest.approx(expected, rel=1e-9)


def test_default_kernel_is_kids():
    x, y = rows(0, 5, 4), rows(1, 6, 4)
    np.testing.assert_allclose(Polynomial()(x, y), (x @ y.T / 4 + 1) ** 3, rtol=1e-12)


@pytest.mark.parametrize("kernel", [Polynomial(), RBF((0.5, 2.0))])
def test_mmd_does_not_depend_on_chunks(kernel):
    x, y = rows(0, 37, 4), rows(1, 50, 4)
    assert kernel_mmd(x, y, kernel, chunk=8) == pytest.approx(kernel_mmd(x, y, kernel, chunk=1000), rel=1e-10)


@pytest.mark.parametrize("kernel", [Polynomial(), RBF((0.5, 2.0))])
def test_mmd_of_one_distribution_is_zero_on_average(kernel):
    rng = np.random.default_rng(0)
    draws = [kernel_mmd(rng.normal(size=(8, 2)), rng.normal(size=(11, 2)), kernel) for _ in range(1500)]
    assert abs(np.mean(draws)) < 4 * np.std(draws) / np.sqrt(len(draws))
    assert min(draws) < 0.0


def test_rbf_mmd_has_the_expectation_of_two_gaussians():
    """E k(x, y) = sqrt(h^2 / v) exp(-(m_x - m_y)^2 / (2 v)), v = h^2 + s_x^2 + s_y^2, in one dimension."""
    h, (m, s), (q, r) = 0.8, (0.0, 1.0), (1.5, 0.5)

    def mean(a, b, gap):
        v = h * h + a * a + b * b
        return np.sqrt(h * h / v) * np.exp(-gap * gap / (2 * v))

    rng = np.random.default_rng(1)
    draws = [
        kernel_mmd(m + s * rng.normal(size=(20, 1)), q + r * rng.normal(size=(15, 1)), RBF((h,)))
        for _ in range(800)
    ]
    expected = mean(s, s, 0.0) + mean(r, r, 0.0) - 2 * mean(s, r, m - q)
    assert abs(np.mean(draws) - expected) < 4 * np.std(draws) / np.sqrt(len(draws))


def test_median_bandwidths_scale_with_the_data():
    x = rows(0, 60, 3)
    pairs = [np.linalg.norm(a - b) for i, a in enumerate(x) for b in x[:i]]
    assert RBF.median(x, (0.5, 1.0)).bandwidths == pytest.approx((np.median(pairs) / 2, np.median(pairs)))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Moments.of(np.zeros((1, 3))).covariance,
        lambda: Moments.of_stream([]),
        lambda: frechet(Moments.of(rows(0, 9, 2)), Moments.of(rows(0, 9, 3))),
        lambda: kernel_mmd(rows(0, 1, 2), rows(0, 9, 2)),
        lambda: RBF.median(np.ones((9, 2))),
    ],
)
def test_wrong_input_is_one_line(wrong):
    with pytest.raises(UserError, match=r"\A[^\n]+\Z"):
        wrong()
