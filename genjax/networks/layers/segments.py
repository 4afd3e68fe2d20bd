"""Segments: the document of each token of a row, as integers that differ between adjacent documents."""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Int

from genjax.core.types import Array


def starts(segment: Int[Array, "b n"]) -> Bool[Array, "b n"]:
    """Whether a token is the first of its segment."""
    return jnp.pad(segment[:, 1:] != segment[:, :-1], ((0, 0), (1, 0)), constant_values=True)


def places(segment: Int[Array, "b n"]) -> Int[Array, "b n"]:
    """The position of each token in its segment, from 0."""
    index = jnp.broadcast_to(jnp.arange(segment.shape[1])[None], segment.shape)
    return index - jax.lax.cummax(jnp.where(starts(segment), index, 0), axis=1)


def together(segment: Int[Array, "b n"]) -> Bool[Array, "b n n"]:
    """Whether two tokens are in one segment: a mask for `ops.attention`."""
    return segment[:, :, None] == segment[:, None, :]
