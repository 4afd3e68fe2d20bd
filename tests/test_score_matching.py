"""Score matching at noise levels: NCSN's loss, Hyvarinen's loss, its sliced estimates, and their relations."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import CorrelatedData
from tiny import Affine, Tiny

from genjax.core.errors import UserError
from genjax.core.objective import Context
from genjax.core.types import named
from genjax.diffusion.coupling import MinibatchOT
from genjax.diffusion.ode_likelihood import basis
from genjax.diffusion.prediction import Eps, Score
from genjax.diffusion.process import VE
from genjax.diffusion.times import DiscreteTimes, UniformTimes
from genjax.diffusion.weighting import OnEps, Unit
from genjax.objectives.diffusion.diffusion import Diffusion
from genjax.objectives.diffusion.score_matching import SlicedScoreMatching, hyvarinen
from genjax.samplers.grids import LogSNR, Uniform
from genjax.samplers.langevin import AnnealedLangevin

pytestmark = pytest.mark.optimised

CONTEXT = Context(key=jax.random.key(5), step=jnp.zeros((), jnp.int32))
LEVELS = VE(sigma_min=0.1, sigma_max=4.0)
POINTS = jax.random.normal(jax.random.key(0), (32, 2)) * jnp.asarray([[1.0, 0.3]])


def draws(times, process, x0):
    """The random draws of a loss: t, eps, x_t."""
    t = times.draw(process, named(CONTEXT.key, "times"), len(x0))
    eps = jax.random.normal(named(CONTEXT.key, "noise"), x0.shape)
    return t, eps, x0 + process.sigma(t)[:, None] * eps


def test_discrete_times_are_even_and_on_the_levels():
    """Each level equally often, DDPM's i / T and NCSN's geometric sigmas; another key, another order."""
    draw = lambda times, seed: np.asarray(times.draw(LEVELS, jax.random.key(seed), 40))
    for times, levels in (
        (DiscreteTimes(8, low=1 / 8), np.arange(1, 9) / 8),
        (DiscreteTimes(10, low=0.0), np.arange(10) / 9),
    ):
        for seed in range(3):
            near = np.argmin(np.abs(draw(times, seed)[:, None] - levels[None]), axis=1)
            np.testing.assert_allclose(draw(times, seed), levels[near], rtol=1e-6, atol=1e-7)
            counts = np.bincount(near, minlength=len(levels))
            assert counts.sum() == 40
            assert np.all(np.abs(counts - 40 / len(levels)) <= 1)
    drawn = DiscreteTimes(10, low=0.0).draw(LEVELS, jax.random.key(0), 40)
    sigma = np.unique(np.asarray(LEVELS.sigma(drawn)).round(5))
    np.testing.assert_allclose(sigma, 0.1 * 40.0 ** (np.arange(10) / 9), rtol=1e-4)
    grid = AnnealedLangevin(steps=9, grid=LogSNR(1.0, 0.0)).times(LEVELS)
    np.testing.assert_allclose(LEVELS.sigma(grid)[::-1], sigma, rtol=1e-4)
    with pytest.raises(UserError, match="levels=1"):
        DiscreteTimes(1)


def test_diffusion_at_discrete_levels_is_ncsn():
    """1/2 E sigma^2 |s(x_t) + (x_t - x) / sigma^2|^2 (Song & Ermon 2019, eq. 5-6) on the same draws, times 2 / d."""
    times = DiscreteTimes(10, low=0.0)
    ours = Diffusion(Tiny(), (2,), process=LEVELS, predict=Score(), times=times, weight=OnEps())
    params, _ = jax.jit(ours.init)(jax.random.key(1), {"x": POINTS})
    loss, _ = ours.loss(params, {}, {"x": POINTS}, CONTEXT)
    t, _, x = draws(times, LEVELS, POINTS)
    sigma = 0.1 * 40.0 ** np.asarray(t, np.float64)[:, None]
    s = np.asarray(Tiny().apply(params["net"], x, t, out=(2,)), np.float64)
    each = 0.5 * np.sum((s + (np.asarray(x) - np.asarray(POINTS)) / sigma**2) ** 2, axis=1)
    np.testing.assert_allclose(loss, 2.0 / 2 * np.mean(sigma[:, 0] ** 2 * each), rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "predict", [Score(), pytest.param(Eps(), marks=pytest.mark.slow)], ids=lambda kind: type(kind).__name__
)
def test_exact_loss_is_hyvarinens(predict):
    """Against an explicit Jacobian, with the weight on the score's error for every parameterization."""
    times = DiscreteTimes(4, low=0.0)
    ours = SlicedScoreMatching(Tiny(), (2,), process=LEVELS, predict=predict, times=times, trace="exact")
    params, _ = jax.jit(ours.init)(jax.random.key(1), {"x": POINTS})
    loss, _ = jax.jit(ours.loss)(params, {}, {"x": POINTS}, CONTEXT)
    t, _, x = draws(times, LEVELS, POINTS)

    def model(x, t):
        out = Tiny().apply(params["net"], x[None], t[None], out=(2,))[0]
        return out if isinstance(predict, Score) else -out / LEVELS.sigma(t)

    s, jacobian = jax.vmap(model)(x, t), jax.vmap(jax.jacfwd(model))(x, t)
    each = 2.0 * jnp.trace(jacobian, axis1=1, axis2=2) + jnp.sum(s**2, axis=1)
    np.testing.assert_allclose(loss, jnp.mean(LEVELS.sigma(t) ** 2 * each) / 2, rtol=1e-4)


