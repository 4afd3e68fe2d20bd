"""Gaussian noising processes: two functions of time, from which all else is derived.

A process combines data x_0 and noise eps ~ N(0, I) at time t in [0, 1]:

    x_t = alpha(t) x_0 + sigma(t) eps.

It is the marginal of the linear SDE dx = f(t) x dt + g(t) dw (Song et al. 2021, arXiv:2011.13456, eq. 5)
with (Kingma et al. 2021, arXiv:2107.00630, app. A)

    f(t) = d log alpha / dt,        g(t)^2 = d sigma^2 / dt - 2 f(t) sigma^2,

and of the ODE dx/dt = alpha'(t) x_0 + sigma'(t) eps, whose conditional expectation given x_t is the
probability-flow ODE (eq. 13). The derivatives come from `jax.jvp`; a subclass defines alpha and sigma.

At the samplers' start time t the prior is N(0, sigma(t)^2 I), which omits the term alpha(t) x_0 of the marginal. The
error in nats per example is the prior loss of Kingma et al. 2021,

    KL( q(x_t | x_0) || N(0, sigma(t)^2 I) ) = SNR(t) ||x_0||^2 / 2,        SNR = alpha^2 / sigma^2.

For ||x_0||^2 = d, the default fields and t = 1 it is, in nats per dimension: VP 2e-5, SubVP 2e-5, VE 2e-4,
EDM 8e-5, Cosine 5e-7, RectifiedFlow and Trigonometric 0. At t = 0 VE and EDM contain noise of
standard deviation sigma_min.
"""

import abc
import math
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Float

from genjax.core.types import Array

Time = Float[Array, "..."]


def derivative(function: Callable[[Array], Array], t: Array) -> tuple[Array, Array]:
    """Value and time derivative of an elementwise function, both shaped as `t`."""
    return jax.jvp(function, (t,), (jnp.ones_like(t),))


