"""What a model's compiled work costs: memory and FLOPs of a training step, FLOPs of a sample."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from genjax.evaluation.flops import count_flops, loops
from genjax.parallel.mesh import batch_shards
from genjax.training.loop import Run
from genjax.training.step import TrainState


def program_bytes(program: Any) -> int:
    """Bytes that a compiled program holds on one device: arguments, results and what lies between; 0 if unknown."""
    memory = program.memory_analysis()
    if memory is None:
        return 0
    size = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return size + memory.temp_size_in_bytes + memory.generated_code_size_in_bytes


def step_costs(run: Run) -> Mapping[str, float]:
    """Of one training step: "gflops" over all devices, "megabytes" of its program on one device (of jit alone).

    A step of which a player takes its turn only now and then is counted with all turns taken.
    """
    state, batch = run.template(), jax.eval_shape(lambda: run.raw(0))
    found = {"gflops": count_flops(run.step, state, batch) / 1e9}
    if run.lower is not None:
        found["megabytes"] = program_bytes(run.lower(state, run.batch(0, 1), False).compile()) / 1e6
    return found


def sample_flops(run: Run, state: TrainState) -> float | None:
    """FLOPs of one sample; None where its loop's length is only known once it has run (adaptive solvers).

    An objective whose loop is as long as the sample says so: `turns`.
    """
    objective, count = run.experiment.objective, batch_shards(run.mesh)
    classes = getattr(objective, "classes", 0)
    cond = {"label": jnp.zeros(count, jnp.int32)} if classes else None

    def draw(params: Any, extra: Any, key: Any) -> Any:
        return objective.sample(params, extra, key, count, cond)

    args = (state.ema, state.extra, jax.random.key(0))
    if turns := getattr(objective, "turns", 0):
        return count_flops(draw, *args, turns=turns) / count
    return None if loops(draw, *args) else count_flops(draw, *args) / count
