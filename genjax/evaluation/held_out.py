"""Held-out losses, and a translator's outputs on the test split."""

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from genjax.core.objective import HasTranslation, Mean, Objective
from genjax.core.row_keys import row_key, rows_from
from genjax.core.types import Batch, named
from genjax.data import sweep
from genjax.data.batches import process_rows
from genjax.data.examples import Examples
from genjax.evaluation.sampling import gather
from genjax.parallel import multihost
from genjax.parallel.mesh import batch_shards, shard_batch
from genjax.training.experiment import Experiment
from genjax.training.step import TrainState, Transform, make_eval_step, report_means

PARAMETERS = "moving average (EMA)"  # the parameters of all evaluations


def eval_batch_size(experiment: Experiment, mesh: Mesh) -> int:
    """The evaluation's batch size, rounded up to a multiple of the mesh's batch shards."""
    shards = batch_shards(mesh)
    return -(-experiment.evaluation.batch_size // shards) * shards


@functools.lru_cache(maxsize=8)
def compile_losses(objective: Objective, transform: Transform) -> Callable[..., Mapping[str, Mean]]:
    """Compiles `make_eval_step`'s function, once for all periodic evaluations of a run."""
    return jax.jit(make_eval_step(objective, transform))


def held_out_losses(
    experiment: Experiment, state: TrainState, mesh: Mesh, split: str = "test"
) -> dict[str, float]:
    """Every player's loss and metrics on held-out data, without dropout or augmentation.

    Args:
        experiment: the experiment, whose objective has the players.
        state: train state; its EMA parameters are evaluated.
        mesh: the devices.
        split: split of the data.

    Returns:
        "player/metric" -> mean over the split, each example counted once: batches are combined by their weights, and
        the last one has the rows that are left. Compare with the training losses to detect overfitting.
    """
    step = compile_losses(experiment.objective, experiment.data.forward)
    root, sums = named(row_key(experiment.evaluation.seed), "held out"), dict[str, Mean]()
    start = 0
    for batch in exact_batches(experiment.data.load(split), eval_batch_size(experiment, mesh), mesh):
        means = jax.device_get(step(state.ema, state.extra, batch, rows_from(root, start)))
        start += len(batch["x"])
        for name, mean in means.items():
            weight, before = np.float64(mean.weight), sums.get(name, Mean(np.zeros(()), np.zeros(())))
            total = before.value + weight * np.asarray(mean.value, np.float64)
            sums[name] = Mean(total, before.weight + weight, mean.report)
    means = {
        name: Mean(
            mean.value / mean.weight if mean.weight else mean.value + math.nan, mean.weight, mean.report
        )
        for name, mean in sums.items()
    }
    return {name: float(value) for name, value in report_means(means).items()}


def exact_batches(examples: Examples, size: int, mesh: Mesh) -> Iterator[Batch]:
    """All examples in order and each once, as global arrays.

    Args:
        examples: a split.
        size: rows of a batch, a multiple of the mesh's batch shards.
        mesh: the devices.

    Yields:
        Batches of `size` rows split over the mesh; what is left as one smaller batch, split if the shards divide it,
        else whole on every device.
    """
    for start in range(0, len(examples), size):
        rows = np.arange(start, min(start + size, len(examples)))
        if len(rows) % batch_shards(mesh) == 0:
            index, count = multihost.block(mesh, len(rows))
            yield shard_batch(examples[rows[process_rows(len(rows), index, count)]], mesh)
        else:
            everywhere = NamedSharding(mesh, PartitionSpec())
            yield {
                name: jax.make_array_from_process_local_data(everywhere, array)
                for name, array in examples[rows].items()
            }


def translations(
    experiment: Experiment, state: TrainState, mesh: Mesh, num: int = 0, seed: int = 0
) -> dict[str, np.ndarray]:
    """A translator's outputs on test examples.

    Args:
        experiment: the experiment; its objective is a `HasTranslation`.
        state: train state; its EMA parameters are used.
        mesh: the devices.
        num: number of test examples, from the first; 0 for all.
        seed: seed of the translator's noise.

    Returns:
        The entries of `HasTranslation.translate`, in its order, in the data's own units.
    """
    objective, data = experiment.objective, experiment.data
    assert isinstance(objective, HasTranslation)
    size, examples = eval_batch_size(experiment, mesh), data.load("test")
    num = min(num or len(examples), len(examples))

    @jax.jit
    def translate(params: Any, extra: Any, batch: Any, key: Any) -> Any:
        seen = data.forward(batch, named(key, "data"), False)
        return objective.translate(params, extra, seen, named(key, "translate"))

    root, parts = named(row_key(seed), "translations"), []
    batches = sweep(examples, size, *multihost.block(mesh, size))
    for call, (batch, count) in enumerate(batches):
        if call * size < num:
            shown = translate(state.ema, state.extra, shard_batch(batch, mesh), rows_from(root, call * size))
            parts.append({name: gather(rows)[:count] for name, rows in shown.items()})
    order = [name + ending for ending in ("", "_reversed") for name in ("input", "output", "target", "back")]
    rows = {name: np.concatenate([part[name] for part in parts])[:num] for name in order if name in parts[0]}
    return {name: data.inverse(x) for name, x in rows.items()}
