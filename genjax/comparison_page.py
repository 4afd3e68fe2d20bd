"""The page that shows a comparison: numbers, quality against time, curves, and pictures of each model."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from genjax import charts, page
from genjax.comparison import Entry, read_metrics
from genjax.errors import UserError
from genjax.evaluate import whole
from genjax.explore import View, explore
from genjax.metrics.memorization import nearest_training
from genjax.objective import HasDecoder, HasPath
from genjax.pictures import grid
from genjax.watch import draw_path, show, show_path

SHOWN, NEIGHBOURS, PATHS, FRAMES = 50, 10, 6, 9


@dataclasses.dataclass(frozen=True)
class Column:
    """One column of the table.

    Attributes:
        title: its head.
        name: of the number.
        better: "less", "more", or "" where neither is.
        form: how a number is written.
    """

    title: str
    name: str
    better: str = ""
    form: str = "{:.3g}"


COLUMNS = (
    Column("Fréchet ratio", "frechet_ratio", "less", "{:.2f}"),
    Column("precision", "precision", "more", "{:.2f}"),
    Column("recall", "recall", "more", "{:.2f}"),
    Column("told apart", "told_apart", "less", "{:.2f}"),
    Column("diversity", "diversity", "", "{:.2f}"),
    Column("label as asked", "label_accuracy", "more", "{:.3f}"),
    Column("near copies", "near_copies", "less", "{:.3f}"),
    Column("s / 1000 samples", "seconds_per_1000", "less"),
    Column("evaluations", "evaluations", "", "{:.0f}"),
    Column("parameters", "parameters", "", "{:,.0f}"),
    Column("GFLOP / step", "gflops"),
    Column("examples seen", "examples_seen", "", "{:,.0f}"),
    Column("s to train", "seconds_to_train", "", "{:.0f}"),
)


def mean_and_spread(row: Sequence[Entry], name: str) -> tuple[float, float] | None:
    """Of one number over the seeds; the spread is NaN for a single one."""
    values = [entry.numbers[name] for entry in row if name in entry.numbers]
    if not values:
        return None
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


def title(row: Sequence[Entry]) -> str:
    """Of a row: the first run's name, and how many seeds there are."""
    return row[0].name + (f" ({len(row)} seeds)" if len(row) > 1 else "")


def render(rows: Sequence[Sequence[Entry]], num: int, seed: int) -> str:
    """The page's text."""
    data = rows[0][0].run.experiment.data
    device = f"{jax.device_count()} {jax.devices()[0].platform} devices"
    words = (
        f"{type(data.source).__name__}: {num} samples of each, seed {seed}, of the moving average of the "
        f"parameters; judged anew by one judge at equal counts. Times are of {device}."
    )
    sections = [_numbers(rows), _pareto(rows), _curves(rows), _pictures(rows)]
    more = [_neighbours, _latents, _paths] if data.kind == "image" else [_paths]
    return page.page("Comparison of models", words, *sections, *(section(rows) for section in more))


def _numbers(rows: Sequence[Sequence[Entry]]) -> str:
    columns = [c for c in COLUMNS if any(c.name in entry.numbers for row in rows for entry in row)]
    table, marks = [], []
    means = {c.name: [mean_and_spread(row, c.name) for row in rows] for c in columns}
    for number, row in enumerate(rows):
        cells, best = [title(row), type(row[0].run.experiment.objective).__name__], [False, False]
        for column in columns:
            found, all_found = means[column.name][number], [m[0] for m in means[column.name] if m]
            cells.append(_written(column, found))
            top = {"less": min, "more": max}.get(column.better)
            best.append(top is not None and found is not None and found[0] == top(all_found))
        table.append([*cells, row[0].likelihood])
        marks.append([*best, False])
    heads = ["run", "objective", *(c.title for c in columns), "likelihood"]
    words = (
        "The Fréchet ratio is the distance of samples to the test split over that of unseen real data to it; 1 is as "
        "good as real data. Told apart: how often a classifier is right about what is a sample; 0.5 is chance. "
        "Diversity: distances within a class over those of real data. ± is the spread between seeds. Underlined: "
        "the best of a column."
    )
    return page.section("Numbers", words, page.table(heads, table, marks))


