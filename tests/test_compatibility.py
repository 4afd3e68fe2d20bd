"""Parts of a diffusion model that do not fit each other: what is not finite is refused before training.

The truth is a network with a bounded output that belongs to no distribution, and whole grids; the checks evaluate the
exact denoiser of N(0, I) data at the ends.
"""

import dataclasses
import itertools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import Switched
from test_diffusion import PARAMETERIZATIONS
from test_diffusion_weighting import ON_EPS
from test_samplers_table import PROCESSES, TABLE, with_steps
from tiny import Joint

from genjax.core.errors import UserError
from genjax.core.objective import Context
from genjax.core.types import Array
from genjax.diffusion import weighting
from genjax.diffusion.guidance import ClassifierFree, PlusPlus, Projected
from genjax.diffusion.ode_likelihood import OdeLikelihood
from genjax.diffusion.prediction import X0, Eps, Parameterization, Preconditioned, Score, V, Velocity
from genjax.diffusion.process import EDM, VE, RectifiedFlow, Trigonometric
from genjax.diffusion.threshold import Dynamic, NoThreshold, Static
from genjax.diffusion.times import DiscreteTimes, LogitNormal, LogNormalSigma, UniformTimes
from genjax.objectives.diffusion.compatibility import check_sampler, end_steps
from genjax.objectives.diffusion.consistency import Consistency
from genjax.objectives.diffusion.diffusion import Diffusion
from genjax.objectives.diffusion.improved_ddpm import ImprovedDDPM
from genjax.samplers.edm import EDM as EDMSampler
from genjax.samplers.grids import Karras, LogSNR, Quadratic, ThenZero, Trailing, Uniform
from genjax.samplers.ode import DDIM, Euler, Heun
from genjax.samplers.scan import sample
from genjax.samplers.sde import EulerMaruyama

name = lambda part: type(part).__name__
PREDICTIONS = (Eps(), X0(), V(), Velocity(), Score(), Preconditioned())
WEIGHTS = (weighting.Unit(), *ON_EPS)
TIMES = (
    UniformTimes(),
    LogitNormal(),
    LogNormalSigma(),
    LogNormalSigma(0.0, 30.0, low=0.0),
    DiscreteTimes(),
    DiscreteTimes(10, low=0.0),
)
GRIDS = (
    Uniform(),
    Uniform(0.999, 1e-3),
    Quadratic(),
    Trailing(),
    Karras(),
    LogSNR(),
    LogSNR(0.999),
    ThenZero(Karras()),
)


def test_the_tables_hold_every_part():
    every = lambda base: {
        kind for kind in vars(weighting).values() if isinstance(kind, type) and issubclass(kind, base)
    }
    assert {type(part) for part in WEIGHTS} == every(weighting.EpsWeighting) - {weighting.EpsWeighting} | {
        weighting.Unit
    }
    assert {type(part) for part in PREDICTIONS} >= {type(part) for part in PARAMETERIZATIONS}


@dataclass(frozen=True)
class Chosen(Parameterization):
    """One of several parameterizations, by a traced index."""

    index: Array

    def _of(self, method, *given):
        branches = [lambda *args, kind=kind: getattr(kind, method)(given[0], *args) for kind in PREDICTIONS]
        return jax.lax.switch(self.index, branches, *given[1:])

    def target(self, process, x0, eps, t):
        return self._of("target", process, x0, eps, t)

    def decode(self, process, out, x, t):
        return self._of("decode", process, out, x, t)


def bounded(predict, process):
    """A denoiser whose network's output is bounded."""
    return lambda x, t: predict.decode(process, 0.5 * jnp.sin(x + 1.0), x, t)


@dataclass(frozen=True)
class Given:
    """A grid of traced times."""

    values: Array

    def times(self, process, steps):
        return self.values


def with_grid(sampler, values):
    """The sampler on given times."""
    inner = next((field for field in ("predictor", "sampler") if hasattr(sampler, field)), None)
    if inner:
        return dataclasses.replace(sampler, **{inner: with_grid(getattr(sampler, inner), values)})
    return dataclasses.replace(sampler, grid=Given(values))


