"""Samplers with adaptive step sizes, by the solvers of diffrax (Kidger 2022, arXiv:2202.02435).

AdaptiveODE solves the probability-flow ODE and AdaptiveSDE the reverse-time SDE (Song et al. 2021, arXiv:2011.13456,
eq. 13 and 6), from each of the grid's times to the next. A step with error estimate e is accepted if

    max over examples of sqrt( mean over dimensions of (e / (atol + rtol |x|))^2 ) <= 1,

so that every example meets the tolerance; all examples of a batch share the step sizes. Rejected steps are repeated
with a smaller size. The Brownian path between two times is one function
of the key, so that repeated steps of the SDE see the same path (Li et al. 2020, arXiv:2001.01328, sec. 4).

If the end is not reached in `max_steps` steps, or is not finite, all examples are NaN.
"""

from dataclasses import dataclass
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import lineax

from genjax.core.errors import UserError
from genjax.core.types import Array, Key, named
from genjax.diffusion.ode import Solver, _end, integrate, worst_example
from genjax.diffusion.prediction import Denoise, score, velocity
from genjax.diffusion.process import Process
from genjax.samplers.grids import Grid, Uniform
from genjax.samplers.ode import SingleStep
from genjax.samplers.scan import SamplerState

FINEST = 2.0**-14  # the SDE's smallest step, as a share of the interval


@dataclass(frozen=True)
class Adaptive(SingleStep):
    """Base of the adaptive samplers.

    Attributes:
        steps: intervals of the grid, each solved separately; more than 1 only to record a path.
        grid: of the intervals.
        rtol: relative tolerance of one solver's step.
        atol: absolute tolerance of one solver's step, in x's units.
        max_steps: maximum number of solver steps per interval, rejected ones included.
    """

    steps: int = 1
    grid: Grid = Uniform(end=1e-3)
    rtol: float = 1e-4
    atol: float = 1e-4
    max_steps: int = 1000

    def __post_init__(self) -> None:
        if self.rtol < 0 or self.atol <= 0 or self.max_steps < 1:
            raise UserError(
                f"rtol={self.rtol} must be at least 0, atol={self.atol} positive, max_steps={self.max_steps} at least 1"
            )

    @property
    def evaluations(self) -> int:
        """Upper bound; the actual number depends on the denoiser."""
        return self.steps * (self.stages * self.max_steps + 2)

    @property
    def stages(self) -> int:
        """Evaluations of the denoiser in one solver's step."""
        raise NotImplementedError


@dataclass(frozen=True)
class AdaptiveODE(Adaptive):
    """The probability-flow ODE, deterministic.

    Attributes:
        solver: Runge-Kutta pair; "dopri8" is faster at small tolerances and in float64.
    """

    solver: Solver = "tsit5"

    @property
    def stages(self) -> int:
        """Stages of the Runge-Kutta pair."""
        return 14 if self.solver == "dopri8" else 7

    def step(
        self, denoise: Denoise, process: Process, state: SamplerState, t: Array, s: Array, key: Key
    ) -> SamplerState:
        """As many evaluations as the tolerance requires; see `Sampler.step`."""
        rate = lambda u, x: velocity(denoise(x, u), process, u)
        end = integrate(
            rate, state.x, t, s, solver=self.solver, rtol=self.rtol, atol=self.atol, max_steps=self.max_steps
        )
        return SamplerState(x=end)


@dataclass(frozen=True)
class AdaptiveSDE(Adaptive):
    """The reverse-time SDE, by ShARK (Foster et al. 2023, arXiv:2305.17918, sec. 6.1).

    Strong order 1.5 for noise that does not depend on the state. The independent variable is v = (t - u) / (t - s) in
    [0, 1]: dx = (t - s) (g^2 score - f x) dv + g sqrt(t - s) dw. No step is smaller than 2^-14 of the interval.
    """

    rtol: float = 1e-2
    atol: float = 1e-2
    max_steps: int = 5000

    @property
    def stages(self) -> int:
        """Stages of ShARK."""
        return 2

    def step(
        self, denoise: Denoise, process: Process, state: SamplerState, t: Array, s: Array, key: Key
    ) -> SamplerState:
        """As many evaluations as the tolerance requires; see `Sampler.step`."""
        span = t - s

        def drift(v: Any, x: Array, args: Any) -> Array:
            u = t - v * span
            prediction, g_squared = denoise(x, u), process.diffusion_squared(u)
            return span * (0.5 * g_squared * score(prediction, process, u) - velocity(prediction, process, u))

        def noise(v: Any, x: Array, args: Any) -> lineax.DiagonalLinearOperator:
            scale = jnp.sqrt(span * process.diffusion_squared(t - v * span))
            return lineax.DiagonalLinearOperator(jnp.broadcast_to(scale, x.shape))

        zero, one = jnp.zeros_like(t), jnp.ones_like(t)
        like = jax.ShapeDtypeStruct(state.x.shape, state.x.dtype)
        path = diffrax.VirtualBrownianTree(
            0.0, 1.0, 0.5 * FINEST, like, named(key, "noise"), diffrax.SpaceTimeLevyArea
        )
        controller = diffrax.PIDController(
            self.rtol, self.atol, pcoeff=0.1, icoeff=0.3, dtmin=FINEST, norm=worst_example
        )
        solution = diffrax.diffeqsolve(
            diffrax.MultiTerm(diffrax.ODETerm(drift), diffrax.ControlTerm(noise, path)),
            diffrax.ShARK(),
            zero,
            one,
            0.01 * one,
            state.x,
            stepsize_controller=controller,
            max_steps=self.max_steps,
            throw=False,
        )
        return SamplerState(x=_end(solution))
