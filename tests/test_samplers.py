"""Samplers with the exact score of known data: where they arrive, and how fast they converge."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import GaussianData, fitted_order
from scipy import stats

from genjax.diffusion.process import VE, VP, RectifiedFlow
from genjax.parallel import batch_sharding, make_mesh
from genjax.samplers.grids import Uniform
from genjax.samplers.ode import DDIM, Euler, Heun
from genjax.samplers.scan import sample
from genjax.samplers.sde import EulerMaruyama

DATA = GaussianData()
ODE = [(Euler, 1), (Heun, 2), (DDIM, 1)]


@pytest.mark.parametrize(("method", "order"), ODE, ids=lambda v: getattr(v, "__name__", v))
@pytest.mark.parametrize(
    "process", [VP(), RectifiedFlow(), VE(sigma_max=5.0)], ids=lambda p: type(p).__name__
)
def test_order_of_convergence(process, method, order):
    """Global error against the closed solution of the probability-flow ODE, float64."""
    with jax.enable_x64(True):
        start = jnp.linspace(-1.5, 1.5, 9)[:, None]
        grid = Uniform(start=0.9, end=0.1)
        exact = DATA.transport(process, start, jnp.asarray(0.9), jnp.asarray(0.1))
        steps, errors = [32, 64, 128, 256], []
        for number in steps:
            sampler = method(steps=number, grid=grid)
            end = sample(DATA.denoise(process), process, sampler, jax.random.key(0), (9, 1), start=start)
            errors.append(float(jnp.abs(end - exact).max()))
        measured = fitted_order([1 / number for number in steps], errors)
    assert abs(measured - order) < 0.12, f"order {measured:.3f}, errors {errors}"


STOCHASTIC = [EulerMaruyama(steps=400), DDIM(steps=2000, eta=1.0), DDIM(steps=1000, eta=0.5)]
DETERMINISTIC = [Euler(steps=400), Heun(steps=100), DDIM(steps=400)]


@pytest.mark.parametrize("sampler", DETERMINISTIC + STOCHASTIC, ids=lambda s: f"{type(s).__name__}")
def test_gaussian_data_come_out(sampler):
    """Mean and variance within Monte-Carlo error (and the step's bias), and the law itself by Kolmogorov-Smirnov."""
    num = 20_000
    draw = jax.jit(lambda key: sample(DATA.denoise(VP()), VP(), sampler, key, (num, 1)))
    x = np.asarray(draw(jax.random.key(3)))[:, 0].astype(np.float64)
    assert abs(x.mean() - DATA.mean) < 4 * DATA.std / np.sqrt(num) + 2e-3
    assert abs(x.var() / DATA.std**2 - 1) < 4 * np.sqrt(2 / num) + 1e-2
    assert stats.kstest(x, stats.norm(DATA.mean, DATA.std).cdf).statistic < 0.015


def test_ddim_with_eta_one_is_the_ddpm_posterior():
    """One step from x_t given x_0 has the mean and variance of q(x_s | x_t, x_0), Ho et al. 2020, eq. 6-7."""
    process, x0 = VP(), 0.3
    t, s = jnp.asarray(0.6), jnp.asarray(0.55)
    exact = dataclasses.replace(GaussianData(mean=x0), std=1e-6).denoise(process)
    x_t = jnp.full((200_000, 1), 1.1)
    walk = DDIM(eta=1.0).init(x_t)
    x_s = np.asarray(DDIM(eta=1.0).step(exact, process, walk, t, s, jax.random.key(0)).x, np.float64)
    bar_t, bar_s = float(process.alpha(t)) ** 2, float(process.alpha(s)) ** 2
    beta = 1 - bar_t / bar_s
    mean = np.sqrt(bar_s) * beta / (1 - bar_t) * x0 + np.sqrt(bar_t / bar_s) * (1 - bar_s) / (1 - bar_t) * 1.1
    variance = (1 - bar_s) / (1 - bar_t) * beta
    assert abs(x_s.mean() - mean) < 5 * np.sqrt(variance / x_s.size)
    assert abs(x_s.var() / variance - 1) < 5 * np.sqrt(2 / x_s.size)


def test_ddim_is_exact_where_the_denoiser_is_constant():
    """Data concentrated in a point: one step of any size lands on it."""
    point = GaussianData(mean=0.25, std=1e-5)
    x = sample(point.denoise(VP()), VP(), DDIM(steps=2), jax.random.key(0), (16, 1))
    np.testing.assert_allclose(x, 0.25, atol=1e-4)


def test_trace_is_the_path_of_the_walk():
    arguments = (DATA.denoise(VP()), VP(), DDIM(steps=7), jax.random.key(0), (5, 2))
    path = sample(*arguments, trace=True)
    np.testing.assert_array_equal(path[-1], sample(*arguments))
    half = dataclasses.replace(DDIM(steps=7), grid=Uniform(start=1.0, end=0.0))
    times = half.times(VP())
    again = half.step(DATA.denoise(VP()), VP(), half.init(path[2]), times[2], times[3], jax.random.key(0)).x
    np.testing.assert_allclose(path[3], again, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("sampler", [EulerMaruyama(steps=20), Heun(steps=10)], ids=lambda s: type(s).__name__)
def test_sharded_equals_one_device_and_noise_is_drawn_in_place(sampler):
    mesh = make_mesh("data:8")
    draw = lambda key: sample(DATA.denoise(VP()), VP(), sampler, key, (64, 3))
    compiled = jax.jit(draw, out_shardings=batch_sharding(mesh)).lower(jax.random.key(0)).compile()
    sharded = compiled(jax.random.key(0))
    assert len(sharded.sharding.device_set) == 8
    assert {shard.data.shape for shard in sharded.addressable_shards} == {(8, 3)}
    np.testing.assert_allclose(sharded, jax.jit(draw)(jax.random.key(0)), rtol=2e-5, atol=2e-5)
    text = compiled.as_text()
    assert "all-gather" not in text
    assert "[64,3]" not in text, "some device holds all samples"
