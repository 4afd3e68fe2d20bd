"""The decoding loop: prompts in, tokens out, one compiled `lax.while_loop` for every model.

    start:   logits, memory <- prompt;     repeat:   x ~ choose(filters(logits)),   logits, memory <- extend(memory, x)

All shapes are static: a row holds `max_length` tokens, finished rows are masked, and the loop ends when all rows are
finished. Prompts may differ in length. The draw at position n of a sequence uses `fold_in(key, n)`, so it does not
depend on the length of the prompt or on how generation is split into calls.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from genjax.core.errors import UserError
from genjax.core.row_keys import keys_of_rows
from genjax.core.types import Array, Key, record
from genjax.samplers.decoding.decoding import Decoding
from genjax.samplers.decoding.model import Model


@record
class Generated:
    """Sequences, and the state from which `advance` continues.

    Attributes:
        tokens: prompt and generated tokens; entries after `length` are undefined.
        length: number of tokens of each row, a stop token included.
        log_prob: nats of each generated token under the model itself, before filters; 0 elsewhere.
        chosen_log_prob: the same under the filtered distribution from which it was drawn.
        done: rows with a stop token or of maximum length.
        logits: logits of the next token.
        memory: memory of the model.
    """

    tokens: Int[Array, "b n"]
    length: Int[Array, " b"]
    log_prob: Float[Array, "b n"]
    chosen_log_prob: Float[Array, "b n"]
    done: Bool[Array, " b"]
    logits: Float[Array, "b v"]
    memory: Any


def start(model: Model, prompt: Int[Array, "b p"], count: Int[Array, " b"], max_length: int) -> Generated:
    """Processes the prompts (prefill).

    Args:
        model: the model.
        prompt: tokens, left-aligned; p may be 0.
        count: number of prompt tokens of each row, 0 ... p.
        max_length: maximum number of tokens of a row, prompt included.

    Returns:
        The state from which `advance` continues.

    Raises:
        UserError: the prompts are longer than `max_length`.
    """
    num, width = prompt.shape
    if width > max_length:
        raise UserError(f"prompts of {width} tokens exceed the maximum length of {max_length}")
    logits, memory = model.init(num)
    if width:
        more, memory = model.extend(memory, prompt, count, True)
        logits = jnp.where((count > 0)[:, None], more[:, 0], logits)
    tokens = jnp.zeros((num, max_length), jnp.int32).at[:, :width].set(prompt)
    nothing = jnp.zeros((num, max_length))
    return Generated(tokens, count, nothing, nothing, count >= max_length, logits, memory)


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
        state: from `start` or an earlier `advance`.
        key: typed PRNG key; pass the same in all calls.
        steps: maximum number of tokens per row.
        stop: tokens that finish a row.

    Returns:
        The new state.
    """
    rows, max_length = jnp.arange(len(state.tokens)), state.tokens.shape[1]

    def running(carry: tuple[Array, Generated]) -> Array:
        return (carry[0] < steps) & ~jnp.all(carry[1].done)

    def step(carry: tuple[Array, Generated]) -> tuple[Array, Generated]:
        number, now = carry
        logits = decoding.filtered(now.logits, now.tokens, now.length)
        drawn = draw(decoding, key, logits, now.length)
        at = jnp.where(now.done, max_length, now.length)
        write = lambda kept, new: kept.at[rows, at].set(new, mode="drop")
        picked = lambda scores: jnp.take_along_axis(jax.nn.log_softmax(scores), drawn[:, None], axis=1)[:, 0]
        length = now.length + ~now.done
        stopped = functools.reduce(jnp.logical_or, [drawn == token for token in stop], now.done)
        done = now.done | stopped | (length >= max_length)
        more, memory = model.extend(now.memory, drawn[:, None], (~done).astype(jnp.int32), True)
        return number + 1, dataclasses.replace(
            now,
            tokens=write(now.tokens, drawn),
            length=length,
            log_prob=write(now.log_prob, picked(now.logits)),
            chosen_log_prob=write(now.chosen_log_prob, picked(logits)),
            done=done,
            logits=jnp.where(done[:, None], now.logits, more[:, 0]),
            memory=memory,
        )

    return jax.lax.while_loop(running, step, (jnp.int32(0), state))[1]


def draw(
    decoding: Decoding, key: Key, logits: Float[Array, "b v"], length: Int[Array, " b"]
) -> Int[Array, " b"]:
    """Draws one token per row, with a key for each (row, position).

    Args:
        decoding: how tokens are chosen.
        key: typed PRNG key.
        logits: filtered logits.
        length: position of the drawn token in each row.

    Returns:
        int32 tokens.
    """
    if decoding.temperature == 0.0:
        return decoding.choose(key, logits)

    def one(key: Key, place: Array, scores: Array) -> Array:
        return decoding.choose(jax.random.fold_in(key, place), scores[None])[0]

    return jax.vmap(one)(keys_of_rows(key, len(logits)), length, logits)


def generate(
    model: Model,
    decoding: Decoding,
    key: Key,
    prompt: Int[Array, "b p"],
    count: Int[Array, " b"],
    max_length: int,
    stop: tuple[int, ...] = (),
) -> Generated:
    """Generates until all rows are finished: `start`, then `advance`.

    Args:
        model: the model.
        decoding: how tokens are chosen.
        key: typed PRNG key.
        prompt: tokens, left-aligned; p may be 0.
        count: number of prompt tokens of each row, 0 ... p.
        max_length: maximum number of tokens of a row, prompt included.
        stop: tokens that finish a row.

    Returns:
        The sequences [b, max_length].

    Raises:
        UserError: the prompts are longer than `max_length`.
    """
    state = start(model, prompt, count, max_length)
    return advance(model, decoding, state, key, max_length, stop)
