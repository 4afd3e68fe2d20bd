"""Table of a comparison: one line for each row of runs, as cells for a page, as Markdown and as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from genjax.evaluation.comparison import Entry, title
from genjax.evaluation.likelihood import kind_of, sign_of, unit_of
from genjax.reports.spread import format_mean, mean_and_std


@dataclass(frozen=True)
class Column:
    """One column of the table.

    Attributes:
        title: column header.
        name: key in `Entry.numbers`.
        better: "less", "more", or "" if neither is better.
        form: format string of a number.
    """

    title: str
    name: str
    better: str = ""
    form: str = "{:.3g}"


COLUMNS = (
    Column("Fréchet ratio", "frechet_ratio", "less", "{:.2f}"),
    Column("precision", "precision", "more", "{:.2f}"),
    Column("recall", "recall", "more", "{:.2f}"),
    Column("C2ST accuracy", "c2st_accuracy", "less", "{:.2f}"),
    Column("diversity", "diversity", "", "{:.2f}"),
    Column("label accuracy", "label_accuracy", "more", "{:.3f}"),
    Column("near copies", "near_copies", "less", "{:.3f}"),
    Column("s / 1000 samples", "seconds_per_1000", "less"),
    Column("evaluations", "evaluations", "", "{:.0f}"),
    Column("GFLOP / sample", "sample_gflops", "less"),
    Column("GFLOP / step", "gflops"),
    Column("MB / step", "megabytes", "less", "{:.0f}"),
    Column("parameters", "parameters", "", "{:,.0f}"),
    Column("examples seen", "examples_seen", "", "{:,.0f}"),
    Column("training s", "seconds_to_train", "", "{:.0f}"),
)
LEGEND = (
    "Fréchet ratio: Fréchet distance between samples and the test split over that between held-out training data and "
    "the test split; 1 matches real data. C2ST accuracy: accuracy of a classifier of samples against real data; 0.5 is "
    "chance. Diversity: within-class distances relative to real data. For models of latents, training seconds are of "
    "both stages, parameters and examples of the second. ± is the std over seeds; for the likelihood of a single seed, "
    "the standard error over test examples."
)


def mean_std_over_seeds(row: Sequence[Entry], name: str) -> tuple[float, float | None] | None:
    """(mean, std) of one number over the seeds; the std of a single seed is None; None if no seed has the number."""
    values = [entry.numbers[name] for entry in row if name in entry.numbers]
    if not values:
        return None
    found = mean_and_std(values)
    return found["mean"], found["std"]


def format_cell(column: Column, found: tuple[float, float | None] | None) -> str:
    """Mean ± std; the mean alone for a single seed or equal values; "" if missing."""
    return "" if found is None else format_mean(found[0], found[1] or None, column.form, max_digits=3)


def table(rows: Sequence[Sequence[Entry]]) -> tuple[list[str], list[list[str]], list[list[bool]]]:
    """The columns for which any run has a number.

    Returns:
        Headers, cell texts, and whether each cell is the best of its column (none if all are equal).
    """
    known = {name: None for row in rows for entry in row for name in entry.numbers}
    own = [Column(name, name) for name in known if "/" in name]  # of `Experiment.metrics`
    columns = [c for c in (*COLUMNS, *own) if c.name in known]
    means = {c.name: [mean_std_over_seeds(row, c.name) for row in rows] for c in columns}
    cells, marks = [], []
    for number, row in enumerate(rows):
        line, best = [title(row), type(row[0].run.experiment.objective).__name__], [False, False]
        for column in columns:
            found, all_found = means[column.name][number], [m[0] for m in means[column.name] if m]
            line.append(format_cell(column, found))
            top = {"less": min, "more": max}.get(column.better)
            differ = len(set(all_found)) > 1
            best.append(top is not None and found is not None and differ and found[0] == top(all_found))
        cells.append([*line, likelihood(row)])
        marks.append([*best, False])
    return ["run", "objective", *(c.title for c in columns), "likelihood"], cells, marks


def likelihood(row: Sequence[Entry]) -> str:
    """Likelihood with its unit (bits/dim; perplexity of text; nats of points) and its kind; "" if not evaluated."""
    found = [entry.likelihood for entry in row if entry.likelihood]
    if not found:
        return ""
    unit, kind = unit_of(row[0].run.experiment.data), kind_of(found[0])
    values = mean_and_std([one[unit.name] for one in found])
    error = found[0][f"{unit.name}_error"] if values["std"] is None else values["std"]
    return f"{sign_of(kind, unit)}{format_mean(values['mean'], error)} {unit.words} ({kind})"


def evaluation_note(rows: Sequence[Sequence[Entry]]) -> str:
    """One line: samples, parameters and features of the distances, and whether published numbers are comparable."""
    made = rows[0][0].context
    comparable = made["comparable"][:1].upper() + made["comparable"][1:]
    return (
        f"{made['samples']} samples of each, seed {made['sample_seed']}, by the {made['parameters_of']} of the "
        f"parameters, in features: {made['features']}. Comparable with published numbers? "
        f"{comparable}."
    )


def markdown(rows: Sequence[Sequence[Entry]]) -> str:
    """The table, the problems of runs, and the legend of the columns."""
    heads, cells, _ = table(rows)
    kept = [i for i in range(len(heads)) if any(line[i] for line in cells)]
    draw = lambda line: "| " + " | ".join(line[i] for i in kept) + " |"
    lines = [draw(heads), "|" + "---|" * len(kept), *map(draw, cells), ""]
    wrong = [f"- {entry.name}: {entry.trouble}" for row in rows for entry in row if entry.trouble]
    return "\n".join([*lines, *wrong, *([""] if wrong else []), LEGEND, "", evaluation_note(rows)]) + "\n"


def as_json(rows: Sequence[Sequence[Entry]]) -> list[Mapping[str, Any]]:
    """One record for each run: row, name, work directory, seed, trouble, likelihood, evaluation settings, numbers."""
    return [
        {
            "row": title(row),
            "name": entry.name,
            "workdir": str(entry.workdir),
            "seed": entry.run.experiment.seed,
            "trouble": entry.trouble,
            "likelihood": entry.likelihood.get("summary", ""),
            **entry.context,
            "numbers": entry.numbers,
        }
        for row in rows
        for entry in row
    ]
