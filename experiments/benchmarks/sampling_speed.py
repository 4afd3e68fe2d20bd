"""What samples cost; of a diffusion model beside the bare network, and beside a Python loop of compiled steps."""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from absl import flags

from experiments.benchmarks.costs import Row, compile_costs, compute_dtype, heading, table
from experiments.benchmarks.timing import alternate
from genjax.core.errors import UserError
from genjax.core.objective import HasTranslation
from genjax.core.types import Array, named
from genjax.evaluation.sampling import compile_sampler
from genjax.objectives.diffusion.diffusion import Diffusion
from genjax.parallel.mesh import batch_sharding, batch_shards, with_mesh
from genjax.samplers.scan import Walk
from genjax.training.experiment import Experiment
from genjax.training.loop import Run, prepare

SAMPLES = flags.DEFINE_integer("samples", 128, "Samples in one call of the sampler.", lower_bound=1)

Timed = Callable[[Any], Array]  # key -> samples, not waited for


def variants(run: Run, params: Any, num: int) -> dict[str, Timed]:
    """A diffusion model's walk in two other forms, each a function of a key.

    Args:
        run: of a diffusion model.
        params: of the network.
        num: samples.

    Returns:
        "bare": as many evaluations of the compiled denoiser as the sampler makes, one after the other, and nothing
        else; "loop": a compiled step of the sampler, called from Python.
    """
    objective, place = run.experiment.objective, batch_sharding(run.mesh)
    assert isinstance(objective, Diffusion)
    process, sampler, shape = objective.process, objective.sampler, (num, *objective.shape)
    labels = jax.device_put(jnp.arange(num, dtype=jnp.int32) % max(objective.classes, 1), place)
    given = lambda params, labels: objective.guided(params, labels if objective.classes else None)
    times = sampler.times(process)

    begin = jax.jit(
        lambda key: process.sigma(times[0]) * jax.random.normal(named(key, "prior"), shape),
        out_shardings=place,
    )

    def one_step(params: Any, labels: Array, walk: Walk, t: Array, s: Array, key: Any) -> Walk:
        return sampler.step(given(params, labels), process, walk, t, s, key)

    step = jax.jit(with_mesh(one_step, run.mesh), donate_argnums=2)
    evaluate = jax.jit(with_mesh(lambda params, labels, x, t: given(params, labels)(x, t).eps, run.mesh))
    evaluations = getattr(sampler, "evaluations", len(times) - 1)

    def loop(key: Any) -> Array:
        walk: Walk = sampler.init(begin(key))
        for i in range(len(times) - 1):
            walk = step(params, labels, walk, times[i], times[i + 1], jax.random.fold_in(key, i))
        return walk.x

    def bare(key: Any) -> Array:
        x = begin(key)
        for i in range(evaluations):
            x = evaluate(params, labels, x, times[min(i, len(times) - 2)])
        return x

    return {"bare evaluations": bare, "loop of compiled steps": loop}


def report(chosen: Experiment, rounds: int) -> None:
    """Prints a line for the sampler as shipped, and for each other form.

    Raises:
        UserError: the model translates what it is given.
    """
    run = prepare(chosen)
    objective, state, shards = chosen.objective, run.make_state(), batch_shards(run.mesh)
    if isinstance(objective, HasTranslation):
        raise UserError(
            f"{type(objective).__name__} draws nothing of its own: --what=sample is for other models"
        )
    num, classes = -(-SAMPLES.value // shards) * shards, getattr(objective, "classes", 0)
    cond = {"label": jnp.arange(num, dtype=jnp.int32) % classes} if classes else None
    sampler: Any = compile_sampler(objective, run.mesh, num)
    costs = compile_costs(sampler, state.ema, state.extra, jax.random.key(0), cond, devices=run.mesh.size)
    forms: dict[str, Timed] = {"sampler": lambda key: sampler(state.ema, state.extra, key, cond)}
    if type(objective) is Diffusion and not objective.self_conditioning:
        forms |= variants(run, state.ema, num)

    def timed(form: Timed) -> Callable[[], float]:
        def once() -> float:
            began = time.perf_counter()
            jax.block_until_ready(form(jax.random.key(0)))
            return (time.perf_counter() - began) / num

        return once

    seconds = alternate({name: timed(form) for name, form in forms.items()}, rounds)
    rows = [
        Row(name, values, 1.0, costs if name == "sampler" else None, num) for name, values in seconds.items()
    ]
    print(heading(chosen, run.mesh, state.params))
    print(f"{num} samples a call, drawn by {getattr(objective, 'sampler', type(objective).__name__)}")
    print("\n".join(table(rows, "sample", "samples", compute_dtype(objective), run.mesh.size)))
