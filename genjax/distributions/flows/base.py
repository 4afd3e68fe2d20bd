"""Base distributions of flows: independent, identically distributed elements.

    Normal     exp(-z^2 / 2) / sqrt(2 pi)
    Logistic   sigmoid(z) sigmoid(-z)                                                    (NICE, arXiv:1410.8516)
    StudentT   Gamma((n + 1) / 2) / (Gamma(n / 2) sqrt(n pi)) (1 + z^2 / n)^(-(n + 1) / 2)
    Uniform    1 on [0, 1]

Sampling at temperature T draws T z (about the middle of the support): for the normal distribution this has a density
proportional to p^(1 / T^2) (Glow, arXiv:1807.03039, section 6).
"""

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Float

from genjax.core.arrays import sum_dims
from genjax.core.types import Array, Key

State = Float[Array, "b ..."]


@runtime_checkable
class Base(Protocol):
    """A distribution of arrays of any shape."""

    @property
    def window(self) -> tuple[float, float]:
        """(low, high): an interval with most of an element's probability mass, for plots."""
        ...

    def log_prob(self, z: State) -> Float[Array, " b"]:
        """Log-density in nats."""
        ...

    def sample(self, key: Key, shape: tuple[int, ...], temperature: float = 1.0) -> State:
        """Draws samples.

        Args:
            key: typed PRNG key.
            shape: (b, ...).
            temperature: T, factor on the distance from the middle of the support.

        Returns:
            float32 of that shape.
        """
        ...


@dataclass(frozen=True)
class Normal:
    """N(0, I)."""

    @property
    def window(self) -> tuple[float, float]:
        """Three standard deviations."""
        return -3.0, 3.0

    def log_prob(self, z: State) -> Float[Array, " b"]:
        """Closed form."""
        return sum_dims(-0.5 * z**2 - 0.5 * math.log(2.0 * math.pi))

    def sample(self, key: Key, shape: tuple[int, ...], temperature: float = 1.0) -> State:
        """See `Base.sample`."""
        return temperature * jax.random.normal(key, shape)


@dataclass(frozen=True)
class Logistic:
    """The standard logistic distribution, with exponential tails."""

    @property
    def window(self) -> tuple[float, float]:
        """99 % of the mass."""
        return -5.3, 5.3

    def log_prob(self, z: State) -> Float[Array, " b"]:
        """Closed form."""
        return sum_dims(-jax.nn.softplus(z) - jax.nn.softplus(-z))

    def sample(self, key: Key, shape: tuple[int, ...], temperature: float = 1.0) -> State:
        """See `Base.sample`."""
        return temperature * jax.random.logistic(key, shape)


@dataclass(frozen=True)
class StudentT:
    """Student's t-distribution, for heavy-tailed data.

    Attributes:
        freedom: degrees of freedom n.
    """

    freedom: float = 4.0

    @property
    def window(self) -> tuple[float, float]:
        """99 % of the mass at n = 4."""
        return -4.6, 4.6

    def log_prob(self, z: State) -> Float[Array, " b"]:
        """Closed form."""
        n = self.freedom
        rest = math.lgamma(0.5 * (n + 1.0)) - math.lgamma(0.5 * n) - 0.5 * math.log(n * math.pi)
        return sum_dims(rest - 0.5 * (n + 1.0) * jnp.log1p(z**2 / n))

    def sample(self, key: Key, shape: tuple[int, ...], temperature: float = 1.0) -> State:
        """See `Base.sample`."""
        return temperature * jax.random.t(key, self.freedom, shape)


@dataclass(frozen=True)
class Uniform:
    """Uniform on the unit cube."""

    @property
    def window(self) -> tuple[float, float]:
        """The support."""
        return 0.0, 1.0

    def log_prob(self, z: State) -> Float[Array, " b"]:
        """0 inside, minus infinity outside."""
        return sum_dims(jnp.where((z >= 0.0) & (z <= 1.0), 0.0, -jnp.inf))

    def sample(self, key: Key, shape: tuple[int, ...], temperature: float = 1.0) -> State:
        """See `Base.sample`: scaled about 1/2."""
        return 0.5 + temperature * (jax.random.uniform(key, shape) - 0.5)
