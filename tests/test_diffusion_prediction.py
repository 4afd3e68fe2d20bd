"""Parameterizations: conversion between every pair, and EDM's preconditioning by the formulas of its paper."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_diffusion import PARAMETERIZATIONS, PROCESSES

from genjax.diffusion import prediction
from genjax.diffusion.process import EDM, VP, RectifiedFlow, SubVP, Trigonometric
from genjax.objectives.diffusion.diffusion import Diffusion

name = lambda value: type(value).__name__


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def state(process, num=7):
    x0, eps = jax.random.normal(jax.random.key(0), (2, num, 3, 2), jnp.float64)
    t = jnp.linspace(0.05, 0.95, num)
    return x0, eps, t, process.marginal(x0, eps, t)


@pytest.mark.parametrize("process", PROCESSES, ids=str)
@pytest.mark.parametrize("source", PARAMETERIZATIONS, ids=name)
def test_every_pair_converts_and_back(process, source):
    """Outputs convert to every other parameterization by decoding, and back, to 1e-10."""
    _, _, t, x = state(process)
    out = jax.random.normal(jax.random.key(1), x.shape, jnp.float64)
    said = source.decode(process, out, x, t)
    np.testing.assert_allclose(process.marginal(said.x0, said.eps, t), x, rtol=1e-10, atol=1e-10)
    for other in PARAMETERIZATIONS:
        translated = other.decode(process, other.target(process, said.x0, said.eps, t), x, t)
        again = source.target(process, translated.x0, translated.eps, t)
        scale = jnp.max(jnp.abs(said.x0)) + jnp.max(jnp.abs(said.eps))
        np.testing.assert_allclose(translated.x0, said.x0, rtol=1e-10, atol=1e-10 * scale)
        np.testing.assert_allclose(translated.eps, said.eps, rtol=1e-10, atol=1e-10 * scale)
        np.testing.assert_allclose(again, out, rtol=1e-10, atol=1e-10 * scale)


def test_outputs_match_their_definitions():
    """From the same prediction: score = grad log q(x_t | x_0), velocity = dx/dt on the pair's line, v its angle."""
    process = VP()
    x0, eps, t, x = state(process)
    log_q = lambda x: (
        -0.5
        * jnp.sum(
            ((x - prediction.expand(process.alpha(t), x) * x0) / prediction.expand(process.sigma(t), x)) ** 2
        )
    )
    np.testing.assert_allclose(prediction.Score().target(process, x0, eps, t), jax.grad(log_q)(x), rtol=1e-9)
    h = 1e-6
    rate = (process.marginal(x0, eps, t + h) - process.marginal(x0, eps, t - h)) / (2 * h)
    np.testing.assert_allclose(prediction.Velocity().target(process, x0, eps, t), rate, rtol=1e-6, atol=1e-8)
    circle = Trigonometric()
    turned = prediction.Velocity().target(circle, x0, eps, t) / (np.pi / 2)
    np.testing.assert_allclose(turned, prediction.V().target(circle, x0, eps, t), rtol=1e-10, atol=1e-12)


class Wiggle:
    """A network without parameters that depends on all of its inputs."""

    def init(self, key, x, t, cond, *, out):
        return {}

    def apply(self, params, x, t, cond, *, out, **options):
        return jnp.sin(3 * x) + x * t[:, None]


def edm_denoiser(x, sigma, data=0.7):
    """Equation 7 with table 1's entries, in numpy."""
    x, sigma = np.asarray(x), np.asarray(sigma)[:, None]
    skip = data**2 / (sigma**2 + data**2)
    out = sigma * data / np.sqrt(sigma**2 + data**2)
    scaled = x / np.sqrt(sigma**2 + data**2)
    return skip * x + out * (np.sin(3 * scaled) + scaled * np.log(sigma) / 4)


@pytest.mark.parametrize("process", [EDM(), VP(), SubVP(), RectifiedFlow()], ids=name)
def test_preconditioned_denoiser_is_equation_7(process):
    """For alpha = 1 the paper's formula; for any alpha the same at x_t / alpha and sigma / alpha."""
    objective = Diffusion(Wiggle(), (2,), process=process, predict=prediction.Preconditioned(0.7))
    x = jax.random.normal(jax.random.key(0), (5, 2), jnp.float64)
    for time in (0.1, 0.5, 0.9):
        t = jnp.full(5, time)
        alpha, sigma = process.alpha(t), process.sigma(t)
        said = objective.denoise({"net": {}})(x, jnp.asarray(time))
        expected = edm_denoiser(x / alpha[:, None], sigma / alpha)
        np.testing.assert_allclose(said.x0, expected, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(process.marginal(said.x0, said.eps, t), x, rtol=1e-10)


@pytest.mark.parametrize("process", PROCESSES, ids=str)
def test_preconditioned_input_and_target_have_variance_one_and_no_correlation(process):
    """The principle behind equation 8, exactly: input and target are linear in independent x_0 and eps."""
    kind, t, data = prediction.Preconditioned(0.7), jnp.linspace(0.05, 0.95, 9), 0.7
    one, none = jnp.ones((9, 1)), jnp.zeros((9, 1))

    def coefficients(function):
        return np.stack([data * function(one, none)[:, 0], function(none, one)[:, 0]])

    given = coefficients(lambda x0, eps: kind.inputs(process, process.marginal(x0, eps, t), t)[0])
    wanted = coefficients(lambda x0, eps: kind.target(process, x0, eps, t))
    np.testing.assert_allclose((given**2).sum(axis=0), 1.0, rtol=1e-12)
    np.testing.assert_allclose((wanted**2).sum(axis=0), 1.0, rtol=1e-12)
    np.testing.assert_allclose((given * wanted).sum(axis=0), 0.0, atol=1e-12)


def test_preconditioned_stays_finite_without_data_or_noise():
    """Rectified flow at t = 1 is pure noise: the network's inputs remain finite."""
    x, out = jnp.asarray([[0.4, -1.0]]), jnp.asarray([[0.3, 0.2]])
    kind, process, t = prediction.Preconditioned(0.5), RectifiedFlow(), jnp.ones(1)
    given, level = kind.inputs(process, x, t)
    np.testing.assert_allclose(given, x)
    assert float(level[0]) == 10.0
    said = kind.decode(process, out, x, t)
    np.testing.assert_allclose(said.x0, 0.5 * out)
    np.testing.assert_allclose(said.eps, x)


def test_preconditioned_with_unit_data_is_minus_v():
    x0, eps, t, _ = state(VP())
    ours = prediction.Preconditioned(1.0).target(VP(), x0, eps, t)
    np.testing.assert_allclose(ours, -prediction.V().target(VP(), x0, eps, t), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", PARAMETERIZATIONS[:-1], ids=name)
def test_other_parameterizations_pass_inputs_unchanged(kind):
    _, _, t, x = state(VP())
    assert kind.inputs(VP(), x, t) == (x, t)
