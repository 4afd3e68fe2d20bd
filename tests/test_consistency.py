"""Consistency models: boundary condition, fixed point, order, and sample distribution, against closed forms."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import GaussianData, fitted_order
from rows import SMALL
from scipy import stats

from genjax.core.errors import UserError
from genjax.core.objective import Context
from genjax.diffusion.prediction import X0, Preconditioned, V
from genjax.diffusion.process import EDM, VP, RectifiedFlow
from genjax.diffusion.times import LogNormalSigma, UniformTimes
from genjax.objectives.diffusion.consistency import Consistency, Doubling, pseudo_huber
from genjax.objectives.diffusion.diffusion import Diffusion
from genjax.objectives.diffusion.distillation import Teacher
from genjax.training.pretrained import Pretrained

DATA = GaussianData()
LOW, HIGH = 0.2, 0.8
TAUGHT = {"teacher": {"net": {}}}


@dataclasses.dataclass(frozen=True)
class Denoiser:
    """A network without parameters: the exact E[x_0 | x_t]."""

    process: object

    def init(self, key, x, t, cond, *, out):
        return {}

    def apply(self, params, x, t, cond, *, out, **options):
        return DATA.denoise(self.process)(x, t).x0


@dataclasses.dataclass(frozen=True)
class Jumper(Denoiser):
    """The x_0 for which the DDIM step to `low` is the end point of the probability-flow ODE."""

    low: float = LOW

    def apply(self, params, x, t, cond, *, out, **options):
        process, t = self.process, t[:, None]
        low = jnp.full_like(t, self.low)
        end = DATA.transport(process, x, t, low)
        gap = process.alpha(low) * process.sigma(t) - process.sigma(low) * process.alpha(t)
        there = gap > 1e-12
        estimate = (end * process.sigma(t) - process.sigma(low) * x) / jnp.where(there, gap, 1.0)
        return jnp.where(there, estimate, 0.0)


class Affine(Denoiser):
    """Two scalars: out = scale x + shift."""

    def apply(self, params, x, t, cond, *, out, **options):
        return params["scale"] * x + params["shift"]


def exact_teacher(process) -> Teacher:
    return Teacher(Diffusion(Denoiser(process), (1,), process=process, predict=X0()), Pretrained("none"))


def known(process, net, intervals: int, **fields) -> Consistency:
    return Consistency(
        net,
        (1,),
        process=process,
        predict=X0(),
        low=LOW,
        high=HIGH,
        times=UniformTimes(LOW, HIGH),
        curriculum=Doubling(intervals, intervals, 1),
        **fields,
    )


def context(step: int = 0, train: bool = True) -> Context:
    return Context(jax.random.key(2), jnp.asarray(step, jnp.int32), train)


def data(num: int):
    return {"x": DATA.mean + DATA.std * jax.random.normal(jax.random.key(1), (num, 1))}


@pytest.mark.parametrize(
    "objective",
    [
        Consistency(SMALL, (2,)),
        Consistency(SMALL, (2,), process=VP(), low=1e-3),
        Consistency(SMALL, (2,), process=RectifiedFlow(), low=1e-2, high=0.99, predict=V()),
    ],
    ids=lambda objective: type(objective.process).__name__,
)
def test_jump_is_the_identity_at_low(objective):
    """f(x, low) = x for any network; at other times f(x, t) differs from x."""
    with jax.enable_x64(True):
        x = jax.random.normal(jax.random.key(0), (5, 2))
        params = objective.init(jax.random.key(1), {"x": x})[0]
        jump = jax.jit(lambda t: objective.jump(params, x, jnp.full(5, t), None))
        np.testing.assert_allclose(jump(objective.low), x, rtol=1e-7)
        assert float(jnp.abs(jump(0.5) - x).min()) > 1e-3


def test_preconditioned_jump_has_the_papers_coefficients():
    """c_out of Song et al. 2023, app. C, and the c_skip of the module's docstring."""
    with jax.enable_x64(True):
        process, x = EDM(), jnp.asarray([[0.3], [-1.0], [2.0]])
        objective = Consistency(Affine(process), (1,), process=process, predict=Preconditioned(0.5))
        t = jnp.asarray([0.1, 0.4, 0.9])
        sigma, low, std = process.sigma(t)[:, None], process.sigma_min, 0.5
        out = 0.7 * x / jnp.sqrt(sigma**2 + std**2) - 0.2
        skip = (std**2 + low * sigma) / (std**2 + sigma**2)
        expected = skip * x + std * (sigma - low) / jnp.sqrt(std**2 + sigma**2) * out
        given = objective.jump({"net": {"scale": 0.7, "shift": -0.2}}, x, t, None)
        np.testing.assert_allclose(given, expected, rtol=1e-10)


@pytest.mark.parametrize(("solver", "order"), [("ddim", 1), ("heun", 2)])
def test_exact_jump_is_the_fixed_point_of_distillation(solver, order):
    """A teacher's step has error h^(order + 1): the loss, quadratic near 0 and weighted by 1 / h, h^(2 order + 1)."""
    process, numbers = VP(), [16, 32, 64, 128]
    with jax.enable_x64(True):
        objective = dataclasses.replace(
            known(process, Jumper(process), 1, teacher=exact_teacher(process), solver=solver, huber=1.0),
            curriculum=Doubling(16, 128, 1),
        )
        loss = jax.jit(lambda step: objective.loss({"net": {}}, TAUGHT, data(512), context(step))[0])
        losses = [float(loss(step)) for step in range(4)]
        slope = fitted_order([1 / number for number in numbers], losses)
    assert abs(slope - (2 * order + 1)) < 0.2, (slope, losses)


