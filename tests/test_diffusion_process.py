"""Processes against the formulas of their papers, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from genjax.diffusion.process import EDM, VE, VP, Cosine, RectifiedFlow, SubVP, Trigonometric
from genjax.diffusion.tables import discretise

ALL = [VP(), SubVP(), Cosine(), VE(), EDM(), RectifiedFlow(), Trigonometric()]
PRESERVING = [VP(), Cosine(), Trigonometric()]
name = lambda process: type(process).__name__


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def test_subvp_is_the_paper_s_sde():
    """dx = -beta x dt / 2 + sqrt(beta (1 - exp(-2 B))) dw, B the integral of beta, and less noise than VP."""
    process, t = SubVP(), np.linspace(0.01, 1.0, 34)
    beta = 0.1 + 19.9 * t
    total = np.array([integrate.quad(lambda u: 0.1 + 19.9 * u, 0.0, end)[0] for end in t])
    np.testing.assert_allclose(process.drift(jnp.asarray(t)), -0.5 * beta, rtol=1e-10)
    squared = process.diffusion_squared(jnp.asarray(t))
    np.testing.assert_allclose(squared, beta * (1 - np.exp(-2 * total)), rtol=1e-9)
    vp = VP().sigma(jnp.asarray(t))
    np.testing.assert_allclose(process.sigma(jnp.asarray(t)), vp**2, rtol=1e-12)


@pytest.mark.parametrize("process", PRESERVING, ids=name)
def test_variance_is_preserved(process):
    t = jnp.linspace(0.0, 1.0, 101)
    np.testing.assert_allclose(process.alpha(t) ** 2 + process.sigma(t) ** 2, 1.0, rtol=1e-13)


@pytest.mark.parametrize("process", ALL, ids=name)
def test_ends_of_time(process):
    """alpha(0) = 1; the signal-to-noise ratio decreases; noise at t = 0 only where sigma_min > 0."""
    assert float(process.alpha(jnp.asarray(0.0))) == 1.0
    assert (np.diff(process.log_snr(jnp.linspace(0.0, 1.0, 400)[1:-1])) < 0).all()
    assert float(process.sigma(jnp.asarray(0.0))) == pytest.approx(getattr(process, "sigma_min", 0.0))
    assert float(process.sigma(jnp.asarray(1.0))) == pytest.approx(
        getattr(process, "sigma_max", 1.0), rel=1e-4
    )


def test_cosine_is_the_paper_s_curve():
    """alpha_bar = f(t) / f(0), f = cos^2((t + s) / (1 + s) pi / 2), and `alpha_end` only shortens the arc."""
    t, s = np.linspace(0.0, 0.99, 100), 0.008
    f = lambda t: np.cos((t + s) / (1 + s) * np.pi / 2) ** 2
    np.testing.assert_allclose(Cosine(alpha_end=0.0).alpha(jnp.asarray(t)) ** 2, f(t) / f(0), rtol=1e-11)
    assert float(Cosine().alpha(jnp.asarray(1.0))) == pytest.approx(1e-3, rel=1e-9)
    shrunk = 1 - 2 * (1 + s) / np.pi * np.arcsin(1e-3 * np.sqrt(f(0)))
    longer = Cosine(alpha_end=0.0).alpha(jnp.asarray(t * shrunk))
    np.testing.assert_allclose(Cosine().alpha(jnp.asarray(t)), longer, rtol=1e-11)


def test_cosine_without_offset_is_the_quarter_circle():
    t = jnp.linspace(0.01, 0.99, 50)
    whole = Cosine(offset=0.0, alpha_end=0.0)
    np.testing.assert_allclose(whole.alpha(t), Trigonometric().alpha(t), rtol=1e-12)
    np.testing.assert_allclose(whole.sigma(t), Trigonometric().sigma(t), rtol=1e-12)


def test_edm_has_karras_levels_between_linear_and_geometric():
    n, low, high, rho = 18, 0.002, 80.0, 7.0
    steps = np.arange(n)
    levels = (high ** (1 / rho) + steps / (n - 1) * (low ** (1 / rho) - high ** (1 / rho))) ** rho
    np.testing.assert_allclose(EDM().sigma(jnp.linspace(1.0, 0.0, n)), levels, rtol=1e-12)
    t = jnp.linspace(0.0, 1.0, 21)
    np.testing.assert_allclose(EDM(rho=1.0).sigma(t), low + (high - low) * t, rtol=1e-12)
    np.testing.assert_allclose(EDM(rho=1e7).sigma(t), VE(low, high).sigma(t), rtol=1e-4)


@pytest.mark.parametrize("process", ALL, ids=name)
def test_time_at_inverts_log_snr(process):
    t = jnp.linspace(0.001, 0.999, 57)
    np.testing.assert_allclose(process.time_at(process.log_snr(t)), t, atol=1e-12)
    np.testing.assert_allclose(process.time_at(jnp.asarray([1e6, -1e6])), [0.0, 1.0], atol=1e-12)


def test_log_prior_is_scipy_s():
    x, t = jax.random.normal(jax.random.key(0), (5, 3, 2)), jnp.asarray(0.4)
    expected = stats.norm(0, float(VE().sigma(t))).logpdf(np.asarray(x)).sum(axis=(1, 2))
    np.testing.assert_allclose(VE().log_prior(x, t), expected, rtol=1e-12)


@pytest.mark.parametrize("process", ALL, ids=name)
def test_prior_kl_matches_quadrature_and_is_small(process):
    """KL(N(m, s^2) || N(0, s^2)) by quadrature; at t = 1 at most 2e-4 nats per dimension for ||x_0||^2 = d."""
    t, x0 = jnp.asarray(0.7), jnp.asarray([[0.3], [-1.1]])
    sigma, means = float(process.sigma(t)), np.asarray(process.alpha(t) * x0)[:, 0]
    for gap, mean in zip(process.prior_kl(x0, t), means, strict=True):
        z, h = np.linspace(-9, 9, 2001, retstep=True)
        q = stats.norm(mean, sigma)
        x = mean + sigma * z
        expected = np.sum(q.pdf(x) * (q.logpdf(x) - stats.norm(0, sigma).logpdf(x))) * h * sigma
        assert float(gap) == pytest.approx(expected, rel=1e-6)
    assert float(process.prior_kl(jnp.ones((1, 1)), jnp.asarray(1.0))[0]) <= 2.1e-4


def test_tables_are_ddpm_s():
    """With beta = 1 - exp(-integral of beta(t)) over each step, the tables of VP, and cumulative products."""
    steps = 250
    tables = discretise(VP(), steps)
    ends = np.arange(steps + 1) / steps
    total = 0.1 * ends + 0.5 * 19.9 * ends**2
    np.testing.assert_allclose(tables.beta, -np.expm1(-np.diff(total)), rtol=1e-10)
    np.testing.assert_allclose(tables.alpha_bar, np.exp(-total[1:]), rtol=1e-10)
    assert tables.beta.dtype == tables.alpha_bar.dtype == np.float64


def test_cosine_tables_are_clipped_as_in_the_paper():
    steps, s = 1000, 0.008
    f = lambda t: np.cos((t + s) / (1 + s) * np.pi / 2) ** 2
    t = np.arange(steps + 1) / steps
    beta = np.minimum(1 - f(t[1:]) / f(t[:-1]), 0.999)
    tables = discretise(Cosine(alpha_end=0.0), steps)
    np.testing.assert_allclose(tables.beta, beta, rtol=1e-8)
    assert tables.beta[-1] == 0.999
    assert tables.alpha_bar[-1] > 0


@pytest.mark.parametrize("process", ALL, ids=name)
def test_tables_match_the_posterior(process):
    """q(x_{i-1} | x_i, x_0) by Gaussian conditioning of the pair (x_{i-1}, x_i) given x_0."""
    tables = discretise(process, 20)
    before, beta, after = tables.alpha_bar_before, tables.beta, tables.alpha_bar
    t = jnp.arange(1, 20) / 20
    ratio = (process.alpha(t) / process.sigma(t)) ** 2
    np.testing.assert_allclose(after[:-1], ratio / (1 + ratio), rtol=1e-10)
    cross = np.sqrt(1 - beta) * (1 - before)
    slope = cross / (1 - after)
    np.testing.assert_allclose(tables.variance, (1 - before) - slope * cross, rtol=1e-6, atol=1e-12)
    of_x0, of_x = tables.coefficients
    np.testing.assert_allclose(of_x, slope, rtol=1e-9)
    np.testing.assert_allclose(of_x0, np.sqrt(before) - slope * np.sqrt(after), rtol=1e-6, atol=1e-12)
