"""Where in time a diffusion loss looks: distributions of t.

A batch's times are t_i = F^-1((u + i / b) mod 1), one uniform u for all i, with F the distribution function: each
t_i alone follows F, and the batch's mean loss varies less than with independent draws (Kingma et al. 2021,
arXiv:2107.00630, app. I.1). How heavily each time counts is `weighting`'s matter.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Float

from genjax.core.errors import UserError
from genjax.core.types import Array, Key
from genjax.diffusion.process import Process


@runtime_checkable
class Times(Protocol):
    """A distribution over [0, 1] to draw training times from."""

    def draw(self, process: Process, key: Key, num: int) -> Float[Array, " b"]:
        """`num` times, float32."""
        ...


def spread(key: Key, num: int) -> Float[Array, " b"]:
    """(u + i / num) mod 1 with one uniform u: each uniform on [0, 1), together even.

    The order is fixed; the examples that the times meet are shuffled.
    """
    return (jax.random.uniform(key) + jnp.arange(num) / num) % 1.0


@dataclass(frozen=True)
class UniformTimes:
    """Uniform on [low, high]."""

    low: float = 1e-4
    high: float = 1.0

    def draw(self, process: Process, key: Key, num: int) -> Float[Array, " b"]:
        """low + (high - low) u."""
        return self.low + (self.high - self.low) * spread(key, num)


@dataclass(frozen=True)
class LogitNormal:
    """logit(t) ~ N(mean, std^2) (Esser et al. 2024, arXiv:2403.03206, sec. 3.1).

    With `RectifiedFlow`, `Velocity` and weight 1 these are SD3's `rf/lognorm(mean, std)`.

    Attributes:
        mean: of logit t; larger looks at noisier data.
        std: of logit t.
        low: no time is earlier.
        high: no time is later.
    """

    mean: float = 0.0
    std: float = 1.0
    low: float = 1e-4
    high: float = 1.0

    def draw(self, process: Process, key: Key, num: int) -> Float[Array, " b"]:
        """sigmoid(mean + std z), z the normal quantiles of even fractions."""
        z = jax.scipy.special.ndtri(spread(key, num))
        return jnp.clip(jax.nn.sigmoid(self.mean + self.std * z), self.low, self.high)


@dataclass(frozen=True)
class LogNormalSigma:
    """log(sigma / alpha) ~ N(mean, std^2): EDM's times for any process (Karras et al. 2022, table 1).

    Noise levels beyond the process's are drawn at its ends.

    Attributes:
        mean: P_mean of the logarithm of the noise level, with data as the model sees them.
        std: P_std.
        low: no time is earlier.
        high: no time is later.
    """

    mean: float = -1.2
    std: float = 1.2
    low: float = 1e-4
    high: float = 1.0

    def draw(self, process: Process, key: Key, num: int) -> Float[Array, " b"]:
        """The times at which log SNR is -2 (mean + std z)."""
        z = jax.scipy.special.ndtri(spread(key, num))
        return jnp.clip(process.time_at(-2.0 * (self.mean + self.std * z)), self.low, self.high)


@dataclass(frozen=True)
class DiscreteTimes:
    """Uniform on t_k = low + (high - low) k / (levels - 1), k = 0 ... levels - 1.

    With low = 1 / levels these are DDPM's times i / T (Ho et al. 2020, arXiv:2006.11239). With low = 0 and `VE` the
    noise levels are geometric, NCSN's (Song & Ermon 2019, arXiv:1907.05600, sec. 3.2), and a sampler of levels - 1
    steps on a grid `LogSNR(1, 0)` visits them all.

    Attributes:
        levels: number of times, at least 2.
        low: the first.
        high: the last.

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
        index = jnp.minimum(jnp.floor(self.levels * spread(key, num)), self.levels - 1)
        return self.low + (self.high - self.low) * (index / (self.levels - 1))
