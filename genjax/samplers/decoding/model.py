"""What the decoding loop knows of a model: the logits of the next token after those that it has been given."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from genjax.core.types import Array, record
from genjax.networks.layers.incremental import Walker, hold


class Model(NamedTuple):
    """A distribution over sequences of tokens, token by token.

    Attributes:
        begin: (rows) -> (logits [b, v] of the first token, memory of nothing); the memory is as a
            walker's.
        extend: (memory, tokens [b, k], count [b], last) -> (logits, memory): takes in the first `count[b]` tokens of
            each row. `last` (static) gives the logits after the last of them, [b, 1, v]; else after each, [b, k, v].
        rewind: (memory, drop [b]) -> memory without the last `drop[b]` tokens; None if it cannot forget.
    """

    begin: Callable[[int], tuple[Float[Array, "b v"], Any]]
    extend: Callable[[Any, Int[Array, "b k"], Int[Array, " b"], bool], tuple[Float[Array, "b m v"], Any]]
    rewind: Callable[[Any, Int[Array, " b"]], Any] | None = None


def of_walker(
    walker: Walker, read: Callable[..., Array], channels: int, values: int, first: int | None = None
) -> Model:
    """The model of a walked network.

    Args:
        walker: of the network.
        read: (output at a place [b, *features], elements there [b, c], channel) -> logits [b, v] of that channel, see
            `emissions.Emission.logits`.
        channels: c, elements at each place.
        values: v; an input of this value is the start, which is read before the first element.
        first: the first element itself, if the network knows no start and a place has one element.

    Returns:
        The model.
    """
    if channels > 1:
        return _by_channel(walker, read, channels, values)

    def extend(memory: Any, tokens: Array, count: Array, last: bool) -> tuple[Array, Any]:
        out, memory = walker.walk(memory, tokens[:, :, None], count, last)
        flat = out.reshape(-1, *out.shape[2:])
        logits = read(flat, jnp.zeros((len(flat), 1), jnp.int32), 0)
        return logits.reshape(*out.shape[:2], -1), memory

    def begin(num: int) -> tuple[Array, Any]:
        if first is not None:
            certain = jnp.full((num, values), -jnp.inf).at[:, first].set(0.0)
            return certain, walker.begin(num)
        start = jnp.full((num, 1), values)
        logits, memory = extend(walker.begin(num), start, jnp.ones(num, jnp.int32), True)
        return logits[:, 0], memory

    return Model(begin, extend, walker.rewind)


@record
class Partly:
    """What is remembered between the elements of a place.

    Attributes:
        inner: the walker's memory.
        out: the network's output at the place.
        here: its elements, of which the first `known[b]` are.
        known: 0 ... c - 1.
    """

    inner: Any
    out: Float[Array, "b ..."]
    here: Int[Array, "b c"]
    known: Int[Array, " b"]


def _by_channel(walker: Walker, read: Callable[..., Array], channels: int, values: int) -> Model:
    """The elements of a place one by one; the network walks when all of them are there."""

    def logits(memory: Partly) -> Array:
        each = jnp.stack([read(memory.out, memory.here, channel) for channel in range(channels)], axis=1)
        return jnp.take_along_axis(each, memory.known[:, None, None], axis=1)[:, 0]

    def step(memory: Partly, token: Array, move: Array) -> Partly:
        at = jnp.where(move, memory.known, channels)
        here = memory.here.at[jnp.arange(len(token)), at].set(token, mode="drop")
        known = memory.known + move
        full = known == channels

        def walk(memory: Partly) -> tuple[Array, Any]:
            out, inner = walker.walk(memory.inner, here[:, None], full.astype(jnp.int32), True)
            return hold(full, out[:, 0], memory.out), inner

        out, inner = jax.lax.cond(jnp.any(full), walk, lambda memory: (memory.out, memory.inner), memory)
        return Partly(inner, out, here, jnp.where(full, 0, known))

    def begin(num: int) -> tuple[Array, Any]:
        start = jnp.full((num, 1, channels), values)
        out, inner = walker.walk(walker.begin(num), start, jnp.ones(num, jnp.int32), True)
        none = jnp.zeros((num, channels), jnp.int32)
        memory = Partly(inner, out[:, 0], none, jnp.zeros(num, jnp.int32))
        return logits(memory), memory

    def extend(memory: Partly, tokens: Array, count: Array, last: bool) -> tuple[Array, Any]:
        def one(memory: Partly, now: tuple[Array, Array]) -> tuple[Partly, Array]:
            i, token = now
            memory = step(memory, token, i < count)
            return memory, jnp.zeros(0) if last else logits(memory)

        memory, each = jax.lax.scan(one, memory, (jnp.arange(tokens.shape[1]), tokens.T))
        return logits(memory)[:, None] if last else jnp.moveaxis(each, 0, 1), memory

    return Model(begin, extend)


def guided(conditional: Model, unconditional: Model, scale: float) -> Model:
    """Classifier-free guidance of tokens (Sanchez et al. 2023, arXiv:2306.17806, eq. 7), on log p:

        log p = log p(. | nothing) + scale (log p(. | condition) - log p(. | nothing)) + constant.

    Args:
        conditional: the model given the condition.
        unconditional: the model given none.
        scale: 1 is `conditional` itself, 0 `unconditional`.

    Returns:
        A model that remembers for both.
    """
    if scale == 1.0:
        return conditional

    def both(c: Array, u: Array) -> Array:
        c, u = jax.nn.log_softmax(c), jax.nn.log_softmax(u)
        return jnp.where(jnp.isneginf(u), u, u + scale * (c - u))

    def begin(num: int) -> tuple[Array, Any]:
        (c, first), (u, second) = conditional.begin(num), unconditional.begin(num)
        return both(c, u), (first, second)

    def extend(memory: Any, tokens: Array, count: Array, last: bool) -> tuple[Array, Any]:
        c, first = conditional.extend(memory[0], tokens, count, last)
        u, second = unconditional.extend(memory[1], tokens, count, last)
        return both(c, u), (first, second)

    if conditional.rewind is None or unconditional.rewind is None:
        return Model(begin, extend)
    forget = (conditional.rewind, unconditional.rewind)
    return Model(
        begin, extend, lambda memory, drop: tuple(f(m, drop) for f, m in zip(forget, memory, strict=True))
    )
