"""What attention remembers of earlier places, so that a sequence is walked one place at a time.

Row b has walked `place[b]` places. A layer keeps their keys and values in slots, place p in slot p mod S: with as many
slots as there are places all are kept, with S = window only the last S ("ring"), which is all that a window of S sees.
Slot s of row b holds the place `seen[b, s]`, -1 if none. Rows need not be at the same place: each writes where it is,
so prompts of different lengths stand in one batch without padding between them and what follows.

Stored as int8, a key or value z [d] of one head becomes round(z / a), a = max |z_i| / 127, with a in float32: the error
of each entry is at most a / 2.
"""

import dataclasses
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, Shaped

from genjax.networks import ops
from genjax.types import Array, record

Kind = Literal["float32", "bfloat16", "int8"]


@record
class Layer:
    """Keys and values of one layer; `scale_k`, `scale_v` [b, s, groups] only where they are int8."""

    k: Shaped[Array, "b s groups d"]
    v: Shaped[Array, "b s groups d"]
    scale_k: Float[Array, "b s groups"] | None = None
    scale_v: Float[Array, "b s groups"] | None = None


@record
class Cache:
    """All that a transformer remembers.

    Attributes:
        layers: one for each block.
        seen: the place that each slot holds, -1 for none.
        place: of each row, how many it has walked.
    """

    layers: tuple[Layer, ...]
    seen: Int[Array, "b s"]
    place: Int[Array, " b"]


@record
class Turn:
    """Where the places of one call go and what they see; the same in all layers.

    Attributes:
        places: of the call, [b, k].
        slots: where each is kept; S for nowhere.
        mask: what each sees: of the slots after writing if k = 1, else of the slots before, then of the call's k.
    """

    places: Int[Array, "b k"]
    slots: Int[Array, "b k"]
    mask: Bool[Array, "b k m"]


def empty(kind: Kind, num: int, slots: int, groups: int, d: int, layers: int) -> Cache:
    """A cache that remembers nothing.

    Args:
        kind: how keys and values are kept.
        num: rows.
        slots: places that are kept.
        groups: heads of keys and values.
        d: features of each.
        layers: blocks.

    Returns:
        The cache.
    """
    shape = (num, slots, groups)

    def layer() -> Layer:  # arrays of its own, so that all can be donated
        scales = [jnp.zeros(shape) if kind == "int8" else None for _ in range(2)]
        return Layer(jnp.zeros((*shape, d), kind), jnp.zeros((*shape, d), kind), *scales)

    return Cache(
        tuple(layer() for _ in range(layers)),
        jnp.full((num, slots), -1, jnp.int32),
        jnp.zeros(num, jnp.int32),
    )


def advance(cache: Cache, k: int, count: Int[Array, " b"], total: int, window: int = 0) -> tuple[Turn, Cache]:
    """Plans the walk of k more places, of which row b takes the first `count[b]`.

    Args:
        cache: before.
        k: places of the call.
        count: 0 ... k of them for each row.
        total: places of the whole sequence; what is walked beyond them is not remembered.
        window: how many places, its own included, each one sees; 0 for all.

    Returns:
        The plan, and the cache with its places but not yet its layers moved on.
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
        """[b, k, m]: whether place (b, k) sees what is held [b, m]."""
        held, own = held[:, None], places[:, :, None]
        near = (held > own - window) if window else True
        return (held >= 0) & (held <= own) & near

    if k == 1:
        mask = visible(seen)
    else:
        new = jnp.where(ahead < count[:, None], places, -1)
        mask = jnp.concatenate([visible(cache.seen), visible(new)], axis=2)
    return Turn(places, index, mask), dataclasses.replace(cache, seen=seen, place=cache.place + count)


def rewind(cache: Cache, drop: Int[Array, " b"]) -> Cache:
    """Forgets the last `drop[b]` places of each row; a ring needs so many slots more than its window."""
    place = cache.place - drop
    seen = jnp.where(cache.seen >= place[:, None], -1, cache.seen)
    return dataclasses.replace(cache, seen=seen, place=place)


def _pack(z: Array, kind: str) -> tuple[Array, Array | None]:
    if kind != "int8":
        return z.astype(kind), None
    scale = jnp.max(jnp.abs(z.astype(jnp.float32)), axis=-1) / 127.0
    whole = jnp.rint(z.astype(jnp.float32) / jnp.maximum(scale, 1e-30)[..., None])
    return whole.astype(jnp.int8), scale


def _unpack(z: Array, scale: Array | None, dtype: jnp.dtype) -> Array:
    return z.astype(dtype) if scale is None else (z.astype(jnp.float32) * scale[..., None]).astype(dtype)


def attend(
    q: Float[Array, "b k heads d"],
    k: Float[Array, "b k groups d"],
    v: Float[Array, "b k groups d"],
    layer: Layer,
    turn: Turn,
) -> tuple[Float[Array, "b k heads d"], Layer]:
    """Attention of new places to themselves and to what is remembered, which then remembers them.

    Args:
        q: queries of the new places.
        k: their keys.
        v: their values.
        layer: what is remembered.
        turn: see `advance`.

    Returns:
        (what each query sees, as `ops.attention`; the layer with the new places).
    """
    rows = jnp.arange(q.shape[0])[:, None]
    held = {"k": (layer.k, layer.scale_k), "v": (layer.v, layer.scale_v)}
    new = {}
    for name, z in (("k", k), ("v", v)):
        values, scale = held[name]
        packed, size = _pack(z, str(values.dtype))
        values = values.at[rows, turn.slots].set(packed, mode="drop")
        if scale is not None and size is not None:
            scale = scale.at[rows, turn.slots].set(size, mode="drop")
        new[name] = (values, scale)
    read = new if q.shape[1] == 1 else held
    keys, values = (_unpack(*read[name], q.dtype) for name in ("k", "v"))
    if q.shape[1] > 1:
        keys, values = jnp.concatenate([keys, k], axis=1), jnp.concatenate([values, v], axis=1)
    h = ops.attention(q, keys, values, mask=turn.mask)
    return h, Layer(new["k"][0], new["v"][0], new["k"][1], new["v"][1])
