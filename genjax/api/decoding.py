"""Decoding of prompts on prepared runs: by sampling, by beam search, or by speculative decoding with a draft model."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from genjax.core.errors import UserError
from genjax.core.types import named, root_key
from genjax.data import Data
from genjax.data.source import PromptCodec
from genjax.data.text.decode_text import vocabulary_of
from genjax.evaluation.sampling import gather
from genjax.objectives.autoregressive import Autoregressive
from genjax.samplers.decoding.beam import Beam, beam_search
from genjax.samplers.decoding.generate import advance, start
from genjax.samplers.decoding.speculative import speculate
from genjax.training.loop import Run
from genjax.training.step import TrainState

CHUNK = 8  # tokens generated between two yields of `stream`


def encode_prompts(data: Data, prompts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Encodes prompts as tokens.

    Args:
        data: data of text.
        prompts: at least one.

    Returns:
        (tokens int32 [b, p], padded at the end; number of tokens of each, int32 [b]).

    Raises:
        UserError: the data are not text, or a prompt has a character outside the vocabulary.
    """
    if data.kind != "text":
        raise UserError(f"prompts are for models of text, this one is of {data.kind}")
    vocabulary = vocabulary_of(data)
    encode = (
        vocabulary.encode_prompt
        if isinstance(vocabulary, PromptCodec)
        else lambda prompt: vocabulary.encode(prompt.encode())
    )
    rows = [encode(prompt) for prompt in prompts]
    tokens = np.zeros((len(rows), max(map(len, rows))), np.int32)
    for row, found in zip(tokens, rows, strict=True):
        row[: len(found)] = found
    return tokens, np.array([len(row) for row in rows], np.int32)


def _open(run: Run, prompts: Sequence[str]) -> tuple[Autoregressive, jax.Array, jax.Array]:
    """The objective of a run, and prompts on the device: tokens [b, p] and the number of each [b].

    Raises:
        UserError: the model is not autoregressive, or a prompt is too long or has unknown characters.
    """
    objective, data = run.experiment.objective, run.experiment.data
    if not isinstance(objective, Autoregressive):
        raise UserError(f"prompts need an autoregressive model, this is {type(objective).__name__}")
    tokens, count = encode_prompts(data, prompts)
    if tokens.shape[1] > data.shape[0]:
        raise UserError(f"a prompt of {tokens.shape[1]} tokens does not fit a model of {data.shape[0]}")
    if tokens.size and tokens.max() >= objective.values:
        raise UserError(f"a prompt has the token {tokens.max()}, the model knows {objective.values} tokens")
    return objective, *objective.begun(jnp.asarray(tokens), jnp.asarray(count))


def _texts(run: Run, tokens: Any, lengths: Any) -> list[str]:
    """Decodes rows of tokens, each up to its length."""
    vocabulary = vocabulary_of(run.experiment.data)
    decode = vocabulary.decode_completion if isinstance(vocabulary, PromptCodec) else vocabulary.decode
    rows, lengths = map(gather, (tokens, lengths))
    return [decode(row[:length]) for row, length in zip(rows, lengths, strict=True)]


def stream(run: Run, state: TrainState, prompts: Sequence[str], seed: int) -> Iterator[list[str]]:
    """Completes prompts by sampling, in one batch, with the EMA parameters.

    Args:
        run: an autoregressive model of text.
        state: its checkpoint.
        prompts: texts to continue.
        seed: seed of the draws.

    Yields:
        Prompts with their continuations so far, every `CHUNK` tokens, until all rows are done.

    Raises:
        UserError: the model is not autoregressive, or a prompt is too long or has unknown characters.
    """
    objective, tokens, count = _open(run, prompts)
    max_length, key = run.experiment.data.shape[0], named(root_key(seed), "decode")

    def prefill(params: Any, tokens: Any, count: Any) -> Any:
        return start(objective.model(params, len(count)), tokens, count, max_length)

    def generate_chunk(params: Any, now: Any) -> Any:
        model = objective.model(params, len(prompts))
        return advance(model, objective.decoding, now, key, CHUNK, objective.stop)

    params = jax.jit(objective.ready)(state.ema)
    now = jax.jit(prefill)(params, tokens, count)
    more: Callable[..., Any] = jax.jit(generate_chunk, donate_argnums=1)
    while True:
        yield _texts(run, now.tokens, now.length)
        if now.done.all():
            return
        now = more(params, now)


def search(run: Run, state: TrainState, prompts: Sequence[str], beam: Beam) -> list[list[tuple[str, float]]]:
    """Completes prompts by beam search, up to the maximum length of the model.

    Nothing is sampled, so temperature, top-k, top-p, min-p and typical are removed from the objective's decoding;
    penalties and custom filters are kept.

    Args:
        run: an autoregressive model of text.
        state: its checkpoint.
        prompts: texts to continue; shorter than the maximum length.
        beam: hyperparameters of the search.

    Returns:
        For each prompt (text with the prompt, score), best first; score in nats, see `samplers.decoding.beam`.

    Raises:
        UserError: the model is not autoregressive, or a prompt is too long or has unknown characters.
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
    given = map(gather, (tokens, count, found.tokens, found.length, found.score))
    for prompt, size, rows, lengths, scores in zip(*given, strict=True):
        there = lengths > 0
        begun = np.broadcast_to(prompt[:size], (there.sum(), size))
        texts = _texts(run, np.concatenate([begun, rows[there]], axis=1), size + lengths[there])
        results.append([(text, float(score)) for text, score in zip(texts, scores[there], strict=True)])
    return results


def _token_texts(data: Data) -> list[str]:
    """The text of each token."""
    vocabulary = vocabulary_of(data)
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
    """Completes prompts by speculative decoding: distributed exactly as samples of the large model.

    Args:
        run: an autoregressive model of text.
        state: its checkpoint.
        small: the draft model, of the same vocabulary and at least the same maximum length.
        small_state: its checkpoint.
        prompts: texts to continue.
        drafts: number of tokens drafted per round.
        seed: seed of the draws.

    Returns:
        (prompts with their continuations, share of accepted drafts).

    Raises:
        UserError: a model is not autoregressive, the two are incompatible, or a prompt does not fit.
    """
    objective, tokens, count = _open(run, prompts)
    other, mine, theirs = small.experiment.objective, run.experiment.data, small.experiment.data
    if not isinstance(other, Autoregressive):
        raise UserError(f"draft=... must be an autoregressive model, this is {type(other).__name__}")
    if (
        theirs.kind != "text"
        or other.values != objective.values
        or _token_texts(theirs) != _token_texts(mine)
    ):
        raise UserError(
            f"draft=... must be a model of the same tokens: it has {other.values} of {type(theirs.source).__name__}, "
            f"the model {objective.values} of {type(mine.source).__name__}"
        )
    max_length = mine.shape[0]
    if theirs.shape[0] < max_length:
        raise UserError(
            f"draft=... reads {theirs.shape[0]} tokens, the model {max_length}: it must read as many"
        )

    def complete(params: Any, small_params: Any, tokens: Any, count: Any) -> Any:
        large = objective.model(params, len(count), slack=drafts + 1)
        guess = other.model(small_params, len(count), slack=drafts + 1)
        key, stop = named(root_key(seed), "decode"), objective.stop
        return speculate(
            large, guess, objective.decoding, key, tokens, count, max_length, drafts=drafts, stop=stop
        )

    done = jax.jit(complete)(state.ema, small_state.ema, tokens, count)
    rate = jnp.sum(done.accepted) / jnp.maximum(jnp.sum(done.rounds) * drafts, 1)
    return _texts(run, done.tokens, done.length), float(rate)
