"""Helpers for arrays with a batch axis."""

import jax.numpy as jnp
from jaxtyping import Float

from genjax.core.types import Array


def sum_dims(x: Float[Array, "b ..."]) -> Float[Array, " b"]:
    """Sums over all axes but the first."""
    return jnp.sum(x, axis=tuple(range(1, x.ndim)))
