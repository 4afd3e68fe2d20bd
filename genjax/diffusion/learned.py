"""A process defined by its log-SNR, such as a learned one (Kingma et al. 2021, arXiv:2107.00630, sec. 3.1).

With gamma(t) = -log SNR(t) increasing in t and alpha^2 + sigma^2 = 1

    alpha^2 = sigmoid(-gamma),      sigma^2 = sigmoid(gamma),
    f = -sigma^2 gamma' / 2,        g^2 = sigma^2 gamma'.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from genjax.core.types import Array
from genjax.diffusion.process import Process, Time, derivative


@dataclass(frozen=True)
class LearnedProcess(Process):
    """A variance-preserving process with a given log-SNR. alpha(0) < 1 where gamma(0) is finite.

    Attributes:
        gamma: t -> -log SNR(t), elementwise, differentiable, increasing; may close over traced parameters.
    """

    gamma: Callable[[Array], Array]

    def alpha(self, t: Time) -> Time:
        """sqrt(sigmoid(-gamma))."""
        return jnp.exp(0.5 * jax.nn.log_sigmoid(-self.gamma(t)))

    def sigma(self, t: Time) -> Time:
        """sqrt(sigmoid(gamma))."""
        return jnp.exp(0.5 * jax.nn.log_sigmoid(self.gamma(t)))

    def log_snr(self, t: Time) -> Time:
        """-gamma."""
        return -self.gamma(t)

    def drift(self, t: Time) -> Time:
        """-sigma^2 gamma' / 2."""
        return -0.5 * self.diffusion_squared(t)

    def diffusion_squared(self, t: Time) -> Time:
        """sigma^2 gamma'."""
        gamma, rate = derivative(self.gamma, t)
        return jax.nn.sigmoid(gamma) * rate
