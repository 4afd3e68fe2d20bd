"""Completing prompts of text: drawn as it comes, searched with beams, or drawn with the drafts of a smaller model."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from genjax.core.errors import UserError
from genjax.core.types import named
from genjax.data import Data, Vocabulary
from genjax.evaluation.sampling import gather
from genjax.objectives.autoregressive import Autoregressive
from genjax.samplers.decoding.beam import Beam, beam_search
from genjax.samplers.decoding.generate import advance, start
from genjax.samplers.decoding.speculative import speculate
from genjax.training.loop import Run
from genjax.training.step import TrainState

CHUNK = 8  # tokens between looks at what has been generated


def encode_prompts(data: Data, prompts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Prompts as tokens.

    Args:
        data: text.
        prompts: at least one.

    Returns:
        (tokens int32 [b, p], padded at the end; how many each has, int32 [b]).

    Raises:
        UserError: the data are no text, or a prompt has a character that they lack.
    """
    if data.kind != "text":
        raise UserError(f"--prompt is for models of text, this one is of {data.kind}")
    vocabulary = getattr(data.source, "vocabulary", Vocabulary())
    rows = [vocabulary.encode(prompt.encode()) for prompt in prompts]
    tokens = np.zeros((len(rows), max(map(len, rows))), np.int32)
    for row, found in zip(tokens, rows, strict=True):
        row[: len(found)] = found
    return tokens, np.array([len(row) for row in rows], np.int32)


def _open(run: Run, prompts: Sequence[str]) -> tuple[Autoregressive, jax.Array, jax.Array]:
    """The objective of a run, and prompts on the device: tokens [b, p] and how many each has [b].

    Raises:
        UserError: the model is of another kind, or a prompt does not fit it.
    """
    objective, data = run.experiment.objective, run.experiment.data
    if not isinstance(objective, Autoregressive):
        raise UserError(f"--prompt needs an autoregressive model, this is {type(objective).__name__}")
    tokens, count = encode_prompts(data, prompts)
    if tokens.shape[1] > data.shape[0]:
        raise UserError(f"a prompt of {tokens.shape[1]} tokens does not fit a model of {data.shape[0]}")
    return objective, jnp.asarray(tokens), jnp.asarray(count)


def _texts(run: Run, tokens: Any, lengths: Any) -> list[str]:
    """Rows of tokens as text, each as long as it says."""
    vocabulary = getattr(run.experiment.data.source, "vocabulary", Vocabulary())
    rows, lengths = map(gather, (tokens, lengths))
    return [vocabulary.decode(row[:length]) for row, length in zip(rows, lengths, strict=True)]


def stream(run: Run, state: TrainState, prompts: Sequence[str], seed: int) -> Iterator[list[str]]:
    """Completes prompts, all in one batch, with the moving average of the parameters.

    Args:
        run: of text, its objective autoregressive.
        state: a checkpoint.
        prompts: texts to go on from.
        seed: of the draws.

    Yields:
        Prompts and what follows them so far, every few tokens, until all rows are done.

    Raises:
        UserError: the model is of another kind, or a prompt does not fit it.
    """
    objective, tokens, count = _open(run, prompts)
    room, key = run.experiment.data.shape[0], named(jax.random.key(seed), "decode")

    def begin(params: Any, tokens: Any, count: Any) -> Any:
        return start(objective.model(params, len(count)), tokens, count, room)

    def go(params: Any, now: Any) -> Any:
        model = objective.model(params, len(prompts))
        return advance(model, objective.decoding, now, key, CHUNK, objective.stop)

    params = jax.jit(objective.ready)(state.ema)
    now = jax.jit(begin)(params, tokens, count)
    more: Callable[..., Any] = jax.jit(go, donate_argnums=1)
    while True:
        yield _texts(run, now.tokens, now.length)
        if now.done.all():
            return
        now = more(params, now)