def _written(column: Column, found: tuple[float, float] | None) -> str:
    if found is None:
        return ""
    spread = "" if math.isnan(found[1]) or not column.better else f" ± {column.form.format(found[1])}"
    return column.form.format(found[0]) + spread


def _pareto(rows: Sequence[Sequence[Entry]]) -> str:
    points = []
    for row in rows:
        x, y = (mean_and_spread(row, name) for name in ("seconds_per_1000", "frechet_ratio"))
        if x and y:
            points.append((title(row), x[0], y[0]))
    if not points:
        return ""
    chart = charts.scatter(points, "seconds for 1000 samples", "Fréchet ratio")
    return page.section(
        "Quality against time", "Below and to the left is better; the line joins what nothing beats.", chart
    )


def _curves(rows: Sequence[Sequence[Entry]]) -> str:
    names: dict[str, list[tuple[str, int, list[tuple[float, float]]]]] = {}
    for number, row in enumerate(rows):
        for entry in row:
            lines = read_metrics(entry.workdir)
            for name in {name for line in lines for name in line if name.endswith("/loss")}:
                points = [(line["time"], float(line[name])) for line in lines if name in line]
                names.setdefault(name, []).append((entry.name, number, points))
    shown = [
        page.figure(name, charts.lines(curves, "seconds", name.partition("/")[0] + " loss"))
        for name, curves in sorted(names.items())
    ]
    legend = page.key([(title(row), charts.COLOURS[i % len(charts.COLOURS)]) for i, row in enumerate(rows)])
    words = "Losses while training, against seconds. Those of different objectives are different quantities."
    return page.section("Training", words, legend, page.cards(shown))


def _cards(rows: Sequence[Sequence[Entry]], draw: Callable[[Entry], Image.Image | None]) -> str:
    """A picture of the first run of each row; empty if there is none of any."""
    drawn = [(row[0], draw(row[0])) for row in rows]
    found = [page.figure(entry.name, picture) for entry, picture in drawn if picture is not None]
    return page.cards(found) if found else ""


def _pictures(rows: Sequence[Sequence[Entry]]) -> str:
    def draw(entry: Entry) -> Image.Image:
        samples = entry.samples[:SHOWN] if entry.run.experiment.data.kind == "image" else entry.samples[:2000]
        return show(entry.run.experiment.data, samples)

    words = "The first of each, unchosen; classes in columns."
    return page.section("Samples", words, _cards(rows, draw))


def _neighbours(rows: Sequence[Sequence[Entry]]) -> str:
    def draw(entry: Entry) -> Image.Image:
        data, samples = entry.run.experiment.data, entry.samples[:NEIGHBOURS]
        train = whole(data, "train")["x"]
        near = train[nearest_training(samples, train).index[:, 0]]
        return grid(np.concatenate([samples, near]), levels=data.levels or 256, columns=NEIGHBOURS)

    words = "Samples, and below each the nearest training example."
    return page.section("Nearest neighbours", words, _cards(rows, draw))


def _latents(rows: Sequence[Sequence[Entry]]) -> str:
    def draw(entry: Entry) -> Image.Image | None:
        if not isinstance(entry.run.experiment.objective, HasDecoder):
            return None
        try:
            return explore(View(entry.run, entry.state, num=PATHS, points=FRAMES), "interpolate")[1]
        except UserError:  # latents that are codes
            return None

    cards = _cards(rows, draw)
    return page.section("Between latents", "From one image to another.", cards) if cards else ""


def _paths(rows: Sequence[Sequence[Entry]]) -> str:
    def draw(entry: Entry) -> Image.Image | None:
        if not isinstance(entry.run.experiment.objective, HasPath):
            return None
        return show_path(entry.run, entry.state, *draw_path(entry.run, entry.state, PATHS, FRAMES, 0))

    cards = _cards(rows, draw)
    words = "States on the way from noise to samples."
    return page.section("Paths", words, cards) if cards else ""


def write(out: Path, text: str) -> None:
    """Writes the page, from the first process only.

    Raises:
        UserError: it cannot be written.
    """
    if jax.process_index():
        return
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}") from None
