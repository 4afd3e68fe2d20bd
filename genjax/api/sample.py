"""Draws samples and completes prompts with a work directory's model; writes arrays, pictures, sounds and texts."""

from collections.abc import Iterable
from pathlib import Path

import jax

from genjax.api.complete import search, stream, with_draft
from genjax.core.errors import UserError
from genjax.evaluation.sampling import draw_samples
from genjax.parallel.console import say
from genjax.reports.exports import export, write_arrays
from genjax.reports.sampling_paths import draw_path, show, show_path
from genjax.samplers.decoding.beam import Beam
from genjax.training.workdir import reopen_trained


def sample(
    workdir: Path,
    overrides: Iterable[tuple[str, str]],
    *,
    num: int,
    seed: int,
    label: int | None = None,
    out: Path | None = None,
    trace: int = 0,
) -> Path:
    """Draws samples from a work directory's model; writes an npz, a picture beside it, and WAV or text files.

    Args:
        workdir: run with a checkpoint.
        overrides: (path, value) overrides of sampling options, e.g. ("objective.sampler.steps", "20").
        num: number of samples.
        seed: seed of the samples.
        label: class of all samples; None uses 0, 1, 2, ... cyclically.
        out: path of the npz; None is WORKDIR/samples.npz, or WORKDIR/paths.npz with `trace`.
        trace: number of states of each sampling path to write and picture instead of the samples; 0 for none.

    Returns:
        Path of the npz: `samples` in data units and, for class-conditional models, `label`; with `trace` `times` and
        `states`.

    Raises:
        UserError: there is no run, the label is out of range, or an override affects training.
    """
    if num < 1:
        raise UserError(f"--num={num} must be at least 1")
    run, state = reopen_trained(workdir, overrides)
    experiment = run.experiment
    if trace:
        times, states = draw_path(run, state, num, trace, seed, label)
        out = out or workdir / "paths.npz"
        write_arrays(out, show_path(run, state, times, states), times=times, states=states)
        say(f"wrote {out} and {out.with_suffix('.png')} (EMA parameters of step {int(state.step)})")
        return out
    samples, labels = draw_samples(
        experiment.objective,
        experiment.data,
        state.ema,
        state.extra,
        run.mesh,
        seed=seed,
        num=num,
        batch_size=experiment.evaluation.batch_size,
        label=label,
        report=lambda done: say(f"{done}/{num} samples"),
    )
    out = out or workdir / "samples.npz"
    arrays = {"samples": samples} if labels is None else {"samples": samples, "label": labels}
    write_arrays(out, show(experiment.data, samples[:400]), **arrays)
    if message := export(out.with_suffix(""), experiment.data, samples):
        say(message)
    say(f"wrote {out} and {out.with_suffix('.png')} (EMA parameters of step {int(state.step)})")
    return out


def complete(
    workdir: Path,
    overrides: Iterable[tuple[str, str]],
    prompts: list[str],
    *,
    seed: int,
    out: Path | None = None,
    beam: Beam | None = None,
    draft: Path | None = None,
    drafts: int = 4,
) -> Path:
    """Completes prompts with a work directory's language model; a single prompt is printed token by token.

    Args:
        workdir: run with a checkpoint.
        overrides: (path, value) overrides of decoding options, e.g. ("objective.decoding.top_k", "40").
        prompts: at least one text.
        seed: seed of sampling.
        out: text file to write; None is WORKDIR/completions.txt.
        beam: beam search instead of sampling; all beams are written with their scores.
        draft: work directory of a smaller draft model (speculative decoding).
        drafts: draft tokens per round.

    Returns:
        Path of the file.

    Raises:
        UserError: there is no run, the model is not autoregressive, a prompt cannot be encoded, or both `beam` and
            `draft` are given.
    """
    if beam is not None and draft is not None:
        raise UserError("--beams and --draft exclude each other: give one of them")
    run, state = reopen_trained(workdir, overrides)
    texts: list[str] = []
    if beam is not None:
        found = [pair for pairs in search(run, state, prompts, beam) for pair in pairs]
        texts = [f"[{score:.4f}] {text}" for text, score in found]
        say("\n---\n".join(texts))
    elif draft is not None:
        texts, rate = with_draft(run, state, *reopen_trained(draft, ()), prompts, drafts, seed)
        say("\n---\n".join(texts))
        say(f"accepted {rate:.1%} of the drafts, {drafts} per round")
    else:
        texts = _show_stream(stream(run, state, prompts, seed), len(prompts))
    out = out or workdir / "completions.txt"
    try:
        if jax.process_index() == 0:
            out.write_text("\n---\n".join(texts) + "\n")
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}") from None
    say(f"wrote {out}")
    return out


def _show_stream(growing: Iterable[list[str]], prompts: int) -> list[str]:
    """Prints a single text while it grows, several at the end; returns the final texts."""
    texts, shown = [], 0
    for texts in growing:
        if prompts == 1 and jax.process_index() == 0:
            print(texts[0][shown:], end="", flush=True)
            shown = len(texts[0])
    say("" if prompts == 1 else "\n---\n".join(texts))
    return texts
