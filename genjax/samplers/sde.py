"""Stochastic samplers: solvers of the reverse-time SDE (Anderson 1982; Song et al. 2021, arXiv:2011.13456, eq. 6).

    dx = [f x - g^2 score] dt + g dw   backwards,   f x - g^2 score = dx/dt_ODE - g^2 score / 2.

Euler-Maruyama is written with the velocity of the probability-flow ODE, which stays finite where f alone does
not. The others are built on the exact transition of the forward SDE from s up to t,

    x_t = a x_s + b z,    a = alpha_t / alpha_s,    b^2 = sigma_t^2 - a^2 sigma_s^2.

Reverse diffusion (Song et al. 2021, app. E, eq. 46; alg. 2-3) discretises the reverse SDE as the forward one, and
ancestral sampling (Ho et al. 2020, arXiv:2006.11239, eq. 6-7) draws from q(x_s | x_t, x_0) with x_0 estimated.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Float

from genjax.core.types import Array, Key, named
from genjax.diffusion.prediction import Denoise, score, velocity
from genjax.diffusion.process import Process
from genjax.samplers.grids import Grid, Uniform
from genjax.samplers.ode import SingleStep
from genjax.samplers.scan import SamplerState


def transition(process: Process, s: Array, t: Array) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The transition x_t = a x_s + b z of the forward SDE, see the module's docstring.

    Args:
        process: alpha and sigma.
        s: earlier time, with alpha_s > 0.
        t: later time.

    Returns:
        (a, b).
    """
    a = process.alpha(t) / process.alpha(s)
    return a, jnp.sqrt(jnp.maximum(process.sigma(t) ** 2 - (a * process.sigma(s)) ** 2, 0.0))


@dataclass(frozen=True)
class EulerMaruyama(SingleStep):
    """Weak order 1: x_s = x_t - (t - s) (f x - g^2 score) + g sqrt(t - s) z."""

    steps: int = 250
    grid: Grid = Uniform(end=1e-3)

    def step(
        self, denoise: Denoise, process: Process, state: SamplerState, t: Array, s: Array, key: Key
    ) -> SamplerState:
        """One evaluation; see `Sampler.step`."""
        prediction = denoise(state.x, t)
        diffusion_squared = process.diffusion_squared(t)
        drift = velocity(prediction, process, t) - 0.5 * diffusion_squared * score(prediction, process, t)
        noise = jax.random.normal(named(key, "noise"), state.x.shape, state.x.dtype)
        return SamplerState(x=state.x - (t - s) * drift + jnp.sqrt(diffusion_squared * (t - s)) * noise)


@dataclass(frozen=True)
class ReverseDiffusion(SingleStep):
    """Weak order 1: x_s = (2 - a) x_t + b^2 score + b z."""

    steps: int = 250
    grid: Grid = Uniform(end=1e-3)

    def step(
        self, denoise: Denoise, process: Process, state: SamplerState, t: Array, s: Array, key: Key
    ) -> SamplerState:
        """One evaluation; see `Sampler.step`."""
        a, b = transition(process, s, t)
        noise = jax.random.normal(named(key, "noise"), state.x.shape, state.x.dtype)
        gradient = score(denoise(state.x, t), process, t)
        return SamplerState(x=(2.0 - a) * state.x + b**2 * gradient + b * noise)


@dataclass(frozen=True)
class Ancestral(SingleStep):
    """x_s = alpha_s x_0 + (a sigma_s^2 / sigma_t) eps + c z, with c between DDPM's two choices.

    c^2 = beta^v (b^2 sigma_s^2 / sigma_t^2)^(1 - v), beta = b^2 (Nichol & Dhariwal 2021, arXiv:2102.09672,
    eq. 15). No noise is added where sigma_s = 0.

    Attributes:
        variance: v unless the prediction has its own; 0 is the posterior's variance, as in `DDIM(eta=1)`, optimal
            for data concentrated at a point; 1 is beta, optimal for data N(0, I).
    """

    steps: int = 250
    variance: float = 1.0

    def step(
        self, denoise: Denoise, process: Process, state: SamplerState, t: Array, s: Array, key: Key
    ) -> SamplerState:
        """One evaluation; see `Sampler.step`."""
        prediction, (a, b) = denoise(state.x, t), transition(process, s, t)
        sigma_s, sigma_t = process.sigma(s), process.sigma(t)
        mean = process.alpha(s) * prediction.x0 + a * sigma_s**2 / sigma_t * prediction.eps
        v = self.variance if prediction.v is None else prediction.v
        fresh = jnp.where(sigma_s > 0, b * (sigma_s / sigma_t) ** (1.0 - v), 0.0)
        return SamplerState(x=mean + fresh * jax.random.normal(named(key, "noise"), mean.shape, mean.dtype))
