"""The variational bound with a learned schedule: against known densities, and the gradients of its players."""

import dataclasses
import functools
from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import GaussianData
from scipy import stats

from genjax.core.errors import UserError
from genjax.core.objective import Context
from genjax.diffusion.learned import LearnedProcess
from genjax.diffusion.ode_likelihood import OdeLikelihood
from genjax.diffusion.process import VP
from genjax.distributions import gaussian
from genjax.networks import MLP, FixedLinear, FourierFeatures, LearnedLinear, Monotone
from genjax.objectives.diffusion.vdm import VDM
from genjax.samplers.dpm import DPMSolverPP
from genjax.samplers.grids import LogSNR
from genjax.samplers.sde import Ancestral

DATA = GaussianData()
KEY = jax.random.key(0)
WIDE = FixedLinear(-18.0, 18.0)
LEARNED = Monotone(-6.0, 5.0, width=8)
with jax.enable_x64(True):
    POINTS = jnp.asarray([[-0.4], [0.5], [0.7], [1.9]])
PLAIN = {"net": {}}
HERMITE = tuple(np.polynomial.hermite_e.hermegauss(2))  # exact where the error is linear in eps


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@dataclass(frozen=True)
class Exact:
    """As a network: (1 + bias) E[eps | z] + bend sin(z), for Gaussian data, or for data that are -1 or 1."""

    start: float = -18.0
    end: float = 18.0
    bias: float = 0.0
    bend: float = 0.0
    binary: bool = False

    def init(self, *inputs, **options):
        return {}

    def apply(self, params, z, time, cond=None, **options):
        gamma = (self.start + (self.end - self.start) * time)[:, None]
        alpha, sigma = jnp.sqrt(jax.nn.sigmoid(-gamma)), jnp.sqrt(jax.nn.sigmoid(gamma))
        if self.binary:
            return (z - alpha * jnp.tanh(alpha * z / sigma**2)) / sigma
        eps = sigma * (z - alpha * DATA.mean) / (alpha**2 * DATA.std**2 + sigma**2)
        return (1 + self.bias) * eps + self.bend * jnp.sin(z)


def exact(schedule=WIDE, **changes):
    of_net = {name: changes.pop(name) for name in ("bias", "bend", "binary") if name in changes}
    return VDM(Exact(schedule.start, schedule.end, **of_net), (1,), schedule=schedule, **changes)


def parameters(schedule, seed=0):
    """Parameters of a strongly nonlinear schedule."""
    drawn = schedule.init(jax.random.key(seed), jnp.zeros(1))
    noise = lambda leaf: leaf + 0.5 * jax.random.normal(jax.random.key(seed + 1), leaf.shape)
    moved = {
        name: leaf if name in ("start", "end") else noise(leaf) for name, leaf in drawn["params"].items()
    }
    return {"net": {}, "schedule": {"params": jax.tree.map(lambda leaf: leaf.astype(jnp.float64), moved)}}


@functools.partial(jax.jit, static_argnums=0)
def integrated(objective, params=PLAIN, x=POINTS, noise=HERMITE):
    """The diffusion term's expectation for each x, by quadrature over eps and t (or the sum over t)."""
    process, nodes = objective.process(params), 300
    if objective.steps:
        t, share = (
            np.arange(1, objective.steps + 1) / objective.steps,
            np.full(objective.steps, 1 / objective.steps),
        )
    else:
        t, share = np.polynomial.legendre.leggauss(nodes)
        t, share = 0.5 * (t + 1), 0.5 * share
    eps, weights = noise[0], noise[1] / jnp.sum(noise[1])
    grid = jnp.meshgrid(x[:, 0], jnp.asarray(t), jnp.asarray(eps), indexing="ij")
    flat_x, flat_t, flat_eps = (axis.ravel() for axis in grid)
    each = objective.diffusion(params, process, flat_x[:, None], flat_eps[:, None], flat_t)
    return jnp.einsum(
        "xte,t,e->x", each.reshape(len(x), len(t), -1), jnp.asarray(share), jnp.asarray(weights)
    )


@functools.partial(jax.jit, static_argnums=0)
def bound(objective, x=POINTS):
    """The bound on -log p(x) of continuous data, with a schedule that is not learned."""
    process = objective.process(PLAIN)
    rest = objective.prior(process, x) + objective.reconstruction(process, x, jnp.zeros_like(x))
    return rest + integrated(objective, PLAIN, x)


