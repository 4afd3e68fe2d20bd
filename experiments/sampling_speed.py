"""What the sampling loop costs beside the bare network, and beside a Python loop of compiled steps."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from absl import flags

from genjax.experiment import Experiment
from genjax.loop import Run, prepare
from genjax.objectives.diffusion import Diffusion
from genjax.parallel import batch_sharding
from genjax.samplers.scan import Walk, sample
from genjax.types import Array, named

SAMPLES = flags.DEFINE_integer("samples", 128, "Samples in one call of the sampler.", lower_bound=1)

Timed = Callable[[Any], Array]  # key -> samples, not waited for


def variants(run: Run, params: Any, num: int) -> dict[str, Timed]:
    """The same walk in three forms, each a function of a key.

    Args:
        run: of a diffusion model.
        params: of the network.
        num: samples.

    Returns:
        "scan": the sampler as shipped, one compiled call; "loop": a compiled step, called from Python; "bare": as many
        evaluations of the compiled denoiser, one after the other, and nothing else.
    """
    objective, place = run.experiment.objective, batch_sharding(run.mesh)
    assert isinstance(objective, Diffusion)
    process, sampler, shape = objective.process, objective.sampler, (num, *objective.shape)
    labels = jax.device_put(jnp.arange(num, dtype=jnp.int32) % max(objective.classes, 1), place)
    given = lambda params, labels: objective.guided(params, labels if objective.classes else None)
    times = sampler.times(process)

    walk_all = jax.jit(
        lambda params, labels, key: sample(given(params, labels), process, sampler, key, shape),
        out_shardings=place,
    )
    begin = jax.jit(
        lambda key: process.sigma(times[0]) * jax.random.normal(named(key, "prior"), shape),
        out_shardings=place,
    )
    step = jax.jit(
        lambda params, labels, walk, t, s, key: sampler.step(given(params, labels), process, walk, t, s, key),
        donate_argnums=2,
    )
    evaluate = jax.jit(lambda params, labels, x, t: given(params, labels)(x, t).eps)
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

    return {"bare": bare, "scan": lambda key: walk_all(params, labels, key), "loop": loop}


def measure(chosen: Experiment, rounds: int) -> dict[str, list[float]]:
    """Seconds per sample of each form in each round, A B C A B C; the first round compiles and does not count."""
    run = prepare(dataclasses.replace(chosen, steps_per_call=1))
    forms = variants(run, run.make_state().ema, SAMPLES.value)
    seconds: dict[str, list[float]] = {}
    for number in range(rounds + 1):
        for name, form in forms.items():
            began = time.perf_counter()
            jax.block_until_ready(form(jax.random.key(number)))
            if number:
                seconds.setdefault(name, []).append((time.perf_counter() - began) / SAMPLES.value)
    return seconds
