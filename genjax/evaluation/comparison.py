"""Comparison of trained models of the same data: quality, time, memory, FLOPs, standard deviation over seeds.

All are re-evaluated against one reference, at equal counts, with the same sampling seed. Runs that differ only in their
seed, or in the seed of the inner autoencoder, form one row, with means and standard deviations over seeds. A run can be
given with settings that training does not depend on, "runs/a@objective.sampler.steps=10", for a row of its own.
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
from genjax.core.objective import require_samples
from genjax.evaluation.costs import sample_flops, step_costs
from genjax.evaluation.evaluate import count_params
from genjax.evaluation.held_out import PARAMETERS
from genjax.evaluation.sample_quality import fit_reference, measure
from genjax.metrics.distances.collapse import collapse, near_duplicate_report
from genjax.metrics.features.fid import own_features_reason
from genjax.metrics.report import SampleReference
from genjax.parallel.console import say
from genjax.training.encoded_data import Encoded
from genjax.training.experiment import Experiment, restore
from genjax.training.loop import Run
from genjax.training.pretrained import workdirs
from genjax.training.step import TrainState
from genjax.training.workdir import load_state, merge_adapters, read_report, reopen
from genjax.training.writers import METRICS, metric_rows

PRINTED = ("frechet_ratio", "recall", "label_accuracy", "seconds_per_1000")


@dataclasses.dataclass(frozen=True, eq=False)
class Entry:
    """One evaluated model.

    Attributes:
        name: name of the row.
        workdir: work directory.
        run: the prepared run, with its settings.
        state: train state; its EMA parameters were evaluated.
        numbers: name -> value.
        likelihood: section "likelihood" of the run's evaluation.json; empty if missing.
        samples: in the data's own units.
        context: evaluation settings: features, counts, sampler, parameters.
        trouble: description of a failure: collapsed, diverged, ended early; "" if none.
    """

    name: str
    workdir: Path
    run: Run
    state: TrainState
    numbers: dict[str, float]
    likelihood: Mapping[str, Any]
    samples: np.ndarray
    context: Mapping[str, Any]
    trouble: str = ""


def parse(word: str) -> tuple[Path, list[tuple[str, str]]]:
    """Parses "DIR@path=value@path=value".

    Returns:
        (work directory, (path, value) overrides).

    Raises:
        UserError: a setting without a value.
    """
    folder, *settings = word.split("@")
    pairs = [setting.partition("=") for setting in settings]
    for _, equals, value in pairs:
        if not equals or not value:
            raise UserError(f"'{word}': write DIR@objective.sampler.steps=10")
    return Path(folder), [(path.removeprefix("config."), value) for path, _, value in pairs]


def evaluate_run(word: str, reference: SampleReference | None, run: Run, num: int, seed: int) -> Entry:
    """Draws and evaluates one model's samples, and reads the numbers in its work directory.

    Args:
        word: see `parse`.
        reference: the data's; None measures no distances.
        run: the reopened run, with its settings.
        num: number of samples.
        seed: seed of the samples.

    Returns:
        The entry of the comparison.
    """
    workdir, settings = parse(word)
    trained = load_state(run, workdir)
    costs = step_costs(run)
    run, state = merge_adapters(run, trained)
    finite = all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(state.ema))
    try:
        found, samples = measure(run, state, reference if finite else None, num, seed)
        trouble = "" if finite else "diverged: parameters are not finite"
    except UserError as error:
        found, samples = measure(run, state, None, num, seed)  # samples for the pictures
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
    if not trouble and reference is not None:
        words = collapse({**found, **near_duplicate_report(samples, reference.test.x)})
        trouble = f"collapsed: {words}" if words else ""
    name = workdir.name + "".join(f", {path.rpartition('.')[2]} {value}" for path, value in settings)
    features = reference.features if reference is not None else "none"
    context = {
        "features": features,
        "samples": num,
        "sample_seed": seed,
        "sampler": str(require_samples(run.experiment.objective).sampling),
        "parameters_of": PARAMETERS,
        "comparable": own_features_reason(features),
    }
    likelihood = read_report(workdir).get("likelihood", {})
    return Entry(name, workdir, run, state, numbers, likelihood, samples, context, trouble)


def read_metrics(workdir: Path) -> list[dict[str, Any]]:
    """The rows of a run's metrics.jsonl; empty if the file is missing."""
    return list(metric_rows(workdir / METRICS))


def title(row: Sequence[Entry]) -> str:
    """Title of a row: the run's name; for several seeds without the seed, with their number."""
    if len(row) == 1:
        return row[0].name
    return f"{re.sub(r',seed=[0-9]+', '', row[0].name)} ({len(row)} seeds)"


def group(entries: Sequence[Entry]) -> list[list[Entry]]:
    """Groups runs that differ only in their seed, in the order of the first run of each group."""
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        key = json.dumps(without_seed(entry.run.experiment), sort_keys=True)
        groups.setdefault(key, []).append(entry)
    return list(groups.values())


def without_seed(experiment: Experiment) -> Any:
    """An experiment's description without its seed; directories of pretrained runs are replaced by theirs."""

    def strip(part: Any) -> Any:
        if isinstance(part, list):
            return [strip(item) for item in part]
        if not isinstance(part, dict):
            return part
        if str(part.get("@type", "")).endswith(":Pretrained") and Path(part["workdir"]).is_dir():
            return without_seed(restore(Path(part["workdir"])))
        return {name: strip(value) for name, value in part.items()}

    return strip(tree.describe(dataclasses.replace(experiment, seed=0)))


def source_of(run: Run) -> Any:
    """The description of a run's data source, without a cache of latent codes."""
    source: Any = run.experiment.data.source
    return tree.describe(source.source if isinstance(source, Encoded) else source)


def compare(words: Sequence[str], num: int, seed: int) -> list[list[Entry]]:
    """Evaluates all runs against one reference.

    Args:
        words: runs, see `parse`.
        num: number of samples per run.
        seed: seed of the samples.

    Returns:
        The entries, grouped by row.

    Raises:
        UserError: a run is missing, or its data differ from the first run's.
    """
    if not words:
        raise UserError("there is nothing to compare: give at least one, run=DIR")
    opened = [reopen(*parse(word)) for word in words]
    data = source_of(opened[0])
    for word, run in zip(words, opened, strict=True):
        if source_of(run) != data:
            raise UserError(f"{word} and {words[0]} have different data: they cannot be compared")
    reference, entries = fit_reference(opened[0]), []
    for word, run in zip(words, opened, strict=True):
        entries.append(evaluate_run(word, reference, run, num, seed))
        found = entries[-1].numbers
        shown = (f"{name} {found[name]:.3g}" for name in PRINTED if name in found)
        say(f"{entries[-1].name}: {', '.join(shown)}")
    return group(entries)
