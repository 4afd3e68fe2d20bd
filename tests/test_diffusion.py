"""Processes, parameterizations, guidance: identities that hold to rounding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import GaussianData

from genjax.diffusion import guidance, prediction, threshold
from genjax.diffusion.process import EDM, VE, VP, Cosine, RectifiedFlow, SubVP, Trigonometric, expand
from genjax.diffusion.times import UniformTimes
from genjax.objectives.diffusion.diffusion import Diffusion
from genjax.training.step import Context

PROCESSES = [
    VP(),
    VP(beta_min=0.5, beta_max=5.0),
    SubVP(),
    Cosine(),
    VE(),
    EDM(),
    RectifiedFlow(),
    Trigonometric(),
]
PARAMETERIZATIONS = [
    prediction.Eps(),
    prediction.X0(),
    prediction.V(),
    prediction.Velocity(),
    prediction.Score(),
    prediction.Preconditioned(0.5),
]


@pytest.mark.parametrize("process", PROCESSES, ids=str)
def test_drift_and_diffusion_carry_the_marginals(process):
    """Moments of dx = f x dt + g dw follow m' = f m, v' = 2 f v + g^2; ours are alpha m_0, sigma^2 + alpha^2 v_0."""
    with jax.enable_x64(True):
        t = jnp.linspace(0.05, 0.95, 19)
        h = 1e-6
        alpha, alpha_rate = process.alpha(t), (process.alpha(t + h) - process.alpha(t - h)) / (2 * h)
        np.testing.assert_allclose(process.drift(t) * alpha, alpha_rate, rtol=1e-6, atol=1e-8)
        spread = lambda u: 0.3 * process.alpha(u) ** 2 + process.sigma(u) ** 2
        rate = (spread(t + h) - spread(t - h)) / (2 * h)
        expected = 2 * process.drift(t) * spread(t) + process.diffusion_squared(t)
        np.testing.assert_allclose(expected, rate, rtol=1e-6, atol=1e-8)


def test_vp_is_the_limit_of_ddpm():
    """With beta_i = beta(i / N) / N, DDPM's cumulative product tends to alpha(t)^2 like 1 / N."""
    process, errors = VP(), []
    for steps in (1000, 2000):
        beta = np.linspace(0.1, 20.0, steps + 1)[1:] / steps
        alpha_bar = np.cumprod(1 - beta)
        t = np.arange(1, steps + 1) / steps
        errors.append(np.max(np.abs(alpha_bar - np.asarray(process.alpha(jnp.asarray(t))) ** 2)))
    assert errors[0] < 4e-3
    assert 1.8 < errors[0] / errors[1] < 2.2


def test_vp_keeps_variance_and_precision_near_zero():
    t = jnp.asarray([0.0, 1e-6, 1e-4, 0.5, 1.0], jnp.float32)
    np.testing.assert_allclose(VP().alpha(t) ** 2 + VP().sigma(t) ** 2, 1.0, rtol=1e-6)
    exponent = 0.1 * 1e-6 + 0.5 * 19.9 * 1e-12
    np.testing.assert_allclose(VP().sigma(t)[1], np.sqrt(-np.expm1(-exponent)), rtol=1e-6)


