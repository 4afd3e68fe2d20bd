"""Grids: their ends, their order, and the coordinate in which their steps are equal."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.core.errors import UserError
from genjax.diffusion.process import VE, VP, RectifiedFlow
from genjax.samplers.grids import Karras, LogSNR, Quadratic, ThenZero, Trailing, Uniform

PROCESSES = [VP(), VE(), RectifiedFlow()]
named_class = lambda value: type(value).__name__


def ratio(process, t):
    """sigma / alpha, float64."""
    return np.asarray(process.sigma(t) / process.alpha(t))


COORDINATES = [
    (Uniform(0.95, 0.01), lambda process, t: np.asarray(t)),
    (Quadratic(0.95, 0.01), lambda process, t: np.sqrt(t)),
    (Karras(0.95, 0.01), lambda process, t: ratio(process, t) ** (1 / 7)),
    (Karras(0.95, 0.01, rho=3.0), lambda process, t: ratio(process, t) ** (1 / 3)),
    (LogSNR(0.95, 0.01), lambda process, t: -2 * np.log(ratio(process, t))),
]


@pytest.mark.parametrize("x64", [False, True], ids=["float32", "float64"])
@pytest.mark.parametrize("process", PROCESSES, ids=named_class)
@pytest.mark.parametrize(("grid", "coordinate"), COORDINATES, ids=named_class)
def test_steps_are_equal_in_the_grids_coordinate(grid, coordinate, process, x64):
    with jax.enable_x64(x64):
        times = np.asarray(jax.jit(lambda: grid.times(process, 40))())
        assert times.dtype == (np.float64 if x64 else np.float32)
        assert times[0] == times.dtype.type(0.95)
        assert times[-1] == times.dtype.type(0.01)
    assert times.shape == (41,)
    assert np.all(np.diff(times) < 0)
    with jax.enable_x64(True):
        at = coordinate(process, jnp.asarray(times, jnp.float64))
    straight = np.linspace(at[0], at[-1], 41)
    tolerance = 1e-11 if x64 else 1e-5
    np.testing.assert_allclose(at, straight, rtol=tolerance, atol=tolerance * np.ptp(straight))


def test_karras_of_edm_gives_the_papers_sigmas():
    """With sigma(t) geometric and alpha = 1 the sigmas are Karras et al. 2022, eq. 5."""
    process, steps, rho = VE(sigma_min=0.002, sigma_max=80.0), 18, 7.0
    with jax.enable_x64(True):
        sigmas = np.asarray(process.sigma(Karras(end=0.0).times(process, steps - 1)))
    i = np.arange(steps)
    exact = (80 ** (1 / rho) + i / (steps - 1) * (0.002 ** (1 / rho) - 80 ** (1 / rho))) ** rho
    np.testing.assert_allclose(sigmas, exact, rtol=1e-10)


@pytest.mark.parametrize("process", PROCESSES, ids=named_class)
def test_inversion_is_the_inverse_and_stops_at_the_ends(process):
    with jax.enable_x64(True):
        t = jnp.linspace(1e-4, 0.9999, 50)
        np.testing.assert_allclose(process.time_at(process.log_snr(t)), t, rtol=1e-9)
        beyond = process.time_at(jnp.asarray([-1e3, 1e3]), start=0.9, end=0.2)
        np.testing.assert_allclose(beyond, [0.9, 0.2], rtol=1e-12)


@pytest.mark.parametrize("steps", [1, 7, 30, 999, 1000])
def test_trailing_times_are_training_times_from_the_noisiest(steps):
    """Lin et al. 2024: round(arange(T, 0, -T / steps)), then clean data."""
    times = np.asarray(Trailing().times(VP(), steps)) * 1000
    np.testing.assert_allclose(times, np.round(times), atol=1e-3)
    np.testing.assert_allclose(times[:-1], np.arange(1000, 0, -1000 / steps), atol=0.5 + 1e-3)
    assert (times[0], times[-1]) == (1000, 0)
    assert np.all(np.diff(times) < 0)


def test_then_zero_appends_the_last_step():
    times = ThenZero(Karras(end=0.1)).times(VP(), 10)
    np.testing.assert_array_equal(times[:-1], Karras(end=0.1).times(VP(), 9))
    assert times[-1] == 0
    assert times.shape == (11,)


def test_impossible_grids_raise():
    with pytest.raises(UserError, match="infinite log-SNR"):
        jax.jit(lambda: Karras().times(RectifiedFlow(), 10))()
    with pytest.raises(UserError, match="end=0"):
        LogSNR(end=0.0).times(VP(), 10)
    with pytest.raises(UserError, match="steps must be <= points"):
        Trailing(points=10).times(VP(), 11)
