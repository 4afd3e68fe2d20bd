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

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, Shaped

from genjax.core.types import Array, record

Kind = Literal["float32", "bfloat16", "int8"]


@record
class Layer:
    """Keys and values of one layer, as attention multiplies them: one matrix for each row and group, in that order.

    With rows and groups as one axis the compiler writes a place where it belongs; else it copies all there is.
    `scale_k` and `scale_v` are there only where keys and values are int8.
    """

    k: Shaped[Array, "bg d s"]
    v: Shaped[Array, "bg s d"]
    scale_k: Float[Array, "bg s"] | None = None
    scale_v: Float[Array, "bg s"] | None = None


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
    n = num * groups

    def layer() -> Layer:  # arrays of its own, so that all can be donated
        scales = [jnp.zeros((n, slots)) if kind == "int8" else None for _ in range(2)]
        return Layer(jnp.zeros((n, d, slots), kind), jnp.zeros((n, slots, d), kind), *scales)

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


def _remember(layer: Layer, k: Array, v: Array, slots: Array) -> Layer:
    """The layer with keys and values [b, n, groups, d] in slots [b, n]."""
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
    b, n, heads, d = q.shape
    groups, slots, precise = k.shape[2], layer.v.shape[1], jnp.promote_types(q.dtype, jnp.float32)
    by_group = lambda z: z.reshape(b, n, groups, -1, d).transpose(0, 2, 3, 1, 4).reshape(b * groups, -1, d)
    factor = lambda x, scale: x if scale is None else x * scale[:, None]
    product = lambda x, y: jnp.matmul(x, y.astype(x.dtype), preferred_element_type=precise)
    after = _remember(layer, k, v, turn.slots)
    held, queries = after if n == 1 else layer, by_group(q)
    logits = factor(product(queries, held.k), held.scale_k)
    if n > 1:  # old and new apart: to join them would copy what is remembered
        logits = jnp.concatenate([logits, product(queries, by_group(k).swapaxes(1, 2))], axis=2)
    logits = logits.reshape(b, groups, -1, n, logits.shape[2]) / d**0.5
    weights = jax.nn.softmax(jnp.where(turn.mask[:, None, None], logits, jnp.finfo(precise).min))
    weights = weights.reshape(*queries.shape[:2], -1)
    y = product(factor(weights[..., :slots], held.scale_v).astype(v.dtype), held.v)
    if n > 1:
        y = y + product(weights[..., slots:].astype(v.dtype), by_group(v))
    y = y.astype(v.dtype).reshape(b, groups, -1, n, d)
    return y.transpose(0, 3, 1, 2, 4).reshape(b, n, heads, d), after
