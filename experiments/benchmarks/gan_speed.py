"""A GAN training step against a hand-written one: two optimizers, two gradients, one jitted function.

The hand-written step implements a non-saturating GAN with R1: it scales the batch, updates the discriminator, updates
the generator against the new discriminator, and updates the generator's EMA. It has no metrics but the two losses, no
gradient accumulation and no sharding rules.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from genjax.adversarial.losses import NonSaturating
from genjax.adversarial.penalties import R1
from genjax.adversarial.slopes import penalise_gradient
from genjax.core.errors import UserError
from genjax.core.objective import num_classes
from genjax.data.loading import Input
from genjax.objectives.adversarial.gan import GAN
from genjax.parallel.mesh import batch_sharding
from genjax.training.experiment import Experiment
from genjax.training.loop import prepare
from genjax.training.step import TrainState

from .comparing import time_calls, time_steps
from .timing import alternate, ratio

GanState = tuple[
    Any, Any, Any, Any, Any
]  # discriminator, generator, their optimizer states, the generator's EMA


def handwritten_step(
    gan: GAN, optimizers: dict[str, optax.GradientTransformation], weight: float
) -> Callable[..., Any]:
    """The hand-written training step.

    Args:
        gan: provides the networks.
        optimizers: "discriminator" and "generator".
        weight: weight of the R1 penalty.

    Returns:
        (state, raw batch, key) -> (state, losses).
    """

    def generate(generator: Any, key: Any, cond: Any) -> Any:
        z = jax.random.normal(key, (len(cond), gan.latent))
        return gan.generator.apply(generator, z, None, cond, out=gan.shape)

    logits = lambda discriminator, x, cond: gan.discriminator.apply(discriminator, x, None, cond, out=1)

    def step(state: GanState, batch: Any, key: Any) -> tuple[GanState, Any]:
        discriminator, generator, of_discriminator, of_generator, average = state
        x, cond = batch["x"].astype(jnp.float32) / 8.0 - 1.0, jax.nn.one_hot(batch["label"], num_classes(gan))
        first, second = jax.random.split(key)

        def discriminator_loss(discriminator: Any) -> Any:
            real = logits(discriminator, x, cond)
            fake = logits(discriminator, generate(generator, first, cond), cond)
            score = lambda x: jnp.sum(logits(discriminator, x, cond))
            slope = penalise_gradient(score, x, lambda g: 0.5 * weight * jnp.sum(g**2) / len(x))
            return jnp.mean(jax.nn.softplus(-real)) + jnp.mean(jax.nn.softplus(fake)) + slope

        def generator_loss(generator: Any) -> Any:
            return jnp.mean(jax.nn.softplus(-logits(discriminator, generate(generator, second, cond), cond)))

        d_loss, gradient = jax.value_and_grad(discriminator_loss)(discriminator)
        update, of_discriminator = optimizers["discriminator"].update(
            gradient, of_discriminator, discriminator
        )
        discriminator = optax.apply_updates(discriminator, update)
        g_loss, gradient = jax.value_and_grad(generator_loss)(generator)
        update, of_generator = optimizers["generator"].update(gradient, of_generator, generator)
        generator = optax.apply_updates(generator, update)
        average = optax.incremental_update(generator, average, 1e-3)
        return (discriminator, generator, of_discriminator, of_generator, average), (d_loss, g_loss)

    return step


def report(experiment: Experiment, rounds: int, steps: int) -> None:
    """Prints the median times of both steps over alternating rounds, and their ratio.

    Args:
        experiment: an experiment like gan_digits.
        rounds: number of timings.
        steps: training steps per timing.

    Raises:
        UserError: the experiment is not the GAN that the hand-written step implements.
    """
    gan = experiment.objective
    ours = isinstance(gan, GAN) and isinstance(gan.game, NonSaturating) and gan.condition and gan.every == 1
    penalties = gan.penalties if isinstance(gan, GAN) else ()
    if not (ours and len(penalties) == 1 and isinstance(penalties[0], R1)):
        raise UserError(
            "the hand-written step is that of gan_digits: a conditional non-saturating GAN with R1"
        )
    assert isinstance(gan, GAN)
    # Both steps take their batch as an argument.
    run = prepare(dataclasses.replace(experiment, input=Input(resident=False)))
    state: TrainState = run.make_state()
    batch, params = run.raw(0), jax.tree.map(jnp.copy, state.params)
    opt_state = jax.tree.map(jnp.copy, state.opt_state)
    own: GanState = (
        params["discriminator"],
        params["generator"],
        opt_state["discriminator"],
        opt_state["generator"],
        jax.tree.map(jnp.copy, params["generator"]),
    )
    step = jax.jit(handwritten_step(gan, experiment.optimizers(), penalties[0].weight), donate_argnums=0)
    batch = jax.device_put(batch, batch_sharding(run.mesh))

    def shipped() -> float:
        nonlocal state
        state, took = time_steps(run, state, batch, steps)
        return took

    def handwritten() -> float:
        nonlocal own
        own, took = time_calls(lambda own, index: step(own, batch, jax.random.key(index)), own, steps)
        return took

    seconds = alternate({"genjax": shipped, "by hand": handwritten}, rounds)
    for name, values in seconds.items():
        print(f"{name:10} {1e3 * float(np.median(values)):9.3f} ms/step")
    print(f"ratio {ratio(seconds['genjax'], seconds['by hand'])}")
