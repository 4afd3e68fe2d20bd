"""RESULTS.md: one line for each setting of finished runs, its seeds together.

Several seeds give mean ± std over seeds (see `genjax.reports.spread`); a single seed gives its number ± the error from
its evaluation.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from genjax.core.errors import UserError
from genjax.evaluation.likelihood import kind_of
from genjax.reports.runs import FinishedRun
from genjax.reports.spread import format_mean, mean_and_std
from genjax.reports.sweep_table import flatten
from genjax.training.pretrained import workdirs
from genjax.training.workdir import TRAINED_ON

HEADS = (
    "family",
    "data",
    "command",
    "seeds",
    "hardware",
    "training",
    "parameters",
    "measured",
    "published",
    "gap",
)


@dataclass(frozen=True)
class Published:
    """A number from a paper or from another code base.

    Attributes:
        config: config of this repository with the same setting.
        variants: variants of the config; "*" for all.
        number: dotted name in evaluation.json.
        value: published value, in that number's unit and with its sign.
        unit: text of the unit.
        source: citation.
        training: length of the published training, if stated.
        settings: (dotted name in evaluation.json, value) that a run needs to be comparable, such as the number of
            test examples.
    """

    config: str
    variants: tuple[str, ...]
    number: str
    value: float
    unit: str
    source: str
    training: str = ""
    settings: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Reported:
    """A number that is reported if a run has it.

    Attributes:
        name: dotted name in evaluation.json.
        error: dotted name of its error there, or "".
        words: text with "{}" in place of the value.
        only: kind of data: "image", "text", "points", or "" for any.
    """

    name: str
    error: str
    words: str
    only: str = ""


REPORTED = (
    Reported("distribution.frechet_ratio", "distribution.frechet_ratio_std", "Fréchet ratio {}"),
    Reported("distribution.recall", "", "recall {}", "image"),
    Reported("distribution.label_accuracy", "", "label accuracy {}", "image"),
    Reported("modes.modes_covered", "", "modes {}"),
    Reported("modes.high_quality", "", "high quality {}"),
    Reported("likelihood.bits_per_dim", "likelihood.bits_per_dim_error", "{} bits/dim", "image"),
    Reported("likelihood.nats", "likelihood.nats_error", "{} nats", "image"),
    Reported("likelihood.nats_per_token", "likelihood.nats_per_token_error", "{} nats/token", "text"),
    Reported("likelihood.bits_per_byte", "likelihood.bits_per_byte_error", "{} bits/byte", "text"),
    Reported("text.mauve", "", "MAUVE {}", "text"),
    Reported("molecules.validity", "", "validity {}", "text"),
    Reported("inception.fid", "", "FID {}", "image"),
    Reported("inception.inception_score", "inception.inception_score_std", "Inception Score {}", "image"),
    Reported("inception.kid", "inception.kid_std", "KID {}", "image"),
    Reported("likelihood.excess_nats", "likelihood.excess_nats_error", "{} nats above the entropy", "points"),
    Reported("translation.l1", "", "L1 {}"),
)


def markdown(runs: Sequence[FinishedRun], published: Sequence[Published], before: str = "") -> str:
    """Renders RESULTS.md, sorted by data and command.

    Args:
        runs: from `read_runs`.
        published: published numbers to compare with.
        before: an earlier file; its lines are kept except those of the same data and command. "" for none.

    Returns:
        Markdown.

    Raises:
        UserError: `before` has no table with the same columns.
    """
    rows: dict[str, list[FinishedRun]] = {}
    for run in sorted(runs, key=lambda run: (run.data, run.spec, run.experiment.seed, str(run.workdir))):
        rows.setdefault(run.setting, []).append(run)
    lines = [
        "# Results",
        "",
        "Written by `./launch/local.sh results` from work directories; do not edit. ± is the sample standard",
        "deviation over seeds; for a single seed, the error from its evaluation (of a Fréchet ratio, the standard",
        "deviation over folds). The Fréchet ratio is not FID: see the README. Samples and likelihoods use the EMA",
        "parameters. Training seconds are wall-clock time, compilation included. The gap is measured minus published;",
        "most published models were trained for longer.",
        "",
        "| " + " | ".join(HEADS) + " |",
        "|" + "---|" * len(HEADS),
    ]
    new = [_cells(row, published) for row in rows.values()]
    kept = [cells for cells in _table_rows(before) if _row_key(cells) not in map(_row_key, new)]
    lines += ["| " + " | ".join(cells) + " |" for cells in sorted([*kept, *new], key=_row_key)]
    return "\n".join(lines) + "\n"


def _row_key(cells: Sequence[str]) -> tuple[str, str]:
    """(data, command), which identify a line."""
    return cells[HEADS.index("data")], cells[HEADS.index("command")].strip("`")


def _table_rows(text: str) -> list[list[str]]:
    """Cells of the table in an earlier file."""
    found = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line[:1] == "|"
    ]
    if text and (found[:1] != [list(HEADS)] or any(len(cells) != len(HEADS) for cells in found)):
        raise UserError(
            "the lines of the file cannot be kept: its table has other columns than the ones written now"
        )
    return found[2:]


def _cells(row: Sequence[FinishedRun], published: Sequence[Published]) -> list[str]:
    first, kind = row[0], row[0].experiment.data.kind
    numbers = [flatten(run.report) for run in row]
    measured = [
        shown.words.format(_format([n[shown.name] for n in numbers], numbers[0].get(shown.error)))
        for shown in REPORTED
        if shown.only in ("", kind) and all(shown.name in n for n in numbers)
    ]
    likelihood = kind_of(first.report.get("likelihood", {}))
    measured += [f"likelihood: {likelihood}"] if likelihood else []
    if not (sampler := first.report.get("sampler", "none")).startswith("none"):
        measured.append(f"samples by {sampler}")
    against = next((p for p in published if all(map(_comparable, row, numbers, [p] * len(row)))), None)
    words = gap = ""
    if against is not None:
        ours = mean_and_std([n[against.number] for n in numbers])["mean"]
        words = f"{against.value:g} {against.unit}: {against.source}" + (
            f"; {against.training}" if against.training else ""
        )
        gap = f"{ours - against.value:+.3g}"
    times = [run.seconds for run in row if "seconds_to_train" in run.report]
    steps = f"{first.report['step']:,} steps of {first.experiment.batch_size}"
    whole = " with earlier stages" if workdirs(first.experiment) else ""
    machines = sorted({run.report.get(TRAINED_ON, "not recorded") for run in row})
    return [
        type(first.experiment.objective).__name__,
        first.data,
        f"`{first.command}`",
        ", ".join(str(run.experiment.seed) for run in row),
        "; ".join(machines),
        steps + (f", {mean_and_std(times)['mean']:.0f} s{whole}" if times else ""),
        f"{first.report['parameters']:,}",
        "; ".join(measured),
        words,
        gap,
    ]


def _comparable(run: FinishedRun, numbers: dict[str, float], reference: Published) -> bool:
    """Whether a run has the config and the evaluation settings of a published number."""
    name, variant = run.config
    fits = name == reference.config and (variant in reference.variants or "*" in reference.variants)
    settings = all(numbers.get(name) == value for name, value in reference.settings)
    return fits and settings and reference.number in numbers


def _format(values: Sequence[float], error: float | None) -> str:
    """Mean ± std of several values; a single value ± its error if known."""
    found = mean_and_std(values)
    return format_mean(found["mean"], error if found["std"] is None else found["std"])
