"""Summary table of a sweep: mean ± std over the seeds of each setting, see `genjax.reports.spread`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from genjax.core.errors import UserError, nearest
from genjax.core.files import write_all, writing
from genjax.reports.spread import format_mean, mean_and_std
from genjax.reports.tables import table
from genjax.training.variations import Setting, Trial
from genjax.training.workdir import read_report

SUMMARY = "summary"
SEED = "seed"  # runs are averaged over this override
SHOWN = (
    "distribution.frechet_ratio",
    "distribution.label_accuracy",
    "modes.modes_covered",
    "modes.high_quality",
    "likelihood.bits_per_dim",
    "likelihood.nats_per_token",
    "likelihood.excess_nats",
    "translation.l1",
)  # default columns, for numbers that a report has


def flatten(report: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """A report's numbers by dotted name, without strings, lists and booleans."""
    found: dict[str, float] = {}
    for name, value in report.items():
        if isinstance(value, Mapping):
            found |= flatten(value, f"{prefix}{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[prefix + name] = float(value)
    return found


def summarise(trials: Sequence[Trial], root: Path, show: Sequence[str] = ()) -> dict[str, Any]:
    """Summarises the evaluated runs of a sweep.

    Args:
        trials: all runs of the sweep.
        root: folder of their work directories.
        show: dotted names in evaluation.json; if empty, those of `SHOWN` that a report has.

    Returns:
        "runs": name, config, overrides and numbers of each run (no numbers before it is evaluated). "rows": one for
        each setting without the seed, with "seeds" (evaluated runs), "of" (all runs) and "numbers" (`mean_and_std`).

    Raises:
        UserError: no report has a number of that name, or a report is damaged.
    """
    numbers = {trial.name: flatten(read_report(root / trial.name)) for trial in trials}
    known = {name for found in numbers.values() for name in found}
    for name in show:
        if known and name not in known:
            raise UserError(f"show={name}: no run has this number: {nearest(name, known)}")
    shown = list(show) or [name for name in SHOWN if name in known]
    rows: dict[tuple[str, Setting], list[Trial]] = {}
    for trial in trials:
        without = tuple(part for part in trial.setting if part[0] != SEED)
        rows.setdefault((trial.config, without), []).append(trial)
    summary: dict[str, Any] = {"shown": shown, "runs": [], "rows": []}
    for trial in trials:
        chosen = {name: value for name, value in numbers[trial.name].items() if name in shown}
        entry = {"name": trial.name, "config": trial.config, "setting": dict(trial.setting)}
        summary["runs"].append({**entry, "evaluated": bool(numbers[trial.name]), "numbers": chosen})
    for (config, setting), group in rows.items():
        reports = [numbers[trial.name] for trial in group if numbers[trial.name]]
        row: dict[str, Any] = {
            "config": config,
            "setting": dict(setting),
            "seeds": len(reports),
            "of": len(group),
        }
        values = {name: [found[name] for found in reports if name in found] for name in shown}
        row["numbers"] = {name: mean_and_std(found) for name, found in values.items() if found}
        summary["rows"].append(row)
    return summary


def markdown(summary: Mapping[str, Any]) -> str:
    """The rows of a summary as a Markdown table: mean ± std over the seeds of a setting."""
    rows = []
    several = len({row["config"] for row in summary["rows"]}) > 1
    for row in summary["rows"]:
        line: dict[str, Any] = {"config": row["config"]} if several or not row["setting"] else {}
        line |= row["setting"]
        line["seeds"] = str(row["seeds"]) if row["seeds"] == row["of"] else f"{row['seeds']} of {row['of']}"
        for name in summary["shown"]:
            found = row["numbers"].get(name)
            line[name.partition(".")[2] or name] = (
                format_mean(found["mean"], found["std"], "{:.4g}") if found else ""
            )
        rows.append(line)
    return table(rows)


def write_summary(summary: Mapping[str, Any], root: Path) -> list[Path]:
    """Writes summary.json and summary.md; returns their paths.

    Raises:
        UserError: the folder cannot be written.
    """
    texts = {"json": json.dumps(summary, indent=1), "md": markdown(summary)}
    contents = {root / f"{SUMMARY}.{ending}": text + "\n" for ending, text in texts.items()}
    with writing(root):
        write_all(contents)
    return list(contents)
