"""Completing prompts of text with a model that is drawn token by token, as it comes."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from genjax.data import Data, Vocabulary
from genjax.decode.generate import advance, start
from genjax.errors import UserError
from genjax.loop import Run
from genjax.objectives.autoregressive import Autoregressive
from genjax.step import TrainState
from genjax.types import named

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
    objective, data = run.experiment.objective, run.experiment.data
    if not isinstance(objective, Autoregressive):
        raise UserError(f"--prompt needs an autoregressive model, this is {type(objective).__name__}")
    tokens, count = encode_prompts(data, prompts)
    room, key = data.shape[0], named(jax.random.key(seed), "decode")

    def begin(params: Any, tokens: Any, count: Any) -> Any:
        return start(objective.model(params, len(count)), tokens, count, room)

    def go(params: Any, now: Any) -> Any:
        model = objective.model(params, len(prompts))
        return advance(model, objective.decoding, now, key, CHUNK, objective.stop)

    params = jax.jit(objective.ready)(state.ema)
    now = jax.jit(begin)(params, jnp.asarray(tokens), jnp.asarray(count))
    more: Callable[..., Any] = jax.jit(go, donate_argnums=1)
    vocabulary = getattr(data.source, "vocabulary", Vocabulary())
    while True:
        rows, lengths, done = jax.device_get((now.tokens, now.length, now.done))
        yield [vocabulary.decode(row[:length]) for row, length in zip(rows, lengths, strict=True)]
        if done.all():
            return
        now = more(params, now)