def test_the_bound_is_exact_for_the_exact_denoiser():
    """For each x, in the limit of a wide range of SNR: the errors of prior and reconstruction are of order e^-18."""
    np.testing.assert_allclose(-bound(exact()), DATA.log_density(np.asarray(POINTS)), atol=1e-6)


def test_the_discrete_bound_falls_towards_the_continuous_one():
    """More steps are a tighter bound; the gap falls like 1 / T."""
    steps = (4, 16, 500, 1000)
    gaps = np.asarray([jnp.mean(bound(exact(steps=T)) - bound(exact())) for T in steps])
    assert np.all(gaps > 0)
    assert np.all(np.diff(gaps) < 0)
    assert 1.9 < gaps[-2] / gaps[-1] < 2.1


def test_bound_of_an_inexact_network_grows_by_its_error():
    """On average over the data: the entropy, and half the integral over gamma of the squared deviation."""
    bias = 0.3
    gamma = np.linspace(-18.0, 18.0, 20001)
    alpha2, sigma2 = stats.logistic.cdf(-gamma), stats.logistic.cdf(gamma)
    gap = 0.5 * bias**2 * np.trapezoid(sigma2 / (alpha2 * DATA.std**2 + sigma2), gamma)
    x = DATA.mean + DATA.std * jnp.asarray([[-1.0], [1.0]])  # exact for squares
    entropy = 0.5 * (1 + np.log(2 * np.pi)) + np.log(DATA.std)
    assert gap > 0.1
    np.testing.assert_allclose(jnp.mean(bound(exact(bias=bias), x=x)), entropy + gap, atol=1e-6)


@pytest.mark.slow
def test_the_bound_does_not_depend_on_the_interior():
    """For any network with gamma as its input, also for the gradient; the end points matter."""
    linear = exact(FixedLinear(-6.0, 5.0), bias=0.2, bend=0.5)
    learned = exact(LEARNED, bias=0.2, bend=0.5)
    params = parameters(LEARNED)
    t = jnp.linspace(0.0, 1.0, 101)
    assert np.abs(learned.process(params).gamma(t) - linear.process(params).gamma(t)).max() > 0.5
    np.testing.assert_allclose(integrated(learned, params), integrated(linear), rtol=1e-9)
    slope = jax.jit(jax.grad(lambda params: jnp.sum(integrated(learned, params))))(params)["schedule"][
        "params"
    ]
    for name, leaf in slope.items():
        assert (np.abs(leaf).max() > 0.1) == (name in ("start", "end")), name
        assert np.abs(leaf).max() < 1e-8 or name in ("start", "end"), name


@pytest.mark.slow
def test_monotone_rises_between_its_ends():
    t = jnp.linspace(0.0, 1.0, 1001)
    for seed in range(5):
        params = parameters(LEARNED, seed)["schedule"]
        params["params"] |= {"start": jnp.asarray(-2.5), "end": jnp.asarray(1.5)}
        gamma = LEARNED.apply(params, t)
        assert np.all(np.diff(gamma) > 0)
        np.testing.assert_allclose(gamma[jnp.asarray([0, -1])], [-2.5, 1.5], atol=1e-12)
    young = Monotone().apply(Monotone().init(KEY, t), t)
    np.testing.assert_allclose(young, FixedLinear().apply({}, t), atol=0.05 * 18.3)
    line = LearnedLinear().apply({"params": {"start": jnp.asarray(-1.0), "end": jnp.asarray(3.0)}}, t)
    np.testing.assert_allclose(line, 4.0 * t - 1.0, atol=1e-12)


@pytest.mark.slow
def test_each_part_of_the_schedule_minimises_its_loss():
    """End points: the bound's gradient, by differences. Interior: the gradient of the estimate's mean square."""
    objective, params = exact(LEARNED, bias=0.2, bend=0.5), parameters(LEARNED)
    batch, ctx = {"x": jnp.tile(POINTS, (8, 1))}, Context(KEY, 0, True)
    player = objective.players()["schedule"]
    slope = jax.jit(jax.grad(lambda p: player.loss(p, {}, batch, ctx)[0]))(params)["schedule"]["params"]

    @jax.jit
    def losses(schedule):
        moved = {"net": {}, "schedule": {"params": schedule}}
        terms = objective.terms(moved, batch, ctx)
        return jnp.mean(sum(terms.values())), jnp.mean(terms["diffusion"] ** 2)

    own = params["schedule"]["params"]
    for name in own:
        direction = jax.random.normal(KEY, own[name].shape)
        h = 1e-5
        up, down = (losses(own | {name: own[name] + sign * h * direction}) for sign in (1, -1))
        of_bound, of_square = ((high - low) / (2 * h) for high, low in zip(up, down, strict=True))
        expected = of_bound if name in ("start", "end") else of_square
        np.testing.assert_allclose(jnp.sum(slope[name] * direction), expected, rtol=1e-5, err_msg=name)


