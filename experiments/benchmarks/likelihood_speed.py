"""Cost of a likelihood: a compiled call on one batch of held-out examples."""

import jax

from genjax.core.errors import UserError
from genjax.core.objective import HasLogProb
from genjax.core.types import named
from genjax.data import sweep
from genjax.evaluation.held_out import eval_batch_size
from genjax.parallel.mesh import shard_batch, with_mesh
from genjax.training.experiment import Experiment
from genjax.training.loop import prepare

from .costs import Row, compile_costs, compute_dtype, heading, table
from .timing import alternate, timed


def report(chosen: Experiment, rounds: int) -> None:
    """Prints seconds and FLOPs per example.

    Raises:
        UserError: the model has no likelihood.
    """
    objective, data, run = chosen.objective, chosen.data, prepare(chosen)
    if not isinstance(objective, HasLogProb) or not objective.log_prob_kind:
        raise UserError(f"this {type(objective).__name__} has no likelihood")
    size, state = eval_batch_size(chosen, run.mesh), run.make_state()
    rows, _ = next(iter(sweep(data.load("test"), size, jax.process_index(), jax.process_count())))
    batch = shard_batch(rows, run.mesh)

    def log_prob(params, extra, batch, key):
        seen = data.forward(batch, named(key, "data"), False)
        return objective.log_prob(params, extra, seen, named(key, "log_prob"))

    jitted = jax.jit(with_mesh(log_prob, run.mesh))
    args = (state.ema, state.extra, batch, jax.random.key(0))
    costs = compile_costs(jitted, *args, devices=run.mesh.size)

    seconds = alternate({"log_prob": timed(lambda: jitted(*args), size)}, rounds)["log_prob"]
    print(heading(chosen, run.mesh, state.params))
    print(f"{objective.log_prob_kind}; {size} examples per call")
    row = Row("log_prob", seconds, 1.0, costs, size)
    print("\n".join(table([row], "example", "examples", compute_dtype(objective), run.mesh.size)))
