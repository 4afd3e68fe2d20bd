"""Deterministic samplers: solvers of the probability-flow ODE dx/dt = alpha' x_0 + sigma' eps.

Euler is of order 1 and Heun of order 2 in the step size. DDIM (Song et al. 2021, arXiv:2010.02502, eq. 12)
is exact where the denoiser is constant, for every step size; with eta > 0 it adds back part of the noise,
eta = 1 being DDPM's ancestral sampling.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Float

from genjax.core.types import Array, Key, named
from genjax.diffusion.prediction import Denoise, velocity
from genjax.diffusion.process import Process
from genjax.samplers.grids import Grid, Uniform
from genjax.samplers.scan import SamplerState


@dataclass(frozen=True)
class SingleStep:
    """Base of methods without memory: the number of steps, the grid, the initial state."""

    steps: int = 50
    grid: Grid = Uniform()

    @property
    def evaluations(self) -> int:
        """Number of evaluations of the denoiser per sample."""
        return self.steps

    def times(self, process: Process) -> Float[Array, " n"]:
        """steps + 1 decreasing times."""
        return self.grid.times(process, self.steps)

    def init(self, x: Float[Array, "b ..."]) -> SamplerState:
        """The initial state, without memory."""
        return SamplerState(x=x)


@dataclass(frozen=True)
class Euler(SingleStep):
    """x_s = x_t + (s - t) dx/dt."""

    grid: Grid = Uniform(end=1e-3)

    def step(
        self, denoise: Denoise, process: Process, state: SamplerState, t: Array, s: Array, key: Key
    ) -> SamplerState:
        """One evaluation; see `Sampler.step`."""
        return SamplerState(x=state.x + (s - t) * velocity(denoise(state.x, t), process, t))


@dataclass(frozen=True)
class Heun(SingleStep):
    """The trapezoidal rule with an Euler predictor (Karras et al. 2022, arXiv:2206.00364, alg. 1)."""

    grid: Grid = Uniform(end=1e-3)

    @property
    def evaluations(self) -> int:
        """Two per step."""
        return 2 * self.steps

    def step(
        self, denoise: Denoise, process: Process, state: SamplerState, t: Array, s: Array, key: Key
    ) -> SamplerState:
        """Two evaluations; see `Sampler.step`."""
        here = velocity(denoise(state.x, t), process, t)
        guess = state.x + (s - t) * here
        there = velocity(denoise(guess, s), process, s)
        return SamplerState(x=state.x + (s - t) * 0.5 * (here + there))


@dataclass(frozen=True)
class DDIM(SingleStep):
    """x_s = alpha_s x_0 + sqrt(sigma_s^2 - c^2) eps + c z, c^2 = eta^2 times the posterior's variance.

    Attributes:
        eta: 0 is deterministic (DDIM), 1 draws from q(x_s | x_t, x_0) (DDPM).
    """

    eta: float = 0.0

    def step(
        self, denoise: Denoise, process: Process, state: SamplerState, t: Array, s: Array, key: Key
    ) -> SamplerState:
        """One evaluation; see `Sampler.step`."""
        prediction = denoise(state.x, t)
        alpha_s, sigma_s = process.alpha(s), process.sigma(s)
        if self.eta == 0.0:
            return SamplerState(x=alpha_s * prediction.x0 + sigma_s * prediction.eps)
        ratio = process.alpha(t) * sigma_s / (alpha_s * process.sigma(t))
        fresh = self.eta * sigma_s * jnp.sqrt(1.0 - ratio**2)
        kept = jnp.sqrt(jnp.maximum(sigma_s**2 - fresh**2, 0.0))
        noise = jax.random.normal(named(key, "noise"), state.x.shape, state.x.dtype)
        return SamplerState(x=alpha_s * prediction.x0 + kept * prediction.eps + fresh * noise)
