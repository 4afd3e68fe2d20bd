"""Several trained models of the same data, judged side by side: quality, time, memory, FLOPs, spread between seeds.

All are judged anew by one judge, at equal counts, from the same seed. Runs that differ in their seed alone, or in the
seed of the autoencoder within, are one row, with means and the spread between seeds (standard deviation). A run named
with settings that training does not depend on, "runs/a@objective.sampler.steps=10", stands beside itself.
"""

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from genjax.core import tree
from genjax.core.errors import UserError
from genjax.evaluation.costs import sample_flops, step_costs
from genjax.evaluation.evaluate import count_params, sampler_words
from genjax.evaluation.held_out import PARAMETERS
from genjax.evaluation.sample_quality import fit_judge, measure
from genjax.metrics.distances.collapse import collapse, twin_report
from genjax.metrics.features.fid import of_other_features
from genjax.metrics.report import Judge
from genjax.parallel.console import say
from genjax.training.encoded_data import Encoded
from genjax.training.experiment import Experiment, restore
from genjax.training.loop import Run
from genjax.training.pretrained import workdirs
from genjax.training.step import TrainState
from genjax.training.workdir import load_state, plain, read_report, reopen
from genjax.training.writers import METRICS

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
        likelihood: that section of the run's evaluation; empty where there is none.
        samples: in the data's own units.
        made: what the numbers are of, in words: features, counts, sampler, parameters.
        trouble: in words: collapsed, diverged, not trained to its end; empty where nothing is wrong.
    """

    name: str
    workdir: Path
    run: Run
    state: TrainState
    numbers: dict[str, float]
    likelihood: Mapping[str, Any]
    samples: np.ndarray
    made: Mapping[str, Any]
    trouble: str = ""


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
    costs = step_costs(run)
    run, state = plain(run, trained)
    finite = all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(state.ema))
    try:
        found, samples = measure(run, state, judge if finite else None, num, seed)
        trouble = "" if finite else "diverged: parameters are not finite"
    except UserError as error:
        found, samples = measure(run, state, None, num, seed)  # to be looked at
        trouble = f"diverged: {error}"
    numbers = {
        **found,
        **costs,
        "parameters": float(count_params(trained.params)),
        "examples_seen": float(int(trained.step) * run.experiment.batch_size),
    }
    if flops := sample_flops(run, state):
        numbers["sample_gflops"] = flops / 1e9
    if own := read_metrics(workdir):
        stages = [own, *(filter(None, map(read_metrics, workdirs(run.experiment))))]
        numbers["seconds_to_train"] = sum(float(curve[-1]["time"]) for curve in stages)
    done = int(trained.step)
    if not trouble and done < run.experiment.steps and not run.experiment.monitor.every:
        trouble = f"ended at step {done} of {run.experiment.steps}"
    if not trouble and judge is not None:
        words = collapse({**found, **twin_report(samples, judge.test.x)})
        trouble = f"collapsed: {words}" if words else ""
    name = workdir.name + "".join(f", {path.rpartition('.')[2]} {value}" for path, value in settings)
    features = judge.features if judge is not None else "none"
    made = {
        "features": features,
        "samples": num,
        "sample_seed": seed,
        "sampler": sampler_words(run.experiment.objective),
        "parameters_of": PARAMETERS,
        "comparable": of_other_features(features),
    }
    likelihood = read_report(workdir).get("likelihood", {})
    return Entry(name, workdir, run, state, numbers, likelihood, samples, made, trouble)


def read_metrics(workdir: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics; none where there is no file."""
    path = workdir / METRICS
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def title(row: Sequence[Entry]) -> str:
    """Of a row: the first run's name; of several seeds without the seed, and how many they are."""
    if len(row) == 1:
        return row[0].name
    return f"{re.sub(r',seed=[0-9]+', '', row[0].name)} ({len(row)} seeds)"


def group(entries: Sequence[Entry]) -> list[list[Entry]]:
    """Runs that differ in their seed alone, together, in the order of the first of them."""
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        alike = json.dumps(without_seed(entry.run.experiment), sort_keys=True)
        groups.setdefault(alike, []).append(entry)
    return list(groups.values())


def without_seed(experiment: Experiment) -> Any:
    """An experiment's description without its seed, and with the same of other runs in place of their directories."""

    def walk(part: Any) -> Any:
        if isinstance(part, list):
            return [walk(item) for item in part]
        if not isinstance(part, dict):
            return part
        if str(part.get("@type", "")).endswith(":Pretrained") and Path(part["workdir"]).is_dir():
            return without_seed(restore(Path(part["workdir"])))
        return {name: walk(value) for name, value in part.items()}

    return walk(tree.describe(dataclasses.replace(experiment, seed=0)))


def source_of(run: Run) -> Any:
    """The description of a run's source: of the data, where codes are kept beside them."""
    source: Any = run.experiment.data.source
    return tree.describe(source.source if isinstance(source, Encoded) else source)


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
    data = source_of(opened[0])
    for word, run in zip(words, opened, strict=True):
        if source_of(run) != data:
            raise UserError(f"{word} is of other data than {words[0]}: they cannot be compared")
    judge, entries = fit_judge(opened[0]), []
    for word, run in zip(words, opened, strict=True):
        entries.append(judge_run(word, judge, run, num, seed))
        found = entries[-1].numbers
        shown = (f"{name} {found[name]:.3g}" for name in SAID if name in found)
        say(f"{entries[-1].name}: {', '.join(shown)}")
    return group(entries)
