"""Halving and doubling of space, along any number of spatial axes.

Three pairs of fixed filters, each other's adjoints up to the factor 2 per axis: <down x, y> = <x, up y> / 2^axes.

    box:   down averages blocks of two,   up repeats (nearest neighbour);
    fir:   down(x)_i = (x_{2i-1} + 3 x_{2i} + 3 x_{2i+1} + x_{2i+2}) / 8,
           up(x)_{2i} = (x_{i-1} + 3 x_i) / 4,   up(x)_{2i+1} = (3 x_i + x_{i+1}) / 4,

the second with the anti-aliasing binomial filter [1, 3, 3, 1] (Zhang 2019; Karras et al. 2020, arXiv:1912.04958,
as in NCSN++). Outside the image is zero, as in the published networks, so constants stay constant except at
the borders; with padding "CIRCULAR" the grid is a torus.
"""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from genjax.core.types import Array
from genjax.networks.layers import ops
from genjax.networks.layers.linen import Conv

Filter = Literal["box", "fir"]


def _padded(x: Array, axis: int, width: int, padding: ops.Padding) -> Array:
    """Extends one axis by `width` on both sides, with zeros or around the torus."""
    widths = [(width, width) if i == axis else (0, 0) for i in range(x.ndim)]
    return jnp.pad(x, widths, mode="wrap" if padding == "CIRCULAR" else "constant")


def _taps(x: Array, axis: int, count: int, stride: int) -> Array:
    """(x_0 + 3 x_1 + 3 x_2 + x_3) / 8 at `count` places along one axis of an extended x."""
    end = (count - 1) * stride + 1
    a, b, c, d = (jax.lax.slice_in_dim(x, k, k + end, stride, axis) for k in range(4))
    return (a + d) / 8 + (b + c) * (3 / 8)


def down(
    x: Float[Array, "b *n c"], kind: Filter = "box", padding: ops.Padding = "SAME"
) -> Float[Array, "b *m c"]:
    """Halves every spatial axis with a fixed filter.

    Args:
        x: input, of even sizes.
        kind: the filter.
        padding: "CIRCULAR" for a torus, otherwise zeros outside.

    Returns:
        [b, *n / 2, c].
    """
    if kind == "box":
        return ops.average_pool(x)
    for axis in range(1, x.ndim - 1):
        x = _taps(_padded(x, axis, 1, padding), axis, x.shape[axis] // 2, 2)
    return x


def up(
    x: Float[Array, "b *n c"], kind: Filter = "box", padding: ops.Padding = "SAME"
) -> Float[Array, "b *m c"]:
    """Doubles every spatial axis with a fixed filter.

    Args:
        x: input.
        kind: the filter.
        padding: "CIRCULAR" for a torus, otherwise zeros outside.

    Returns:
        [b, *2 n, c].
    """
    if kind == "box":
        return ops.upsample(x)
    for axis in range(1, x.ndim - 1):
        wide, n = _padded(x, axis, 1, padding), x.shape[axis]
        before, here, after = (jax.lax.slice_in_dim(wide, k, k + n, 1, axis) for k in range(3))
        pairs = jnp.stack([before / 4 + here * 0.75, here * 0.75 + after / 4], axis=axis + 1)
        x = pairs.reshape(*x.shape[:axis], 2 * n, *x.shape[axis + 1 :])
    return x


def blur(x: Float[Array, "b *n c"], padding: ops.Padding = "SAME") -> Float[Array, "b *m c"]:
    """The filter [1, 3, 3, 1] / 8 along every axis at the n + 1 corners of n pixels."""
    for axis in range(1, x.ndim - 1):
        x = _taps(_padded(x, axis, 2, padding), axis, x.shape[axis] + 1, 1)
    return x


class Downsample(nn.Module):
    """Halves space: a 3x3 convolution of stride 2, the same after a blur ("fir"), or the mean of 2x2 blocks ("pool").

    Attributes:
        kind: form of the downsampling.
        padding: padding of the convolution.
        dtype: dtype of the computation.
        features: output channels; 0 for those of the input, which "pool" always keeps.
    """

    kind: Literal["conv", "pool", "fir"] = "conv"
    padding: ops.Padding = "SAME"
    dtype: str = "float32"
    features: int = 0

    @nn.compact
    def __call__(self, x: Float[Array, "b *n c"]) -> Float[Array, "b *m o"]:
        """Maps sizes n to n / 2 (rounded up by "conv")."""
        if self.kind == "pool":
            return ops.average_pool(x)
        size, padding = (3,) * (x.ndim - 2), self.padding
        if self.kind == "fir":
            x, padding = blur(x.astype(self.dtype), padding), "VALID"
        features = self.features or x.shape[-1]
        return Conv(features, size, strides=2, padding=padding, dtype=self.dtype)(x)


class Upsample(nn.Module):
    """Doubles space: nearest neighbour or the "fir" filter, then a 3x3 convolution (Odena et al. 2016)."""

    features: int
    padding: ops.Padding = "SAME"
    dtype: str = "float32"
    kind: Filter = "box"

    @nn.compact
    def __call__(self, x: Float[Array, "b *n c"]) -> Float[Array, "b *m o"]:
        """Maps sizes n to 2 n."""
        size = (3,) * (x.ndim - 2)
        return Conv(self.features, size, padding=self.padding, dtype=self.dtype)(
            up(x, self.kind, self.padding)
        )
