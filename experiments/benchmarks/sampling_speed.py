"""Sampling speed; for diffusion models also of the network alone and of a Python loop of compiled steps."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from absl import flags

from genjax.core.errors import UserError
from genjax.core.objective import HasTranslation, num_classes, require_samples
from genjax.core.types import Array, named
from genjax.evaluation.sampling import compile_sampler
from genjax.objectives.diffusion.diffusion import Diffusion
from genjax.parallel.mesh import batch_sharding, batch_shards, with_mesh
from genjax.samplers.scan import SamplerState
from genjax.training.experiment import Experiment
from genjax.training.loop import Run, prepare

from .costs import Row, compile_costs, compute_dtype, heading, table
from .timing import alternate, timed

SAMPLES = flags.DEFINE_integer("samples", 128, "Samples per call of the sampler.", lower_bound=1)

Timed = Callable[[Any], Array]  # key -> samples, dispatched asynchronously


def variants(run: Run, params: Any, num: int) -> dict[str, Timed]:
    """Two other implementations of a diffusion model's sampling, each a function of a key.

    Args:
        run: run of a diffusion model.
        params: parameters of the network.
        num: number of samples.

    Returns:
        "bare evaluations": only the sampler's number of sequential evaluations of the compiled denoiser; "loop of
        compiled steps": a compiled sampler step called from Python.
    """
    objective, place = run.experiment.objective, batch_sharding(run.mesh)
    assert isinstance(objective, Diffusion)
    process, sampler, shape = objective.process, objective.sampler, (num, *objective.shape)
    labels = jax.device_put(jnp.arange(num, dtype=jnp.int32) % max(num_classes(objective), 1), place)
    given = lambda params, labels: objective.guided(
        params, {"label": labels} if objective.condition else None
    )
    times = sampler.times(process)

    draw_prior = jax.jit(
        lambda key: process.sigma(times[0]) * jax.random.normal(named(key, "prior"), shape),
        out_shardings=place,
    )

    def one_step(
        params: Any, labels: Array, state: SamplerState, t: Array, s: Array, key: Any
    ) -> SamplerState:
        return sampler.step(given(params, labels), process, state, t, s, key)

    step = jax.jit(with_mesh(one_step, run.mesh), donate_argnums=2)
    evaluate = jax.jit(with_mesh(lambda params, labels, x, t: given(params, labels)(x, t).eps, run.mesh))
    evaluations = sampler.evaluations

    def loop(key: Any) -> Array:
        state: SamplerState = sampler.init(draw_prior(key))
        for i in range(len(times) - 1):
            state = step(params, labels, state, times[i], times[i + 1], jax.random.fold_in(key, i))
        return state.x

    def bare(key: Any) -> Array:
        x = draw_prior(key)
        for i in range(evaluations):
            x = evaluate(params, labels, x, times[min(i, len(times) - 2)])
        return x

    return {"bare evaluations": bare, "loop of compiled steps": loop}


def report(chosen: Experiment, rounds: int) -> None:
    """Prints a line for the shipped sampler and for each other implementation.

    Raises:
        UserError: the model translates images and has no unconditional samples.
    """
    run = prepare(chosen)
    objective, state, shards = chosen.objective, run.make_state(), batch_shards(run.mesh)
    if isinstance(objective, HasTranslation):
        raise UserError(
            f"{type(objective).__name__} translates its inputs: --what=sample needs a model that draws samples"
        )
    num, classes = -(-SAMPLES.value // shards) * shards, num_classes(objective)
    cond = {"label": jnp.arange(num, dtype=jnp.int32) % classes} if classes else None
    sampler: Any = compile_sampler(objective, run.mesh, num)
    costs = compile_costs(sampler, state.ema, state.extra, jax.random.key(0), cond, devices=run.mesh.size)
    forms: dict[str, Timed] = {"sampler": lambda key: sampler(state.ema, state.extra, key, cond)}
    if type(objective) is Diffusion and not objective.self_conditioning:
        forms |= variants(run, state.ema, num)

    seconds = alternate(
        {name: timed(functools.partial(form, jax.random.key(0)), num) for name, form in forms.items()}, rounds
    )
    rows = [
        Row(name, values, 1.0, costs if name == "sampler" else None, num) for name, values in seconds.items()
    ]
    print(heading(chosen, run.mesh, state.params))
    print(f"{num} samples per call, drawn by {require_samples(objective).sampling}")
    print("\n".join(table(rows, "sample", "samples", compute_dtype(objective), run.mesh.size)))
