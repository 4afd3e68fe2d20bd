"""Fourier features of the input, for fine detail (Kingma et al. 2021, arXiv:2107.00630, app. C)."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from genjax.core.types import Array
from genjax.networks.layers.network import ConditionalNetwork, Outputs, Times, Vector


class FourierFeatures(ConditionalNetwork):
    """A network applied to (x, sin(2^n pi x), cos(2^n pi x)), n = low ... high, concatenated along the last axis.

    With 256 levels in [-1, 1] the paper uses n = 7, 8: waves with periods of two levels and one, which distinguish
    adjacent levels.

    Attributes:
        net: called with the same arguments.
        low: first n.
        high: last n.
    """

    net: nn.Module
    low: int = 7
    high: int = 8

    def forward(self, x: Array, t: Times, cond: Vector, out: Outputs, train: bool) -> Array:
        """Applies `net` to x and its features: 1 + 2 (high - low + 1) channels for each channel of x.

        Args:
            x: [b, *n, i].
            t: times [b], or None.
            cond: conditioning vectors [b, k], or None.
            out: passed to `net`.
            train: passed to `net`.

        Returns:
            The output of `net`.
        """
        frequencies = np.pi * 2.0 ** np.arange(self.low, self.high + 1)
        angles = [float(frequency) * x for frequency in frequencies]
        waves = [wave(angle) for angle in angles for wave in (jnp.sin, jnp.cos)]
        return self.net(jnp.concatenate([x, *waves], axis=-1), t, cond, out=out, train=train)
