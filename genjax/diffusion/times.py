"""Distributions of training times t.

A batch's times are t_i = F^-1((u + i / b) mod 1), one uniform u for all i, with F the distribution function: each
t_i has distribution F, and the batch's mean loss has a smaller variance than with independent draws (Kingma et al.
2021, arXiv:2107.00630, app. I.1). The weight of each time is defined in `weighting`.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Float

from genjax.core.errors import UserError
from genjax.core.row_keys import first_row
from genjax.core.types import Array, Key
from genjax.diffusion.process import Process

GOLDEN = 2654435769  # 2^32 / φ


@runtime_checkable
class Times(Protocol):
    """A distribution over [0, 1] to draw training times from."""

    def draw(self, process: Process, key: Key, num: int) -> Float[Array, " b"]:
        """Samples times.

        Args:
            process: gives the log-SNR, for distributions over noise levels.
            key: typed PRNG key.
            num: number of times.

        Returns:
            Times [num], float32.
        """
        ...


def stratified(key: Key, num: int) -> Float[Array, " b"]:
    """Stratified uniform numbers (u + i / num) mod 1 with one uniform u: each is uniform on [0, 1).

    The order is fixed: batches are shuffled, so that times and examples are independent. With a row key (evaluation)
    example i has (u + i φ) mod 1, φ the golden ratio: evenly spread over any consecutive examples, in whatever batches.
    """
    u, first = jax.random.uniform(key), first_row(key)
    if first is None:
        return (u + jnp.arange(num) / num) % 1.0
    index = (first + jnp.arange(num)).astype(jnp.uint32)
    # i φ mod 1 in 32-bit fixed point: exact for every i, where float32 loses the fraction of large i
    return (u + (index * jnp.uint32(GOLDEN) >> 8).astype(jnp.float32) * 2.0**-24) % 1.0


@dataclass(frozen=True)
class UniformTimes:
    """Uniform on [low, high]."""

    low: float = 1e-4
    high: float = 1.0

    def draw(self, process: Process, key: Key, num: int) -> Float[Array, " b"]:
        """low + (high - low) u."""
        return self.low + (self.high - self.low) * stratified(key, num)


@dataclass(frozen=True)
class LogitNormal:
    """logit(t) ~ N(mean, std^2) (Esser et al. 2024, arXiv:2403.03206, sec. 3.1).

    With `RectifiedFlow`, `Velocity` and weight 1 these are SD3's `rf/lognorm(mean, std)`.

    Attributes:
        mean: mean of logit t; larger values give noisier data.
        std: standard deviation of logit t.
        low: lower limit of t.
        high: upper limit of t.
    """

    mean: float = 0.0
    std: float = 1.0
    low: float = 1e-4
    high: float = 1.0

    def draw(self, process: Process, key: Key, num: int) -> Float[Array, " b"]:
        """sigmoid(mean + std z), z the normal quantiles of stratified uniforms."""
        z = jax.scipy.special.ndtri(stratified(key, num))
        return jnp.clip(jax.nn.sigmoid(self.mean + self.std * z), self.low, self.high)


@dataclass(frozen=True)
class LogNormalSigma:
    """log(sigma / alpha) ~ N(mean, std^2): EDM's times for any process (Karras et al. 2022, table 1).

    Noise levels outside the range of the process are clipped to its ends.

    Attributes:
        mean: P_mean of the logarithm of the noise level, for data as given to the model.
        std: P_std.
        low: lower limit of t.
        high: upper limit of t.
    """

    mean: float = -1.2
    std: float = 1.2
    low: float = 1e-4
    high: float = 1.0

    def draw(self, process: Process, key: Key, num: int) -> Float[Array, " b"]:
        """The times at which log SNR is -2 (mean + std z)."""
        z = jax.scipy.special.ndtri(stratified(key, num))
        return jnp.clip(process.time_at(-2.0 * (self.mean + self.std * z)), self.low, self.high)


@dataclass(frozen=True)
class DiscreteTimes:
    """Uniform on t_k = low + (high - low) k / (levels - 1), k = 0 ... levels - 1.

    With low = 1 / levels these are DDPM's times i / T (Ho et al. 2020, arXiv:2006.11239). With low = 0 and `VE` the
    noise levels are geometric, NCSN's (Song & Ermon 2019, arXiv:1907.05600, sec. 3.2), and a sampler of levels - 1
    steps on the grid `LogSNR(1, 0)` uses all of them.

    Attributes:
        levels: number of times, at least 2.
        low: the first time.
        high: the last time.

    Raises:
        UserError: fewer than 2 levels.
    """

    levels: int = 1000
    low: float = 1e-3
    high: float = 1.0

    def __post_init__(self) -> None:
        if self.levels < 2:
            raise UserError(f"levels={self.levels} must be at least 2")

    def draw(self, process: Process, key: Key, num: int) -> Float[Array, " b"]:
        """t_k with k = floor(levels u)."""
        index = jnp.minimum(jnp.floor(self.levels * stratified(key, num)), self.levels - 1)
        return self.low + (self.high - self.low) * (index / (self.levels - 1))
