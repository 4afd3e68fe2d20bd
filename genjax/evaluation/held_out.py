"""What a trained model makes of a split that it was not trained on: its losses, and a translator's pictures."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from genjax.core.objective import HasTranslation, Objective
from genjax.core.types import Metrics, named
from genjax.data import sweep
from genjax.evaluation.sampling import gather
from genjax.parallel import multihost
from genjax.parallel.mesh import batch_shards, shard_batch
from genjax.training.experiment import Experiment
from genjax.training.step import TrainState, Transform, make_eval_step

PARAMETERS = "moving average (EMA)"  # whose every number of an evaluation is


def eval_batch_size(experiment: Experiment, mesh: Mesh) -> int:
    """The evaluation's batch size, rounded up to what the devices can share."""
    shards = batch_shards(mesh)
    return -(-experiment.evaluation.batch_size // shards) * shards


@functools.lru_cache(maxsize=8)
def compile_losses(objective: Objective, transform: Transform) -> Callable[..., Metrics]:
    """Compiles `make_eval_step`'s function, once for all looks at a run."""
    return jax.jit(make_eval_step(objective, transform))


def held_out_losses(
    experiment: Experiment, state: TrainState, mesh: Mesh, split: str = "test"
) -> dict[str, float]:
    """Every player's loss and metrics on data that it was not trained on, without dropout or augmentation.

    Args:
        experiment: gives the players.
        state: its moving average is evaluated.
        mesh: the devices.
        split: of the data.

    Returns:
        Means over whole batches, by "player/metric"; compare with training's to see overfitting.
    """
    step = compile_losses(experiment.objective, experiment.data.forward)
    root, rows = named(jax.random.key(experiment.evaluation.seed), "held out"), []
    size = eval_batch_size(experiment, mesh)
    whole_batches = sweep(experiment.data.load(split), size, *multihost.block(mesh, size))
    for call, (batch, count) in enumerate(whole_batches):
        if count == size or call == 0:
            key = jax.random.fold_in(root, call)
            rows.append(jax.device_get(step(state.ema, state.extra, shard_batch(batch, mesh), key)))
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def translations(
    experiment: Experiment, state: TrainState, mesh: Mesh, num: int = 0, seed: int = 0
) -> dict[str, np.ndarray]:
    """What a translator makes of test examples.

    Args:
        experiment: its objective translates.
        state: its moving average is used.
        mesh: the devices.
        num: of the first test examples; 0 for all.
        seed: of its noise.

    Returns:
        As `HasTranslation.translate`, in the data's own units and the order of that docstring.
    """
    objective, data = experiment.objective, experiment.data
    assert isinstance(objective, HasTranslation)
    size, examples = eval_batch_size(experiment, mesh), data.load("test")
    num = min(num or len(examples), len(examples))

    @jax.jit
    def translate(params: Any, extra: Any, batch: Any, key: Any) -> Any:
        seen = data.forward(batch, named(key, "data"), False)
        return objective.translate(params, extra, seen, named(key, "translate"))

    root, parts = named(jax.random.key(seed), "translations"), []
    batches = sweep(examples, size, *multihost.block(mesh, size))
    for call, (batch, count) in enumerate(batches):
        if call * size < num:
            shown = translate(
                state.ema, state.extra, shard_batch(batch, mesh), jax.random.fold_in(root, call)
            )
            parts.append({name: gather(rows)[:count] for name, rows in shown.items()})
    order = [name + ending for ending in ("", "_reversed") for name in ("input", "output", "target", "back")]
    rows = {name: np.concatenate([part[name] for part in parts])[:num] for name in order if name in parts[0]}
    return {name: data.inverse(x) for name, x in rows.items()}
