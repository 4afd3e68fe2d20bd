"""Gaussian noising processes: two functions of time, everything else derived.

A process says how data x_0 and noise eps ~ N(0, I) mix at time t in [0, 1]:

    x_t = alpha(t) x_0 + sigma(t) eps.

It is the marginal of the linear SDE dx = f(t) x dt + g(t) dw (Song et al. 2021, arXiv:2011.13456, eq. 5)
with (Kingma et al. 2021, arXiv:2107.00630, app. A)

    f(t) = d log alpha / dt,        g(t)^2 = d sigma^2 / dt - 2 f(t) sigma^2,

and of the ODE dx/dt = alpha'(t) x_0 + sigma'(t) eps, whose conditional expectation given x_t is the
probability-flow ODE (eq. 13). The derivatives come from `jax.jvp`; a subclass gives alpha and sigma only.
"""

import abc
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Float

from genjax.types import Array

Time = Float[Array, "..."]


def derivative(function: Callable[[Array], Array], t: Array) -> tuple[Array, Array]:
    """Value and time derivative of an elementwise function, both shaped as `t`."""
    return jax.jvp(function, (t,), (jnp.ones_like(t),))


def expand(t: Float[Array, "..."], x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Appends axes of length 1 to `t` ([b] or scalar) until it broadcasts against `x` [b, ...]."""
    return t.reshape(t.shape + (1,) * (x.ndim - t.ndim)) if t.ndim else t


class Process(abc.ABC):
    """What every process gives; `t` has any shape, float32 or float64, and results have the same."""

    @abc.abstractmethod
    def alpha(self, t: Time) -> Time:
        """Scale of the data at time t; alpha(0) = 1."""

    @abc.abstractmethod
    def sigma(self, t: Time) -> Time:
        """Standard deviation of the noise at time t, in the data's units."""

    def log_snr(self, t: Time) -> Time:
        """log(alpha^2 / sigma^2), the lambda of Kingma et al. 2021."""
        return 2.0 * (jnp.log(self.alpha(t)) - jnp.log(self.sigma(t)))

    def drift(self, t: Time) -> Time:
        """f(t) of the SDE dx = f x dt + g dw."""
        return derivative(lambda u: jnp.log(self.alpha(u)), t)[1]

    def diffusion_squared(self, t: Time) -> Time:
        """g(t)^2 of the SDE dx = f x dt + g dw."""
        sigma, rate = derivative(self.sigma, t)
        return 2.0 * sigma * (rate - self.drift(t) * sigma)

    def marginal(
        self, x0: Float[Array, "b ..."], eps: Float[Array, "b ..."], t: Float[Array, "..."]
    ) -> Float[Array, "b ..."]:
        """x_t = alpha(t) x_0 + sigma(t) eps, with t a scalar or one time per example."""
        return expand(self.alpha(t), x0) * x0 + expand(self.sigma(t), x0) * eps


@dataclass(frozen=True)
class VP(Process):
    """Variance preserving, linear beta (Song et al. 2021, eq. 32-33; DDPM's limit, Ho et al. 2020).

    log alpha(t) = -(beta_max - beta_min) t^2 / 4 - beta_min t / 2,  sigma^2 = 1 - alpha^2.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def _log_alpha(self, t: Time) -> Time:
        return -0.25 * (self.beta_max - self.beta_min) * t**2 - 0.5 * self.beta_min * t

    def alpha(self, t: Time) -> Time:
        """exp(log alpha(t))."""
        return jnp.exp(self._log_alpha(t))

    def sigma(self, t: Time) -> Time:
        """sqrt(1 - alpha(t)^2), without cancellation near t = 0."""
        return jnp.sqrt(-jnp.expm1(2.0 * self._log_alpha(t)))


@dataclass(frozen=True)
class VE(Process):
    """Variance exploding, geometric sigma (Song et al. 2021, eq. 30): alpha = 1."""

    sigma_min: float = 0.01
    sigma_max: float = 50.0

    def alpha(self, t: Time) -> Time:
        """1."""
        return jnp.ones_like(t)

    def sigma(self, t: Time) -> Time:
        """sigma_min (sigma_max / sigma_min)^t."""
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** t


@dataclass(frozen=True)
class RectifiedFlow(Process):
    """The straight line from data to noise (Liu et al. 2022, arXiv:2209.03003): alpha = 1 - t, sigma = t."""

    def alpha(self, t: Time) -> Time:
        """1 - t."""
        return 1.0 - t

    def sigma(self, t: Time) -> Time:
        """t."""
        return t
