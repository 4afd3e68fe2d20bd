"""Adaptive samplers and DEIS against closed solutions; orders of convergence of all deterministic and weak methods."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import GaussianData, Switched
from test_samplers_table import PROCESSES, with_steps

from genjax.core.errors import UserError
from genjax.core.types import named
from genjax.diffusion.process import VP, RectifiedFlow, derivative
from genjax.samplers.adaptive import AdaptiveODE, AdaptiveSDE
from genjax.samplers.deis import DEIS, lagrange, weights
from genjax.samplers.dpm import DPMSolverPP
from genjax.samplers.edm import EDM
from genjax.samplers.grids import LogSNR, Uniform
from genjax.samplers.ode import DDIM, Euler, Heun
from genjax.samplers.scan import sample
from genjax.samplers.sde import Ancestral, EulerMaruyama, ReverseDiffusion

pytestmark = pytest.mark.optimised

DATA, KEY = GaussianData(), jax.random.key(0)
LINE = np.linspace(-1.5, 1.5, 9)[:, None]
METHODS = {
    "Euler": (Euler(grid=Uniform(0.8, 0.2)), 1),
    "DDIM": (DDIM(grid=Uniform(0.8, 0.2)), 1),
    "Heun": (Heun(grid=Uniform(0.8, 0.2)), 2),
    "EDM": (EDM(grid=Uniform(0.8, 0.2)), 2),
    "2M": (DPMSolverPP(grid=LogSNR(0.8, 0.2), lower_order_final=False), 2),
    "DEIS2": (DEIS(grid=Uniform(0.8, 0.2), order=2, lower_order_final=False), 2),
}


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("row", METHODS)
def test_order_of_convergence(row):
    """Global error from t = 0.8 to 0.2 against the closed solution, on every process; one program per step number."""
    sampler, order = METHODS[row]
    errors = []
    for steps in (128, 256):
        method = dataclasses.replace(sampler, steps=steps)

        def error(index, method=method):
            process, x = Switched(PROCESSES, index), jnp.asarray(LINE)
            end = sample(DATA.denoise(process), process, method, KEY, x.shape, start=x)
            return jnp.abs(end - DATA.transport(process, x, jnp.asarray(0.8), jnp.asarray(0.2))).max()

        program = jax.jit(error)
        errors.append([float(program(jnp.int32(index))) for index in range(len(PROCESSES))])
    measured = np.log2(np.divide(*errors))
    np.testing.assert_allclose(measured, order, atol=0.2, err_msg=str(errors))


@pytest.mark.parametrize("order", [3, 4])
def test_deis_has_its_order_from_exact_starting_values(order):
    """The first order - 1 steps are replaced by the exact solution."""
    x, process, errors = jnp.asarray(LINE), VP(), []
    for steps in (64, 128):
        sampler = DEIS(steps, Uniform(0.9, 0.1), order=order, lower_order_final=False)
        times = sampler.times(process)

        def step(state, now, sampler=sampler):
            t, s, early = now
            state = sampler.step(DATA.denoise(process), process, state, t, s, KEY)
            exact = DATA.transport(process, x, jnp.asarray(0.9), s)
            return dataclasses.replace(state, x=jnp.where(early, exact, state.x)), None

        early = jnp.arange(steps) < order - 1
        state, _ = jax.lax.scan(step, sampler.init(x), (times[:-1], times[1:], early))
        exact = DATA.transport(process, x, jnp.asarray(0.9), jnp.asarray(0.1))
        errors.append(float(jnp.abs(state.x - exact).max()))
    assert abs(np.log2(errors[0] / errors[1]) - order) < 0.35, errors


@pytest.mark.parametrize("process", [VP(), RectifiedFlow()], ids=lambda p: type(p).__name__)
def test_deis_integrates_polynomials_in_t(process):
    """alpha_s int r'(u) p(u) du for a cubic p on uneven times, against a fine sum of the definition (eq. 14)."""
    times, s = (0.5, 0.58, 0.61, 0.7), 0.43
    p = lambda u: 0.3 - 1.2 * u + 0.7 * u**2 + 2.0 * u**3
    u = jnp.linspace(0.5, s, 200_001)
    rate = derivative(lambda v: process.sigma(v) / process.alpha(v), u)[1]
    exact = process.alpha(jnp.asarray(s)) * jnp.trapezoid(rate * p(u), u)
    at = tuple(map(jnp.asarray, times))
    ratio = lambda v: process.sigma(jnp.asarray(v)) / process.alpha(jnp.asarray(v))
    whole = process.alpha(jnp.asarray(s)) * (ratio(s) - ratio(0.5)) * p(0.5)
    parts = weights(process, at, jnp.asarray(s))
    ours = whole + sum(c * (p(time) - p(0.5)) for c, time in zip(parts, times[1:], strict=True))
    np.testing.assert_allclose(ours, exact, rtol=1e-9)
    values = [[float(lagrange(at, j, time)) for time in at] for j in range(4)]
    np.testing.assert_array_equal(values, np.eye(4))


def test_deis_of_order_one_is_ddim_and_ends_in_sigma_zero():
    """Also from alpha = 0: the first step is DDIM's, and all numbers are finite."""
    process, x = RectifiedFlow(), jnp.asarray(LINE)
    path = lambda method: sample(DATA.denoise(process), process, method, KEY, x.shape, start=x, trace=True)
    ddim = path(DDIM(6))
    np.testing.assert_allclose(path(DEIS(6, order=1)), ddim, rtol=1e-12)
    third = path(DEIS(6))
    np.testing.assert_allclose(third[1], ddim[1], rtol=1e-12)
    exact = DATA.transport(process, x, jnp.asarray(1.0), jnp.asarray(0.0))
    assert float(jnp.abs(third[-1] - exact).max()) < 0.8 * float(jnp.abs(ddim[-1] - exact).max())


