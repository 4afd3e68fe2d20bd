"""Evaluates one trained model under several settings: a table, a curve and pictures from the same noise.

Settings may be anything that does not affect training: the sampler and its steps, guidance, temperature.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from PIL import Image

from genjax.core.files import replacing, write_all, writing
from genjax.evaluation.sample_quality import fit_reference, measure
from genjax.parallel.console import say
from genjax.reports.figures import series, tiles
from genjax.reports.kinds import drawing_of
from genjax.reports.tables import table
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
    """Draws and evaluates samples of a work directory's model under every combination of settings.

    Args:
        workdir: run with a checkpoint.
        overrides: (path, value) overrides of all settings.
        over: (path, values); the settings are all combinations of the values.
        num: samples of each setting.
        seed: seed of the samples, the same for each setting.
        out: folder for table.md, rows.json, samples.png, curve.png; None is WORKDIR/vary.

    Returns:
        One row of numbers for each setting.

    Raises:
        UserError: there is no run, or an override affects training.
    """
    chosen = settings(over)
    runs = [reopen(workdir, [*overrides, *setting]) for setting in chosen]
    state, reference = load_state(runs[0], workdir), fit_reference(runs[0])
    rows, pictures = [], []
    for run, setting in zip(runs, chosen, strict=True):
        row, samples = measure(run, state, reference, num, seed)
        rows.append({**dict(setting), **row})
        pictures.append(
            (caption(setting), drawing_of(run.experiment.data).draw(run.experiment.data, samples, row=True))
        )
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
    """Text of a setting, with the last component of each path."""
    return ", ".join(f"{path.rpartition('.')[2]} {value}" for path, value in setting) or "as trained"


def _write(
    out: Path,
    rows: list[dict[str, Any]],
    over: Sequence[tuple[str, list[str]]],
    pictures: list[tuple[str, Image.Image]],
) -> None:
    """Writes the files of `vary`.

    Raises:
        UserError: the folder cannot be written.
    """
    images = {"samples.png": tiles(pictures, columns=1 if pictures[0][1].height < 100 else 4)}
    if over and "frechet_ratio" in rows[0]:
        images["curve.png"] = _curve(rows, over)
    with writing(out):
        write_all(
            {out / "rows.json": json.dumps(rows, indent=1) + "\n", out / "table.md": table(rows) + "\n"}
        )
        for name, image in images.items():
            with replacing(out / name) as path:
                image.save(path)


def _curve(rows: list[dict[str, Any]], over: Sequence[tuple[str, list[str]]]) -> Image.Image:
    """Fréchet ratio against the last varied path, or against network evaluations if that is the number of steps."""
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
    """The value as a number, or `otherwise` if it is not numeric."""
    try:
        return float(value)
    except ValueError:
        return float(otherwise)
