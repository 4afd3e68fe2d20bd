"""When and how heavily a diffusion loss looks: distributions of t, and weights.

The loss is E_t [ w(t) E || target - out ||^2 ] with the mean over dimensions. For the eps-prediction w = 1 is
DDPM's simple loss (Ho et al. 2020, arXiv:2006.11239, eq. 14).
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Float

from genjax.types import Array, Key


@runtime_checkable
class Times(Protocol):
    """A distribution over [0, 1] to draw training times from."""

    def draw(self, key: Key, num: int) -> Float[Array, " b"]:
        """`num` times, float32."""
        ...


@dataclass(frozen=True)
class UniformTimes:
    """Uniform on [low, high], each batch spread evenly: t_i = (u + i) / b, one u for all.

    Each t_i alone is uniform, and the batch's mean loss varies less (Kingma et al. 2021,
    arXiv:2107.00630, app. I.1).
    """

    low: float = 1e-4
    high: float = 1.0

    def draw(self, key: Key, num: int) -> Float[Array, " b"]:
        """Low-discrepancy times in a fixed order; the examples they meet are shuffled."""
        offset = jax.random.uniform(key)
        fraction = (offset + jnp.arange(num) / num) % 1.0
        return self.low + (self.high - self.low) * fraction
