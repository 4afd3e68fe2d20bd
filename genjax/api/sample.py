"""Draws samples with a trained model; writes arrays, pictures, sounds and texts."""

import os
from pathlib import Path

import numpy as np
from jaxtyping import Int, Shaped
from numpy import ndarray

from genjax.api.load import TrainedRun
from genjax.core.errors import UserError
from genjax.evaluation.sampling import draw_samples
from genjax.parallel.console import say
from genjax.reports.exports import export, write_arrays
from genjax.reports.sampling_paths import draw_path, show, show_path


def sample(
    run: TrainedRun, num: int = 100, label: int | str | None = None, seed: int = 0
) -> Shaped[ndarray, "num ..."]:
    """Draws samples with the EMA parameters.

    Args:
        run: a trained model, from `train` or `load`.
        num: number of samples.
        label: class of all samples, by number or name; None uses 0, 1, 2, ... cyclically.
        seed: seed of the samples.

    Returns:
        Samples in the data's own units and dtype.

    Raises:
        UserError: `num` is below 1, there is no such label, or the model cannot sample.
    """
    return _draw(run, num, label, seed, progress=False)[0]


def _draw(
    run: TrainedRun, num: int, label: int | str | None, seed: int, progress: bool
) -> tuple[Shaped[ndarray, "num ..."], Int[ndarray, " num"] | None]:
    """Samples, and their labels if the model has classes."""
    _check(num)
    opened, state = run.merged()
    experiment = opened.experiment
    return draw_samples(
        experiment.objective,
        experiment.data,
        state.ema,
        state.extra,
        opened.mesh,
        seed=seed,
        num=num,
        batch_size=experiment.evaluation.batch_size,
        label=run.label(label),
        finite=True,
        report=(lambda done: say(f"{done}/{num} samples")) if progress else (lambda done: None),
    )


def _check(num: int) -> None:
    if num < 1:
        raise UserError(f"num={num} must be at least 1")


def write_samples(
    run: TrainedRun,
    num: int = 100,
    *,
    label: int | str | None = None,
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    trace: int = 0,
) -> Path:
    """Draws samples and writes an npz, a picture beside it, and WAV or text files.

    Args:
        run: a trained model.
        num: number of samples.
        label: class of all samples, by number or name; None uses 0, 1, 2, ... cyclically.
        seed: seed of the samples.
        out: path of the npz; None is samples.npz in the work directory, or paths.npz with `trace`.
        trace: number of states of each sampling path to write and picture instead of the samples; 0 for none.

    Returns:
        Path of the npz: `samples` in data units and, for class-conditional models, `label`; with `trace` `times` and
        `states`.

    Raises:
        UserError: as `sample`, or a file cannot be written.
    """
    _check(num)
    out = Path(out) if out else (run.workdir or Path()) / ("paths.npz" if trace else "samples.npz")
    data = run.experiment.data
    if trace:
        opened, state = run.merged()
        times, states = draw_path(opened, state, num, trace, seed, run.label(label))
        write_arrays(out, show_path(opened, state, times, states), times=times, states=states)
    else:
        samples, labels = _draw(run, num, label, seed, progress=True)
        arrays: dict[str, np.ndarray] = {"samples": samples} | ({} if labels is None else {"label": labels})
        write_arrays(out, show(data, samples[:400]), **arrays)
        if message := export(out.with_suffix(""), data, samples):
            say(message)
    say(f"wrote {out} and {out.with_suffix('.png')} (EMA parameters of step {int(run.state.step)})")
    return out
