"""Grids of times for samplers, from t = `start` down to t = `end`.

With i = 0 ... n, n = steps, each grid is uniform in a coordinate of its own:

    Uniform      t
    Quadratic    sqrt(t)                          (Song et al. 2021, DDIM, arXiv:2010.02502, app. D.2)
    Karras       (sigma / alpha)^(1 / rho)        (Karras et al. 2022, arXiv:2206.00364, eq. 5)
    LogSNR       log(alpha^2 / sigma^2)           (Lu et al. 2022, DPM-Solver, arXiv:2206.00927, sec. 3.3)
    Trailing     t, rounded to multiples of 1 / T (Lin et al. 2024, arXiv:2305.08891, sec. 3.3)

The log-SNR falls monotonically with t, so that bisection finds the times of any process.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from genjax.core.errors import UserError
from genjax.core.types import Array
from genjax.diffusion.process import Process


@runtime_checkable
class Grid(Protocol):
    """Chooses the times at which a sampler evaluates the denoiser."""

    def times(self, process: Process, steps: int) -> Float[Array, " n"]:
        """steps + 1 strictly decreasing times."""
        ...


def _pinned(times: Array, start: float, end: float) -> Array:
    """`times` with its ends set exactly to `start` and `end`; a single time is `start`."""
    return times.at[-1].set(end).at[0].set(start)


def _check_finite(process: Process, t: float, field: str) -> None:
    """Raises if the log-SNR is infinite at an end of the grid; skipped for traced (learned) processes."""
    with jax.ensure_compile_time_eval():
        value = process.log_snr(jnp.asarray(t))
    if not isinstance(value, jax.core.Tracer) and not np.isfinite(value):
        name = type(process).__name__
        raise UserError(
            f"{name} has an infinite log-SNR at the grid's {field}={t}: choose a time inside (0, 1)"
        )


@dataclass(frozen=True)
class Uniform:
    """Equal steps in t.

    Attributes:
        start: first time, at most 1.
        end: last time; 0 if the method can reach clean data, slightly above 0 otherwise.
    """

    start: float = 1.0
    end: float = 0.0

    def times(self, process: Process, steps: int) -> Float[Array, " n"]:
        """t_i = start + (end - start) i / steps."""
        return jnp.linspace(self.start, self.end, steps + 1)


@dataclass(frozen=True)
class Quadratic:
    """Equal steps in sqrt(t): finer towards the data.

    Attributes:
        start: first time, at most 1.
        end: last time, at least 0.
    """

    start: float = 1.0
    end: float = 0.0

    def times(self, process: Process, steps: int) -> Float[Array, " n"]:
        """t_i = (sqrt(start) + (sqrt(end) - sqrt(start)) i / steps)^2."""
        roots = jnp.linspace(self.start**0.5, self.end**0.5, steps + 1)
        return _pinned(roots**2, self.start, self.end)


@dataclass(frozen=True)
class Karras:
    """Equal steps in (sigma / alpha)^(1 / rho).

    Attributes:
        start: first time; below 1 where alpha(1) = 0, as for RectifiedFlow.
        end: last time, at least 0.
        rho: 1 is uniform in sigma / alpha; larger values put more steps near the data.
    """

    start: float = 1.0
    end: float = 1e-3
    rho: float = 7.0

    def times(self, process: Process, steps: int) -> Float[Array, " n"]:
        """The times of (r_0^(1/rho) + (r_n^(1/rho) - r_0^(1/rho)) i / steps)^rho, r = sigma / alpha.

        Raises:
            UserError: alpha(start) = 0.
        """
        _check_finite(process, self.start, "start")
        ends = jnp.exp(-0.5 / self.rho * process.log_snr(jnp.asarray([self.start, self.end])))
        roots = jnp.linspace(ends[0], ends[1], steps + 1)
        log_snr = -2.0 * self.rho * jnp.log(roots)
        return _pinned(process.time_at(log_snr, self.start, self.end), self.start, self.end)


@dataclass(frozen=True)
class LogSNR:
    """Equal steps in log(alpha^2 / sigma^2).

    Attributes:
        start: first time; below 1 where alpha(1) = 0, as for RectifiedFlow.
        end: last time; above 0 where sigma(0) = 0.
    """

    start: float = 1.0
    end: float = 1e-3

    def times(self, process: Process, steps: int) -> Float[Array, " n"]:
        """The times of l_0 + (l_n - l_0) i / steps, l = log(alpha^2 / sigma^2).

        Raises:
            UserError: the log-SNR is infinite at an end.
        """
        _check_finite(process, self.start, "start")
        _check_finite(process, self.end, "end")
        ends = process.log_snr(jnp.asarray([self.start, self.end]))
        log_snr = jnp.linspace(ends[0], ends[1], steps + 1)
        return _pinned(process.time_at(log_snr, self.start, self.end), self.start, self.end)


@dataclass(frozen=True)
class Trailing:
    """Equal steps in t among the T times k / T of a network trained in discrete time, from 1 down to 0.

    The first step is at the last, noisiest training time, which "leading" grids skip.

    Attributes:
        points: T, the number of training times.
    """

    points: int = 1000

    def times(self, process: Process, steps: int) -> Float[Array, " n"]:
        """t_i = round(T (1 - i / steps)) / T.

        Raises:
            UserError: there are more steps than training times.
        """
        if steps > self.points:
            raise UserError(f"{steps} steps of {self.points} training times: steps must be <= points")
        index = jnp.round(jnp.linspace(float(self.points), 0.0, steps + 1))
        return index / self.points


@dataclass(frozen=True)
class ThenZero:
    """A grid with one step less, and a last step from its end to t = 0 (Karras et al. 2022, sec. 2).

    For methods that end at sigma = 0, with grids whose coordinate is infinite there: `ThenZero(Karras())`.

    Attributes:
        grid: grid of the steps before the last; its end is above 0.
    """

    grid: Grid = Karras()

    def times(self, process: Process, steps: int) -> Float[Array, " n"]:
        """The inner grid's times, and 0."""
        return jnp.append(self.grid.times(process, steps - 1), 0.0)
