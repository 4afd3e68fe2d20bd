"""Progressive distillation and reflow of an exact teacher, with students known in closed form."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_consistency import DATA, Denoiser, context, data, exact_teacher

from genjax.core.errors import UserError
from genjax.core.types import named
from genjax.diffusion.prediction import X0, from_x0, velocity
from genjax.diffusion.process import EDM, VP, RectifiedFlow
from genjax.objectives.diffusion.distillation import Teacher, solve
from genjax.objectives.diffusion.progressive import Progressive, one_step_x0
from genjax.objectives.diffusion.reflow import Reflow
from genjax.samplers import edm
from genjax.samplers.dpm import DPMSolverPP
from genjax.samplers.ode import DDIM
from genjax.samplers.scan import sample

pytestmark = pytest.mark.optimised

FIRST = 4


@pytest.mark.parametrize("process", [VP(), EDM(), RectifiedFlow()], ids=lambda p: type(p).__name__)
def test_solver_steps_are_the_samplers(process):
    """With one time for all examples: DDIM's step, and Heun's in sigma / alpha."""
    with jax.enable_x64(True):
        denoise, x = DATA.denoise(process), jnp.linspace(-2.0, 2.0, 5)[:, None]
        t, s, key = jnp.asarray(0.8), jnp.asarray(0.5), jax.random.key(0)
        for solver, sampler in (("ddim", DDIM()), ("heun", edm.EDM(steps=1))):
            theirs = sampler.step(denoise, process, sampler.init(x), t, s, key).x
            ours = solve(denoise, process, x, jnp.full(5, 0.8), jnp.full(5, 0.5), solver)
            np.testing.assert_allclose(ours, theirs, rtol=1e-10)


@pytest.mark.parametrize("process", [VP(), EDM(), RectifiedFlow()], ids=lambda p: type(p).__name__)
def test_one_step_with_the_target_matches_two_steps(process):
    """For different times per example, including t = 1 (where alpha may be 0)."""
    with jax.enable_x64(True):
        denoise, x = DATA.denoise(process), jnp.linspace(-2.0, 2.0, 5)[:, None]
        t = jnp.asarray([1.0, 0.8, 0.6, 0.4, 0.2])
        middle, s = 0.75 * t, 0.5 * t
        landed = solve(denoise, process, solve(denoise, process, x, t, middle), middle, s)
        x0 = one_step_x0(process, x, t, landed, s)
        again = solve(lambda x, t: from_x0(process, x0, x, t), process, x, t, s)
        np.testing.assert_allclose(again, landed, rtol=1e-9, atol=1e-12)


class Student(Denoiser):
    """The x_0 for which a DDIM step from t equals 2^depth steps of the exact teacher, each of length 1 / (2 FIRST).

    For Gaussian data a DDIM step multiplies the deviation from the mean, x_t - alpha_t mean, by a factor.
    """

    def apply(self, params, x, t, cond, *, out, **options):
        process, t = self.process, t[:, None]
        alpha, sigma, steps = process.alpha, process.sigma, 2.0 ** params["depth"]
        factor, here = jnp.ones_like(t), t
        for index in range(2 * FIRST):
            there = jnp.maximum(t - (index + 1) / (2 * FIRST), 0.0)
            gain = alpha(here) * DATA.std**2 / DATA.variance(process, here)
            one = alpha(there) * gain + sigma(there) * (1 - alpha(here) * gain) / jnp.maximum(
                sigma(here), 1e-9
            )
            factor = jnp.where(index < steps, factor * one, factor)
            here = there
        end = jnp.maximum(t - steps / (2 * FIRST), 0.0)
        ratio = sigma(end) / sigma(t)
        return DATA.mean + (factor - ratio) / (alpha(end) - ratio * alpha(t)) * (x - alpha(t) * DATA.mean)


def progressive() -> Progressive:
    taught = exact_teacher(VP())
    model = dataclasses.replace(taught.model, net=Student(VP()))
    return Progressive(Teacher(model, taught.weights), predict=X0(), first=FIRST, last=1, every=10)


def depth(value: float):
    return {"net": {"depth": jnp.asarray(value)}}


def test_each_stage_halves_the_number_of_steps():
    """In each stage the loss of the exact student is 0, that of the previous stage's student is not; N is halved."""
    with jax.enable_x64(True):
        objective = progressive()
        extra = lambda before: {"teacher": depth(0.0), "before": depth(before)}
        loss = jax.jit(lambda params, extra, step: objective.loss(params, extra, data(256), context(step)))
        for step, stage in ((0, 0), (9, 0), (13, 1), (19, 1), (22, 2), (500, 2)):
            value, aux = loss(depth(stage + 1.0), extra(float(stage)), step)
            assert float(value) < 1e-18, (step, value)
            assert int(aux.metrics["steps"]) == FIRST // 2**stage
            assert float(aux.extra["before"]["net"]["depth"]) == stage
            assert float(loss(depth(float(stage)), extra(float(stage)), step)[0]) > 1e-6


