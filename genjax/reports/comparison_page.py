"""The page that shows a comparison: numbers, quality against time, spread, curves, costs, pictures of each model."""

import json
from collections.abc import Sequence
from pathlib import Path

import jax

from genjax.core.errors import UserError
from genjax.evaluation.comparison import Entry, read_metrics, title
from genjax.evaluation.hardware import hardware, on_one_core
from genjax.reports import charts, page
from genjax.reports.comparison_pictures import first_views, latents, neighbours, paths, samples
from genjax.reports.comparison_table import WORDS, as_json, markdown, mean_and_spread, table, what_was_judged

Rows = Sequence[Sequence[Entry]]
SPREADS = (("frechet_ratio", "Fréchet ratio"), ("recall", "recall"), ("label_accuracy", "label as asked"))


def render(rows: Rows, num: int, seed: int) -> str:
    """The page's text."""
    data = rows[0][0].run.experiment.data
    clock = ", by the seconds that the core worked for it" if on_one_core() else ""
    words = (
        f"{page_name(rows)}: {num} samples of each, seed {seed}, of the moving average of the parameters; judged anew "
        f"by one judge at equal counts. Times of sampling are of {hardware()}{clock}; times of training are as the "
        "runs wrote them, by the clock on the wall."
    )
    sections = [_numbers(rows), _pareto(rows), _stability(rows), _curves(rows), _costs(rows), samples(rows)]
    more = [neighbours, latents, paths] if data.kind == "image" else [paths]
    return page.page("Comparison of models", words, *sections, *(section(rows) for section in more))


def page_name(rows: Rows) -> str:
    """The data's name: of the class, and of the set where it has one."""
    source = rows[0][0].run.experiment.data.source
    source = getattr(source, "source", source)
    name = getattr(source, "name", "")
    return f"{type(source).__name__} {name}".strip()


def _legend(rows: Rows) -> str:
    return page.key([(title(row), charts.colour(number)) for number, row in enumerate(rows)])


def _numbers(rows: Rows) -> str:
    words = f"{WORDS} {what_was_judged(rows)} Underlined: the best of a column."
    return page.section("Numbers", words, page.table(*table(rows)))


def _pareto(rows: Rows) -> str:
    points = []
    for number, row in enumerate(rows):
        x, y = (mean_and_spread(row, name) for name in ("seconds_per_1000", "frechet_ratio"))
        if x and y:
            points.append(charts.Point(title(row), number, x[0], y[0], y[1] or 0.0))
    if not points:
        return ""
    chart = charts.scatter(points, "seconds for 1000 samples", "Fréchet ratio")
    words = "Below and to the left is better; the line joins what nothing beats; bars are the spread between seeds."
    return page.section("Quality against time", words, page.figure("", chart), _legend(rows))


def _stability(rows: Rows) -> str:
    """Each seed's value, and what went wrong."""
    shown = []
    for name, words in SPREADS:
        values = [(title(row), [e.numbers[name] for e in row if name in e.numbers]) for row in rows]
        if any(found for _, found in values):
            shown.append(page.figure(words, charts.strip(values, words)))
    lines = []
    for row in rows:
        found = mean_and_spread(row, "frechet_ratio")
        spread = f"{found[1]:.3f}" if found and found[1] is not None else ""
        counts = [sum(e.trouble.startswith(word) for e in row) for word in ("collapsed", "diverged", "ended")]
        troubles = "; ".join(f"seed {e.run.experiment.seed} {e.trouble}" for e in row if e.trouble)
        lines.append([title(row), str(len(row)), spread, *map(str, counts), troubles])
    heads = [
        "run",
        "seeds",
        "spread of the Fréchet ratio",
        "collapsed",
        "diverged",
        "not at its end",
        "in words",
    ]
    words = (
        "A dot is a seed, the bar their mean. Collapsed: recall below half of that of real data, or a fifth of the "
        "samples have a twin. Diverged: parameters that are not finite. Two or three seeds show no more than large "
        "differences in spread."
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
    words = "Losses while training, against seconds. Those of different objectives are different quantities."
    return page.section("Training", words, _legend(rows), page.charts(shown))


def _costs(rows: Rows) -> str:
    """Memory and FLOPs as bars."""
    shown = []
    for name, words in (
        ("megabytes", "MB that the program of a training step holds on one device"),
        ("gflops", "GFLOP of a training step"),
        ("sample_gflops", "GFLOP of one sample"),
    ):
        means = [(title(row), mean_and_spread(row, name)) for row in rows]
        bars = [(label, [found[0]] if found else []) for label, found in means]
        if any(values for _, values in bars):
            shown.append(page.figure(words, charts.strip(bars, words, log=True)))
    words = (
        "Of matrix products and convolutions; a step with all its players' turns taken. Where a sample's loop ends by "
        "itself its FLOPs are not known."
    )
    return page.section("Memory and FLOPs", words, page.charts(shown))


def write(out: Path, rows: Rows, num: int, seed: int) -> list[Path]:
    """Writes the page, and its numbers as Markdown and JSON beside it, from the first process only.

    Raises:
        UserError: they cannot be written.
    """
    text = render(rows, num, seed)
    if jax.process_index():
        return []
    contents = {
        out: text,
        out.with_suffix(".md"): markdown(rows),
        out.with_suffix(".json"): json.dumps(as_json(rows), indent=1) + "\n",
    }
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        for path, content in contents.items():
            path.write_text(content, encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}") from None
    return list(contents)