def expand(t: Float[Array, "..."], x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Appends axes of length 1 to `t` ([b] or scalar) until it broadcasts against `x` [b, ...]."""
    return t.reshape(t.shape + (1,) * (x.ndim - t.ndim)) if t.ndim else t


class Process(abc.ABC):
    """Base class of processes; `t` has any shape, float32 or float64, and results have the same."""

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
        """x_t = alpha(t) x_0 + sigma(t) eps.

        Args:
            x0: data [b, ...].
            eps: noise, shaped as x0.
            t: a scalar, or one time per example [b].

        Returns:
            x_t, shaped as x0.
        """
        return expand(self.alpha(t), x0) * x0 + expand(self.sigma(t), x0) * eps

    def time_at(self, log_snr: Time, start: float = 1.0, end: float = 0.0) -> Time:
        """The times in [end, start] at which `log_snr(t)` has given values, by bisection to machine precision.

        Args:
            log_snr: lambda, any shape, float32 or float64; values outside the interval's range give the nearer end.
            start: latest time.
            end: earliest time.

        Returns:
            t, with the shape and dtype of lambda; log_snr(t) must decrease in t.
        """

        def halve(bounds: tuple[Time, Time], _: None) -> tuple[tuple[Time, Time], None]:
            low, high = bounds
            middle = 0.5 * (low + high)
            early = self.log_snr(middle) > log_snr
            return (jnp.where(early, middle, low), jnp.where(early, high, middle)), None

        ends = (jnp.full_like(log_snr, end), jnp.full_like(log_snr, start))
        halvings = jnp.finfo(log_snr.dtype).nmant + 41
        (low, high), _ = jax.lax.scan(halve, ends, length=halvings)
        return 0.5 * (low + high)

    def log_prior(self, x: Float[Array, "b ..."], t: Float[Array, ""]) -> Float[Array, " b"]:
        """log N(x; 0, sigma(t)^2 I), in nats per example."""
        sigma = self.sigma(t)
        rest = tuple(range(1, x.ndim))
        dims = math.prod(x.shape[1:])
        return -0.5 * jnp.sum((x / sigma) ** 2, axis=rest) - dims * (
            jnp.log(sigma) + 0.5 * math.log(2.0 * math.pi)
        )

    def prior_kl(self, x0: Float[Array, "b ..."], t: Float[Array, ""]) -> Float[Array, " b"]:
        """KL( q(x_t | x_0) || N(0, sigma(t)^2 I) ) = SNR(t) ||x_0||^2 / 2, in nats per example."""
        snr = (self.alpha(t) / self.sigma(t)) ** 2
        return 0.5 * snr * jnp.sum(x0**2, axis=tuple(range(1, x0.ndim)))


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
class SubVP(VP):
    """Sub-variance preserving (Song et al. 2021, eq. 12 and 29): VP's alpha with less noise.

    sigma = 1 - alpha^2, so that dx = -beta x dt / 2 + sqrt(beta (1 - alpha^4)) dw.
    """

    def sigma(self, t: Time) -> Time:
        """1 - alpha(t)^2, without cancellation near t = 0."""
        return -jnp.expm1(2.0 * self._log_alpha(t))


@dataclass(frozen=True)
class Cosine(Process):
    """Variance preserving along an arc (Nichol & Dhariwal 2021, arXiv:2102.09672, eq. 17).

    alpha(t) = cos(theta(t)) / cos(theta(0)),  theta linear in t from pi/2 offset / (1 + offset),

    to where alpha(1) = `alpha_end`. The paper has alpha_end = 0, where x_0 is not determined by eps, and clips
    the steps' beta instead (as `discretise` does); the arc is shorter than the paper's by the factor
    1 - 2 (1 + offset) / pi arcsin(alpha_end cos(theta(0))).

    Attributes:
        offset: s in the paper: a lower limit on the noise of the first steps.
        alpha_end: alpha(1), the scale of the data at t = 1.
    """

    offset: float = 0.008
    alpha_end: float = 1e-3

    def _angles(self, t: Time) -> tuple[float, Time]:
        first = 0.5 * math.pi * self.offset / (1.0 + self.offset)
        last = math.acos(self.alpha_end * math.cos(first))
        return first, (last - first) * t

    def alpha(self, t: Time) -> Time:
        """cos(theta(t)) / cos(theta(0))."""
        first, change = self._angles(t)
        return jnp.cos(first + change) / math.cos(first)

    def sigma(self, t: Time) -> Time:
        """sqrt(1 - alpha^2) = sqrt(sin(theta - theta_0) sin(theta + theta_0)) / cos(theta_0)."""
        first, change = self._angles(t)
        return jnp.sqrt(jnp.sin(change) * jnp.sin(2.0 * first + change)) / math.cos(first)


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


@dataclass(frozen=True)
class EDM(Process):
    """alpha = 1 and Karras's noise levels (Karras et al. 2022, arXiv:2206.00364, eq. 5).

    sigma(t) = (sigma_min^(1/rho) + t (sigma_max^(1/rho) - sigma_min^(1/rho)))^rho,

    so that equal steps in t give the paper's sigma_i. Euler or Heun steps in t differ from the paper's, which are in
    sigma; a DDIM step is an Euler step in sigma.

    Attributes:
        sigma_min: sigma at t = 0.
        sigma_max: sigma at t = 1.
        rho: 1 is linear, where Heun steps in t and in sigma coincide; rho -> infinity is `VE`'s geometric map.
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0

    def alpha(self, t: Time) -> Time:
        """1."""
        return jnp.ones_like(t)

    def sigma(self, t: Time) -> Time:
        """(sigma_min^(1/rho) + t (sigma_max^(1/rho) - sigma_min^(1/rho)))^rho."""
        low, high = self.sigma_min ** (1.0 / self.rho), self.sigma_max ** (1.0 / self.rho)
        return (low + t * (high - low)) ** self.rho


@dataclass(frozen=True)
class Trigonometric(Process):
    """The quarter circle: alpha = cos(pi t / 2), sigma = sin(pi t / 2).

    The variance-preserving interpolant of Albergo & Vanden-Eijnden 2023 (arXiv:2209.15571, sec. 2) and SiT
    (Ma et al. 2024, arXiv:2401.08740). dx/dt = pi/2 (alpha eps - sigma x_0) is pi/2 times `V`'s v.
    """

    def alpha(self, t: Time) -> Time:
        """cos(pi t / 2), exactly 0 at t = 1."""
        return jnp.sin(0.5 * math.pi * (1.0 - t))

    def sigma(self, t: Time) -> Time:
        """sin(pi t / 2)."""
        return jnp.sin(0.5 * math.pi * t)