def field(x):
    """A smooth vector field that is not a gradient."""
    mix = jnp.asarray([[0.7, -0.4], [1.1, 0.3]], x.dtype)
    return jnp.tanh(x @ mix) - 0.5 * x * jnp.sum(x**2, axis=1, keepdims=True)


@pytest.mark.slow
def test_projections_average_to_hyvarinens_loss():
    """All four sign vectors of the plane, enumerated; a single one differs, and by less with reduced variance."""
    with jax.enable_x64(True):
        x = jnp.asarray(np.random.RandomState(0).randn(16, 2))
        exact = hyvarinen(field, x, basis(x), "exact")
        signs = jnp.asarray(list(itertools.product((-1.0, 1.0), repeat=2)))[:, None, :]
        variance = {}
        for trace in ("sliced", "reduced"):
            np.testing.assert_allclose(hyvarinen(field, x, signs, trace), exact, rtol=1e-12)
            alone = jnp.stack([hyvarinen(field, x, sign[None], trace) for sign in signs])
            variance[trace] = float(jnp.mean(jnp.var(alone, axis=0)))
        assert 0.1 < variance["reduced"] < variance["sliced"]


@pytest.mark.slow
def test_sliced_and_denoising_losses_differ_by_a_constant():
    """E_eps |s + eps / sigma|^2 - E_eps [2 tr J + |s|^2] = d / sigma^2 for any s, by Gauss-Hermite quadrature."""
    with jax.enable_x64(True):
        nodes, weights = np.polynomial.hermite_e.hermegauss(40)
        eps = np.stack([grid.ravel() for grid in np.meshgrid(nodes, nodes)], axis=1)
        share = np.outer(weights, weights).ravel() / (2 * np.pi)
        for x0, sigma in (([0.2, -0.4], 0.3), ([1.0, 0.5], 0.6)):
            x = jnp.asarray(np.array(x0)[None] + sigma * eps)
            denoising = np.sum((np.asarray(field(x)) + eps / sigma) ** 2, axis=1)
            implicit = np.asarray(hyvarinen(field, x, basis(x), "exact"))
            np.testing.assert_allclose(share @ (denoising - implicit), 2 / sigma**2, rtol=1e-8)


