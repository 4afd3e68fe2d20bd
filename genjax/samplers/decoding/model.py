"""The interface between models and the decoding loop: logits of the next token, given those so far."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from genjax.core.types import Array, record
from genjax.networks.layers.incremental import IncrementalDecoder, hold


class Model(NamedTuple):
    """A distribution over sequences of tokens, token by token.

    Attributes:
        init: (rows) -> (logits [b, v] of the first token, initial memory); the memory is laid out as that of
            `IncrementalDecoder`.
        extend: (memory, tokens [b, k], count [b], last) -> (logits, memory): appends the first `count[b]` tokens of
            each row. `last` (static) gives the logits after the last of them, [b, 1, v]; else after each, [b, k, v].
        rewind: (memory, drop [b]) -> memory without the last `drop[b]` tokens; None if unsupported.
    """

    init: Callable[[int], tuple[Float[Array, "b v"], Any]]
    extend: Callable[[Any, Int[Array, "b k"], Int[Array, " b"], bool], tuple[Float[Array, "b m v"], Any]]
    rewind: Callable[[Any, Int[Array, " b"]], Any] | None = None


def of_incremental(
    decoder: IncrementalDecoder,
    read: Callable[..., Array],
    channels: int,
    values: int,
    first: int | None = None,
) -> Model:
    """Makes a model of an incrementally evaluated network.

    Args:
        decoder: the network.
        read: (output at a place [b, *features], elements there [b, c], channel) -> logits [b, v] of that channel, see
            `OutputDistribution.logits`.
        channels: c, number of elements at each place.
        values: v, number of values; the input v is the start symbol, read before the first element.
        first: the given first element, for networks without a start symbol and one element per place.

    Returns:
        The model.
    """
    if channels > 1:
        return _by_channel(decoder, read, channels, values)

    def extend(memory: Any, tokens: Array, count: Array, last: bool) -> tuple[Array, Any]:
        out, memory = decoder.extend(memory, tokens[:, :, None], count, last)
        flat = out.reshape(-1, *out.shape[2:])
        logits = read(flat, jnp.zeros((len(flat), 1), jnp.int32), 0)
        return logits.reshape(*out.shape[:2], -1), memory

    def init(num: int) -> tuple[Array, Any]:
        if first is not None:
            certain = jnp.full((num, values), -jnp.inf).at[:, first].set(0.0)
            return certain, decoder.init(num)
        start = jnp.full((num, 1), values)
        logits, memory = extend(decoder.init(num), start, jnp.ones(num, jnp.int32), True)
        return logits[:, 0], memory

    return Model(init, extend, decoder.rewind)


@record
class PartialPlace:
    """Memory between the elements of a place.

    Attributes:
        inner: the decoder's memory.
        out: the network's output at the place.
        here: its elements, of which the first `known[b]` are set.
        known: number of known elements, 0 ... c - 1.
    """

    inner: Any
    out: Float[Array, "b ..."]
    here: Int[Array, "b c"]
    known: Int[Array, " b"]


def _by_channel(decoder: IncrementalDecoder, read: Callable[..., Array], channels: int, values: int) -> Model:
    """The elements of a place one by one; the network advances when the place is complete."""

    def logits(memory: PartialPlace) -> Array:
        each = jnp.stack([read(memory.out, memory.here, channel) for channel in range(channels)], axis=1)
        return jnp.take_along_axis(each, memory.known[:, None, None], axis=1)[:, 0]

    def step(memory: PartialPlace, token: Array, active: Array) -> PartialPlace:
        at = jnp.where(active, memory.known, channels)
        here = memory.here.at[jnp.arange(len(token)), at].set(token, mode="drop")
        known = memory.known + active
        full = known == channels

        def next_place(memory: PartialPlace) -> tuple[Array, Any]:
            out, inner = decoder.extend(memory.inner, here[:, None], full.astype(jnp.int32), True)
            return hold(full, out[:, 0], memory.out), inner

        out, inner = jax.lax.cond(
            jnp.any(full), next_place, lambda memory: (memory.out, memory.inner), memory
        )
        return PartialPlace(inner, out, here, jnp.where(full, 0, known))

    def init(num: int) -> tuple[Array, Any]:
        start = jnp.full((num, 1, channels), values)
        out, inner = decoder.extend(decoder.init(num), start, jnp.ones(num, jnp.int32), True)
        none = jnp.zeros((num, channels), jnp.int32)
        memory = PartialPlace(inner, out[:, 0], none, jnp.zeros(num, jnp.int32))
        return logits(memory), memory

    def extend(memory: PartialPlace, tokens: Array, count: Array, last: bool) -> tuple[Array, Any]:
        def one(memory: PartialPlace, now: tuple[Array, Array]) -> tuple[PartialPlace, Array]:
            i, token = now
            memory = step(memory, token, i < count)
            return memory, jnp.zeros(0) if last else logits(memory)

        memory, each = jax.lax.scan(one, memory, (jnp.arange(tokens.shape[1]), tokens.T))
        return logits(memory)[:, None] if last else jnp.moveaxis(each, 0, 1), memory

    return Model(init, extend)


def guided(conditional: Model, unconditional: Model, scale: float) -> Model:
    """Classifier-free guidance for tokens (Sanchez et al. 2023, arXiv:2306.17806, eq. 7), on log p:

        log p = log p(.) + scale (log p(. | condition) - log p(.)) + constant.

    Args:
        conditional: the model with the condition.
        unconditional: the model without it.
        scale: guidance scale; 1 is `conditional` itself, 0 `unconditional`.

    Returns:
        A model with the memories of both.
    """
    if scale == 1.0:
        return conditional

    def both(c: Array, u: Array) -> Array:
        c, u = jax.nn.log_softmax(c), jax.nn.log_softmax(u)
        return jnp.where(jnp.isneginf(u), u, u + scale * (c - u))

    def init(num: int) -> tuple[Array, Any]:
        (c, first), (u, second) = conditional.init(num), unconditional.init(num)
        return both(c, u), (first, second)

    def extend(memory: Any, tokens: Array, count: Array, last: bool) -> tuple[Array, Any]:
        c, first = conditional.extend(memory[0], tokens, count, last)
        u, second = unconditional.extend(memory[1], tokens, count, last)
        return both(c, u), (first, second)

    if conditional.rewind is None or unconditional.rewind is None:
        return Model(init, extend)
    rewinds = (conditional.rewind, unconditional.rewind)
    return Model(
        init, extend, lambda memory, drop: tuple(f(m, drop) for f, m in zip(rewinds, memory, strict=True))
    )
