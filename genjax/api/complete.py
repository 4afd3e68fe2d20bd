"""Completes prompts of text with a trained language model; writes the texts."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jax

from genjax.api.decoding import search, stream, with_draft
from genjax.api.load import TrainedRun
from genjax.core.errors import UserError
from genjax.core.files import write_atomic, writing
from genjax.parallel.console import say
from genjax.samplers.decoding.beam import Beam


def complete(
    run: TrainedRun,
    prompt: str | Sequence[str],
    *,
    seed: int = 0,
    beam: Beam | None = None,
    draft: TrainedRun | None = None,
    drafts: int = 4,
) -> Any:
    """Completes prompts with a language model.

    Args:
        run: a trained autoregressive model of text, from `train` or `load`.
        prompt: a text, or several.
        seed: seed of sampling.
        beam: beam search instead of sampling; the best beam is returned.
        draft: a smaller draft model (speculative decoding).
        drafts: draft tokens per round.

    Returns:
        The prompt with its continuation, a string; a list of strings for several prompts.

    Raises:
        UserError: the model is not autoregressive, a prompt cannot be encoded, or both `beam` and `draft` are given.
    """
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    _check(beam, draft)
    if beam is not None:
        texts = [found[0][0] for found in search(*run.merged(), prompts, beam)]
    elif draft is not None:
        texts = with_draft(*run.merged(), *draft.merged(), prompts, drafts, seed)[0]
    else:
        *_, texts = stream(*run.merged(), prompts, seed)
    return texts[0] if isinstance(prompt, str) else texts


def write_completions(
    run: TrainedRun,
    prompts: Sequence[str],
    *,
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    beam: Beam | None = None,
    draft: TrainedRun | None = None,
    drafts: int = 4,
) -> Path:
    """Completes prompts and writes the texts; a single prompt is printed token by token.

    Args:
        run: a trained autoregressive model of text.
        prompts: at least one text.
        seed: seed of sampling.
        out: text file to write; None is completions.txt in the work directory.
        beam: beam search instead of sampling; all beams are written with their scores.
        draft: a smaller draft model (speculative decoding).
        drafts: draft tokens per round.

    Returns:
        Path of the file.

    Raises:
        UserError: as `complete`, or the file cannot be written.
    """
    _check(beam, draft)
    if beam is not None:
        found = [pair for pairs in search(*run.merged(), prompts, beam) for pair in pairs]
        texts = [f"[{score:.4f}] {text}" for text, score in found]
        say("\n---\n".join(texts))
    elif draft is not None:
        texts, rate = with_draft(*run.merged(), *draft.merged(), prompts, drafts, seed)
        say("\n---\n".join(texts))
        say(f"accepted {rate:.1%} of the drafts, {drafts} per round")
    else:
        texts = _show_stream(stream(*run.merged(), prompts, seed), len(prompts))
    out = Path(out) if out else (run.workdir or Path()) / "completions.txt"
    if jax.process_index() == 0:
        with writing(out):
            write_atomic(out, "\n---\n".join(texts) + "\n")
    say(f"wrote {out}")
    return out


def _check(beam: Beam | None, draft: TrainedRun | None) -> None:
    if beam is not None and draft is not None:
        raise UserError("beam=... and draft=... exclude each other: give one of them")


def _show_stream(growing: Iterable[list[str]], prompts: int) -> list[str]:
    """Prints a single text while it grows, several at the end; returns the final texts."""
    texts, shown = [], 0
    for texts in growing:
        if prompts == 1 and jax.process_index() == 0:
            whole = texts[0].rstrip("\N{REPLACEMENT CHARACTER}")  # the rest of a character is still to come
            print(whole[shown:], end="", flush=True)
            shown = len(whole)
    say(texts[0][shown:] if prompts == 1 else "\n---\n".join(texts))
    return texts
