"""Fine detail of the input, made visible (Kingma et al. 2021, arXiv:2107.00630, app. C)."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from genjax.core.types import Array


class FourierFeatures(nn.Module):
    """A network that is given (x, sin(2^n pi x), cos(2^n pi x)), n = low ... high, along the last axis.

    With 256 levels in [-1, 1] the paper takes n = 7, 8: waves two levels and one level long, so that the network
    can tell neighbouring levels apart.

    Attributes:
        net: called as itself.
        low: first n.
        high: last n.
    """

    net: nn.Module
    low: int = 7
    high: int = 8

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b *n i"],
        t: Float[Array, " b"] | None = None,
        cond: Float[Array, "b k"] | None = None,
        *,
        out: int | tuple[int, ...],
        train: bool = False,
    ) -> Float[Array, "b *m o"]:
        """The network's output; there are 1 + 2 (high - low + 1) channels for each of x's."""
        frequencies = np.pi * 2.0 ** np.arange(self.low, self.high + 1)
        angles = [float(frequency) * x for frequency in frequencies]
        waves = [wave(angle) for angle in angles for wave in (jnp.sin, jnp.cos)]
        return self.net(jnp.concatenate([x, *waves], axis=-1), t, cond, out=out, train=train)
