"""Convolution and matrix product as the compiler offers them: what every other form must equal."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from genjax.core.types import Array


class Window(NamedTuple):
    """How a kernel walks: the same stride and dilation along every axis, explicit padding for each."""

    strides: int
    pads: tuple[tuple[int, int], ...]
    dilation: int
    groups: int


def conv(x: Array, kernel: Array, window: Window, channels: str = "IO") -> Array:
    """Convolves x [b, *n, i] with kernel [*k, i / groups, o] (channels "OI": [*k, o, i]); see `ops.conv`."""
    axes = "DHW"[-len(window.pads) :]
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(window.strides,) * len(window.pads),
        padding=window.pads,
        rhs_dilation=(window.dilation,) * len(window.pads),
        dimension_numbers=(f"N{axes}C", axes + channels, f"N{axes}C"),
        feature_group_count=window.groups,
    )


def wide(x: Array) -> Array:
    """x in float32 at least: in which long sums are made, as one in bfloat16 loses its tail, and norms and softmax."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def dense(x: Array, kernel: Array) -> Array:
    """Multiplies x [..., i] by kernel [i, o]."""
    return x @ kernel


def attention(q: Array, k: Array, v: Array, causal: bool, mask: Array | None, window: int) -> Array:
    """See `ops.attention`; window = 0 is none."""
    seen = None if mask is None else mask[:, None]
    near = (window - 1, 0) if window else None
    return jax.nn.dot_product_attention(q, k, v, mask=seen, is_causal=causal, local_window_size=near)
