"""Beam search: the k sequences of highest score that a breadth-first search of width k finds.

A live sequence y has the score s(y) = sum_i log p(y_i | y_<i); one that has met a stop token, or has no room left, has
ended and has the score s(y) / |y|^a, |y| the tokens after the prompt and a the length penalty (Wu et al. 2016,
arXiv:1609.08144, section 7, in the form of Murray & Chiang 2018). Each round extends every live sequence by every token
and looks at the (1 + stops) k best, at least 2 k: those of the best k that end compete for the k places of ended
sequences, and the k best that do not end live on. A prompt's search is over

    "full":   when it has k ended sequences;
    "now":    when its best live sequence, if it ended now, would not beat the worst of k ended ones;
    "never":  when it could not even if it went on at no cost to the length that suits it best.

`transformers` calls these early_stopping = True, False and "never", and gives the same sequences.
"""

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int

from genjax.core.errors import UserError
from genjax.core.types import Array, record
from genjax.networks.layers.incremental import reorder
from genjax.samplers.decoding.decoding import Decoding
from genjax.samplers.decoding.model import Model

FAR = -1e9  # a score that no sequence has


@dataclass(frozen=True)
class Beam:
    """How wide, and when to stop.

    Attributes:
        width: k.
        length_penalty: a; above 0 favours long sequences.
        stopping: see the module's docstring.
    """

    width: int = 4
    length_penalty: float = 1.0
    stopping: Literal["full", "now", "never"] = "now"


@record
class Found:
    """The sequences of each prompt, best first.

    Attributes:
        tokens: after the prompt; what lies after `length` means nothing.
        length: tokens of each, the stop included.
        score: see the module's docstring; -1e9 where there are fewer sequences than places.
    """

    tokens: Int[Array, "b k n"]
    length: Int[Array, "b k"]
    score: Float[Array, "b k"]


@record
class _Search:
    number: Int[Array, ""]  # tokens after the prompt so far
    live: Int[Array, "b k n"]
    score: Float[Array, "b k"]
    ended: Found
    open: Bool[Array, " b"]  # whether the live sequences could still beat the ended ones
    ending: Bool[Array, ""]  # whether all candidates of the last round ended
    logits: Float[Array, "rows v"]
    memory: Any


def _pick(tree: Any, index: Int[Array, "b m"]) -> Any:
    """Entries `index` along axis 1 of every array."""
    take = lambda a: jnp.take_along_axis(a, index.reshape(*index.shape, *(1,) * (a.ndim - 2)), axis=1)
    return jax.tree.map(take, tree)


def beam_search(
    model: Model,
    beam: Beam,
    decoding: Decoding,
    prompt: Int[Array, "b p"],
    count: Int[Array, " b"],
    new: int,
    stop: tuple[int, ...] = (),
) -> Found:
    """Searches the continuations of each prompt.

    Args:
        model: what is searched; its memory is made for b k rows.
        beam: how.
        decoding: its filters are applied to the log-probabilities of each round; it is not drawn from.
        prompt: tokens, from the left; p may be 0.
        count: how many of them each row has.
        new: tokens after the prompt, at most.
        stop: tokens that end a sequence.

    Returns:
        The sequences found.

    Raises:
        UserError: a width or length below 1.
    """
    if beam.width < 1 or new < 1:
        raise UserError(f"beam search needs a width and a length of at least 1, not {beam.width} and {new}")
    b, k = len(prompt), beam.width
    each = lambda rows: jnp.repeat(rows, k, axis=0)
    prompt, count = each(prompt), each(count)
    logits, memory = model.begin(b * k)
    if prompt.shape[1]:
        more, memory = model.extend(memory, prompt, count, True)
        logits = jnp.where((count > 0)[:, None], more[:, 0], logits)
    nothing = jnp.zeros((b, k, new), jnp.int32)
    search = _Search(
        number=jnp.int32(0),
        live=nothing,
        score=jnp.full((b, k), FAR).at[:, 0].set(0.0),  # the k copies of a prompt are one sequence
        ended=Found(nothing, jnp.zeros((b, k), jnp.int32), jnp.full((b, k), FAR)),
        open=jnp.ones(b, bool),
        ending=jnp.asarray(False),
        logits=logits,
        memory=memory,
    )

    def going(now: _Search) -> Array:
        full = jnp.all(now.ended.length > 0) & (beam.stopping == "full")
        return jnp.any(now.open) & ~full & ~now.ending

    def spread(now: _Search) -> tuple[Array, Array, Array]:
        """The best candidates: scores, the live sequence each comes from, its token."""
        history = jnp.pad(prompt, ((0, 0), (0, new)))
        places = jnp.where(
            jnp.arange(new)[None] < now.number, count[:, None] + jnp.arange(new)[None], prompt.shape[1] + new
        )
        history = history.at[jnp.arange(b * k)[:, None], places].set(
            now.live.reshape(b * k, new), mode="drop"
        )
        log_p = decoding.filtered(jax.nn.log_softmax(now.logits), history, count + now.number)
        width = log_p.shape[1]
        total = (log_p.reshape(b, k, width) + now.score[:, :, None]).reshape(b, k * width)
        score, index = jax.lax.top_k(total, max(2, 1 + len(stop)) * k)
        return score, index // width, index % width

    def round(now: _Search) -> _Search:
        score, parent, token = spread(now)
        number = now.number + 1
        sequences = _pick(now.live, parent).at[:, :, now.number].set(token)
        ends = jnp.isin(token, jnp.asarray(stop, jnp.int32)) | (number >= new)
        final = score / number.astype(jnp.float32) ** beam.length_penalty
        real = score > FAR / 2  # not an extension of a place that no sequence has taken
        counts = ends & real & (jnp.arange(score.shape[1]) < k)[None] & now.open[:, None]
        if beam.stopping == "full":
            counts &= ~jnp.all(now.ended.length > 0, axis=1)[:, None]
        lengths = jnp.where(counts, number, 0)
        new_ones = Found(sequences, lengths, jnp.where(counts, final, FAR))
        both = jax.tree.map(lambda a, c: jnp.concatenate([a, c], axis=1), now.ended, new_ones)
        ended = _pick(both, jax.lax.top_k(both.score, k)[1])
        running, best = jax.lax.top_k(jnp.where(ends, score + FAR, score), k)
        origin = jnp.take_along_axis(parent, best, axis=1)
        rows = (jnp.arange(b)[:, None] * k + origin).reshape(-1)
        drawn = jnp.take_along_axis(token, best, axis=1).reshape(-1, 1)
        memory = reorder(now.memory, rows)
        logits, memory = model.extend(memory, drawn, jnp.ones(b * k, jnp.int32), True)
        length = new if beam.stopping == "never" and beam.length_penalty > 0 else number
        hope = running[:, 0] / jnp.asarray(length, jnp.float32) ** beam.length_penalty
        return _Search(
            number=number,
            live=_pick(sequences, best),
            score=running,
            ended=ended,
            open=now.open & (hope > jnp.min(ended.score, axis=1)),
            ending=jnp.all(ends),
            logits=logits[:, 0],
            memory=memory,
        )

    return jax.lax.while_loop(going, round, search).ended
