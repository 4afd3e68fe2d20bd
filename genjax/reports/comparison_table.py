"""The numbers of a comparison: one line for each row of runs, as words for a page, as Markdown and as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from genjax.evaluation.comparison import Entry, title
from genjax.evaluation.likelihood import kind_of, sign_of, unit_of
from genjax.reports.spread import in_words, spread


@dataclass(frozen=True)
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
    Column("GFLOP / sample", "sample_gflops", "less"),
    Column("GFLOP / step", "gflops"),
    Column("MB / step", "megabytes", "less", "{:.0f}"),
    Column("parameters", "parameters", "", "{:,.0f}"),
    Column("examples seen", "examples_seen", "", "{:,.0f}"),
    Column("s to train", "seconds_to_train", "", "{:.0f}"),
)
WORDS = (
    "The Fréchet ratio is the distance of samples to the test split over that of unseen real data to it; 1 is as good "
    "as real data. Told apart: how often a classifier is right about what is a sample; 0.5 is chance. Diversity: "
    "distances within a class over those of real data. Of a model of latents, seconds of training are of both stages, "
    "parameters and examples of the second. ± is the spread between seeds; a likelihood of one seed stands beside the "
    "standard error over its test examples."
)


def mean_and_spread(row: Sequence[Entry], name: str) -> tuple[float, float | None] | None:
    """Of one number over the seeds; the spread is None for a single one."""
    values = [entry.numbers[name] for entry in row if name in entry.numbers]
    if not values:
        return None
    found = spread(values)
    return found["mean"], found["spread"]


def written(column: Column, found: tuple[float, float | None] | None) -> str:
    """Mean ± spread; the mean alone of a single seed, and of what is the same for all."""
    return "" if found is None else in_words(found[0], found[1] or None, column.form, most=3)


def table(rows: Sequence[Sequence[Entry]]) -> tuple[list[str], list[list[str]], list[list[bool]]]:
    """The columns that any run has a number for.

    Returns:
        Heads, the words of each cell, and whether a cell's number is the best of its column (none where all are equal).
    """
    columns = [c for c in COLUMNS if any(c.name in entry.numbers for row in rows for entry in row)]
    means = {c.name: [mean_and_spread(row, c.name) for row in rows] for c in columns}
    cells, marks = [], []
    for number, row in enumerate(rows):
        line, best = [title(row), type(row[0].run.experiment.objective).__name__], [False, False]
        for column in columns:
            found, all_found = means[column.name][number], [m[0] for m in means[column.name] if m]
            line.append(written(column, found))
            top = {"less": min, "more": max}.get(column.better)
            differ = len(set(all_found)) > 1
            best.append(top is not None and found is not None and differ and found[0] == top(all_found))
        cells.append([*line, likelihood(row)])
        marks.append([*best, False])
    return ["run", "objective", *(c.title for c in columns), "likelihood"], cells, marks


def likelihood(row: Sequence[Entry]) -> str:
    """Bits per dimension, of text perplexity, of points nats, with the word for what it is; "" where there is none."""
    found = [entry.likelihood for entry in row if entry.likelihood]
    if not found:
        return ""
    unit, kind = unit_of(row[0].run.experiment.data), kind_of(found[0])
    values = spread([one[unit.name] for one in found])
    around = found[0][f"{unit.name}_error"] if values["spread"] is None else values["spread"]
    return f"{sign_of(kind, unit)}{in_words(values['mean'], around)} {unit.words} ({kind})"


def what_was_judged(rows: Sequence[Sequence[Entry]]) -> str:
    """One line: what the distances are of, and whether they compare with anything published."""
    made = rows[0][0].made
    comparable = made["comparable"][:1].upper() + made["comparable"][1:]
    return (
        f"{made['samples']} samples of each, seed {made['sample_seed']}, by the {made['parameters_of']} of the "
        f"parameters, in features: {made['features']}. Comparable with published numbers? "
        f"{comparable}."
    )


def markdown(rows: Sequence[Sequence[Entry]]) -> str:
    """The table, what went wrong, and what the columns mean."""
    heads, cells, _ = table(rows)
    kept = [i for i in range(len(heads)) if any(line[i] for line in cells)]
    draw = lambda line: "| " + " | ".join(line[i] for i in kept) + " |"
    lines = [draw(heads), "|" + "---|" * len(kept), *map(draw, cells), ""]
    wrong = [f"- {entry.name}: {entry.trouble}" for row in rows for entry in row if entry.trouble]
    return "\n".join([*lines, *wrong, *([""] if wrong else []), WORDS, "", what_was_judged(rows)]) + "\n"


def as_json(rows: Sequence[Sequence[Entry]]) -> list[Mapping[str, Any]]:
    """Each run's numbers: its row, name, work directory, seed, "trouble" and "likelihood" in words, what was judged,
    "numbers"."""
    return [
        {
            "row": title(row),
            "name": entry.name,
            "workdir": str(entry.workdir),
            "seed": entry.run.experiment.seed,
            "trouble": entry.trouble,
            "likelihood": entry.likelihood.get("in_words", ""),
            **entry.made,
            "numbers": entry.numbers,
        }
        for row in rows
        for entry in row
    ]
