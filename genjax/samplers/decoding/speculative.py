"""Speculative decoding (Leviathan et al. 2023, arXiv:2211.17192; Chen et al. 2023, arXiv:2302.01318).

A small model q drafts g tokens, one by one; the model p itself then looks at all of them in one call. The draft x_i is
accepted with probability min(1, p(x_i) / q(x_i)). The first that is not is replaced by a draw from

    (p - q)^+ / sum (p - q)^+,

and if all are accepted one more token is drawn from p. What comes out is distributed exactly as p's own draws (the
former paper's appendix A.1), whatever q; p and q are the distributions after filters, and greedy ones have all their
mass on one token. In expectation a round yields (1 - a^(g + 1)) / (1 - a) tokens, a the mean of sum min(p, q).

Between rounds both models have taken in all tokens but the last one of each row.
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
    """Sequences, and how well the drafts did.

    Attributes:
        tokens: prompt and what was generated; what lies after `length` means nothing.
        length: tokens of each row, a stop token included.
        rounds: calls of the large model that each row took part in.
        accepted: drafts of each row that were accepted.
        memories: of the large and the small model.
    """

    tokens: Int[Array, "b n"]
    length: Int[Array, " b"]
    rounds: Int[Array, " b"]
    accepted: Int[Array, " b"]
    memories: Any


def probabilities(
    decoding: Decoding, logits: Float[Array, "b v"], tokens: Int[Array, "b n"], length: Int[Array, " b"]
) -> Float[Array, "b v"]:
    """What `decoding` draws from, [b, v]."""
    kept = decoding.filtered(logits, tokens, length)
    if decoding.temperature == 0.0:
        return jax.nn.one_hot(jnp.argmax(kept, axis=-1), kept.shape[-1])
    return jax.nn.softmax(kept)


def verify(
    key: Key, p: Float[Array, "b m v"], q: Float[Array, "b g v"], drafts: Int[Array, "b g"]
) -> tuple[Int[Array, " b"], Int[Array, " b"]]:
    """Accepts drafts, and draws the token after the last accepted one.

    Args:
        key: typed PRNG key.
        p: of the large model at the g drafts and after them; m = g + 1.
        q: of the small model, that the drafts are drawn from.
        drafts: the tokens.

    Returns:
        (how many were accepted, 0 ... g; the next token).
    """
    b, g = drafts.shape
    take = lambda table: jnp.take_along_axis(table, drafts[..., None], axis=2)[..., 0]
    chance = jax.random.uniform(named(key, "accept"), (b, g))
    kept = chance * take(q) < take(p[:, :g])
    number = jnp.sum(jnp.cumprod(kept.astype(jnp.int32), axis=1), axis=1)
    at = lambda table: jnp.take_along_axis(table, number[:, None, None], axis=1)[:, 0]
    padded = jnp.concatenate(
        [q, jnp.zeros_like(q[:, :1])], axis=1
    )  # after the last draft nothing is taken off p
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
    room: int,
    *,
    drafts: int = 4,
    stop: tuple[int, ...] = (),
) -> Speculated:
    """Draws continuations from the large model with the help of a small one.

    Args:
        large: whose distribution is drawn from; can rewind `drafts` tokens.
        small: of the same vocabulary; can rewind as many.
        decoding: how tokens are chosen.
        key: typed PRNG key.
        prompt: tokens, from the left; p may be 0.
        count: how many of them each row has.
        room: tokens that each row may have in the end, prompt included.
        drafts: g, tokens drafted in a round.
        stop: tokens after which a row is done.

    Returns:
        The sequences.

    Raises:
        UserError: a model cannot rewind, there is no room, or no draft.
    """
    forget_large, forget_small = large.rewind, small.rewind
    if forget_large is None or forget_small is None:
        raise UserError(
            "speculative decoding needs models that can forget what they have taken in, as attention can"
        )
    b, width = prompt.shape
    if width > room or drafts < 1:
        raise UserError(f"prompts of {width} tokens, a room of {room} and {drafts} drafts do not fit")
    rows, wide = jnp.arange(b)[:, None], room + drafts + 1

    def first() -> Speculated:
        """Draws the first token of empty prompts; the models take in all but the last of the others."""
        (logits, memory), (_, other) = large.begin(b), small.begin(b)
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

    def over(now: Speculated) -> Bool[Array, " b"]:
        last = jnp.take_along_axis(now.tokens, now.length[:, None] - 1, axis=1)[:, 0]
        met = jnp.isin(last, jnp.asarray(stop, jnp.int32)) & (now.length > count)
        return met | (now.length >= room)

    def round(carry: tuple[Array, Speculated]) -> tuple[Array, Speculated]:
        number, now = carry
        keys, walks = jax.random.fold_in(key, number), (~over(now)).astype(jnp.int32)

        def draft(state: tuple[Array, Any, Array], i: Array) -> tuple[tuple[Array, Any, Array], Array]:
            tokens, memory, last = state
            logits, memory = small.extend(memory, last[:, None], walks, True)
            q = probabilities(decoding, logits[:, 0], tokens, now.length + i)
            drawn = jax.random.categorical(
                jax.random.fold_in(named(keys, "draft"), i), jnp.log(q), mode="high"
            )
            drawn = drawn.astype(jnp.int32)
            return (tokens.at[rows[:, 0], now.length + i].set(drawn), memory, drawn), q

        last = jnp.take_along_axis(now.tokens, now.length[:, None] - 1, axis=1)[:, 0]
        begun = (now.tokens, now.memories[1], last)
        (tokens, memory, last_draft), q = jax.lax.scan(draft, begun, jnp.arange(drafts))
        _, other = small.extend(memory, last_draft[:, None], walks, True)
        places = now.length[:, None] - 1 + jnp.arange(drafts + 1)[None]
        seen = jnp.take_along_axis(tokens, places, axis=1)
        logits, memory = large.extend(now.memories[0], seen, walks * (drafts + 1), False)
        p = jnp.stack(
            [probabilities(decoding, logits[:, i], tokens, now.length + i) for i in range(drafts + 1)], axis=1
        )
        accepted, extra = verify(keys, p, jnp.moveaxis(q, 0, 1), seen[:, 1:])
        tokens = tokens.at[rows[:, 0], now.length + accepted].set(extra)
        length = _ended(tokens, now.length, accepted + 1, room, stop)
        drop = walks * (drafts - accepted)
        walking = walks > 0
        return number + 1, Speculated(
            tokens=jnp.where(walking[:, None], tokens, now.tokens),
            length=jnp.where(walking, length, now.length),
            rounds=now.rounds + walks,
            accepted=now.accepted + walks * accepted,
            memories=(forget_large(memory, drop), forget_small(other, drop)),
        )

    _, done = jax.lax.while_loop(lambda carry: ~jnp.all(over(carry[1])), round, (jnp.int32(0), first()))
    return dataclasses.replace(done, tokens=done.tokens[:, :room])


def _ended(tokens: Array, length: Array, new: Array, room: int, stop: tuple[int, ...]) -> Array:
    """The length after `new` more tokens, cut after the first stop token among them and at the room."""
    places = jnp.arange(tokens.shape[1])[None]
    fresh = (places >= length[:, None]) & (places < (length + new)[:, None])
    stops = fresh & jnp.isin(tokens, jnp.asarray(stop, jnp.int32))
    first = jnp.argmax(stops, axis=1) + 1
    return jnp.minimum(jnp.where(jnp.any(stops, axis=1), first, length + new), room)
