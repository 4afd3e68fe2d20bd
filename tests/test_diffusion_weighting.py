"""Weightings and distributions of time: the papers' formulas, and independence of the parameterization."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats
from test_diffusion import PARAMETERIZATIONS, PROCESSES

from genjax.core.types import named
from genjax.diffusion import prediction, weighting
from genjax.diffusion.process import EDM, VP, Cosine, RectifiedFlow, SubVP, Trigonometric
from genjax.diffusion.times import LogitNormal, LogNormalSigma, UniformTimes
from genjax.objectives.diffusion.diffusion import Diffusion
from genjax.training.step import Context

name = lambda value: type(value).__name__
ON_EPS = [
    weighting.OnEps(),
    weighting.Likelihood(),
    weighting.P2(),
    weighting.MinSNR(),
    weighting.EDMLambda(),
    weighting.Sigmoid(bias=-1.0),
]


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("process", PROCESSES, ids=str)
@pytest.mark.parametrize("weight", ON_EPS, ids=name)
def test_a_weighted_error_is_the_same_for_every_parameterization(process, weight, float64):
    """One inexact denoiser has the loss w_eps (eps - eps_hat)^2 in every parameterization."""
    x0, eps, wrong = jax.random.normal(jax.random.key(0), (3, 7, 2), jnp.float64)
    t = jnp.linspace(0.05, 0.95, 7)
    said = prediction.from_x0(process, wrong, process.marginal(x0, eps, t), t)
    expected = weight.on_eps(process, t)[:, None] * (eps - said.eps) ** 2
    for kind in PARAMETERIZATIONS:
        error = kind.target(process, x0, eps, t) - kind.target(process, said.x0, said.eps, t)
        loss = weight.weight(process, kind, t)[:, None] * error**2
        np.testing.assert_allclose(loss, expected, rtol=1e-7)


@pytest.mark.parametrize("process", PROCESSES, ids=str)
def test_formulas_of_the_papers(process, float64):
    t = jnp.linspace(0.05, 0.95, 19)
    alpha, sigma = np.asarray(process.alpha(t)), np.asarray(process.sigma(t))
    snr, level = alpha**2 / sigma**2, sigma / alpha
    eps, x0, score = prediction.Eps(), prediction.X0(), prediction.Score()
    of = lambda weight, kind: np.asarray(weight.weight(process, kind, t))
    fall = -np.asarray(jax.vmap(jax.grad(process.log_snr))(t))
    sigmoid = lambda z: 1 / (1 + np.exp(-z))
    rows = [
        (weighting.Unit(), x0, np.ones(19)),
        (weighting.OnEps(), score, sigma**2),
        (weighting.Likelihood(), score, np.asarray(process.diffusion_squared(t))),
        (weighting.Likelihood(), eps, fall),
        (weighting.Likelihood(), x0, snr * fall),
        (weighting.P2(k=2.0, gamma=0.5), eps, 1 / np.sqrt(2.0 + snr)),
        (weighting.MinSNR(3.0), x0, np.minimum(snr, 3.0)),
        (weighting.MinSNR(3.0), eps, np.minimum(snr, 3.0) / snr),
        (weighting.EDMLambda(0.7), x0, (level**2 + 0.49) / (level * 0.7) ** 2),
        (weighting.EDMLambda(0.7), prediction.Preconditioned(0.7), np.ones(19)),
        (weighting.Sigmoid(-1.0), eps, fall * sigmoid(-1.0 - np.log(snr))),
        (weighting.Sigmoid(-1.0), x0, fall * np.exp(-1.0) * sigmoid(np.log(snr) + 1.0)),
    ]
    for weight, kind, expected in rows:
        np.testing.assert_allclose(of(weight, kind), expected, rtol=1e-8, err_msg=f"{weight} {kind}")


@pytest.mark.parametrize("process", [VP(), Cosine(), Trigonometric()], ids=name)
def test_min_snr_of_v(process, float64):
    """Variance preserving: min(SNR, gamma) / (SNR + 1), the formula of its paper for v."""
    t = jnp.linspace(0.05, 0.95, 19)
    snr = np.exp(process.log_snr(t))
    ours = weighting.MinSNR().weight(process, prediction.V(), t)
    np.testing.assert_allclose(ours, np.minimum(snr, 5.0) / (snr + 1), rtol=1e-9)


@pytest.mark.parametrize("process", [VP(), SubVP(), EDM(), RectifiedFlow()], ids=name)
def test_likelihood_weight_makes_the_loss_an_information(process, float64):
    """N(0, s^2): half the loss over [t_1, t_2] is the mutual information lost between them.

    I(x_0; x_t) = log(1 + s^2 SNR) / 2, and the best eps-prediction errs by s^2 SNR / (1 + s^2 SNR).
    """
    s2, ends = 0.3, (0.2, 0.8)
    snr = lambda t: np.exp(float(process.log_snr(jnp.asarray(t))))

    def rate(t):
        weight = weighting.Likelihood().weight(process, prediction.Eps(), jnp.asarray([t]))
        return 0.5 * float(weight[0]) * s2 * snr(t) / (1 + s2 * snr(t))

    nodes, shares = np.polynomial.legendre.leggauss(24)
    half, middle = 0.5 * (ends[1] - ends[0]), 0.5 * (ends[1] + ends[0])
    total = half * sum(share * rate(middle + half * node) for node, share in zip(nodes, shares, strict=True))
    expected = 0.5 * np.log((1 + s2 * snr(ends[0])) / (1 + s2 * snr(ends[1])))
    assert total == pytest.approx(expected, rel=1e-9)


def test_sigmoid_loss_is_an_integral_over_log_snr(float64):
    """Uniform times, the same range of log SNR: VP and rectified flow have equal losses for an error of log SNR."""
    totals, error = [], lambda snr: 1 / (2 + snr)
    for process in (VP(), RectifiedFlow()):
        first, last = (float(process.time_at(jnp.asarray(value))) for value in (4.0, -4.0))
        t = np.linspace(first, last, 4001)
        weight = weighting.Sigmoid(0.5).weight(process, prediction.Eps(), jnp.asarray(t))
        totals.append(integrate.simpson(weight * error(np.exp(process.log_snr(jnp.asarray(t)))), x=t))
    assert totals[0] == pytest.approx(totals[1], rel=1e-6)


class Silent:
    """A network with output 0."""

    def init(self, key, x, t, cond, *, out):
        return {}

    def apply(self, params, x, t, cond, *, out, **options):
        return jnp.zeros_like(x)


@dataclass(frozen=True)
class Square:
    """w = t^2."""

    def weight(self, process, predict, t):
        return t**2


def test_loss_weights_each_example_by_its_time():
    """Output 0 and target x_0 = i: the loss is the mean of w(t_i) i^2."""
    objective = Diffusion(Silent(), (3,), predict=prediction.X0(), weight=Square())
    x0 = jnp.broadcast_to(jnp.arange(1.0, 9.0)[:, None], (8, 3))
    ctx = Context(jax.random.key(5), jnp.zeros((), jnp.int32))
    value, _ = objective.loss({"net": {}}, {}, {"x": x0}, ctx)
    t = UniformTimes().draw(VP(), named(ctx.key, "times"), 8)
    np.testing.assert_allclose(value, np.mean(np.asarray(t) ** 2 * np.arange(1, 9) ** 2), rtol=1e-5)


def normal_level(process, t):
    """The distribution function of log(sigma / alpha) under `LogNormalSigma()`."""
    return stats.norm(-1.2, 1.2).cdf(-0.5 * np.asarray(process.log_snr(t)))


LAWS = [
    (UniformTimes(0.0), VP(), lambda process, t: stats.uniform.cdf(t)),
    (UniformTimes(0.2, 0.6), VP(), lambda process, t: stats.uniform(0.2, 0.4).cdf(t)),
    (
        LogitNormal(0.3, 0.8, 0.0),
        RectifiedFlow(),
        lambda process, t: stats.norm(0.3, 0.8).cdf(np.log(t / (1 - t))),
    ),
    *((LogNormalSigma(), process, normal_level) for process in (VP(), EDM(), RectifiedFlow(), Cosine())),
]


@pytest.mark.parametrize(("times", "process", "law"), LAWS, ids=name)
def test_times_have_their_distribution_and_are_stratified(times, process, law):
    draws = jax.vmap(lambda key: times.draw(process, key, 8))(jax.random.split(jax.random.key(0), 4000))
    assert draws.dtype == jnp.float32
    fractions = np.asarray(law(process, draws))
    inside = (np.asarray(draws) > times.low + 1e-6) & (np.asarray(draws) < times.high - 1e-6)
    assert inside.mean() > 0.97
    for column in fractions.T:
        assert stats.kstest(column, "uniform").statistic < 0.03
    gaps = np.diff(np.sort(fractions, axis=1), axis=1)
    np.testing.assert_allclose(gaps[inside.all(axis=1)], 1 / 8, atol=2e-3)


def test_noise_levels_outside_the_process_are_clipped():
    wide = LogNormalSigma(mean=0.0, std=30.0, low=0.0)
    t = np.asarray(wide.draw(EDM(), jax.random.key(0), 1000))
    below = stats.norm(0, 30).cdf(np.log(0.002))
    assert abs(np.mean(t < 1e-6) - below) < 0.002
    assert t.min() >= 0.0
    assert t.max() <= 1.0
