"""RESULTS.md: a line for each setting that was run, its seeds together, read from work directories alone.

Of several seeds the mean stands beside their spread (see `genjax.spreads`), of a single one its number beside the error
that its own evaluation gives.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genjax import experiment as experiments
from genjax import tree
from genjax.comparison import without_seed
from genjax.errors import UserError
from genjax.experiment import DESCRIPTION, Experiment
from genjax.log_probs import kind_of
from genjax.pretrained import workdirs
from genjax.spreads import in_words, spread
from genjax.sweep import read_report
from genjax.sweep_summary import flatten
from genjax.verbs import EVALUATED_WITH, TRAINED_ON

QUIET = (
    "workdir",
    "seed",
    "log_every",
    "checkpoint_every",
    "sample_every",
    "keep_last",
    "keep_every",
    "steps_per_call",
)
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


@dataclass(frozen=True, eq=False)
class Finished:
    """A work directory with an evaluation.

    Attributes:
        workdir: where it is.
        spec: the config's name, as it was given to `train`.
        experiment: what was run.
        report: its evaluation.json.
    """

    workdir: Path
    spec: str
    experiment: Experiment
    report: dict[str, Any]

    @property
    def config(self) -> tuple[str, str]:
        """The config's name and variant."""
        name, _, variant = self.spec.partition(":")
        return Path(name).stem, variant

    @property
    def data(self) -> str:
        """The data's name."""
        source: Any = self.experiment.data.source
        source = getattr(source, "source", source)
        return str(getattr(source, "name", "")) or type(source).__name__

    @property
    def command(self) -> str:
        """The words of `./launch/local.sh` that run it, but for its seed and what no result depends on.

        Of directories the last name alone stands there: where they were is no part of a result.
        """
        name, variant = self.config
        words = [f"train --config={name}" + (f":{Path(variant).name}" if variant else "")]
        usual = experiments.load(
            f"{self.workdir / experiments.CONFIG_COPY}" + (f":{variant}" if variant else "")
        )
        for path, _, value in tree.differences(tree.describe(usual), tree.describe(self.experiment)):
            if path.rpartition(".")[2] not in QUIET and isinstance(value, str | int | float | bool):
                words.append(f"--config.{path}={value}")
        changed = [f"--config.{path}={value}" for path, value in self.evaluated_with.items()]
        return " ".join(words) + (f"; evaluate {' '.join(changed)}" if changed else "")

    @property
    def evaluated_with(self) -> dict[str, str]:
        """What was set for the evaluation alone."""
        return self.report.get(EVALUATED_WITH, {})


def read_runs(folders: Sequence[Path]) -> list[Finished]:
    """Reads all work directories, but those that only hold a part of another one's model.

    Raises:
        UserError: no work directory there, one without an evaluation, or a damaged one.
    """
    if not folders:
        raise UserError("there is nothing to report: give --run=DIR at least once")
    found = [_read(workdir) for folder in folders for workdir in _workdirs(folder)]
    parts = {path.resolve() for run in found for path in workdirs(run.experiment)}
    return [run for run in found if run.workdir.resolve() not in parts]


def _workdirs(folder: Path) -> list[Path]:
    if (folder / DESCRIPTION).is_file():
        return [folder]
    inner = sorted(path.parent for path in folder.glob(f"*/{DESCRIPTION}"))
    if not inner:
        raise UserError(f"{folder} is no work directory of a run, and holds none")
    return inner


def _read(workdir: Path) -> Finished:
    report = read_report(workdir)
    if not report:
        raise UserError(f"{workdir} has not been evaluated: ./launch/local.sh evaluate --workdir={workdir}")
    experiment = experiments.restore(workdir)
    spec = json.loads((workdir / DESCRIPTION).read_text())["config"]
    return Finished(workdir, spec, experiment, report)


def markdown(runs: Sequence[Finished], published: Sequence[Published]) -> str:
    """The whole file, sorted by data, config and command.

    Args:
        runs: as of `read_runs`.
        published: what to hold them against.

    Returns:
        Markdown.
    """
    rows: dict[str, list[Finished]] = {}
    for run in sorted(runs, key=lambda run: (run.data, run.spec, run.experiment.seed, str(run.workdir))):
        alike = (_alike_but_seed(run.experiment), run.evaluated_with)
        rows.setdefault(json.dumps(alike, sort_keys=True), []).append(run)
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
    lines += ["| " + " | ".join(_cells(row, published)) + " |" for row in rows.values()]
    return "\n".join(lines) + "\n"


def _alike_but_seed(experiment: Experiment) -> Any:
    """What the runs of one line have in common: all but the seed, and what no result depends on."""
    described = without_seed(experiment)
    return {name: value for name, value in described.items() if name not in QUIET}


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
    times = [_seconds(run) for run in row if "seconds_to_train" in run.report]
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


def _seconds(run: Finished) -> float:
    """Of training, with that of the models within it whose directories are still there."""
    stages = [run.report, *(read_report(path) for path in workdirs(run.experiment))]
    return sum(stage.get("seconds_to_train", 0.0) for stage in stages)


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