@pytest.mark.slow
def test_descending_the_square_lowers_the_variance_alone():
    """Some updates of the schedule's interior: the bound is unchanged, the estimate's variance decreases."""
    objective, params = exact(LEARNED, bias=0.2, bend=0.5), parameters(LEARNED)
    batch = {"x": jnp.tile(POINTS, (256, 1))}

    @jax.jit
    def variance(params):
        return jnp.var(objective.terms(params, batch, Context(KEY, 0, True))["diffusion"])

    @jax.jit
    def move(params, index):
        ctx = Context(jax.random.fold_in(KEY, index), 0, True)
        slope = jax.grad(lambda p: objective.schedule_loss(p, {}, batch, ctx)[0])(params)["schedule"][
            "params"
        ]
        own = params["schedule"]["params"]
        new = {k: own[k] - (0.0 if k in ("start", "end") else 0.02) * slope[k] for k in own}
        return {"net": {}, "schedule": {"params": new}}

    after = params
    for index in range(60):
        after = move(after, index)
    assert variance(after) < 0.8 * variance(params)
    np.testing.assert_allclose(integrated(objective, after), integrated(objective, params), rtol=1e-6)


@pytest.mark.slow
def test_discrete_time_moves_the_whole_schedule_down_the_bound():
    objective, params = exact(LEARNED, steps=3), parameters(LEARNED)
    batch, ctx = {"x": POINTS}, Context(KEY, 0, True)
    ours = jax.jit(jax.grad(lambda p: objective.schedule_loss(p, {}, batch, ctx)[0]))(params)
    bound = jax.jit(jax.grad(lambda p: jnp.mean(sum(objective.terms(p, batch, ctx).values()))))(params)
    jax.tree.map(np.testing.assert_allclose, ours, bound)
    assert np.abs(ours["schedule"]["params"]["shift"]).max() > 1e-4


@pytest.mark.parametrize("steps", [0, 7])
def test_loss_and_log_prob_estimate_the_bound(steps):
    """Means over many copies, within four standard errors of the quadrature."""
    objective = exact(FixedLinear(-6.0, 5.0), bias=0.2, steps=steps, times=16)
    x, num = POINTS[:1], 4096
    batch, expected = {"x": jnp.tile(x, (num, 1))}, float(bound(objective, x=x)[0])
    one, many = jax.jit(
        lambda: (
            sum(objective.terms(PLAIN, batch, Context(KEY, 0, True)).values()),
            -objective.log_prob(PLAIN, {}, batch, KEY),
        )
    )()
    one, many = np.asarray(one), np.asarray(many)
    assert abs(one.mean() - expected) < 4 * one.std() / np.sqrt(num)
    assert abs(many.mean() - expected) < 4 * many.std() / np.sqrt(num)
    assert many.std() < 0.5 * one.std()
    assert ("7 steps" if steps else "16 times") in objective.log_prob_kind


def test_binary_data_cost_log_two():
    """Data -1 or 1 with even odds, exact denoiser: the bound is log 2 for each (I-MMSE), as a density log 4."""
    objective = exact(FixedLinear(-9.0, 9.0), binary=True, levels=2)
    x = jnp.asarray([[-1.0], [1.0]])
    hermite = tuple(np.polynomial.hermite_e.hermegauss(60))
    np.testing.assert_allclose(integrated(objective, x=x, noise=hermite), np.log(2), atol=2e-4)
    rest = objective.reconstruction(objective.process(PLAIN), x, jnp.ones_like(x))
    np.testing.assert_allclose(rest, 0.0, atol=1e-9)
    values = jax.jit(lambda: objective.log_prob(PLAIN, {}, {"x": jnp.tile(x, (2000, 1))}, KEY))()
    np.testing.assert_allclose(
        values.mean(), -2 * np.log(2), atol=5 * float(values.std()) / np.sqrt(4000) + 2e-4
    )


