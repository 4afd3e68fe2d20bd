"""DDIM and the sampling loop in detail; the distributions of all samplers are in test_samplers_table."""

import contextlib
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import GaussianData
from test_keys import reused

from genjax.diffusion.prediction import score
from genjax.diffusion.process import VE, VP
from genjax.samplers.adaptive import AdaptiveSDE
from genjax.samplers.dpm import SDEDPMSolverPP
from genjax.samplers.grids import Uniform
from genjax.samplers.inverse import inpaint
from genjax.samplers.langevin import LangevinCorrector, PredictorCorrector
from genjax.samplers.ode import DDIM, SingleStep
from genjax.samplers.scan import SamplerState, sample

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


class Still(SingleStep):
    """Leaves the state as it is."""

    def step(self, denoise, process, state, t, s, key):
        return state


def test_samples_start_from_the_priors_standard_deviation():
    process = VE(0.01, 50.0)
    start = sample(DATA.denoise(process), process, Still(2), jax.random.key(0), (4000, 1))
    assert abs(float(jnp.std(start)) / 50.0 - 1) < 4.5 * (2 * 4000) ** -0.5


def test_sde_solver_of_order_one_is_the_ancestral_step():
    """With the same noise, SDE-DPM-Solver++ of order 1 is DDIM with eta = 1."""
    x, t, s, key = jnp.linspace(-2.0, 2.0, 5)[:, None], jnp.asarray(0.6), jnp.asarray(0.4), jax.random.key(1)
    for order in (1, 2):  # the first step of order 2 is of order 1
        solver, ddim = SDEDPMSolverPP(order=order), DDIM(eta=1.0)
        ours = solver.step(DATA.denoise(VP()), VP(), solver.init(x), t, s, key).x
        theirs = ddim.step(DATA.denoise(VP()), VP(), ddim.init(x), t, s, key).x
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_adaptive_sde_solves_the_reverse_sde(monkeypatch):
    """What the solver gets is dx = (t - s) (g^2 score - f x) dv + g sqrt(t - s) dw at time t - v (t - s)."""
    process, x, v = VP(), jnp.linspace(-2.0, 2.0, 5)[:, None], 0.25
    t, s, given = jnp.asarray(0.6), jnp.asarray(0.4), []

    def solver(terms, *rest, **options):
        given.extend(terms.terms)
        raise StopIteration

    monkeypatch.setattr("genjax.samplers.adaptive.diffrax.diffeqsolve", solver)
    with contextlib.suppress(StopIteration):
        AdaptiveSDE().step(DATA.denoise(process), process, SamplerState(x), t, s, jax.random.key(0))
    drift, noise = (term.vector_field(v, x, None) for term in given)
    u = t - v * (t - s)
    rate, slope = process.diffusion_squared(u), score(DATA.denoise(process)(x, u), process, u)
    np.testing.assert_allclose(drift, 0.2 * (rate * slope - process.drift(u) * x), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(noise.diagonal, jnp.full((5, 1), (0.2 * rate) ** 0.5), rtol=1e-5)


@pytest.mark.slow
def test_adaptive_sde_draws_from_the_reverse_transition():
    """For Gaussian data x_s given x_t is Gaussian: (x_s, x_t) are jointly so under the forward SDE."""
    process, t, s, num = VP(), jnp.asarray(0.5), jnp.asarray(0.35), 4000
    before, after = (float(DATA.variance(process, u)) for u in (s, t))
    center = lambda u: float(process.alpha(u)) * DATA.mean
    gain = float(process.alpha(t) / process.alpha(s)) * before / after
    sampler = AdaptiveSDE(rtol=0.02, atol=0.02)
    step = jax.jit(
        lambda x: sampler.step(DATA.denoise(process), process, sampler.init(x), t, s, jax.random.key(2)).x
    )
    x = np.asarray(step(jnp.full((num, 1), 1.1)), np.float64)
    variance = before - gain**2 * after
    assert abs(x.mean() - center(s) - gain * (1.1 - center(t))) < 4.5 * (variance / num) ** 0.5 + 0.005
    assert abs(x.var() / variance - 1) < 4.5 * (2 / num) ** 0.5 + 0.02


class Clock(LangevinCorrector):
    """Shows the time and whether the predictor has moved the state."""

    def correct(self, denoise, process, x, t, key):
        return x + 100.0 * t


def test_a_corrector_runs_at_the_time_that_the_predictor_has_reached():
    x, t, s, key = jnp.ones((3, 1)), jnp.asarray(0.6), jnp.asarray(0.4), jax.random.key(0)
    pair = PredictorCorrector(DDIM(steps=4), Clock())
    alone = pair.predictor.step(DATA.denoise(VP()), VP(), pair.init(x), t, s, key).x
    both = pair.step(DATA.denoise(VP()), VP(), pair.init(x), t, s, key).x
    np.testing.assert_allclose(both - alone, 40.0, rtol=1e-5)


def test_repeated_steps_have_their_own_noise():
    known, key = jnp.ones((2, 4)), jax.random.key(0)
    draw = lambda key: inpaint(
        DATA.denoise(VP()), VP(), DDIM(3, eta=1.0), key, known, jnp.eye(4)[:2], repeats=3
    )
    assert reused(draw, key) == []
