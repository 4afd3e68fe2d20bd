"""Keys whose random numbers belong to the rows of an array, not to the call that draws them.

The sampling and evaluation loops draw many examples in calls of some size, on some number of devices. With the key
`rows_from(row_key(seed), start)`, a draw of shape [n, ...] gives row i the numbers of example `start + i`: they depend
on the seed, the example and the named use only. The functions of `jax.random` work on such a key as on any other.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import random as jax_random
from jaxtyping import Float, Int, Shaped, UInt32

from genjax.core.types import Array, Key, named, root_key

THREEFRY = jax_random.threefry_prng_impl


def _with_start(start: Array, data: Array) -> UInt32[Array, "*shape 3"]:
    """Key data: Threefry's two words, then the first row's index."""
    return jnp.concatenate([data, jnp.broadcast_to(start, (*data.shape[:-1], 1))], axis=-1)


def _seed(seed: Array) -> UInt32[Array, "3"]:
    return _with_start(jnp.zeros(1, jnp.uint32), THREEFRY.seed(seed))


def _split(key: Array, shape: tuple[int, ...]) -> UInt32[Array, "*shape 3"]:
    return _with_start(key[2:], THREEFRY.split(key[:2], shape))


def _fold_in(key: Array, data: Any) -> UInt32[Array, "3"]:
    return _with_start(key[2:], THREEFRY.fold_in(key[:2], data))


def _add_product(a: Array, b: int, c: Array) -> tuple[Array, Array]:
    """a b + c in 64 bits, from 32 bits each: the high and the low word."""
    b1, b0 = jnp.uint32(b >> 16), jnp.uint32(b & 0xFFFF)
    a1, a0 = a >> 16, a & 0xFFFF
    middle = a1 * b0 + (a0 * b0 >> 16)
    crossed = a0 * b1 + (middle & 0xFFFF)
    low = a * jnp.uint32(b) + c
    carry = (low < c).astype(jnp.uint32)
    return a1 * b1 + (middle >> 16) + (crossed >> 16) + carry, low


def _random_bits(key: Array, bit_width: int, shape: tuple[int, ...]) -> Array:
    """Threefry of the element's index in the array of all examples: JAX's own numbers, if `start` is 0."""
    size = math.prod(shape[1:])
    if size >= 2**32:
        raise ValueError(f"a row of {size} random numbers is longer than the generator's counter")
    if shape:
        places = jax.lax.iota(jnp.uint32, size).reshape(shape[1:])
        places = jax.lax.broadcast_in_dim(places, shape, tuple(range(1, len(shape))))
        rows = jax.lax.broadcast_in_dim(jax.lax.iota(jnp.uint32, shape[0]) + key[2], shape, (0,))
        high, low = _add_product(rows, size, places)
    else:  # a scalar belongs to no row
        high = low = jnp.zeros((), jnp.uint32)
    high, low = jax_random.threefry2x32_p.bind(key[0], key[1], high, low)
    dtype = jnp.dtype(f"uint{bit_width}")
    if bit_width == 64:
        return jax.lax.shift_left(high.astype(dtype), jnp.asarray(32, dtype)) | low.astype(dtype)
    return (high ^ low).astype(dtype)


IMPLEMENTATION = jax_random.define_prng_impl(
    key_shape=(3,),
    seed=_seed,
    split=_split,
    random_bits=_random_bits,
    fold_in=_fold_in,
    name="genjax_rows",
    tag="rows",
)


def categorical(key: Key, logits: Float[Array, "*b k"]) -> Int[Array, "*b"]:
    """Draws a category from each row of logits by the Gumbel-max trick, with uniform numbers of 46 bits.

    `jax.random.categorical(mode="high")` draws the same law, with random numbers whose leading axis is no row.
    """
    high, low = (jax.random.uniform(named(key, name), logits.shape, logits.dtype) for name in ("high", "low"))
    info = jnp.finfo(logits.dtype)
    u = jnp.where(high >= 0.5, high, high + 2.0**-info.nmant * low + info.tiny)
    return jnp.argmax(logits - jnp.log(-jnp.log1p(-u)), axis=-1).astype(jnp.int32)


def row_key(seed: int) -> Key:
    """The key of a seed whose first row is example 0, shape ()."""
    return root_key(seed, IMPLEMENTATION)


def rows_from(key: Key, start: int | Int[Array, ""]) -> Key:
    """The same key for rows that begin with example `start`.

    Args:
        key: a key of `row_key`, or one derived from it, shape ().
        start: index of the example in row 0, below 2^32.

    Returns:
        The key, shape ().
    """
    data = jax.random.key_data(key)
    return jax.random.wrap_key_data(data.at[2].set(jnp.asarray(start, jnp.uint32)), impl=IMPLEMENTATION)


def keys_of_rows(key: Key, num: int) -> Shaped[Array, " {num}"]:
    """A key for each of `num` rows, by the index of its example: `fold_in(key, index)`, shape [num]."""
    first = first_row(key)
    index = jnp.arange(num)
    if first is not None:
        key, index = rows_from(key, 0), index + first
    return jax.vmap(jax.random.fold_in, (None, 0))(key, index)


def first_row(key: Key) -> Int[Array, ""] | None:
    """Index of the example in row 0 if `key` is a row key, else None."""
    if jax.random.key_impl(key) != IMPLEMENTATION:
        return None
    return jax.random.key_data(key)[2].astype(jnp.int32)