def test_the_softmax_likelihood_is_a_normalised_gaussian():
    levels, gamma = 17, jnp.asarray(-4.0)
    values = np.linspace(-1, 1, levels)
    center = jnp.asarray([-1.2, 0.03, 0.5])
    rows = jnp.stack([gaussian.log_softmax(jnp.full(3, v), center, gamma, levels) for v in values])
    density = stats.norm(np.asarray(center)[None, :], np.exp(-2.0)).pdf(values[:, None])
    np.testing.assert_allclose(jnp.exp(rows).sum(axis=0), 1.0, rtol=1e-12)
    np.testing.assert_allclose(jnp.exp(rows), density / density.sum(axis=0), rtol=1e-9)
    objective = VDM(MLP(), (3,), schedule=FixedLinear(-4.0, 5.0), levels=levels)
    eps = jnp.asarray([[0.3, -1.0, 2.0]])
    x = jnp.asarray(values[[0, 8, 16]])[None]
    z = x + np.exp(-2.0) * eps
    ours = objective.reconstruction(objective.process(PLAIN), x, eps)
    np.testing.assert_allclose(ours, -jnp.sum(gaussian.log_softmax(x, z, gamma, levels), axis=1), rtol=1e-9)


def test_the_process_of_vps_log_snr_is_vp():
    process, t = LearnedProcess(lambda t: -VP().log_snr(t)), jnp.linspace(0.01, 1.0, 50)
    for name in ("alpha", "sigma", "log_snr", "drift", "diffusion_squared"):
        np.testing.assert_allclose(getattr(process, name)(t), getattr(VP(), name)(t), rtol=1e-7, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize(
    "sampler", [Ancestral(steps=200, variance=0.0), DPMSolverPP(steps=40, grid=LogSNR(end=0.0))], ids=str
)
def test_samplers_work_with_a_learned_process(sampler):
    """Compiled with the schedule's parameters as arguments: the samples have the data's distribution."""
    objective = exact(dataclasses.replace(LEARNED, start=-9.0, end=9.0), sampler=sampler)
    params, num = parameters(objective.schedule), 20_000
    x = jax.jit(lambda params: objective.sample(params, {}, KEY, num))(params)
    x = np.asarray(x, np.float64)[:, 0]
    assert abs(x.mean() - DATA.mean) < 4 * DATA.std / np.sqrt(num) + 4e-3
    assert abs(x.var() / DATA.std**2 - 1) < 4 * np.sqrt(2 / num) + 2e-2
    assert stats.kstest(x, stats.norm(DATA.mean, DATA.std).cdf).statistic < 0.015


def test_ode_likelihood_works_with_a_learned_process():
    objective = exact(dataclasses.replace(LEARNED, start=-14.0, end=22.0))
    params = parameters(objective.schedule)
    solver = OdeLikelihood(steps=300, method="rk4", probes=0, low=0.0, power=1.0)
    ours = jax.jit(lambda p: solver.log_prob(objective.denoise(p), objective.process(p), POINTS, KEY))(params)
    np.testing.assert_allclose(ours, DATA.log_density(np.asarray(POINTS)), atol=1e-4)


def test_fourier_features_are_waves_of_the_input():
    """The wrapped network's input is x and its Fourier features of period 2^(1 - n)."""

    class Seen(nn.Module):
        def __call__(self, x, t, cond, *, out, train):
            return x

    x = jnp.asarray([[0.1, -0.7], [0.9, 0.25]])
    seen = FourierFeatures(Seen(), 1, 2).apply({}, x, out=2)
    waves = [wave(2**n * np.pi * x) for n in (1, 2) for wave in (np.sin, np.cos)]
    np.testing.assert_allclose(seen, np.concatenate([x, *waves], axis=1), atol=1e-12)
    shifted = FourierFeatures(Seen(), 1, 2).apply({}, x + 1.0, out=2)
    np.testing.assert_allclose(shifted[:, 2:], seen[:, 2:], atol=1e-12)


def test_invalid_settings_raise():
    for change in ({"levels": 1}, {"steps": -1}, {"shape": (3,)}):
        with pytest.raises(UserError):
            dataclasses.replace(exact(), **change).init(KEY, {"x": POINTS})
