"""Speculative decoding (Leviathan et al. 2023, arXiv:2211.17192; Chen et al. 2023, arXiv:2302.01318).

A small model q drafts g tokens, one by one; the large model p evaluates all of them in one call. The draft x_i is
accepted with probability min(1, p(x_i) / q(x_i)). The first rejected one is replaced by a draw from

    (p - q)^+ / sum (p - q)^+,

and if all are accepted one more token is drawn from p. The result is distributed exactly as draws from p (the
former paper's appendix A.1), for any q; p and q are the distributions after filters, one-hot if greedy.
In expectation a round yields (1 - a^(g + 1)) / (1 - a) tokens, a the mean of sum min(p, q).

Between rounds the memories of both models cover all tokens but the last one of each row.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from genjax.core.errors import UserError
from genjax.core.types import Array, Key, named, record
from genjax.samplers.decoding.decoding import Decoding
from genjax.samplers.decoding.model import Model


@record
class Speculated:
    """Sequences, and how many drafts were accepted.

    Attributes:
        tokens: prompt and generated tokens; entries after `length` are undefined.
        length: number of tokens of each row, a stop token included.
        rounds: number of rounds in which each row was active.
        accepted: number of accepted drafts of each row.
        memories: memories of the large and the small model.
    """

    tokens: Int[Array, "b n"]
    length: Int[Array, " b"]
    rounds: Int[Array, " b"]
    accepted: Int[Array, " b"]
    memories: Any


def probabilities(
    decoding: Decoding, logits: Float[Array, "b v"], tokens: Int[Array, "b n"], length: Int[Array, " b"]
) -> Float[Array, "b v"]:
    """The distribution from which `decoding` draws.

    Args:
        decoding: filters and temperature.
        logits: of the model.
        tokens: the rows so far, prompt included.
        length: number of tokens of each row.

    Returns:
        Probabilities.
    """
    kept = decoding.filtered(logits, tokens, length)
    if decoding.temperature == 0.0:
        return jax.nn.one_hot(jnp.argmax(kept, axis=-1), kept.shape[-1])
    return jax.nn.softmax(kept)


def verify(
    key: Key, p: Float[Array, "b m v"], q: Float[Array, "b g v"], drafts: Int[Array, "b g"]
) -> tuple[Int[Array, " b"], Int[Array, " b"]]:
    """Accepts or rejects drafts, and draws the token after the last accepted one.

    Args:
        key: typed PRNG key.
        p: probabilities of the large model at the g drafts and after them; m = g + 1.
        q: probabilities of the small model, from which the drafts were drawn.
        drafts: the drafted tokens.

    Returns:
        (number of accepted drafts, 0 ... g; the next token).
    """
    b, g = drafts.shape
    take = lambda table: jnp.take_along_axis(table, drafts[..., None], axis=2)[..., 0]
    chance = jax.random.uniform(named(key, "accept"), (b, g))
    kept = chance * take(q) < take(p[:, :g])
    number = jnp.sum(jnp.cumprod(kept.astype(jnp.int32), axis=1), axis=1)
    at = lambda table: jnp.take_along_axis(table, number[:, None, None], axis=1)[:, 0]
    padded = jnp.concatenate([q, jnp.zeros_like(q[:, :1])], axis=1)  # q = 0 after the last draft
    rest = jnp.maximum(at(p) - at(padded), 0.0)
    rest = jnp.where(jnp.sum(rest, axis=1, keepdims=True) > 0, rest, at(p))  # p = q up to rounding
    drawn = jax.random.categorical(named(key, "rest"), jnp.log(rest), mode="high")
    return number, drawn.astype(jnp.int32)


def speculate(
    large: Model,
    small: Model,
    decoding: Decoding,
    key: Key,
    prompt: Int[Array, "b p"],
    count: Int[Array, " b"],
    max_length: int,
    *,
    drafts: int = 4,
    stop: tuple[int, ...] = (),
) -> Speculated:
    """Draws continuations from the large model, with drafts from a small one.

    Args:
        large: the model; must be able to rewind `drafts` tokens.
        small: draft model of the same vocabulary; must be able to rewind as many.
        decoding: how tokens are chosen.
        key: typed PRNG key.
        prompt: tokens, left-aligned; p may be 0.
        count: number of prompt tokens of each row.
        max_length: maximum number of tokens of a row, prompt included.
        drafts: g, number of tokens drafted per round.
        stop: tokens that finish a row.

    Returns:
        The sequences.

    Raises:
        UserError: a model cannot rewind, the prompts exceed `max_length`, or `drafts` is below 1.
    """
    rewind_large, rewind_small = large.rewind, small.rewind
    if rewind_large is None or rewind_small is None:
        raise UserError(
            "speculative decoding needs models that can rewind their memory, such as transformers"
        )
    b, width = prompt.shape
    if width > max_length or drafts < 1:
        raise UserError(
            f"need drafts >= 1 and prompts of at most {max_length} tokens, not {drafts} drafts and {width} tokens"
        )
    rows, wide = jnp.arange(b)[:, None], max_length + drafts + 1

    def first() -> Speculated:
        """Draws the first token of empty prompts; processes all but the last token of the others."""
        (logits, memory), (_, other) = large.init(b), small.init(b)
        tokens = jnp.zeros((b, wide), jnp.int32).at[:, :width].set(prompt)
        chosen = probabilities(decoding, logits, tokens, jnp.zeros(b, jnp.int32))
        drawn = jax.random.categorical(named(key, "first"), jnp.log(chosen), mode="high")
        tokens = tokens.at[:, 0].set(jnp.where(count > 0, tokens[:, 0], drawn.astype(jnp.int32)))
        if width > 1:
            taken = jnp.maximum(count - 1, 0)
            _, memory = large.extend(memory, prompt[:, :-1], taken, True)
            _, other = small.extend(other, prompt[:, :-1], taken, True)
        none = jnp.zeros(b, jnp.int32)
        return Speculated(tokens, jnp.maximum(count, 1), none, none, (memory, other))

    def finished(now: Speculated) -> Bool[Array, " b"]:
        last = jnp.take_along_axis(now.tokens, now.length[:, None] - 1, axis=1)[:, 0]
        met = jnp.isin(last, jnp.asarray(stop, jnp.int32)) & (now.length > count)
        return met | (now.length >= max_length)

    def speculative_round(carry: tuple[Array, Speculated]) -> tuple[Array, Speculated]:
        number, now = carry
        keys, active = jax.random.fold_in(key, number), (~finished(now)).astype(jnp.int32)

        def draft(state: tuple[Array, Any, Array], i: Array) -> tuple[tuple[Array, Any, Array], Array]:
            tokens, memory, last = state
            logits, memory = small.extend(memory, last[:, None], active, True)
            q = probabilities(decoding, logits[:, 0], tokens, now.length + i)
            drawn = jax.random.categorical(
                jax.random.fold_in(named(keys, "draft"), i), jnp.log(q), mode="high"
            )
            drawn = drawn.astype(jnp.int32)
            return (tokens.at[rows[:, 0], now.length + i].set(drawn), memory, drawn), q

        last = jnp.take_along_axis(now.tokens, now.length[:, None] - 1, axis=1)[:, 0]
        start = (now.tokens, now.memories[1], last)
        (tokens, memory, last_draft), q = jax.lax.scan(draft, start, jnp.arange(drafts))
        _, other = small.extend(memory, last_draft[:, None], active, True)
        places = now.length[:, None] - 1 + jnp.arange(drafts + 1)[None]
        seen = jnp.take_along_axis(tokens, places, axis=1)
        logits, memory = large.extend(now.memories[0], seen, active * (drafts + 1), False)
        p = jnp.stack(
            [probabilities(decoding, logits[:, i], tokens, now.length + i) for i in range(drafts + 1)], axis=1
        )
        accepted, extra = verify(keys, p, jnp.moveaxis(q, 0, 1), seen[:, 1:])
        tokens = tokens.at[rows[:, 0], now.length + accepted].set(extra)
        length = _ended(tokens, now.length, accepted + 1, max_length, stop)
        drop = active * (drafts - accepted)
        is_active = active > 0
        return number + 1, Speculated(
            tokens=jnp.where(is_active[:, None], tokens, now.tokens),
            length=jnp.where(is_active, length, now.length),
            rounds=now.rounds + active,
            accepted=now.accepted + active * accepted,
            memories=(rewind_large(memory, drop), rewind_small(other, drop)),
        )

    _, done = jax.lax.while_loop(
        lambda carry: ~jnp.all(finished(carry[1])), speculative_round, (jnp.int32(0), first())
    )
    return dataclasses.replace(done, tokens=done.tokens[:, :max_length])


def _ended(tokens: Array, length: Array, new: Array, max_length: int, stop: tuple[int, ...]) -> Array:
    """The length after `new` more tokens, cut after the first stop token among them and at `max_length`."""
    places = jnp.arange(tokens.shape[1])[None]
    fresh = (places >= length[:, None]) & (places < (length + new)[:, None])
    stops = fresh & jnp.isin(tokens, jnp.asarray(stop, jnp.int32))
    first = jnp.argmax(stops, axis=1) + 1
    return jnp.minimum(jnp.where(jnp.any(stops, axis=1), first, length + new), max_length)