STEPS = 5
QUICK = ("DDIM",)
ROWS = [
    pytest.param(row, marks=[] if row in QUICK else pytest.mark.slow)
    for row in TABLE
    if row != "SelfConditioned"
]


@pytest.mark.parametrize("row", ROWS)
def test_samples_are_finite_or_refused(row):
    """Process x prediction x grid: the whole run from the prior is finite unless the check finds a step that is not."""

    def both(kinds, times):
        process, predict = Switched(PROCESSES, kinds[0]), Chosen(kinds[1])
        sampler = with_grid(with_steps(TABLE[row][0], STEPS), times)
        found = end_steps(process, predict, sampler, ClassifierFree(), NoThreshold())
        x = sample(bounded(predict, process), process, sampler, jax.random.key(0), (3, 2))
        return jnp.all(found[1]), jnp.all(jnp.isfinite(x))

    program = jax.jit(both).lower(jnp.zeros(2, jnp.int32), jnp.zeros(STEPS + 1)).compile()
    wrong, needless, refused, total = [], [], 0, 0
    for (i, process), grid in itertools.product(enumerate(PROCESSES), GRIDS):
        try:
            times = grid.times(process, STEPS)
        except UserError:  # the grid itself is refused
            continue
        for j, predict in enumerate(PREDICTIONS):
            accepted, finite = program(jnp.asarray([i, j], jnp.int32), times)
            total, refused = total + 1, refused + (not accepted)
            if bool(accepted) != bool(finite):
                (wrong if accepted else needless).append(f"{name(process)} {name(predict)} {grid}")
    print(row, f"{total} combinations, {refused} refused, {len(wrong)} not finite")
    assert not wrong, wrong
    assert not needless, needless
    assert 0 < refused < total / 2


@pytest.mark.parametrize("end", [0.0, 1.0])
def test_a_weight_at_an_end_is_its_limit(end):
    """Process x prediction x weight: w(end) is the limit of w in float64; it is not finite only where there is none."""
    limits = 0
    with jax.enable_x64(True):
        near = jnp.abs(end - jnp.asarray([1e-7, 1e-8, 0.0]))
        for process, predict, weight in itertools.product(PROCESSES, PREDICTIONS, WEIGHTS):
            close, closer, there = np.asarray(weight.weight(process, predict, near), np.float64)
            converges = abs(close - closer) < 1e-2 * abs(closer) or max(close, closer) < 1e-3
            case = f"{name(process)} {name(predict)} {weight}: {close} {closer} {there}"
            if end == 1.0:
                assert np.isfinite(there) == converges, case
            if np.isfinite(there):
                assert converges, case
                np.testing.assert_allclose(there, closer, rtol=1e-2, atol=1e-3, err_msg=case)
                limits += 1
    assert limits > 100


SMALL = Diffusion(Joint(), (3,), likelihood=OdeLikelihood(steps=0), sampler=DDIM(4))
FLOW, CIRCLE = RectifiedFlow(), Trigonometric()
DISCRETE = DiscreteTimes(10)


def model(**fields):
    """A small model; its weights are those of the issue's table."""
    return dataclasses.replace(SMALL, **fields)


