"""One trained model under several settings: a table, a curve and pictures of the same noise.

What may vary is whatever training does not depend on: the sampler and its steps, guidance, temperature.
"""

import itertools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from genjax import evaluate
from genjax.errors import UserError
from genjax.figures import series, tiles
from genjax.hardware import busy
from genjax.loop import Run
from genjax.metrics.report import Judge
from genjax.pictures import grid
from genjax.sampling import draw_samples
from genjax.step import TrainState
from genjax.verbs import load_state, reopen, say
from genjax.watch import show

COLUMNS = (
    "frechet_ratio",
    "frechet_ratio_std",
    "label_accuracy",
    "precision",
    "recall",
    "recall_reference",
    "told_apart",
    "diversity",
    "near_copies",
)
Setting = tuple[tuple[str, str], ...]  # (field's path, value) of each thing that varies


def parse_over(words: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Reads "objective.sampler.steps=5,10,20" into a path and its values.

    Raises:
        UserError: not of this form.
    """
    parsed = []
    for word in words:
        path, equals, values = word.partition("=")
        if not equals or not values:
            raise UserError(f"--over={word}: write --over=objective.sampler.steps=5,10,20")
        parsed.append((path.removeprefix("config."), values.split(",")))
    return parsed


def settings(over: Iterable[tuple[str, list[str]]]) -> list[Setting]:
    """All combinations, the last path's values changing fastest."""
    return list(itertools.product(*[[(path, value) for value in values] for path, values in over]))


def vary(
    workdir: Path,
    overrides: Sequence[tuple[str, str]],
    over: Sequence[tuple[str, list[str]]],
    *,
    num: int,
    seed: int,
    out: Path | None = None,
) -> list[dict[str, Any]]:
    """Draws and judges samples of a work directory under every combination of settings.

    Args:
        workdir: of a run with a checkpoint.
        overrides: of all settings alike.
        over: (path, values), the values' combinations being the settings.
        num: samples of each.
        seed: of the samples, the same for each.
        out: folder for table.md, rows.json, samples.png, curve.png; None is WORKDIR/vary.

    Returns:
        One row of numbers for each setting.

    Raises:
        UserError: no run there, or an override that only training could follow.
    """
    chosen = settings(over)
    runs = [reopen(workdir, [*overrides, *setting]) for setting in chosen]
    state, judge = load_state(runs[0], workdir), fit_judge(runs[0])
    rows, pictures = [], []
    for run, setting in zip(runs, chosen, strict=True):
        row, samples = measure(run, state, judge, num, seed)
        rows.append({**dict(setting), **row})
        pictures.append((caption(setting), _shown(run, samples)))
        say(f"{caption(setting)}: " + ", ".join(f"{name} {value:.4g}" for name, value in row.items()))
    if jax.process_index() == 0:
        out = out or workdir / "vary"
        _write(out, rows, over, pictures)
        say(table(rows))
        say(
            f"wrote {out}/table.md, rows.json, samples.png, curve.png (EMA parameters of step {int(state.step)})"
        )
    return rows


def caption(setting: Setting) -> str:
    """A setting in words, by the last part of each path."""
    return ", ".join(f"{path.rpartition('.')[2]} {value}" for path, value in setting) or "as trained"


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a Markdown table."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    written = lambda value: f"{value:.4g}" if isinstance(value, float) else str(value)
    return "\n".join(
        [*lines, *("| " + " | ".join(written(row.get(name, "")) for name in names) + " |" for row in rows)]
    )


def fit_judge(run: Run) -> Judge | None:
    """The judge of samples, fitted once; none for data without feature spaces, and on processes but the first."""
    data = run.experiment.data
    if data.kind == "text" or jax.process_index():
        return None
    say("fitting the feature spaces")
    return evaluate.fit_judge(data, run.experiment.evaluation.seed)


def measure(
    run: Run, state: TrainState, judge: Judge | None, num: int, seed: int
) -> tuple[dict[str, float], np.ndarray]:
    """Draws and judges samples of one setting.

    Args:
        run: ready, with the setting.
        state: its moving average draws.
        judge: of the data; None draws and judges nothing.
        num: samples, in two compiled calls or more: the first compiles, the others are timed.
        seed: of the samples.

    Returns:
        Numbers, without distances where all samples are equal, as there is nothing to compare; and the samples in the
        data's own units.

    Raises:
        UserError: there is a judge, and samples are not finite.
    """
    experiment, stamps = run.experiment, []
    samples, labels = draw_samples(
        experiment.objective,
        experiment.data,
        state.ema,
        state.extra,
        run.mesh,
        seed=seed,
        num=num,
        batch_size=min(experiment.evaluation.batch_size, -(-num // 2)),
        finite=judge is not None,
        report=lambda done: stamps.append((done, busy())),
    )
    row: dict[str, float] = {}
    evaluations = getattr(getattr(experiment.objective, "sampler", None), "evaluations", None)
    if evaluations is not None:
        row["evaluations"] = float(evaluations)
    if len(stamps) > 1:
        row["seconds_per_1000"] = per_thousand(stamps)
    if judge is not None and (samples != samples[:1]).any():
        report = judge.report(samples, labels)
        row = {**{name: float(report[name]) for name in COLUMNS if name in report}, **row}
    return row, samples


def per_thousand(stamps: Sequence[tuple[int, float]]) -> float:
    """Seconds for 1000 samples, of all calls after the first; the last one draws as many as any, wanted or not.

    Args:
        stamps: after each call, how many of the wanted samples there are and the time in seconds.
    """
    (size, begun), (_, ended) = stamps[0], stamps[-1]
    return 1000.0 * (ended - begun) / (size * (len(stamps) - 1))


def _shown(run: Run, samples: np.ndarray) -> Image.Image:
    """One row of images, or what else shows samples of this kind."""
    data = run.experiment.data
    if data.kind == "image":
        count = data.classes or 10
        return grid(samples[: max(count, 10)], levels=data.levels or 256, columns=max(count, 10))
    return show(data, samples[:1000])


def _write(
    out: Path,
    rows: list[dict[str, Any]],
    over: Sequence[tuple[str, list[str]]],
    pictures: list[tuple[str, Image.Image]],
) -> None:
    """The files of `vary`.

    Raises:
        UserError: the folder cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "rows.json").write_text(json.dumps(rows, indent=1) + "\n")
        (out / "table.md").write_text(table(rows) + "\n")
        tiles(pictures, columns=1 if pictures[0][1].height < 100 else 4).save(out / "samples.png")
        if over and "frechet_ratio" in rows[0]:
            _curve(rows, over).save(out / "curve.png")
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}") from None


def _curve(rows: list[dict[str, Any]], over: Sequence[tuple[str, list[str]]]) -> Image.Image:
    """The Fréchet ratio against what varies fastest, or against evaluations of the network where they are known."""
    path = over[-1][0]
    x_name = "evaluations" if path.endswith(".steps") and "evaluations" in rows[0] else path
    lines: dict[str, tuple[list[float], list[float]]] = {}
    for row in rows:
        name = caption(tuple((other, row[other]) for other, _ in over[:-1]))
        x, y = lines.setdefault(name, ([], []))
        x.append(_number(row[x_name], len(x)))
        y.append(row["frechet_ratio"])
    return series(lines, x_name, "Fréchet ratio")


def _number(value: Any, otherwise: int) -> float:
    """A value's number; its place where it is a word."""
    try:
        return float(value)
    except ValueError:
        return float(otherwise)
