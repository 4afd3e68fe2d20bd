"""Beam search: the k sequences of highest score that a breadth-first search of width k finds.

A live sequence y has the score s(y) = sum_i log p(y_i | y_<i); a finished one (a stop token, or the maximum length) has
the score s(y) / |y|^a, where |y| counts the tokens after the prompt and a is the length penalty (Wu et al. 2016,
arXiv:1609.08144, section 7, in the form of Murray & Chiang 2018). Each step extends every live sequence by every token
and takes the (1 + stops) k best candidates, at least 2 k: those of the best k that finish compete for the k finished
sequences, and the k best that do not finish stay live. The search of a prompt stops,

    "full":   when it has k finished sequences;
    "now":    when its best live sequence, finished now, would not beat the worst of k finished ones;
    "never":  when it would not even with log-probability 0 for all further tokens, at the most favourable length.

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

NO_SCORE = -1e9  # below the score of any sequence


@dataclass(frozen=True)
class Beam:
    """Hyperparameters of beam search.

    Attributes:
        width: k, number of sequences per prompt.
        length_penalty: a; values above 0 favour long sequences.
        stopping: see the module's docstring.
    """

    width: int = 4
    length_penalty: float = 1.0
    stopping: Literal["full", "now", "never"] = "now"


@record
class BeamResult:
    """The finished sequences of each prompt, best first.

    Attributes:
        tokens: tokens after the prompt; entries after `length` are undefined.
        length: number of tokens of each, the stop token included.
        score: see the module's docstring, in nats; -1e9 where there are fewer than k sequences.
    """

    tokens: Int[Array, "b k n"]
    length: Int[Array, "b k"]
    score: Float[Array, "b k"]


@record
class _Search:
    number: Int[Array, ""]  # tokens generated so far
    live: Int[Array, "b k n"]
    score: Float[Array, "b k"]
    ended: BeamResult
    open: Bool[Array, " b"]  # whether the live sequences can still beat the finished ones
    ending: Bool[Array, ""]  # whether all candidates of the last step finished
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
) -> BeamResult:
    """Searches for the best continuations of each prompt.

    Args:
        model: the model; its memory is allocated for b k rows.
        beam: hyperparameters.
        decoding: its filters are applied to the log-probabilities of each step; nothing is sampled.
        prompt: tokens, left-aligned; p may be 0.
        count: number of prompt tokens of each row.
        new: maximum number of tokens after the prompt.
        stop: tokens that end a sequence.

    Returns:
        k sequences for each prompt.

    Raises:
        UserError: `beam.width` or `new` is below 1.
    """
    if beam.width < 1 or new < 1:
        raise UserError(f"beam search needs a width and a length of at least 1, not {beam.width} and {new}")
    b, k = len(prompt), beam.width
    each = lambda rows: jnp.repeat(rows, k, axis=0)
    prompt, count = each(prompt), each(count)
    logits, memory = model.init(b * k)
    if prompt.shape[1]:
        more, memory = model.extend(memory, prompt, count, True)
        logits = jnp.where((count > 0)[:, None], more[:, 0], logits)
    nothing = jnp.zeros((b, k, new), jnp.int32)
    search = _Search(
        number=jnp.int32(0),
        live=nothing,
        score=jnp.full((b, k), NO_SCORE).at[:, 0].set(0.0),  # the k copies of a prompt are one sequence
        ended=BeamResult(nothing, jnp.zeros((b, k), jnp.int32), jnp.full((b, k), NO_SCORE)),
        open=jnp.ones(b, bool),
        ending=jnp.asarray(False),
        logits=logits,
        memory=memory,
    )

    def running(now: _Search) -> Array:
        full = jnp.all(now.ended.length > 0) & (beam.stopping == "full")
        return jnp.any(now.open) & ~full & ~now.ending

    def candidates(now: _Search) -> tuple[Array, Array, Array]:
        """The best candidates: (scores, index of the live sequence, token)."""
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

    def step(now: _Search) -> _Search:
        score, parent, token = candidates(now)
        number = now.number + 1
        sequences = _pick(now.live, parent).at[:, :, now.number].set(token)
        ends = jnp.isin(token, jnp.asarray(stop, jnp.int32)) | (number >= new)
        final = score / number.astype(jnp.float32) ** beam.length_penalty
        real = score > NO_SCORE / 2  # not an extension of an unused slot
        counts = ends & real & (jnp.arange(score.shape[1]) < k)[None] & now.open[:, None]
        if beam.stopping == "full":
            counts &= ~jnp.all(now.ended.length > 0, axis=1)[:, None]
        lengths = jnp.where(counts, number, 0)
        new_ones = BeamResult(sequences, lengths, jnp.where(counts, final, NO_SCORE))
        both = jax.tree.map(lambda a, c: jnp.concatenate([a, c], axis=1), now.ended, new_ones)
        ended = _pick(both, jax.lax.top_k(both.score, k)[1])
        live_score, best = jax.lax.top_k(jnp.where(ends, score + NO_SCORE, score), k)
        origin = jnp.take_along_axis(parent, best, axis=1)
        rows = (jnp.arange(b)[:, None] * k + origin).reshape(-1)
        drawn = jnp.take_along_axis(token, best, axis=1).reshape(-1, 1)
        memory = reorder(now.memory, rows)
        logits, memory = model.extend(memory, drawn, jnp.ones(b * k, jnp.int32), True)
        length = new if beam.stopping == "never" and beam.length_penalty > 0 else number
        bound = live_score[:, 0] / jnp.asarray(length, jnp.float32) ** beam.length_penalty
        return _Search(
            number=number,
            live=_pick(sequences, best),
            score=live_score,
            ended=ended,
            open=now.open & (bound > jnp.min(ended.score, axis=1)),
            ending=jnp.all(ends),
            logits=logits[:, 0],
            memory=memory,
        )

    return jax.lax.while_loop(running, step, search).ended
