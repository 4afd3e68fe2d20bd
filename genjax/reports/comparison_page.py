"""HTML page of a comparison: table, quality against sampling time, std over seeds, loss curves, costs, pictures."""

import json
from collections.abc import Sequence
from pathlib import Path

import jax

from genjax.core.files import write_all, writing
from genjax.data.source import Named, innermost
from genjax.evaluation.comparison import Entry, read_metrics, title
from genjax.evaluation.hardware import hardware, on_one_core
from genjax.reports import charts, page
from genjax.reports.comparison_pictures import first_views, latents, neighbours, paths, samples
from genjax.reports.comparison_table import (
    LEGEND,
    as_json,
    evaluation_note,
    markdown,
    mean_std_over_seeds,
    table,
)

Rows = Sequence[Sequence[Entry]]
SEED_METRICS = (
    ("frechet_ratio", "Fréchet ratio"),
    ("recall", "recall"),
    ("label_accuracy", "label accuracy"),
)


def render(rows: Rows, num: int, seed: int) -> str:
    """Renders the page.

    Args:
        rows: evaluated runs, one row for each setting, its seeds together.
        num: samples of each run.
        seed: seed of the samples.

    Returns:
        HTML.
    """
    data = rows[0][0].run.experiment.data
    clock = ", in CPU time" if on_one_core() else ""
    words = (
        f"{page_name(rows)}: {num} samples of each, seed {seed}, drawn with the EMA parameters and evaluated against "
        f"one reference at equal sample sizes. Sampling times are of {hardware()}{clock}; training times are the "
        "wall-clock times that the runs logged."
    )
    sections = [_numbers(rows), _pareto(rows), _stability(rows), _curves(rows), _costs(rows), samples(rows)]
    more = [neighbours, latents, paths] if data.kind == "image" else [paths]
    return page.page("Comparison of models", words, *sections, *(section(rows) for section in more))


def page_name(rows: Rows) -> str:
    """Name of the data: its source's class and, if it has one, the name of the data set."""
    source = innermost(rows[0][0].run.experiment.data.source)
    return " ".join([type(source).__name__, *([source.name] if isinstance(source, Named) else [])])


def _legend(rows: Rows) -> str:
    return page.key([(title(row), charts.colour(number)) for number, row in enumerate(rows)])


def _numbers(rows: Rows) -> str:
    words = f"{LEGEND} {evaluation_note(rows)} Underlined: the best of a column."
    return page.section("Numbers", words, page.table(*table(rows)))


def _pareto(rows: Rows) -> str:
    points = []
    for number, row in enumerate(rows):
        x, y = (mean_std_over_seeds(row, name) for name in ("seconds_per_1000", "frechet_ratio"))
        if x and y:
            points.append(charts.Point(title(row), number, x[0], y[0], y[1] or 0.0))
    if not points:
        return ""
    chart = charts.scatter(points, "seconds for 1000 samples", "Fréchet ratio")
    words = (
        "Below and to the left is better; the line is the Pareto front; error bars are the std over seeds."
    )
    return page.section("Quality against time", words, page.figure("", chart), _legend(rows))


def _stability(rows: Rows) -> str:
    """Values of each seed, and counts of collapsed, diverged and unfinished runs."""
    shown = []
    for name, words in SEED_METRICS:
        values = [(title(row), [e.numbers[name] for e in row if name in e.numbers]) for row in rows]
        if any(found for _, found in values):
            shown.append(page.figure(words, charts.strip(values, words)))
    lines = []
    for row in rows:
        found = mean_std_over_seeds(row, "frechet_ratio")
        std = f"{found[1]:.3f}" if found and found[1] is not None else ""
        counts = [sum(e.trouble.startswith(word) for e in row) for word in ("collapsed", "diverged", "ended")]
        troubles = "; ".join(f"seed {e.run.experiment.seed} {e.trouble}" for e in row if e.trouble)
        lines.append([title(row), str(len(row)), std, *map(str, counts), troubles])
    heads = [
        "run",
        "seeds",
        "std of the Fréchet ratio",
        "collapsed",
        "diverged",
        "unfinished",
        "details",
    ]
    words = (
        "Each dot is a seed, the bar their mean. Collapsed: recall below half of that of real data, or a fifth of the "
        "samples have a near-duplicate. Diverged: parameters that are not finite. Two or three seeds reveal only large "
        "differences in std."
    )
    plain = [[False] * len(heads) for _ in lines]
    return page.section("Stability", words, page.charts(shown), page.table(heads, lines, plain))


def _curves(rows: Rows) -> str:
    names: dict[str, list[tuple[str, int, list[tuple[float, float]]]]] = {}
    for row in first_views(rows):
        for entry in row:
            lines = read_metrics(entry.workdir)
            for name in {name for line in lines for name in line if name.endswith("/loss")}:
                points = [(line["time"], float(line[name])) for line in lines if name in line]
                names.setdefault(name, []).append((entry.name, rows.index(row), points))
    shown = [
        page.figure(name, charts.lines(curves, "seconds", name.partition("/")[0] + " loss"))
        for name, curves in sorted(names.items())
    ]
    words = "Training losses against seconds. Losses of different objectives are not comparable."
    return page.section("Training", words, _legend(rows), page.charts(shown))


def _costs(rows: Rows) -> str:
    """Memory and FLOPs as strip plots."""
    shown = []
    for name, words in (
        ("megabytes", "MB of the compiled training step on one device"),
        ("gflops", "GFLOP per training step"),
        ("sample_gflops", "GFLOP per sample"),
    ):
        means = [(title(row), mean_std_over_seeds(row, name)) for row in rows]
        bars = [(label, [found[0]] if found else []) for label, found in means]
        if any(values for _, values in bars):
            shown.append(page.figure(words, charts.strip(bars, words, log=True)))
    words = (
        "FLOPs of matrix products and convolutions; a step updates all players. FLOPs of samplers with a "
        "data-dependent number of iterations are unknown."
    )
    return page.section("Memory and FLOPs", words, page.charts(shown))


def write(out: Path, rows: Rows, num: int, seed: int) -> list[Path]:
    """Writes the page, and its table as Markdown and JSON beside it; process 0 alone writes.

    Args:
        out: path of the HTML page.
        rows: as for `render`.
        num: samples of each run.
        seed: seed of the samples.

    Returns:
        Paths of the files written; empty on other processes.

    Raises:
        UserError: a file cannot be written.
    """
    text = render(rows, num, seed)
    if jax.process_index():
        return []
    contents = {
        out: text,
        out.with_suffix(".md"): markdown(rows),
        out.with_suffix(".json"): json.dumps(as_json(rows), indent=1) + "\n",
    }
    with writing(out):
        write_all(contents)
    return list(contents)