def test_training_and_distillation_have_equal_gradients():
    """Given x_t the mean of x_s is one DDIM step of the exact teacher: equal gradients for f affine in x."""
    process, params = VP(), {"net": {"scale": jnp.asarray(0.3), "shift": jnp.asarray(-0.4)}}
    distilled = known(process, Affine(process), 8, teacher=exact_teacher(process), solver="ddim", huber=1e3)
    trained = dataclasses.replace(distilled, teacher=None)
    slopes = []
    for objective in (distilled, trained):
        loss = lambda params, o=objective: o.loss(params, TAUGHT, data(400_000), context())[0]
        slope = jax.jit(jax.grad(loss))(params)["net"]
        slopes.append(np.array([slope["scale"], slope["shift"]]))
    np.testing.assert_allclose(slopes[1], slopes[0], rtol=0.02)


@pytest.mark.parametrize("steps", [1, 3])
def test_exact_jump_samples_the_distribution_at_low(steps):
    """From a prior that is nearly the marginal: N(alpha mean, alpha^2 std^2 + sigma^2) at `low`."""
    process, num = EDM(sigma_min=0.1), 40_000
    objective = Consistency(
        Jumper(process, low=0.0), (1,), process=process, predict=X0(), low=0.0, steps=steps
    )
    draw = jax.jit(lambda key: objective.sample({"net": {}}, {}, key, num))
    x = np.asarray(draw(jax.random.key(4)), np.float64)[:, 0]
    law = stats.norm(DATA.mean, math.sqrt(DATA.std**2 + 0.1**2))
    assert abs(x.mean() - DATA.mean) < 4 * law.std() / math.sqrt(num) + 0.01 * law.std()
    assert abs(x.var() / law.var() - 1) < 4 * math.sqrt(2 / num)
    assert stats.kstest(x, law.cdf).statistic < 1.63 / math.sqrt(num) + 0.005


def test_curriculum_doubles():
    """Song & Dhariwal 2023, sec. 3.4: 10 to 1280 in 400,000 steps, eight stages of 50,000."""
    steps = np.arange(8) * 50_000
    expected = 10 * 2 ** np.arange(8)
    for shift, shown in ((0, expected), (49_999, expected), (-1, [10, *expected[:-1]])):
        given = [int(Doubling().intervals(jnp.asarray(max(step + shift, 0)))) for step in steps]
        np.testing.assert_array_equal(given, shown)
    assert int(Doubling().intervals(jnp.asarray(2**31 - 1, jnp.int32))) == 1280
    assert [int(Doubling(3, 10, 1).intervals(jnp.asarray(step))) for step in range(4)] == [3, 6, 10, 10]
    with pytest.raises(UserError, match="curriculum"):
        Doubling(4, 2).intervals(jnp.asarray(0))


def test_evaluation_uses_the_last_number_of_intervals():
    objective = dataclasses.replace(known(VP(), Jumper(VP()), 8, huber=1.0), curriculum=Doubling(4, 32, 10))
    shown = lambda **how: float(
        objective.loss({"net": {}}, {}, data(64), context(**how))[1].metrics["intervals"]
    )
    assert shown(step=10) == 8
    assert shown(step=10, train=False) == 32


def test_intervals_have_the_papers_probabilities():
    """Eq. 10: erf((log sigma_{i+1} - P_mean) / (sqrt(2) P_std)) - erf((log sigma_i - ...)), the tails at the ends."""
    process, mean, std, number, num = EDM(), -1.1, 2.0, 16, 4096
    objective = Consistency(SMALL, (2,), process=process, times=LogNormalSigma(mean, std, low=0.0))
    s, t = objective.adjacent_times(jax.random.key(0), num, jnp.asarray(number, jnp.int32))
    np.testing.assert_allclose(t - s, 1 / number, rtol=1e-4)
    counts = np.bincount(np.rint(np.asarray(s) * number).astype(int), minlength=number)
    sigma = np.linspace(0.002 ** (1 / 7), 80 ** (1 / 7), number + 1) ** 7
    below = stats.norm.cdf((np.log(sigma) - mean) / std)
    below[0], below[-1] = 0.0, 1.0
    np.testing.assert_allclose(counts, num * np.diff(below), atol=1.5)


def test_pseudo_huber_is_quadratic_near_and_linear_far():
    with jax.enable_x64(True):
        zero, c = jnp.zeros((2, 3)), 0.03
        away = jnp.asarray([[1.0, 2.0, 2.0], [-2.0, 2.0, 1.0]])  # of norm 3
        np.testing.assert_allclose(pseudo_huber(1e-6 * away, zero, c), (3e-6) ** 2 / (2 * c), rtol=1e-6)
        np.testing.assert_allclose(pseudo_huber(1e6 * away, zero, c), 3e6 - c, rtol=1e-12)
        np.testing.assert_allclose(pseudo_huber(away, zero, c), math.sqrt(9 + c**2) - c, rtol=1e-12)
        slope = jax.grad(lambda a: pseudo_huber(a, zero, c).sum())(zero)
        np.testing.assert_array_equal(slope, 0.0)


def test_mismatched_teacher_raises():
    batch = {"x": jnp.zeros((2, 1))}
    objective = known(VP(), Affine(VP()), 4, teacher=exact_teacher(VP(beta_max=10.0)))
    with pytest.raises(UserError, match=r"objective\.process"):
        objective.init(jax.random.key(0), batch)
    objective = known(VP(), Affine(VP()), 4, teacher=exact_teacher(VP()), warm=True)
    with pytest.raises(UserError, match=r"objective\.net"):
        objective.init(jax.random.key(0), batch)
