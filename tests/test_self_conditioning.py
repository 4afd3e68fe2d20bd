"""Self-conditioning: the network's additional input in training and in sampling."""

import dataclasses
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.core.objective import Context
from genjax.core.types import named
from genjax.diffusion.prediction import X0, Velocity, from_x0, velocity
from genjax.diffusion.process import VP, RectifiedFlow
from genjax.objectives.diffusion.diffusion import Diffusion
from genjax.samplers.ode import DDIM, Heun


@dataclasses.dataclass(frozen=True)
class Recorder:
    """A network with one parameter: a x + b x0_hat + c t, of [x, x0_hat]."""

    def init(self, key, *inputs, **options):
        assert inputs[0].shape[-1] == 4
        return {"a": jnp.asarray(0.5), "b": jnp.asarray(0.3), "c": jnp.asarray(0.1)}

    def apply(self, params, x, t, cond, *, out, train=False, rngs=None):
        state, previous = jnp.split(x, 2, axis=-1)
        return params["a"] * state + params["b"] * previous + params["c"] * t[:, None]


MODEL = Diffusion(Recorder(), (2,), process=RectifiedFlow(), predict=X0(), self_conditioning=1.0)
PARAMS = {"net": Recorder().init(None, jnp.zeros((1, 4)))}
BATCH = {"x": jnp.linspace(-1.0, 1.0, 12).reshape(6, 2)}


def out(x, previous, t):
    return 0.5 * x + 0.3 * previous + 0.1 * t[:, None]


@pytest.mark.parametrize("probability", [1.0, 0.0])
def test_training_gives_the_networks_own_estimate(probability):
    """The loss by its definition: x0_hat = network(x_t, 0), and no gradient through it."""
    model = dataclasses.replace(MODEL, self_conditioning=max(probability, 1e-30))
    ctx = Context(key=jax.random.key(1), step=jnp.asarray(0))
    value, slope = jax.value_and_grad(lambda p: model.loss(p, {}, BATCH, ctx)[0])(PARAMS)
    t = model.times.draw(model.process, named(ctx.key, "times"), 6)
    eps = jax.random.normal(named(ctx.key, "noise"), (6, 2))
    x = (1 - t[:, None]) * BATCH["x"] + t[:, None] * eps
    estimate = out(x, jnp.zeros_like(x), t) if probability else jnp.zeros_like(x)
    error = out(x, estimate, t) - BATCH["x"]
    np.testing.assert_allclose(value, jnp.mean(error**2), rtol=1e-5)
    np.testing.assert_allclose(slope["net"]["a"], jnp.mean(2 * error * x), rtol=1e-4)
    np.testing.assert_allclose(slope["net"]["b"], jnp.mean(2 * error * estimate), rtol=1e-4, atol=1e-7)


def test_ddim_uses_the_last_steps_estimate():
    """The sampling loop in NumPy, one evaluation per step."""
    model = dataclasses.replace(MODEL, process=VP(), sampler=DDIM(steps=5))
    times, path = model.path(PARAMS, {}, jax.random.key(3), 4)
    process = model.process
    np.testing.assert_array_equal(times, model.sampler.times(process))
    x, previous = path[0], jnp.zeros((4, 2))
    for t, s in pairwise(times):
        previous = out(x, previous, jnp.full(4, t))
        prediction = from_x0(process, previous, x, t)
        x = process.alpha(s) * prediction.x0 + process.sigma(s) * prediction.eps
    np.testing.assert_allclose(path[-1], x, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(path[-1], model.sample(PARAMS, {}, jax.random.key(3), 4), rtol=1e-6)


def test_heuns_second_evaluation_uses_the_steps_first_estimate():
    model = dataclasses.replace(MODEL, predict=X0(), sampler=Heun(steps=3))
    times, path = model.path(PARAMS, {}, jax.random.key(3), 4)
    process = model.process
    np.testing.assert_array_equal(times, model.sampler.times(process))
    scale = jnp.hypot(process.alpha(times), process.sigma(times))
    x, previous = path[0] * scale[0], jnp.zeros((4, 2))
    for t, s in pairwise(times):
        first = out(x, previous, jnp.full(4, t))
        here = velocity(from_x0(process, first, x, t), process, t)
        guess = x + (s - t) * here
        second = out(guess, first, jnp.full(4, s))
        there = velocity(from_x0(process, second, guess, s), process, s)
        x, previous = x + (s - t) * 0.5 * (here + there), first
    np.testing.assert_allclose(path[-1] * scale[-1], x, rtol=1e-4, atol=1e-5)


def test_a_models_velocity_is_the_flows():
    model = dataclasses.replace(MODEL, predict=Velocity())
    t = jnp.asarray(0.4)
    got = model.velocity(PARAMS, {}, BATCH["x"], t)
    np.testing.assert_allclose(got, out(BATCH["x"], jnp.zeros((6, 2)), jnp.full(6, t)), rtol=1e-5)
