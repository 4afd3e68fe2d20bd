"""DDIM and the sampling loop in detail; the distributions of all samplers are in test_samplers_table."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from oracles import GaussianData

from genjax.diffusion.process import VP
from genjax.samplers.grids import Uniform
from genjax.samplers.ode import DDIM
from genjax.samplers.scan import sample

DATA = GaussianData()


def test_ddim_with_eta_one_is_the_ddpm_posterior():
    """One step from x_t given x_0 has the mean and variance of q(x_s | x_t, x_0), Ho et al. 2020, eq. 6-7."""
    process, x0 = VP(), 0.3
    t, s = jnp.asarray(0.6), jnp.asarray(0.55)
    exact = dataclasses.replace(GaussianData(mean=x0), std=1e-6).denoise(process)
    x_t = jnp.full((200_000, 1), 1.1)
    state = DDIM(eta=1.0).init(x_t)
    x_s = np.asarray(DDIM(eta=1.0).step(exact, process, state, t, s, jax.random.key(0)).x, np.float64)
    bar_t, bar_s = float(process.alpha(t)) ** 2, float(process.alpha(s)) ** 2
    beta = 1 - bar_t / bar_s
    mean = np.sqrt(bar_s) * beta / (1 - bar_t) * x0 + np.sqrt(bar_t / bar_s) * (1 - bar_s) / (1 - bar_t) * 1.1
    variance = (1 - bar_s) / (1 - bar_t) * beta
    assert abs(x_s.mean() - mean) < 5 * np.sqrt(variance / x_s.size)
    assert abs(x_s.var() / variance - 1) < 5 * np.sqrt(2 / x_s.size)


def test_ddim_is_exact_where_the_denoiser_is_constant():
    """Data concentrated in a point: one step of any size reaches it."""
    point = GaussianData(mean=0.25, std=1e-5)
    x = sample(point.denoise(VP()), VP(), DDIM(steps=2), jax.random.key(0), (16, 1))
    np.testing.assert_allclose(x, 0.25, atol=1e-4)


def test_trace_is_the_path_of_the_states():
    arguments = (DATA.denoise(VP()), VP(), DDIM(steps=7), jax.random.key(0), (5, 2))
    path = sample(*arguments, trace=True)
    np.testing.assert_array_equal(path[-1], sample(*arguments))
    half = dataclasses.replace(DDIM(steps=7), grid=Uniform(start=1.0, end=0.0))
    times = half.times(VP())
    again = half.step(DATA.denoise(VP()), VP(), half.init(path[2]), times[2], times[3], jax.random.key(0)).x
    np.testing.assert_allclose(path[3], again, rtol=1e-5, atol=1e-6)
