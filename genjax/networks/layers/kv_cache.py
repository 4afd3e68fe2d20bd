"""Key-value cache of attention, for incremental decoding.

Row b has processed `place[b]` places. A layer keeps their keys and values in slots, place p in slot p mod S: with as
many slots as places all are kept, with S = window only the last S (ring buffer), which is all that a window of S sees.
Slot s of row b holds the place `seen[b, s]`, -1 if empty. Each row writes at its own place,
so prompts of different lengths share a batch without padding between prompt and continuation.

Stored as int8, a key or value z [d] of one head becomes round(z / a), a = max |z_i| / 127, with a in float32: the error
of each entry is at most a / 2.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, Shaped

from genjax.core.types import Array, record

Kind = Literal["float32", "bfloat16", "int8"]


@record
class Layer:
    """Keys and values of one layer, as attention multiplies them: one matrix for each row and group, in that order.

    With rows and groups as one axis the compiler updates the cache in place; with two axes it copies the whole cache.
    `scale_k` and `scale_v` are None unless keys and values are int8.
    """

    k: Shaped[Array, "bg d s"]
    v: Shaped[Array, "bg s d"]
    scale_k: Float[Array, "bg s"] | None = None
    scale_v: Float[Array, "bg s"] | None = None


@record
class Cache:
    """The cache of a transformer.

    Attributes:
        layers: one for each block.
        seen: the place that each slot holds, -1 for none.
        place: number of places processed in each row.
    """

    layers: tuple[Layer, ...]
    seen: Int[Array, "b s"]
    place: Int[Array, " b"]


@record
class CacheUpdate:
    """Slots and attention mask of the places of one call; the same in all layers.

    Attributes:
        places: the places of the call.
        slots: the slot of each place; S (out of range) if it is not kept.
        mask: visible entries: the slots after writing if k = 1, else the slots before writing, then the k new places.
    """

    places: Int[Array, "b k"]
    slots: Int[Array, "b k"]
    mask: Bool[Array, "b k m"]


def empty(kind: Kind, num: int, slots: int, groups: int, d: int, layers: int) -> Cache:
    """Allocates an empty cache.

    Args:
        kind: storage dtype of keys and values.
        num: number of rows.
        slots: S, number of places that are kept.
        groups: number of heads of keys and values.
        d: features of each head.
        layers: number of blocks.

    Returns:
        The cache.
    """
    n = num * groups

    def layer() -> Layer:  # distinct arrays, so that all can be donated
        scales = [jnp.zeros((n, slots)) if kind == "int8" else None for _ in range(2)]
        return Layer(jnp.zeros((n, d, slots), kind), jnp.zeros((n, slots, d), kind), *scales)

    return Cache(
        tuple(layer() for _ in range(layers)),
        jnp.full((num, slots), -1, jnp.int32),
        jnp.zeros(num, jnp.int32),
    )


def advance(
    cache: Cache, k: int, count: Int[Array, " b"], total: int, window: int = 0
) -> tuple[CacheUpdate, Cache]:
    """Prepares a call with k more places, of which row b takes the first `count[b]`.

    Args:
        cache: the cache before the call.
        k: number of places of the call.
        count: number of places taken by each row, 0 ... k.
        total: length of the whole sequence; places beyond it are not kept.
        window: number of places, its own included, that each one sees; 0 for all.

    Returns:
        (slots and mask of the call; the cache with `seen` and `place` updated, its layers not yet).
    """
    rows, slots = cache.seen.shape
    ahead = jnp.arange(k)[None]
    places = cache.place[:, None] + ahead
    last = (cache.place + count)[:, None]
    fits = places >= last - slots if total > slots else places < total
    kept = (ahead < count[:, None]) & fits
    index = jnp.where(kept, places % slots, slots)
    seen = cache.seen.at[jnp.arange(rows)[:, None], index].set(places, mode="drop")

    def visible(held: Array) -> Array:
        """[b, k, m]: whether place (b, k) sees the places `held` [b, m]."""
        held, own = held[:, None], places[:, :, None]
        near = (held > own - window) if window else True
        return (held >= 0) & (held <= own) & near

    if k == 1:
        mask = visible(seen)
    else:
        new = jnp.where(ahead < count[:, None], places, -1)
        mask = jnp.concatenate([visible(cache.seen), visible(new)], axis=2)
    return CacheUpdate(places, index, mask), dataclasses.replace(cache, seen=seen, place=cache.place + count)


def rewind(cache: Cache, drop: Int[Array, " b"]) -> Cache:
    """Drops the last `drop[b]` places of each row; a ring needs as many slots more than its window."""
    place = cache.place - drop
    seen = jnp.where(cache.seen >= place[:, None], -1, cache.seen)
    return dataclasses.replace(cache, seen=seen, place=place)


def _pack(z: Array, kind: str) -> tuple[Array, Array | None]:
    if kind != "int8":
        return z.astype(kind), None
    scale = jnp.max(jnp.abs(z.astype(jnp.float32)), axis=-1) / 127.0
    whole = jnp.rint(z.astype(jnp.float32) / jnp.maximum(scale, 1e-30)[..., None])
    return whole.astype(jnp.int8), scale


def _store(layer: Layer, k: Array, v: Array, slots: Array) -> Layer:
    """Writes keys and values [b, n, groups, d] to slots [b, n]."""
    (b, _, groups, _), rows = k.shape, jnp.arange(len(k))[:, None]

    def write(held: Array | None, z: Array | None, last: bool) -> Array | None:
        if held is None or z is None:
            return None
        apart = held.reshape(b, groups, *held.shape[1:])
        where = apart.at[rows, :, :, slots] if last else apart.at[rows, :, slots]
        return where.set(z, mode="drop").reshape(held.shape)

    (k, size_k), (v, size_v) = _pack(k, str(layer.k.dtype)), _pack(v, str(layer.v.dtype))
    written = write(layer.k, k, True), write(layer.v, v, False)
    return Layer(*written, write(layer.scale_k, size_k, False), write(layer.scale_v, size_v, False))  # type: ignore[arg-type]


def attend(
    q: Float[Array, "b k heads d"],
    k: Float[Array, "b k groups d"],
    v: Float[Array, "b k groups d"],
    layer: Layer,
    update: CacheUpdate,
) -> tuple[Float[Array, "b k heads d"], Layer]:
    """Attention of new places to the cache and to each other; writes them to the cache.

    Args:
        q: queries of the new places.
        k: keys of the new places.
        v: values of the new places.
        layer: the cache before.
        update: see `advance`.

    Returns:
        (output of each query, as `ops.attention`; the cache with the new places).
    """
    b, n, heads, d = q.shape
    groups, slots, precise = k.shape[2], layer.v.shape[1], jnp.promote_types(q.dtype, jnp.float32)
    by_group = lambda z: z.reshape(b, n, groups, -1, d).transpose(0, 2, 3, 1, 4).reshape(b * groups, -1, d)
    factor = lambda x, scale: x if scale is None else x * scale[:, None]
    product = lambda x, y: jnp.matmul(x, y.astype(x.dtype), preferred_element_type=precise)
    after = _store(layer, k, v, update.slots)
    held, queries = after if n == 1 else layer, by_group(q)
    logits = factor(product(queries, held.k), held.scale_k)
    if n > 1:  # cached and new keys separately: joining them would copy the cache
        logits = jnp.concatenate([logits, product(queries, by_group(k).swapaxes(1, 2))], axis=2)
    logits = logits.reshape(b, groups, -1, n, logits.shape[2]) / d**0.5
    weights = jax.nn.softmax(jnp.where(update.mask[:, None, None], logits, jnp.finfo(precise).min))
    weights = weights.reshape(*queries.shape[:2], -1)
    y = product(factor(weights[..., :slots], held.scale_v).astype(v.dtype), held.v)
    if n > 1:
        y = y + product(weights[..., slots:].astype(v.dtype), by_group(v))
    y = y.astype(v.dtype).reshape(b, groups, -1, n, d)
    return y.transpose(0, 3, 1, 2, 4).reshape(b, n, heads, d), after