def test_student_becomes_the_teacher_at_the_start_of_a_stage():
    """On the first step of a stage, and not after the start of the last stage or in evaluation."""
    objective = progressive()
    extra = {"teacher": depth(0.0), "before": depth(-7.0)}

    @jax.jit
    def taught_by(step):
        return objective.loss(depth(1.0), extra, data(16), context(step))[1].extra["before"]["net"]["depth"]

    for step, expected in ((0, -7), (9, -7), (10, 1), (11, -7), (20, 1), (21, -7), (30, -7), (40, -7)):
        assert float(taught_by(jnp.asarray(step))) == expected, step
    aux = jax.jit(lambda: objective.loss(depth(1.0), extra, data(16), context(0, train=False))[1])()
    assert int(aux.metrics["steps"]) == 1
    assert float(aux.extra["before"]["net"]["depth"]) == -7


class Off(Student):
    """The exact student's x_0 plus a parameter."""

    def apply(self, params, x, t, cond, *, out, **options):
        return super().apply(params, x, t, cond, out=out) + params["off"]


def test_errors_of_x0_count_at_least_once():
    """The weight max(SNR, 1) is 1 at t = 1, the only time of the last stage."""
    objective = progressive()
    model = dataclasses.replace(objective.teacher.model, net=Off(VP()))
    objective = dataclasses.replace(objective, teacher=Teacher(model, objective.teacher.weights))
    net = lambda value, off: {"net": {**depth(value)["net"], "off": jnp.asarray(off)}}
    extra = {"teacher": net(0.0, 0.0), "before": net(2.0, 0.0)}
    loss = jax.jit(lambda own: objective.loss(own, extra, data(16), context(500))[0])
    assert float(loss(net(3.0, 0.5))) == pytest.approx(0.25, rel=1e-3)


def test_last_student_matches_the_teachers_samples_in_one_step():
    objective, process = progressive(), VP()
    draw = jax.jit(lambda key: objective.sample(depth(3.0), {}, key, 64))
    theirs = sample(DATA.denoise(process), process, DDIM(2 * FIRST), jax.random.key(5), (64, 1))
    np.testing.assert_allclose(draw(jax.random.key(5)), theirs, rtol=2e-4, atol=2e-4)


def test_stages_that_do_not_halve_raise():
    for first, last in ((6, 1), (4, 3), (1, 2), (4, 0)):
        with pytest.raises(UserError, match="power of 2"):
            dataclasses.replace(progressive(), first=first, last=last).init(jax.random.key(0), {})


@dataclasses.dataclass(frozen=True)
class Straight(Denoiser):
    """The velocity of straight paths from z to the end of the teacher's ODE, a + b z for Gaussian data."""

    only_at_one: bool = False

    def apply(self, params, x, t, cond, *, out, **options):
        process, one = self.process, jnp.ones(())
        start = lambda z: DATA.transport(process, process.sigma(one) * z, one, jnp.zeros(()))
        a, t = start(jnp.zeros(())), t[:, None]
        b = start(one) - a
        z = (x - (1 - t) * a) / ((1 - t) * b + t)
        v = z - (a + b * z)
        return jnp.where((t < 1) & self.only_at_one, 9.0, v)


@dataclasses.dataclass(frozen=True)
class Crossing(Denoiser):
    """The velocity of rectified flow on independent pairs."""

    def apply(self, params, x, t, cond, *, out, **options):
        flow = RectifiedFlow()
        return velocity(DATA.denoise(flow)(x, t), flow, t)


def test_the_velocity_of_reflow_points_from_data_to_noise():
    batch, extra = data(64), {"teacher": {"net": {}}}
    objective = Reflow(Straight(VP()), exact_teacher(VP()), DPMSolverPP(steps=8))
    assert float(jax.jit(lambda: objective.loss({"net": {}}, extra, batch, context())[0])()) < 0.1


@pytest.mark.slow
def test_reflow_straightens_the_teachers_paths():
    """The straight velocity has zero loss up to solver error, the crossing one does not; one Euler step suffices."""
    process = VP()
    batch, extra, ctx = data(512), {"teacher": {"net": {}}}, context()
    make = lambda net, **fields: Reflow(net, exact_teacher(process), DPMSolverPP(steps=40), **fields)
    loss = lambda objective: float(jax.jit(lambda: objective.loss({"net": {}}, extra, batch, ctx)[0])())
    straight = make(Straight(process))
    assert loss(straight) < 2e-4
    assert loss(make(Crossing(process))) > 0.01
    assert loss(make(Straight(process, only_at_one=True))) > 1.0
    assert loss(make(Straight(process, only_at_one=True), distil=True)) < 2e-4
    for steps in (1, 3):
        drawn = dataclasses.replace(straight, steps=steps).sample({"net": {}}, {}, jax.random.key(6), 32)
        z = jax.random.normal(named(jax.random.key(6), "prior"), (32, 1))
        one = jnp.ones(())
        expected = DATA.transport(process, process.sigma(one) * z, one, jnp.zeros(()))
        np.testing.assert_allclose(drawn, expected, rtol=1e-4, atol=1e-5)
