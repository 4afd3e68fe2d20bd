"""Costs of a model: memory and FLOPs of a training step, FLOPs of a sample."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from genjax.core.objective import num_classes, require_samples
from genjax.evaluation.flops import count_flops, has_while_loop
from genjax.parallel.mesh import batch_shards
from genjax.training.loop import Run
from genjax.training.step import TrainState


def program_bytes(program: Any) -> int:
    """Bytes of a compiled program on one device: arguments, results, temporaries and code; 0 if unknown."""
    memory = program.memory_analysis()
    if memory is None:
        return 0
    size = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return size + memory.temp_size_in_bytes + memory.generated_code_size_in_bytes


def step_costs(run: Run) -> Mapping[str, float]:
    """Costs of one training step: "gflops" over all devices, and with jit "megabytes" of its program on one device.

    Every player's update is counted, also of players that are not updated in every step.
    """
    state, batch = run.template(), jax.eval_shape(lambda: run.raw(0))
    found = {"gflops": count_flops(run.step, state, batch) / 1e9}
    if run.lower is not None:
        found["megabytes"] = program_bytes(run.lower(state, run.batch(0, 1), False).compile()) / 1e6
    return found


def sample_flops(run: Run, state: TrainState) -> float | None:
    """FLOPs of one sample; None if its loop has a data-dependent length (adaptive solvers).

    A loop that may stop early is counted at its full length.
    """
    objective, count = run.experiment.objective, batch_shards(run.mesh)
    cond = {"label": jnp.zeros(count, jnp.int32)} if num_classes(objective) else None

    def draw(params: Any, extra: Any, key: Any) -> Any:
        return require_samples(objective).sample(params, extra, key, count, cond)

    args = (state.ema, state.extra, jax.random.key(0))
    sampling = require_samples(objective).sampling
    if sampling.stops_early:
        return count_flops(draw, *args, iterations=sampling.steps) / count
    if has_while_loop(draw, *args):
        return None
    return count_flops(draw, *args) / count
