"""RESULTS.md: a line for each setting that was run, its seeds together, of finished runs alone.

Of several seeds the mean stands beside their spread (see `genjax.reports.spread`), of a single one its number beside the error
that its own evaluation gives.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from genjax.core.errors import UserError
from genjax.evaluation.likelihood import kind_of
from genjax.reports.runs import Finished
from genjax.reports.spread import in_words, spread
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
        config: of this repository, in the same setting.
        variants: of it.
        number: dotted name in evaluation.json.
        value: as published, in that number's unit and with its sign.
        unit: in words.
        source: who reports it, where.
        training: how long theirs was trained, as far as it says.
        settings: (dotted name in evaluation.json, value) that a run must have to be measured alike, such as the number
            of test examples.
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
class Shown:
    """A number that is shown where a run has it.

    Attributes:
        name: dotted, in evaluation.json.
        error: name of its error there, or "".
        words: what it is, around its value "{}".
        only: what the data must be: "image", "text", "points", or "" for any.
    """

    name: str
    error: str
    words: str
    only: str = ""


SHOWN = (
    Shown("distribution.frechet_ratio", "distribution.frechet_ratio_std", "Fréchet ratio {}"),
    Shown("distribution.recall", "", "recall {}", "image"),
    Shown("distribution.label_accuracy", "", "label as asked {}", "image"),
    Shown("modes.modes_covered", "", "modes {}"),
    Shown("modes.high_quality", "", "high quality {}"),
    Shown("likelihood.bits_per_dim", "likelihood.bits_per_dim_error", "{} bits/dim", "image"),
    Shown("likelihood.nats", "likelihood.nats_error", "{} nats", "image"),
    Shown("likelihood.nats_per_token", "likelihood.nats_per_token_error", "{} nats a token", "text"),
    Shown("likelihood.bits_per_byte", "likelihood.bits_per_byte_error", "{} bits/byte", "text"),
    Shown("text.mauve", "", "MAUVE {}", "text"),
    Shown("molecules.validity", "", "validity {}", "text"),
    Shown("inception.fid", "", "FID {}", "image"),
    Shown("inception.inception_score", "inception.inception_score_std", "Inception Score {}", "image"),
    Shown("inception.kid", "inception.kid_std", "KID {}", "image"),
    Shown("likelihood.excess_nats", "likelihood.excess_nats_error", "{} nats above the entropy", "points"),
    Shown("translation.l1", "", "L1 {}"),
)


def markdown(runs: Sequence[Finished], published: Sequence[Published], before: str = "") -> str:
    """The whole file, sorted by data and command.

    Args:
        runs: as of `read_runs`.
        published: what to hold them against.
        before: an earlier file, whose lines are kept but for those of the same data and command; "" for none.

    Returns:
        Markdown.

    Raises:
        UserError: `before` has no such table.
    """
    rows: dict[str, list[Finished]] = {}
    for run in sorted(runs, key=lambda run: (run.data, run.spec, run.experiment.seed, str(run.workdir))):
        rows.setdefault(run.setting, []).append(run)
    lines = [
        "# Results",
        "",
        "Written by `./launch/local.sh results` from work directories; do not edit. ± is the sample standard",
        "deviation between seeds, of a single seed the error that its evaluation gives (of a Fréchet ratio the spread",
        "over folds). The Fréchet ratio is not FID: see the README. Samples and likelihoods are of the moving average",
        "of the parameters. Seconds of training are by the clock on the wall, compiling included. The gap is what we",
        "measured less what is published; theirs were mostly trained for longer.",
        "",
        "| " + " | ".join(HEADS) + " |",
        "|" + "---|" * len(HEADS),
    ]
    new = [_cells(row, published) for row in rows.values()]
    kept = [cells for cells in _lines(before) if _place(cells) not in map(_place, new)]
    lines += ["| " + " | ".join(cells) + " |" for cells in sorted([*kept, *new], key=_place)]
    return "\n".join(lines) + "\n"


def _place(cells: Sequence[str]) -> tuple[str, str]:
    """Data and command, which say what was run."""
    return cells[HEADS.index("data")], cells[HEADS.index("command")].strip("`")


def _lines(text: str) -> list[list[str]]:
    """The cells of an earlier file's lines."""
    found = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line[:1] == "|"
    ]
    if text and (found[:1] != [list(HEADS)] or any(len(cells) != len(HEADS) for cells in found)):
        raise UserError(
            "the file's lines cannot be kept: its table has other columns than this program writes"
        )
    return found[2:]


def _cells(row: Sequence[Finished], published: Sequence[Published]) -> list[str]:
    first, kind = row[0], row[0].experiment.data.kind
    numbers = [flatten(run.report) for run in row]
    measured = [
        shown.words.format(_written([n[shown.name] for n in numbers], numbers[0].get(shown.error)))
        for shown in SHOWN
        if shown.only in ("", kind) and all(shown.name in n for n in numbers)
    ]
    likelihood = kind_of(first.report.get("likelihood", {}))
    measured += [f"likelihood: {likelihood}"] if likelihood else []
    if not (sampler := first.report.get("sampler", "none")).startswith("none"):
        measured.append(f"samples by {sampler}")
    against = next((p for p in published if all(map(_alike, row, numbers, [p] * len(row)))), None)
    words = gap = ""
    if against is not None:
        ours = spread([n[against.number] for n in numbers])["mean"]
        words = f"{against.value:g} {against.unit}: {against.source}" + (
            f"; {against.training}" if against.training else ""
        )
        gap = f"{ours - against.value:+.3g}"
    times = [run.seconds for run in row if "seconds_to_train" in run.report]
    steps = f"{first.report['step']:,} steps of {first.experiment.batch_size}"
    whole = " with the stages before" if workdirs(first.experiment) else ""
    machines = sorted({run.report.get(TRAINED_ON, "not recorded") for run in row})
    return [
        type(first.experiment.objective).__name__,
        first.data,
        f"`{first.command}`",
        ", ".join(str(run.experiment.seed) for run in row),
        "; ".join(machines),
        steps + (f", {spread(times)['mean']:.0f} s{whole}" if times else ""),
        f"{first.report['parameters']:,}",
        "; ".join(measured),
        words,
        gap,
    ]


def _alike(run: Finished, numbers: dict[str, float], reference: Published) -> bool:
    """Whether a run is measured as a published number is."""
    name, variant = run.config
    fits = name == reference.config and (variant in reference.variants or "*" in reference.variants)
    settings = all(numbers.get(name) == value for name, value in reference.settings)
    return fits and settings and reference.number in numbers


def _written(values: Sequence[float], error: float | None) -> str:
    """Mean ± spread of several values; of one its own error, where there is one."""
    found = spread(values)
    return in_words(found["mean"], error if found["spread"] is None else found["spread"])