@pytest.mark.parametrize(
    "method",
    [
        EulerMaruyama(),
        *(pytest.param(m, marks=pytest.mark.slow) for m in (ReverseDiffusion(), Ancestral(), DDIM(eta=1.0))),
    ],
    ids=repr,
)
def test_weak_order_one_without_monte_carlo(method):
    """On Gaussian data x_s = A x_t + B + C z: mean and variance follow a recursion with error O(h)."""
    errors, z = [], jax.random.normal(named(KEY, "noise"), (2, 1))
    for steps in (800, 1600):
        sampler = with_steps(dataclasses.replace(method, grid=Uniform(0.8, 0.2)), steps)

        def moments(index, sampler=sampler):
            process, two = Switched(PROCESSES, index), jnp.asarray([[0.0], [1.0]])
            times = sampler.times(process)
            mean, variance = process.alpha(times[0]) * DATA.mean, DATA.variance(process, times[0])

            def step(now, ends):
                t, s = ends
                out = sampler.step(DATA.denoise(process), process, sampler.init(two), t, s, KEY).x
                more = sampler.step(DATA.denoise(process), process, sampler.init(2.0 * two), t, s, KEY).x
                gain = more[1, 0] - out[1, 0]
                # the two rows share A and B: out[1] - out[0] = A + C (z_1 - z_0)
                fresh = (out[1, 0] - out[0, 0] - gain) / (z[1, 0] - z[0, 0])
                shift = out[0, 0] - fresh * z[0, 0]
                return (gain * now[0] + shift, gain**2 * now[1] + fresh**2), None

            (mean, variance), _ = jax.lax.scan(step, (mean, variance), (times[:-1], times[1:]))
            s = times[-1]
            return mean - process.alpha(s) * DATA.mean, variance - DATA.variance(process, s)

        program = jax.jit(moments)
        errors.append([program(jnp.int32(index)) for index in range(len(PROCESSES))])
    errors = np.asarray(errors)
    assert np.abs(errors[1, :, 0]).max() < 5e-3
    measured = np.log2(np.divide(*errors[:, :, 1]))
    np.testing.assert_allclose(measured, 1.0, atol=0.25, err_msg=str(errors))


@pytest.mark.parametrize("solver", [pytest.param("tsit5", marks=pytest.mark.slow), "dopri5", "dopri8"])
def test_adaptive_ode_keeps_its_tolerance_in_any_batch(solver):
    """Errors fall with the tolerance; a thousand easy examples do not increase the error of the hard one."""
    process, x = VP(), jnp.asarray(LINE)
    exact = DATA.transport(process, x, jnp.asarray(0.9), jnp.asarray(0.01))

    def end(start, tolerance, data=DATA):
        method = AdaptiveODE(1, Uniform(0.9, 0.01), tolerance, tolerance, solver=solver)
        draw = lambda start: sample(data.denoise(process), process, method, KEY, start.shape, start=start)
        return jax.jit(draw)(start)

    errors = [float(jnp.abs(end(x, tolerance) - exact).max()) for tolerance in (1e-4, 1e-7, 1e-10)]
    assert errors[0] < 1e-3, errors
    assert errors[1] < 1e-6, errors
    assert errors[2] < 1e-9, errors
    if solver == "tsit5":
        central = GaussianData(mean=0.0)  # of which x = 0 stays where it is
        alone = end(x[:1], 1e-7, central)
        crowd = end(jnp.concatenate([x[:1], jnp.zeros((1000, 1))]), 1e-7, central)
        np.testing.assert_allclose(crowd[:1], alone, rtol=1e-12)


@pytest.mark.slow
def test_adaptive_samplers_that_do_not_finish_return_nan():
    process, start = VP(), jnp.asarray(LINE)
    for method in (AdaptiveODE(rtol=1e-8, atol=1e-8, max_steps=3), AdaptiveSDE(max_steps=3)):
        draw = lambda method=method: sample(
            DATA.denoise(process), process, method, KEY, start.shape, start=start
        )
        assert np.isnan(jax.jit(draw)()).all()
    with pytest.raises(UserError, match="atol=0"):
        AdaptiveODE(atol=0.0)


@pytest.mark.slow
def test_the_adaptive_sde_path_is_a_function_of_the_key():
    """Two tolerances use the same noise: their samples are close, path by path."""
    process = RectifiedFlow()
    start = jax.random.normal(jax.random.key(1), (64, 1))
    ends = {}
    for tolerance in (1e-1, 1e-2, 1e-3):
        method = AdaptiveSDE(1, LogSNR(0.9, 0.1), tolerance, tolerance)
        draw = lambda method=method: sample(
            DATA.denoise(process), process, method, KEY, start.shape, start=start
        )
        ends[tolerance] = np.asarray(jax.jit(draw)())
    coarse, fine = (np.abs(ends[tolerance] - ends[1e-3]).mean() for tolerance in (1e-1, 1e-2))
    assert fine < 0.5 * coarse
    assert fine < 0.02
    assert ends[1e-3].std() > 0.2
