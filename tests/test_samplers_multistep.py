"""Multistep solvers with the exact denoiser: order of convergence, end points, and agreement with DDIM."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import GaussianData, fitted_order
from oracles_mixture import MixtureData

from genjax.diffusion.process import VE, VP, RectifiedFlow
from genjax.samplers.dpm import DPMSolverPP, SDEDPMSolverPP
from genjax.samplers.grids import LogSNR, ThenZero, Uniform
from genjax.samplers.ode import DDIM
from genjax.samplers.scan import sample
from genjax.samplers.unipc import UniPC, corrector_weights

pytestmark = pytest.mark.optimised

DATA, MIXTURE = GaussianData(), MixtureData()
named_class = lambda value: type(value).__name__


@pytest.mark.parametrize(
    ("process", "grid"),
    [
        pytest.param(VE(sigma_max=5.0), LogSNR(0.9, 0.1), marks=pytest.mark.slow),
        (RectifiedFlow(), Uniform(0.9, 0.1)),
    ],
    ids=named_class,
)
def test_third_order_from_exact_starting_values(process, grid):
    """The first two steps are replaced by the exact solution; also on grids with unequal steps."""
    with jax.enable_x64(True):
        x = jnp.linspace(-1.5, 1.5, 9)[:, None]
        denoise, numbers, errors = DATA.denoise(process), [128, 256, 512], []
        for number in numbers:
            sampler = DPMSolverPP(steps=number, grid=grid, order=3, lower_order_final=False)
            times = sampler.times(process)

            def step(state, now, sampler=sampler, first=times[0]):
                t, s, early = now
                state = sampler.step(denoise, process, state, t, s, jax.random.key(0))
                exact = DATA.transport(process, x, first, s)
                return dataclasses.replace(state, x=jnp.where(early, exact, state.x)), ()

            early = jnp.arange(number) < 2
            state, _ = jax.lax.scan(step, sampler.init(x), (times[:-1], times[1:], early))
            errors.append(float(jnp.abs(state.x - DATA.transport(process, x, times[0], times[-1])).max()))
    measured = fitted_order([1 / number for number in numbers], errors)
    assert abs(measured - 3) < 0.25, f"order {measured:.3f}, errors {errors}"


@pytest.mark.parametrize("order", [2, 3])
def test_mixtures_are_transported_by_quantiles(order):
    """40 steps on bimodal data against the exact, monotone transport."""
    with jax.enable_x64(True):
        x = jnp.linspace(-2.0, 2.0, 11)[:, None]
        sampler = DPMSolverPP(steps=40, order=order, grid=LogSNR(end=0.01))
        end = sample(MIXTURE.denoise(VP()), VP(), sampler, jax.random.key(0), x.shape, start=x)
        exact = MIXTURE.transport(VP(), x, 1.0, 0.01)
    np.testing.assert_allclose(end, exact, atol=1e-2)


def test_order_one_is_ddim():
    arguments = MIXTURE.denoise(VP()), VP()
    one = sample(*arguments, DPMSolverPP(steps=9, order=1), jax.random.key(0), (16, 2))
    np.testing.assert_allclose(one, sample(*arguments, DDIM(steps=9), jax.random.key(0), (16, 2)), rtol=1e-5)
    one = sample(*arguments, SDEDPMSolverPP(steps=9, order=1), jax.random.key(0), (16, 2))
    ddpm = sample(*arguments, DDIM(steps=9, eta=1.0), jax.random.key(0), (16, 2))
    np.testing.assert_allclose(one, ddpm, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("process", "final"), [(VP(), True), (RectifiedFlow(), False)], ids=named_class)
@pytest.mark.parametrize("method", [DPMSolverPP(order=3), SDEDPMSolverPP(), UniPC(order=3)], ids=named_class)
def test_infinite_log_snr_at_both_ends_takes_first_order(method, process, final):
    """From alpha = 0 and to sigma = 0: data concentrated in a point are reproduced, and the last step is DDIM's."""
    point = GaussianData(mean=0.25, std=1e-5)
    method = dataclasses.replace(method, steps=5, lower_order_final=final)
    path = sample(point.denoise(process), process, method, jax.random.key(0), (16, 1), trace=True)
    np.testing.assert_allclose(path[-1], 0.25, atol=1e-4)
    path = sample(DATA.denoise(process), process, method, jax.random.key(0), (16, 1), trace=True)
    last = DATA.denoise(process)(path[-2], method.times(process)[-2]).x0
    np.testing.assert_allclose(path[-1], last, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_lower_order_final_ends_with_ddim():
    """The last step is DDIM's, the last but one has order 2."""
    grid = LogSNR(start=0.9, end=0.1)
    sampler = DPMSolverPP(steps=8, order=3, grid=grid)
    path, times = (
        sample(MIXTURE.denoise(VP()), VP(), sampler, jax.random.key(0), (9, 1), trace=True),
        sampler.times(VP()),
    )
    denoise = MIXTURE.denoise(VP())
    ddim = DDIM().step(denoise, VP(), DDIM().init(path[7]), times[7], times[8], jax.random.key(0)).x
    np.testing.assert_allclose(path[8], ddim, rtol=1e-5, atol=1e-6)
    now, before = denoise(path[6], times[6]).x0, denoise(path[5], times[5]).x0
    shift = VP().alpha(times[7]) * (1 - jnp.exp((VP().log_snr(times[6]) - VP().log_snr(times[7])) / 2)) / 2
    ddim = DDIM().step(denoise, VP(), DDIM().init(path[6]), times[6], times[7], jax.random.key(0)).x
    np.testing.assert_allclose(path[7], ddim + shift * (now - before), rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_sde_solver_needs_fewer_steps_than_ancestral_sampling():
    """The relative error of the samples' variance after 25 steps."""
    num = 40_000
    grid = ThenZero(LogSNR(end=0.01))
    errors = []
    for order in (1, 2):
        sampler = SDEDPMSolverPP(steps=25, grid=grid, order=order)
        draw = jax.jit(lambda key, sampler=sampler: sample(DATA.denoise(VP()), VP(), sampler, key, (num, 1)))
        errors.append(float(np.var(np.asarray(draw(jax.random.key(1)), np.float64))) / DATA.std**2 - 1)
    assert abs(errors[1]) < 4 * np.sqrt(2 / num) + 0.015
    assert abs(errors[0]) > 4 * abs(errors[1])


@pytest.mark.parametrize("order", [1, 2, 3])
def test_unipc_corrector_integrates_polynomials(order):
    """int_0^h e^(u - h) p(u) du for p of degree `order`, exact; order 1 (B_2) within O(h^3). By Gauss quadrature."""
    h, h_1, h_2 = 0.3, 0.5, 0.4
    nodes, weights = np.polynomial.legendre.leggauss(20)
    u = h / 2 * (nodes + 1)
    p = np.polynomial.Polynomial([0.3, -1.2, 0.7, 0.9][: order + 1])
    exact = np.sum(h / 2 * weights * np.exp(u - h) * p(u))
    at = [p(point) for point in (h, 0.0, -h_1, -h_1 - h_2)]
    with jax.enable_x64(True):
        known = [h, h_1 if order > 1 else np.inf, h_2 if order > 2 else np.inf]
        parts = np.asarray(corrector_weights(jnp.int32(order), tuple(map(jnp.asarray, known))))
    changes = -np.diff(np.asarray(at))
    ours = -np.expm1(-h) * at[1] + parts @ changes
    assert abs(ours - exact) < (1.5 * h**3 / 12 if order == 1 else 1e-13)


@pytest.mark.slow
def test_unipc_beats_its_predictor_and_converges():
    """The corrector of order 2 raises the order above 2; with few steps the error is smaller."""
    process = VE(sigma_max=5.0)
    with jax.enable_x64(True):
        x = jnp.linspace(-1.5, 1.5, 9)[:, None]
        exact = DATA.transport(process, x, jnp.asarray(0.9), jnp.asarray(0.1))
        errors = {}
        for method in (UniPC, DPMSolverPP):
            for number in (32, 64, 128):
                sampler = method(steps=number, grid=LogSNR(0.9, 0.1), lower_order_final=False)
                end = sample(DATA.denoise(process), process, sampler, jax.random.key(0), x.shape, start=x)
                errors[method, number] = float(jnp.abs(end - exact).max())
    order = fitted_order([1 / 32, 1 / 64, 1 / 128], [errors[UniPC, number] for number in (32, 64, 128)])
    assert order > 1.85, f"order {order}, {errors}"
    assert errors[UniPC, 64] < errors[DPMSolverPP, 64], errors
