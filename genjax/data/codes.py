"""Names of precomputed codes in a batch, and the fingerprint of the parameters that made them."""

import jax
import jax.numpy as jnp
from jaxtyping import UInt32

from genjax.core.types import Array, PyTree

CODES, FINGERPRINT = "z", "z_of"


def fingerprint(values: PyTree) -> UInt32[Array, ""]:
    """A checksum of a tree of arrays: the sum of all 32-bit words, weighted by position, modulo 2^32."""
    total = jnp.zeros((), jnp.uint32)
    for number, leaf in enumerate(jax.tree.leaves(values)):
        bits = jax.lax.bitcast_convert_type(jnp.asarray(leaf), jnp.uint32).reshape(-1)
        place = 2 * jnp.arange(bits.size, dtype=jnp.uint32) + jnp.uint32(2 * number + 1)
        total = total + jnp.sum(bits * place, dtype=jnp.uint32)
    return total