def test_both_losses_have_the_same_gradient_in_expectation():
    """The objectives themselves, mean of 300 draws at two levels: gradients agree within 5 standard errors."""
    common = dict(process=VE(0.5, 2.0), predict=Score(), times=DiscreteTimes(2, low=0.0), weight=OnEps())
    losses = [Diffusion(Tiny(), (2,), **common).loss, SlicedScoreMatching(Tiny(), (2,), **common).loss]
    params, _ = jax.jit(Diffusion(Tiny(), (2,)).init)(jax.random.key(1), {"x": POINTS})

    @jax.jit
    def gradients(keys):
        context = lambda key: Context(key=key, step=jnp.zeros((), jnp.int32))
        of = lambda loss, key: jax.grad(lambda p: loss(p, {}, {"x": POINTS}, context(key))[0])(params)
        flat = lambda loss, key: jax.flatten_util.ravel_pytree(of(loss, key))[0]
        return jax.lax.map(lambda key: jnp.stack([flat(loss, key) for loss in losses]), keys)

    both = np.asarray(gradients(jax.random.split(jax.random.key(2), 300)), np.float64)
    mean, error = both.mean(axis=0), both.std(axis=0) / np.sqrt(len(both))
    bound = 5 * np.hypot(*error) + 1e-4
    assert np.all(np.abs(mean[0] - mean[1]) < bound)
    assert np.mean(np.abs(mean[0]) > bound) > 0.2  # else the comparison is vacuous


def test_gaussian_data_and_an_affine_model_have_a_closed_form():
    """The minimiser on perturbed points is A = -C^-1, c = C^-1 m of these points; it is the only stationary point."""
    process, times = VE(0.2, 2.0), UniformTimes(0.0, 0.0)
    x0 = POINTS @ jnp.asarray(CorrelatedData().rows).T + 0.4
    ours = SlicedScoreMatching(
        Affine(), (2,), process=process, predict=Score(), times=times, weight=Unit(), trace="exact"
    )
    x = np.asarray(draws(times, process, x0)[2], np.float64)
    precision = np.linalg.inv(np.cov(x.T, bias=True))
    best = {"kernel": -precision.T, "bias": precision @ x.mean(axis=0)}
    best = {"net": {"params": {"Dense_0": jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), best)}}}
    loss = lambda params: ours.loss(params, {}, {"x": x0}, CONTEXT)[0]
    value, slope = jax.jit(jax.value_and_grad(loss))(best)
    assert max(float(jnp.max(jnp.abs(leaf))) for leaf in jax.tree.leaves(slope)) < 1e-4
    np.testing.assert_allclose(value, -np.trace(precision) / 2, rtol=1e-4)


def test_samples_follow_the_score_at_one_level():
    """With the closed-form score of N(0, A A^T) Langevin dynamics at the lowest level samples that distribution."""
    covariance = CorrelatedData().covariance
    ours = SlicedScoreMatching(
        Affine(),
        (2,),
        process=VE(0.1, 1.0),
        predict=Score(),
        sampler=AnnealedLangevin(steps=1, grid=Uniform(), inner=800, step_size=0.5),
    )
    leaf = {"kernel": jnp.asarray(-np.linalg.inv(covariance), jnp.float32), "bias": jnp.zeros(2)}
    params = {"net": {"params": {"Dense_0": leaf}}}
    x = np.asarray(jax.jit(lambda key: ours.sample(params, {}, key, 10_000))(jax.random.key(3)), np.float64)
    bias = np.linalg.inv(np.eye(2) - 0.0025 * np.linalg.inv(covariance))  # of the step 0.5 sigma^2 = 0.005
    np.testing.assert_allclose(np.cov(x.T), covariance @ bias, atol=5 * 0.4 * np.sqrt(2 / len(x)))
    np.testing.assert_allclose(x.mean(axis=0), 0.0, atol=5 * 0.6 / np.sqrt(len(x)))


def test_unsupported_settings_raise():
    with pytest.raises(UserError, match="probes=0"):
        SlicedScoreMatching(Tiny(), (2,), probes=0)
    with pytest.raises(UserError, match="independent noise"):
        SlicedScoreMatching(Tiny(), (2,), coupling=MinibatchOT())
    assert dataclasses.replace(SlicedScoreMatching(Tiny(), (2,)), trace="exact").log_prob_kind == ""
