"""MeanFlow with a known average velocity: the identity, the loss's fixed point, and samples in one step."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import GaussianData
from rows import SMALL
from scipy import stats

from genjax.conditioning.labels import Labels
from genjax.core.errors import UserError
from genjax.core.objective import Context
from genjax.diffusion.prediction import velocity
from genjax.diffusion.process import RectifiedFlow, Trigonometric
from genjax.objectives.diffusion.mean_flow import MeanFlow

DATA = GaussianData()
EXACT = {"net": {"scale": 1.0, "shift": 0.0}}


@dataclasses.dataclass(frozen=True)
class Average:
    """The exact average velocity of Gaussian data, times a scale and plus a shift."""

    process: object = RectifiedFlow()

    def init(self, key, z, t, cond, *, out):
        return {}

    def apply(self, params, z, t, cond, *, out, **options):
        gap, t = cond[:, :1], t[:, None]
        moved = gap > 0
        r = jnp.where(moved, t - gap, 0.5 * t)
        average = (z - DATA.transport(self.process, z, t, r)) / (t - r)
        here = velocity(DATA.denoise(self.process)(z, t), self.process, t)
        return params["scale"] * jnp.where(moved, average, here) + params["shift"]


def known(process=RectifiedFlow(), **fields) -> MeanFlow:
    return MeanFlow(Average(process), (1,), process=process, **fields)


@pytest.mark.parametrize("process", [RectifiedFlow(), Trigonometric()], ids=lambda p: type(p).__name__)
def test_the_identity_holds_for_the_average_velocity(process):
    """u = v - (t - r) du/dt along the path, in float64, and for r = t u = v."""
    with jax.enable_x64(True):
        z, t = jnp.linspace(-2.0, 2.0, 7)[:, None], jnp.linspace(0.2, 0.95, 7)
        v = velocity(DATA.denoise(process)(z, t), process, t)
        target = jax.jit(lambda r: known(process).target(EXACT, z, v, r, t))
        for r in (0.0 * t, 0.3 * t, 0.99 * t, t):
            u, told = target(r)
            np.testing.assert_allclose(u, told, rtol=1e-8, atol=1e-9)
        np.testing.assert_allclose(u, v, rtol=1e-12)


def test_the_average_velocity_is_the_losss_fixed_point():
    """The gradient vanishes there, with the paper's weight, and not at a perturbed velocity."""
    num = 200_000
    batch = {"x": DATA.mean + DATA.std * jax.random.normal(jax.random.key(1), (num, 1))}
    ctx = Context(jax.random.key(2), jnp.zeros((), jnp.int32))
    objective = known(apart=0.75)
    slope = jax.jit(jax.grad(lambda params: objective.loss(params, {}, batch, ctx)[0]))
    here, scaled, shifted = (
        slope({"net": {"scale": scale, "shift": shift}})["net"]
        for scale, shift in ((1.0, 0.0), (1.2, 0.0), (1.0, 0.2))
    )
    assert abs(float(here["scale"])) < 0.02 * abs(float(scaled["scale"]))
    assert abs(float(here["shift"])) < 0.02 * abs(float(shifted["shift"]))
    assert float(scaled["scale"]) > 0
    assert float(shifted["shift"]) > 0


def test_one_step_and_four_sample_the_data():
    """With the exact average velocity any number of steps gives the end point of the ODE."""
    num, drawn = 20_000, {}
    for steps in (1, 4):
        objective = known(steps=steps)
        draw = jax.jit(lambda key, o=objective: o.sample(EXACT, {}, key, num))
        drawn[steps] = np.asarray(draw(jax.random.key(0)))
    np.testing.assert_allclose(drawn[1], drawn[4], rtol=1e-4, atol=1e-5)
    law = stats.norm(DATA.mean, DATA.std)
    assert stats.kstest(drawn[1][:, 0], law.cdf).statistic < 1.63 / np.sqrt(num)


@pytest.mark.slow
def test_intervals_have_their_shares_and_their_order():
    num = 1000
    r, t = known(apart=0.3).draw_interval(jax.random.key(3), num)
    assert int((r < t).sum()) == 300
    assert int((r == t).sum()) == 700
    z = np.asarray(jax.scipy.special.logit(jnp.concatenate([r, t])[np.concatenate([r, t]) > 0]))
    assert stats.kstest(z[::2], stats.norm(-0.4, 1.0).cdf).statistic < 0.06
    both = np.asarray(jax.scipy.special.logit(r[r < t])), np.asarray(jax.scipy.special.logit(t[r < t]))
    lower = stats.kstest(both[0], lambda x: 1 - stats.norm(-0.4, 1.0).sf(x) ** 2).statistic
    upper = stats.kstest(both[1], lambda x: stats.norm(-0.4, 1.0).cdf(x) ** 2).statistic
    assert max(lower, upper) < 1.63 / np.sqrt(300)


@dataclasses.dataclass(frozen=True)
class Fields(Average):
    """Two constants: the velocity with and without a label."""

    def apply(self, params, z, t, cond, *, out, **options):
        shown = cond[:, :3].sum(axis=1, keepdims=True)
        return jnp.zeros_like(z) + params["free"] + shown * (params["given"] - params["free"])


def test_learned_guidance_has_the_papers_effective_scale():
    """V = free + omega / (1 - kappa) (v - free) is the fixed point (app. B); without a label the target is v."""
    free, v, omega, kappa = 0.3, 1.1, 1.4, 0.5
    guided = free + omega / (1 - kappa) * (v - free)
    objective = MeanFlow(Fields(), (1,), Labels(3, 0.1), guidance=omega, mix=kappa)
    cond, kept = jax.nn.one_hot(jnp.arange(3), 3), jnp.asarray([True, False, True])
    told = objective._guided(
        {"net": {"free": free, "given": guided}},
        jnp.zeros((3, 1)),
        jnp.full((3, 1), v),
        jnp.ones(3),
        cond,
        kept,
        {},
    )
    np.testing.assert_allclose(told[:, 0], [guided, v, guided], rtol=1e-6)


def test_mix_out_of_range_raises():
    with pytest.raises(UserError, match="mix"):
        MeanFlow(SMALL, (2,), mix=1.0).init(jax.random.key(0), {"x": jnp.zeros((2, 2))})
