"""Several trained models of the same data on one page: pictures, numbers, quality against the time that samples take.

All are judged anew by one judge, at equal counts, from the same seed. Runs that differ in their seed alone are one row,
with means and the spread between seeds (standard deviation). A run may be named with settings that training does not
depend on, "runs/a@objective.sampler.steps=10", and then stands beside itself.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from genjax import tree
from genjax.errors import UserError
from genjax.evaluate import count_params
from genjax.flops import count_flops
from genjax.loop import Run
from genjax.metrics.report import Judge
from genjax.step import TrainState
from genjax.vary import fit_judge, measure
from genjax.verbs import EVALUATION, load_state, plain, reopen, say
from genjax.writers import METRICS

SAID = ("frechet_ratio", "recall", "label_accuracy", "seconds_per_1000")


@dataclasses.dataclass(frozen=True, eq=False)
class Entry:
    """One model, judged.

    Attributes:
        name: of its row.
        workdir: where it lives.
        run: ready, with its settings.
        state: its moving average is what was judged.
        numbers: name -> value.
        likelihood: in words; empty where there is none.
        samples: in the data's own units.
    """

    name: str
    workdir: Path
    run: Run
    state: TrainState
    numbers: dict[str, float]
    likelihood: str
    samples: np.ndarray


def parse(word: str) -> tuple[Path, list[tuple[str, str]]]:
    """Reads "DIR@path=value@path=value".

    Raises:
        UserError: a setting without a value.
    """
    folder, *settings = word.split("@")
    pairs = [setting.partition("=") for setting in settings]
    for _, equals, value in pairs:
        if not equals or not value:
            raise UserError(f"'{word}': write DIR@objective.sampler.steps=10")
    return Path(folder), [(path.removeprefix("config."), value) for path, _, value in pairs]


def judge_run(word: str, judge: Judge | None, run: Run, num: int, seed: int) -> Entry:
    """Draws and judges one model's samples, and reads what its work directory says of it."""
    workdir, settings = parse(word)
    trained = load_state(run, workdir)
    run, state = plain(run, trained)
    found, samples = measure(run, state, judge, num, seed)
    batch = jax.eval_shape(lambda: run.batch(0, 1))
    numbers = {
        **found,
        "parameters": float(count_params(trained.params)),
        "gflops": count_flops(run.step, trained, batch) / 1e9,
        "examples_seen": float(int(trained.step) * run.experiment.batch_size),
    }
    curve = read_metrics(workdir)
    if curve:
        numbers["seconds_to_train"] = float(curve[-1]["time"])
    name = workdir.name + "".join(f", {path.rpartition('.')[2]} {value}" for path, value in settings)
    return Entry(name, workdir, run, state, numbers, likelihood(workdir), samples)


def read_metrics(workdir: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics; none where there is no file."""
    path = workdir / METRICS
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def likelihood(workdir: Path) -> str:
    """The likelihood in a run's evaluation, with the word for what it is."""
    path = workdir / EVALUATION
    found = json.loads(path.read_text()).get("likelihood", {}) if path.is_file() else {}
    for name, unit in (("bits_per_dim", "bits/dim"), ("nats", "nats")):
        if name in found:
            kind = str(found.get("log_prob_kind", ""))
            sign = "≤ " if "bound" in kind.lower() or "elbo" in kind.lower() else ""
            return f"{sign}{found[name]:.3f} ± {found.get(f'{name}_error', 0.0):.3f} {unit} ({kind})"
    return ""


def group(entries: Sequence[Entry]) -> list[list[Entry]]:
    """Runs that differ in their seed alone, together, in the order of the first of them."""
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        alike = dataclasses.replace(entry.run.experiment, seed=0)
        groups.setdefault(json.dumps(tree.describe(alike), sort_keys=True), []).append(entry)
    return list(groups.values())


def compare(words: Sequence[str], num: int, seed: int) -> list[list[Entry]]:
    """Judges all runs.

    Args:
        words: see `parse`.
        num: samples of each.
        seed: of the samples.

    Returns:
        The runs by rows of the page.

    Raises:
        UserError: no run there, or other data than the first one's.
    """
    if not words:
        raise UserError("there is nothing to compare: give --run=DIR at least once")
    opened = [reopen(*parse(word)) for word in words]
    data = tree.describe(opened[0].experiment.data.source)
    for word, run in zip(words, opened, strict=True):
        if tree.describe(run.experiment.data.source) != data:
            raise UserError(f"{word} is of other data than {words[0]}: they cannot be compared")
    judge, entries = fit_judge(opened[0]), []
    for word, run in zip(words, opened, strict=True):
        entries.append(judge_run(word, judge, run, num, seed))
        found = entries[-1].numbers
        shown = (f"{name} {found[name]:.3g}" for name in SAID if name in found)
        say(f"{entries[-1].name}: {', '.join(shown)}")
    return group(entries)