def search(run: Run, state: TrainState, prompts: Sequence[str], beam: Beam) -> list[list[tuple[str, float]]]:
    """The best continuations of each prompt that a beam search finds, as long as the model has room.

    Nothing is drawn, so temperature and what cuts the distribution off (top-k, top-p, min-p, typical) are left out of
    the objective's decoding; penalties and filters of its own stay.

    Args:
        run: of text, its objective autoregressive.
        state: a checkpoint.
        prompts: texts to go on from; the longest leaves room for at least one token.
        beam: how wide, and how lengths count.

    Returns:
        For each prompt (text with the prompt, score), best first; see `decode.beam` for the score, in nats.

    Raises:
        UserError: the model is of another kind, or a prompt does not fit it.
    """
    objective, tokens, count = _open(run, prompts)
    new = run.experiment.data.shape[0] - tokens.shape[1]
    decoding = dataclasses.replace(
        objective.decoding, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, typical=1.0
    )

    def find(params: Any, tokens: Any, count: Any) -> Any:
        model = objective.model(params, beam.width * len(count))
        return beam_search(model, beam, decoding, tokens, count, new, objective.stop)

    found = jax.jit(find)(state.ema, tokens, count)
    results = []
    given = map(gather, (found.tokens, found.length, found.score))
    for prompt, rows, lengths, scores in zip(prompts, *given, strict=True):
        there = lengths > 0
        texts = _texts(run, rows[there], lengths[there])
        results.append(
            [(prompt + text, float(score)) for text, score in zip(texts, scores[there], strict=True)]
        )
    return results


def _meanings(data: Data) -> list[str]:
    """What each token of a text stands for."""
    vocabulary = getattr(data.source, "vocabulary", Vocabulary())
    return [vocabulary.decode(np.array([token])) for token in range(len(vocabulary))]


def with_draft(
    run: Run,
    state: TrainState,
    small: Run,
    small_state: TrainState,
    prompts: Sequence[str],
    drafts: int,
    seed: int,
) -> tuple[list[str], float]:
    """Completes prompts by speculative decoding: distributed as the model's own draws, whatever the small one says.

    Args:
        run: of text, its objective autoregressive.
        state: a checkpoint.
        small: of a model of the same vocabulary, with as much room.
        small_state: a checkpoint of it.
        prompts: texts to go on from.
        drafts: tokens that the small model drafts in a round.
        seed: of the draws.

    Returns:
        (prompts and what follows them, share of the drafts that were accepted).

    Raises:
        UserError: a model is of another kind, the two do not fit together, or a prompt does not fit them.
    """
    objective, tokens, count = _open(run, prompts)
    other, mine, theirs = small.experiment.objective, run.experiment.data, small.experiment.data
    if not isinstance(other, Autoregressive):
        raise UserError(f"--draft needs an autoregressive model, this is {type(other).__name__}")
    if theirs.kind != "text" or other.values != objective.values or _meanings(theirs) != _meanings(mine):
        raise UserError(
            f"--draft needs a model of the same tokens: it has {other.values} of {type(theirs.source).__name__}, "
            f"the model {objective.values} of {type(mine.source).__name__}"
        )
    room = mine.shape[0]
    if theirs.shape[0] < room:
        raise UserError(f"--draft reads {theirs.shape[0]} tokens, the model {room}: it must read as many")

    def go(params: Any, small_params: Any, tokens: Any, count: Any) -> Any:
        large = objective.model(params, len(count), slack=drafts + 1)
        guess = other.model(small_params, len(count), slack=drafts + 1)
        key, stop = named(jax.random.key(seed), "decode"), objective.stop
        return speculate(large, guess, objective.decoding, key, tokens, count, room, drafts=drafts, stop=stop)

    done = jax.jit(go)(state.ema, small_state.ema, tokens, count)
    rate = jnp.sum(done.accepted) / jnp.maximum(jnp.sum(done.rounds) * drafts, 1)
    return _texts(run, done.tokens, done.length), float(rate)
