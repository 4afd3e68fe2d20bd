"""One trained model under several settings: a table, a curve and pictures of the same noise.

What may vary is whatever training does not depend on: the sampler and its steps, guidance, temperature.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from genjax.core.errors import UserError
from genjax.evaluation.sample_quality import fit_judge, measure
from genjax.parallel.console import say
from genjax.reports.figures import series, tiles
from genjax.reports.pictures import grid
from genjax.reports.sampling_paths import show
from genjax.reports.tables import table
from genjax.training.loop import Run
from genjax.training.variations import Setting, settings
from genjax.training.workdir import load_state, reopen


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