REFUSED = [
    (
        model(process=FLOW),
        "Eps cannot be decoded by DDIM on RectifiedFlow in its step from t=1, where alpha=0",
    ),
    (
        model(process=CIRCLE, predict=Score()),
        "Score cannot be decoded by DDIM on Trigonometric .* starts at 0.999",
    ),
    (
        model(process=FLOW, predict=V(), sampler=EulerMaruyama(4)),
        "EulerMaruyama is not finite on RectifiedFlow",
    ),
    (
        model(process=FLOW, times=DISCRETE, weight=weighting.EDMLambda()),
        "EDMLambda with Eps .* DiscreteTimes draws",
    ),
    (model(predict=Score(), times=DiscreteTimes(10, low=0.0)), "Score's target is not finite at t=0 of VP"),
    (
        model(process=FLOW, times=DISCRETE, self_conditioning=0.5, sampler=DDIM(4, Uniform(0.999))),
        "Eps, decoded is not finite at t=1 of RectifiedFlow",
    ),
    (
        model(process=FLOW, sampler=DDIM(4, Uniform(0.999)), likelihood=OdeLikelihood(4)),
        "log_prob is not finite with Eps at likelihood.high=1 of RectifiedFlow: set likelihood.high=0.999",
    ),
    (model(sampler=DDIM(0)), "sampler.steps=0 of DDIM must be at least 1"),
    (model(sampler=DDIM(4, Uniform(0.2, 0.8))), "grid of DDIM goes from t=0.2 to 0.8"),
    (model(sampler=Heun(4, Uniform())), "Heun is not finite on VP in its step from t=0.25: .* ends at 0.001"),
    (
        ImprovedDDPM(Joint(), (3,), process=FLOW, steps=8),
        "Eps, decoded is not finite .*: set .* process=Cosine",
    ),
    (
        Consistency(Joint(), (3,), process=FLOW, predict=V(), low=0.01),
        "RectifiedFlow has alpha=0 at objective.high=1",
    ),
]


@pytest.mark.parametrize(
    ("objective", "message"), REFUSED, ids=lambda part: part if isinstance(part, str) else ""
)
def test_refused_in_one_line_at_init(objective, message):
    with pytest.raises(UserError, match=message) as found:
        jax.eval_shape(lambda: objective.init(jax.random.key(0), {"x": jnp.ones((2, 3))}))
    assert "\n" not in str(found.value)


EDM_STEPS = EDMSampler(4, ThenZero(Karras(0.999)))
ACCEPTED = [
    model(),
    model(process=FLOW, predict=V(), times=DISCRETE, weight=weighting.EDMLambda()),
    model(process=CIRCLE, predict=X0(), times=DISCRETE, weight=weighting.Likelihood()),
    model(process=FLOW, predict=Velocity(), times=DISCRETE, weight=weighting.Sigmoid(), sampler=EDM_STEPS),
    model(process=FLOW, sampler=EulerMaruyama(4, Uniform(0.999, 1e-3))),
    model(process=VE(), times=DiscreteTimes(10, low=0.0), sampler=Euler(4)),
    model(process=EDM(), predict=Preconditioned(), sampler=EDMSampler(4), threshold=Static()),
]


@pytest.mark.parametrize(
    "objective",
    [ACCEPTED[0], ACCEPTED[1], *(pytest.param(part, marks=pytest.mark.slow) for part in ACCEPTED[2:])],
)
def test_accepted_models_have_finite_losses_gradients_and_samples(objective):
    @jax.jit
    def found(key):
        params, extra = objective.init(key, {"x": jnp.ones((16, 3))})
        loss = lambda params: objective.loss(
            params, extra, {"x": jnp.ones((16, 3))}, Context(key, jnp.int32(0))
        )[0]
        return jax.value_and_grad(loss)(params), objective.sample(params, extra, key, 4)

    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(found(jax.random.key(0))))


def test_a_sampler_changed_after_training_is_checked():
    objective = model(process=FLOW, predict=V())
    params, extra = objective.init(jax.random.key(0), {"x": jnp.ones((2, 3))})
    changed = dataclasses.replace(objective, sampler=EulerMaruyama(4))
    with pytest.raises(UserError, match="EulerMaruyama is not finite on RectifiedFlow"):
        changed.sample(params, extra, jax.random.key(0), 2)


@pytest.mark.parametrize("guidance", [ClassifierFree(3.0, rescale=0.5), Projected(2.0), PlusPlus()], ids=name)
@pytest.mark.slow
def test_guidance_and_thresholds_are_part_of_the_check(guidance):
    for threshold in (Static(), Dynamic()):
        check_sampler(FLOW, Velocity(), DDIM(4), guidance, threshold)
        with pytest.raises(UserError, match="Eps cannot be decoded"):
            check_sampler(FLOW, Eps(), DDIM(4), guidance, threshold)
