"""The decoding loop: prompts in, tokens out, one compiled `lax.while_loop` whatever the model.

    start:   logits, memory <- prompt;     repeat:   x ~ choose(filters(logits)),   logits, memory <- extend(memory, x)

All shapes are static: a row has `room` for so many tokens, rows that have met a stop token wait, and the loop ends
when all do. Prompts may differ in length. The draw at place n of a sequence uses `fold_in(key, n)`, so that it does not
depend on where the prompt ended or on how the walk was cut into calls.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from genjax.core.errors import UserError
from genjax.core.types import Array, Key, record
from genjax.samplers.decoding.decoding import Decoding
from genjax.samplers.decoding.model import Model


@record
class Generated:
    """Sequences, and the way on from them.

    Attributes:
        tokens: prompt and what was generated; what lies after `length` means nothing.
        length: tokens of each row, a stop token included.
        log_prob: nats of each generated token under the model itself, before filters; 0 elsewhere.
        chosen_log_prob: the same under the filtered distribution that it was drawn from.
        done: rows that have met a stop token or have no room left.
        logits: of the next token.
        memory: the model's.
    """

    tokens: Int[Array, "b n"]
    length: Int[Array, " b"]
    log_prob: Float[Array, "b n"]
    chosen_log_prob: Float[Array, "b n"]
    done: Bool[Array, " b"]
    logits: Float[Array, "b v"]
    memory: Any


def start(model: Model, prompt: Int[Array, "b p"], count: Int[Array, " b"], room: int) -> Generated:
    """Takes in the prompts ("prefill").

    Args:
        model: what continues them.
        prompt: tokens, from the left; p may be 0.
        count: how many of them each row has, 0 ... p.
        room: tokens that each row may have in the end, prompt included.

    Returns:
        What `advance` goes on from.

    Raises:
        UserError: there is no room for the prompts.
    """
    num, width = prompt.shape
    if width > room:
        raise UserError(f"prompts of {width} tokens do not fit a room of {room}")
    logits, memory = model.begin(num)
    if width:
        more, memory = model.extend(memory, prompt, count, True)
        logits = jnp.where((count > 0)[:, None], more[:, 0], logits)
    tokens = jnp.zeros((num, room), jnp.int32).at[:, :width].set(prompt)
    nothing = jnp.zeros((num, room))
    return Generated(tokens, count, nothing, nothing, count >= room, logits, memory)


def advance(
    model: Model,
    decoding: Decoding,
    state: Generated,
    key: Key,
    steps: Int[Array, ""] | int,
    stop: tuple[int, ...] = (),
) -> Generated:
    """Generates up to `steps` more tokens for each row.

    Args:
        model: as in `start`.
        decoding: how tokens are chosen.
        state: where the rows are.
        key: typed PRNG key; the same in all calls of one walk.
        steps: of the loop.
        stop: tokens after which a row is done.

    Returns:
        The state after them.
    """
    rows, room = jnp.arange(len(state.tokens)), state.tokens.shape[1]

    def going(carry: tuple[Array, Generated]) -> Array:
        return (carry[0] < steps) & ~jnp.all(carry[1].done)

    def step(carry: tuple[Array, Generated]) -> tuple[Array, Generated]:
        number, now = carry
        logits = decoding.filtered(now.logits, now.tokens, now.length)
        drawn = draw(decoding, key, logits, now.length)
        at = jnp.where(now.done, room, now.length)
        note = lambda kept, new: kept.at[rows, at].set(new, mode="drop")
        picked = lambda scores: jnp.take_along_axis(jax.nn.log_softmax(scores), drawn[:, None], axis=1)[:, 0]
        length = now.length + ~now.done
        stopped = functools.reduce(jnp.logical_or, [drawn == token for token in stop], now.done)
        done = now.done | stopped | (length >= room)
        more, memory = model.extend(now.memory, drawn[:, None], (~done).astype(jnp.int32), True)
        return number + 1, dataclasses.replace(
            now,
            tokens=note(now.tokens, drawn),
            length=length,
            log_prob=note(now.log_prob, picked(now.logits)),
            chosen_log_prob=note(now.chosen_log_prob, picked(logits)),
            done=done,
            logits=jnp.where(done[:, None], now.logits, more[:, 0]),
            memory=memory,
        )

    return jax.lax.while_loop(going, step, (jnp.int32(0), state))[1]


def draw(
    decoding: Decoding, key: Key, logits: Float[Array, "b v"], length: Int[Array, " b"]
) -> Int[Array, " b"]:
    """One token for each row, row b's with the key of (b, its place)."""
    if decoding.temperature == 0.0:
        return decoding.choose(key, logits)

    def one(row: Array, place: Array, scores: Array) -> Array:
        return decoding.choose(jax.random.fold_in(jax.random.fold_in(key, row), place), scores[None])[0]

    return jax.vmap(one)(jnp.arange(len(logits)), length, logits)


def generate(
    model: Model,
    decoding: Decoding,
    key: Key,
    prompt: Int[Array, "b p"],
    count: Int[Array, " b"],
    room: int,
    stop: tuple[int, ...] = (),
) -> Generated:
    """`start` and `advance` to the end; see there."""
    state = start(model, prompt, count, room)
    return advance(model, decoding, state, key, room, stop)
