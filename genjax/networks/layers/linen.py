"""Thin Linen layers around the operations of `ops`: parameters float32, computation in `dtype`."""

from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from genjax.core.sharding_rules import constrain, gather_parameter
from genjax.core.types import Array
from genjax.networks.layers import ops
from genjax.networks.layers.weight_quantization import Packed

Initializer = jax.nn.initializers.Initializer
Activation = Literal["silu", "gelu", "relu", "leaky_relu", "tanh"]

lecun = nn.initializers.lecun_normal()
zeros = nn.initializers.zeros


def activate(name: Activation, x: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """Applies a pointwise non-linearity; the leaky slope is 0.2 (Radford et al. 2016)."""
    if name == "leaky_relu":
        return jax.nn.leaky_relu(x, 0.2)
    forms: dict[str, Callable[[Array], Array]] = {
        "silu": jax.nn.silu,
        "gelu": ops.gelu,
        "relu": jax.nn.relu,
        "tanh": jnp.tanh,
    }
    return forms[name](x)


def add(y: Array, bias: Array) -> Array:
    """Adds in float32, so that the bias's gradient is summed in float32: long sums in bfloat16 lose precision."""
    return (ops.wide(y) + ops.along_last(bias, y.ndim)).astype(y.dtype)


def regroup(z: Float[Array, "*n o"], shares: int, parts: tuple[int, ...]) -> Float[Array, "*n o"]:
    """Reorders the last axis so that each of `shares` equal slices holds an equal slice of every part.

    Devices that split queries, keys and values made by one matrix then hold matching heads; reordering the
    columns of the matrix moves less data than reordering its output.

    Args:
        z: features, or the kernel or bias that make them.
        shares: number of slices; divides every part.
        parts: widths of the parts, of sum o.

    Returns:
        z, reordered; z itself if `shares` is 1.
    """
    if shares == 1:
        return z
    pieces = jnp.split(z, np.cumsum(parts[:-1]), axis=-1)
    whole = jnp.concatenate([piece.reshape(*z.shape[:-1], shares, -1) for piece in pieces], axis=-1)
    return constrain(whole, *(None,) * (z.ndim - 1), "tensor", None).reshape(z.shape)


class Dense(nn.Module):
    """Affine map of the last axis: y = x kernel + bias, kernel [in, features].

    Attributes:
        features: output size.
        use_bias: whether there is a bias.
        dtype: dtype of the computation.
        kernel_init: initialiser of the kernel.
        shares: number of slices of the features, see `regroup`.
        parts: widths of the parts of the features, see `regroup`.
        rows: whether devices of the axis `tensor` split the input instead of the features.
    """

    features: int
    use_bias: bool = True
    dtype: str = "float32"
    kernel_init: Initializer = lecun
    shares: int = 1
    parts: tuple[int, ...] = ()
    rows: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "b *n i"]) -> Float[Array, "b *n o"]:
        """Maps [..., in] to [..., features], computed and returned in `dtype`; the kernel may be `Packed`."""
        kernel: Any = self.param("kernel", self.kernel_init, (x.shape[-1], self.features), jnp.float32)
        bias = self.param("bias", zeros, (self.features,), jnp.float32) if self.use_bias else None
        regrouped = lambda z: regroup(z, self.shares, self.parts)
        x = x.astype(self.dtype)
        if isinstance(kernel, Packed):
            y = regrouped(kernel.multiply(x))
        else:
            kernel = gather_parameter(regrouped(kernel), split=0 if self.rows else 1)
            y = ops.dense(x, kernel.astype(self.dtype))
        return y if bias is None else add(y, regrouped(bias))


class Conv(nn.Module):
    """Convolution over all axes between batch and channels; kernel [*kernel_size, in / groups, features].

    Attributes:
        features: output channels.
        kernel_size: extent along each spatial axis; its length is the number of spatial axes.
        strides: step of the output grid, the same along each axis.
        padding: "SAME", "VALID", "CIRCULAR" (the grid is a torus) or explicit (low, high) pairs.
        dilation: distance between the kernel's taps.
        groups: independent groups of channels; the number of input channels makes it depthwise.
    """

    features: int
    kernel_size: tuple[int, ...] = (3, 3)
    strides: int = 1
    padding: ops.Padding = "SAME"
    dilation: int = 1
    groups: int = 1
    use_bias: bool = True
    dtype: str = "float32"
    kernel_init: Initializer = lecun

    @nn.compact
    def __call__(self, x: Float[Array, "b *n i"]) -> Float[Array, "b *m o"]:
        """Convolves; computed and returned in `dtype`."""
        shape = (*self.kernel_size, x.shape[-1] // self.groups, self.features)
        kernel = gather_parameter(self.param("kernel", self.kernel_init, shape, jnp.float32))
        bias = self.param("bias", zeros, (self.features,), jnp.float32) if self.use_bias else None
        y = ops.conv(
            x.astype(self.dtype),
            kernel.astype(self.dtype),
            strides=self.strides,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
        )
        return y if bias is None else add(y, bias)


class GroupNorm(nn.Module):
    """Group normalisation (Wu & He 2018) with a scale and bias per channel; see `ops.group_norm`.

    Attributes:
        groups: maximum number of groups; the number used is the largest divisor of the
            channels with at least `min_channels` per group (Karras et al. 2022, as in EDM).
        min_channels: minimum number of channels per group.
        epsilon: added to the variance.
    """

    groups: int = 32
    min_channels: int = 4
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: Float[Array, "b *n c"]) -> Float[Array, "b *n c"]:
        """Normalises each example; statistics in float32, result in the dtype of x."""
        channels = x.shape[-1]
        most = max(1, min(self.groups, channels // self.min_channels))
        groups = next(g for g in range(most, 0, -1) if channels % g == 0)
        scale = self.param("scale", nn.initializers.ones, (channels,), jnp.float32)
        bias = self.param("bias", zeros, (channels,), jnp.float32)
        return ops.group_norm(x, scale, bias, groups, self.epsilon)


class Norm(nn.Module):
    """Layer normalisation ("layer") or its root-mean-square form ("rms") of the last axis; see `ops.layer_norm`.

    Attributes:
        kind: "layer" subtracts the mean, and has a bias if it has a scale.
        affine: multiply by a scale per channel.
        epsilon: added to the variance.
    """

    kind: Literal["layer", "rms"] = "layer"
    affine: bool = True
    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x: Float[Array, "b *n c"]) -> Float[Array, "b *n c"]:
        """Normalises each position; statistics in float32, result in the dtype of x."""
        y = ops.layer_norm(x, self.epsilon, self.kind == "layer")
        if not self.affine:
            return y
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],), jnp.float32)
        y = (ops.wide(y) * ops.along_last(scale, y.ndim)).astype(y.dtype)
        if self.kind == "rms":
            return y
        return add(y, self.param("bias", zeros, (x.shape[-1],), jnp.float32))
