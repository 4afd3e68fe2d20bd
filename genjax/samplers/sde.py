"""Stochastic samplers: solvers of the reverse-time SDE (Anderson 1982; Song et al. 2021, eq. 6).

    dx = [f x - g^2 score] dt + g dw   backwards,   f x - g^2 score = dx/dt_ODE - g^2 score / 2.

Written with the velocity of the probability-flow ODE, which stays finite where f alone does not.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from genjax.diffusion.prediction import Denoise, score, velocity
from genjax.diffusion.process import Process
from genjax.samplers.grids import Grid, Uniform
from genjax.samplers.ode import OneStep
from genjax.samplers.scan import Walk
from genjax.types import Array, Key, named


@dataclass(frozen=True)
class EulerMaruyama(OneStep):
    """Weak order 1: x_s = x_t - (t - s) (f x - g^2 score) + g sqrt(t - s) z."""

    steps: int = 250
    grid: Grid = Uniform(end=1e-3)

    def step(self, denoise: Denoise, process: Process, walk: Walk, t: Array, s: Array, key: Key) -> Walk:
        """One evaluation."""
        prediction = denoise(walk.x, t)
        diffusion_squared = process.diffusion_squared(t)
        drift = velocity(prediction, process, t) - 0.5 * diffusion_squared * score(prediction, process, t)
        noise = jax.random.normal(named(key, "noise"), walk.x.shape, walk.x.dtype)
        return Walk(x=walk.x - (t - s) * drift + jnp.sqrt(diffusion_squared * (t - s)) * noise)
