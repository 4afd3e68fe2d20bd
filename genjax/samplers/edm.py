"""EDM's sampler (Karras et al. 2022, arXiv:2206.00364, alg. 2): churn, and Heun's rule in sigma / alpha.

In y = x / alpha and r = sigma / alpha every probability-flow ODE is dy/dr = eps. One step from t to s:

1. Churn: if S_tmin <= r_t <= S_tmax, go back up to time u with r_u = (1 + min(S_churn / n, sqrt(2) - 1)) r_t
   by the forward SDE: y_u = y_t + S_noise sqrt(r_u^2 - r_t^2) z.
2. Euler in r, which is DDIM: y_s = y_u + (r_s - r_u) eps_u.
3. Unless sigma_s = 0, the trapezoidal rule: y_s <- y_s + (r_s - r_u) (eps_s - eps_u) / 2.

Without churn it is the paper's alg. 1, of order 2. Where alpha_t = 0 the coordinate is infinite and step 3 is
skipped.
"""

from dataclasses import dataclass
from math import inf, sqrt

import jax
import jax.numpy as jnp

from genjax.core.types import Array, Key, named
from genjax.diffusion.prediction import Denoise
from genjax.diffusion.process import Process
from genjax.samplers.grids import Grid, Karras, ThenZero
from genjax.samplers.ode import SingleStep
from genjax.samplers.scan import SamplerState
from genjax.samplers.sde import transition


@dataclass(frozen=True)
class EDM(SingleStep):
    """Heun's second order in sigma / alpha, with churn.

    Attributes:
        churn: S_churn, divided among the steps; 0 is deterministic. The paper: 0 to 80.
        churn_min: S_tmin, smallest sigma / alpha with churn.
        churn_max: S_tmax, largest sigma / alpha with churn.
        noise: S_noise, scale of the fresh noise; slightly above 1 compensates for blur of the network.
    """

    steps: int = 18
    grid: Grid = ThenZero(Karras())
    churn: float = 0.0
    churn_min: float = 0.0
    churn_max: float = inf
    noise: float = 1.0

    @property
    def evaluations(self) -> int:
        """Two per step, one in the last if it reaches sigma = 0 (as `ThenZero` does)."""
        return 2 * self.steps - isinstance(self.grid, ThenZero)

    def step(
        self, denoise: Denoise, process: Process, state: SamplerState, t: Array, s: Array, key: Key
    ) -> SamplerState:
        """Two evaluations, or one where sigma_s = 0; see `Sampler.step`."""
        x, u = self._renoise(process, state.x, t, key) if self.churn > 0 else (state.x, t)
        here = denoise(x, u)
        alpha_s, sigma_s = process.alpha(s), process.sigma(s)
        euler = alpha_s * here.x0 + sigma_s * here.eps
        alpha_u = process.alpha(u)
        half = jnp.where(alpha_u > 0, 0.5 * (sigma_s - alpha_s * process.sigma(u) / alpha_u), 0.0)
        trapezoid = lambda guess: guess + half * (denoise(guess, s).eps - here.eps)
        return SamplerState(x=jax.lax.cond(sigma_s > 0, trapezoid, lambda guess: guess, euler))

    def _renoise(self, process: Process, x: Array, t: Array, key: Key) -> tuple[Array, Array]:
        """Step 1: (the state at time u, u), u <= 1."""
        gain = 1.0 + min(self.churn / self.steps, sqrt(2.0) - 1.0)
        log_snr = process.log_snr(t)
        ratio = jnp.exp(-0.5 * log_snr)
        raised = process.time_at(log_snr - 2.0 * jnp.log(gain))
        u = jnp.where((ratio >= self.churn_min) & (ratio <= self.churn_max) & (raised > t), raised, t)
        a, b = transition(process, t, u)
        a = jnp.where(u > t, a, 1.0)
        b = jnp.where(u > t, b, 0.0)
        fresh = jax.random.normal(named(key, "churn"), x.shape, x.dtype)
        return a * x + self.noise * b * fresh, u
