"""Convolution, matrix product and attention by the compiler's own operations: the reference for all other forms."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from genjax.core.types import Array


class Window(NamedTuple):
    """Geometry of a convolution: one stride and dilation for all axes, explicit padding for each."""

    strides: int
    pads: tuple[tuple[int, int], ...]
    dilation: int
    groups: int


def conv(x: Array, kernel: Array, window: Window, channels: str = "IO") -> Array:
    """Convolution, see `ops.conv`.

    Args:
        x: [b, *n, i].
        kernel: [*k, i / groups, o], or [*k, o, i] if `channels` is "OI".
        window: geometry.
        channels: order of the kernel's channels.

    Returns:
        [b, *m, o].
    """
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
    """x in float32 at least, for long sums, norms and softmax: a long sum in bfloat16 loses precision."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def dense(x: Array, kernel: Array) -> Array:
    """Multiplies x [..., i] by kernel [i, o]."""
    return x @ kernel


def attention(q: Array, k: Array, v: Array, causal: bool, mask: Array | None, window: int) -> Array:
    """For arguments and result see `ops.attention`; window = 0 for no limit."""
    seen = None if mask is None else mask[:, None]
    near = (window - 1, 0) if window else None
    return jax.nn.dot_product_attention(q, k, v, mask=seen, is_causal=causal, local_window_size=near)
