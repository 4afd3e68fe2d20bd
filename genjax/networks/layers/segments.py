"""Segments: which tokens of a row belong to one document, as numbers that differ from one document to the next."""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Int

from genjax.core.types import Array


def begins(segment: Int[Array, "b n"]) -> Bool[Array, "b n"]:
    """Whether a token is the first of its segment."""
    return jnp.pad(segment[:, 1:] != segment[:, :-1], ((0, 0), (1, 0)), constant_values=True)


def places(segment: Int[Array, "b n"]) -> Int[Array, "b n"]:
    """The place of each token in its segment, from 0."""
    index = jnp.broadcast_to(jnp.arange(segment.shape[1])[None], segment.shape)
    return index - jax.lax.cummax(jnp.where(begins(segment), index, 0), axis=1)


def together(segment: Int[Array, "b n"]) -> Bool[Array, "b n n"]:
    """Whether two tokens are of one segment: what an attention sees that stays inside, see `ops.attention`."""
    return segment[:, :, None] == segment[:, None, :]