@pytest.mark.parametrize("process", PROCESSES, ids=str)
@pytest.mark.parametrize("kind", PARAMETERIZATIONS, ids=lambda k: type(k).__name__)
def test_targets_decode_to_data_and_noise(process, kind):
    with jax.enable_x64(True):
        x0, eps = jax.random.normal(jax.random.key(0), (2, 7, 3, 2), jnp.float64)
        t = jnp.linspace(0.05, 0.95, 7)
        x = process.marginal(x0, eps, t)
        decoded = kind.decode(process, kind.target(process, x0, eps, t), x, t)
        np.testing.assert_allclose(decoded.x0, x0, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(decoded.eps, eps, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("process", PROCESSES, ids=str)
def test_score_is_the_gradient_of_the_log_density(process):
    with jax.enable_x64(True):
        data, t = GaussianData(), jnp.asarray(0.6)
        x = jnp.linspace(-2.0, 2.0, 5)[:, None]
        log_density = lambda y: jnp.sum(
            -0.5 * (y - process.alpha(t) * data.mean) ** 2 / data.variance(process, t)
        )
        exact = prediction.score(data.denoise(process)(x, t), process, t)
        np.testing.assert_allclose(exact, jax.grad(log_density)(x), rtol=1e-10)


@pytest.mark.parametrize("process", PROCESSES, ids=str)
def test_velocity_is_the_probability_flow(process):
    """alpha' x_0 + sigma' eps = f x - g^2 score / 2 (Song et al. 2021, eq. 13)."""
    with jax.enable_x64(True):
        x, t = jnp.linspace(-2.0, 2.0, 5)[:, None], jnp.asarray(0.3)
        estimate = GaussianData().denoise(process)(x, t)
        flow = process.drift(t) * x - 0.5 * process.diffusion_squared(t) * prediction.score(
            estimate, process, t
        )
        np.testing.assert_allclose(prediction.velocity(estimate, process, t), flow, rtol=1e-10)


def test_guidance_is_exact_at_zero_and_one_and_linear_between():
    process, t = VP(), jnp.asarray(0.4)
    x = jax.random.normal(jax.random.key(0), (6, 2))
    given, free = (GaussianData(mean=mean).denoise(process) for mean in (1.0, -1.0))
    guided = lambda scale: guidance.classifier_free(given, free, scale)(x, t)
    for scale, same in ((1.0, given), (0.0, free)):
        for ours, theirs in zip(jax.tree.leaves(guided(scale)), jax.tree.leaves(same(x, t)), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_allclose(
        guided(3.0).eps, free(x, t).eps + 3 * (given(x, t).eps - free(x, t).eps), rtol=1e-5
    )
    consistent = process.marginal(guided(3.0).x0, guided(3.0).eps, t)
    np.testing.assert_allclose(consistent, x, rtol=1e-4, atol=1e-5)


def test_clipping_bounds_x0_and_keeps_the_state():
    process, t = VP(), jnp.asarray(0.8)
    x = 3 * jax.random.normal(jax.random.key(0), (64, 2))
    tight = threshold.clipped(GaussianData(std=3.0).denoise(process), process, -1.0, 1.0)(x, t)
    assert float(jnp.abs(tight.x0).max()) == 1.0
    np.testing.assert_allclose(process.marginal(tight.x0, tight.eps, t), x, rtol=1e-5, atol=1e-6)


class Affine:
    """A network of two scalars, out = scale x + shift, with a known optimal eps-prediction."""

    def init(self, key, x, t, cond, *, out):
        return {"params": {"scale": jnp.zeros(()), "shift": jnp.zeros(())}}

    def apply(self, params, x, t, cond, *, out, **options):
        return params["params"]["scale"] * x + params["params"]["shift"]


def test_loss_is_least_where_the_output_is_minus_sigma_score():
    """At one time t the loss's minimiser over affine outputs is -sigma(t) grad log p_t of Gaussian data."""
    process, data, t = VP(), GaussianData(), 0.5
    objective = Diffusion(Affine(), (1,), process=process, times=UniformTimes(low=t, high=t))
    x0 = data.mean + data.std * jax.random.normal(jax.random.key(1), (200_000, 1))
    variance = float(data.variance(process, jnp.asarray(t)))
    alpha, sigma = float(process.alpha(jnp.asarray(t))), float(process.sigma(jnp.asarray(t)))
    best = {
        "scale": jnp.asarray(sigma / variance),
        "shift": jnp.asarray(-sigma * alpha * data.mean / variance),
    }
    ctx = Context(jax.random.key(2), jnp.zeros((), jnp.int32))
    value, slope = jax.value_and_grad(
        lambda params: objective.loss({"net": {"params": params}}, {}, {"x": x0}, ctx)[0]
    )(best)
    assert abs(float(slope["scale"])) < 0.01
    assert abs(float(slope["shift"])) < 0.01
    np.testing.assert_allclose(value, 1 - sigma**2 / variance, rtol=0.02)
    assert expand(jnp.ones(3), x0[:3]).shape == (3, 1)
