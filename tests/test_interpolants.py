"""Stochastic interpolants between two Gaussians against closed forms; their relation to rectified flow."""

import dataclasses
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import fitted_order
from scipy import stats
from scipy.optimize import linear_sum_assignment
from tiny import Affine, Tiny

from genjax.core.errors import UserError
from genjax.core.objective import Context
from genjax.core.types import named
from genjax.data import GaussianMixture
from genjax.diffusion.coupling import MinibatchOT
from genjax.diffusion.interpolants import (
    ODE,
    SDE,
    Bridge,
    EncoderDecoder,
    Estimate,
    Gamma,
    NoLatent,
    Ring,
    SinSquared,
    drift,
    time_change,
)
from genjax.diffusion.ode_likelihood import OdeLikelihood
from genjax.diffusion.prediction import Velocity
from genjax.diffusion.process import Process, RectifiedFlow, Trigonometric, derivative
from genjax.diffusion.times import UniformTimes
from genjax.objectives.diffusion.diffusion import Diffusion
from genjax.objectives.diffusion.interpolant import Interpolant

pytestmark = pytest.mark.optimised

CONTEXT = Context(key=jax.random.key(5), step=jnp.zeros((), jnp.int32))
INTERPOLANTS = [
    (RectifiedFlow(), Bridge()),
    (RectifiedFlow(), Bridge(a=0.3)),
    (Trigonometric(), NoLatent()),
    (Trigonometric(), SinSquared(0.5)),
    (EncoderDecoder(), SinSquared()),
]
names = lambda value: type(value).__name__


@dataclass(frozen=True)
class Gaussians:
    """Data N(0.7, 0.4^2), base N(-0.5, 1.2^2), drawn independently."""

    path: Process
    gamma: Gamma
    data: tuple[float, float] = (0.7, 0.4)
    base: tuple[float, float] = (-0.5, 1.2)

    def mean(self, t):
        return self.path.alpha(t) * self.data[0] + self.path.sigma(t) * self.base[0]

    def variance(self, t):
        ends = (self.path.alpha(t) * self.data[1]) ** 2 + (self.path.sigma(t) * self.base[1]) ** 2
        return ends + self.gamma.gamma(t) ** 2

    def estimate(self, x, t):
        """E[I' | x_t] and E[z | x_t] by regression: means plus covariance with x_t over its variance."""
        (alpha, alpha_rate), (beta, beta_rate) = (
            derivative(end, t) for end in (self.path.alpha, self.path.sigma)
        )
        z = (x - self.mean(t)) / self.variance(t)
        covariance = alpha * alpha_rate * self.data[1] ** 2 + beta * beta_rate * self.base[1] ** 2
        mean = alpha_rate * self.data[0] + beta_rate * self.base[0]
        return Estimate(v=mean + covariance * z, eta=self.gamma.gamma(t) * z)

    def transport(self, x, t, s):
        """The probability flow from t to s."""
        return self.mean(s) + jnp.sqrt(self.variance(s) / self.variance(t)) * (x - self.mean(t))

    @property
    def init(self):
        return lambda *inputs, **options: {}

    @property
    def apply(self):
        """As a network: the exact estimates, at one time for all examples."""

        def net(params, x, t, cond, *, out, train=False, rngs=None):
            exact = self.estimate(x, t[0])
            parts = (exact.v, exact.eta) if self.gamma.noisy else (exact.v,)
            return jnp.concatenate(parts, axis=-1)

        return net

    def draw(self, key, shape):
        """As a base."""
        return self.base[0] + self.base[1] * jax.random.normal(key, shape)

    def log_density(self, x):
        z = (x - self.base[0]) / self.base[1]
        return jnp.sum(-0.5 * z**2 - np.log(self.base[1]) - 0.5 * np.log(2 * np.pi), axis=1)


@pytest.mark.parametrize(("path", "gamma"), INTERPOLANTS, ids=names)
def test_interpolants_start_at_data_and_end_at_the_base(path, gamma):
    t = jnp.asarray([0.0, 1.0])
    np.testing.assert_allclose(path.alpha(t), [1.0, 0.0], atol=1e-7)
    np.testing.assert_allclose(path.sigma(t), [0.0, 1.0], atol=1e-7)
    np.testing.assert_allclose(gamma.gamma(t), 0.0, atol=1e-7)
    middle = {"NoLatent": 0.0, "Bridge": np.sqrt(getattr(gamma, "a", 0.0)) / 2}
    expected = middle.get(names(gamma), getattr(gamma, "scale", 0.0))
    np.testing.assert_allclose(gamma.gamma(jnp.asarray(0.5)), expected, rtol=1e-6)


@pytest.mark.parametrize(("path", "gamma"), INTERPOLANTS, ids=names)
def test_the_two_regressions_make_the_velocity(path, gamma):
    """t' v + (d gamma / du) eta is the derivative in u of the transport map between the Gaussian marginals."""
    with jax.enable_x64(True):
        exact, x, h = Gaussians(path, gamma), jnp.linspace(-2.0, 2.0, 5)[:, None], 1e-6
        for u in (0.003, 0.2, 0.7, 0.996):
            u = jnp.asarray(u)
            ends = [exact.transport(x, time_change(u), time_change(u + side * h)) for side in (1, -1)]
            ours = drift(exact.estimate(x, time_change(u)), gamma, u)
            np.testing.assert_allclose(ours, (ends[0] - ends[1]) / (2 * h), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("heun", 2), ("rk4", 4)])
def test_flows_are_solved_to_their_order(method, order):
    """With gamma' infinite at both ends, down to u = 0.001."""
    with jax.enable_x64(True):
        exact = Gaussians(*INTERPOLANTS[0])
        x, steps, errors = jnp.linspace(-2.0, 2.0, 5)[:, None], [16, 32, 64], []
        expected = exact.transport(x, time_change(jnp.asarray(0.999)), time_change(jnp.asarray(0.001)))
        for number in steps:
            end = ODE(number, method).solve(exact.estimate, exact.gamma, x, CONTEXT.key)
            errors.append(float(jnp.max(jnp.abs(end - expected))))
        assert abs(fitted_order([1 / number for number in steps], errors) - order) < 0.2


@pytest.mark.parametrize(
    ("path", "gamma", "solver"),
    [
        (*INTERPOLANTS[0], ODE(60)),
        (*INTERPOLANTS[0], SDE(400)),
        (*INTERPOLANTS[3], SDE(400, scale=0.5, power=2.0)),
        (*INTERPOLANTS[4], SDE(400, scale=2.0)),
        (*INTERPOLANTS[2], ODE(60, "rk4")),
    ],
    ids=names,
)
def test_solvers_sample_the_data(path, gamma, solver):
    """Mean, variance and distribution (KS) of the objective's samples with an exact network."""
    exact, num = Gaussians(path, gamma), 20_000
    ours = Interpolant(exact, (1,), path=path, gamma=gamma, base=exact, sampler=solver)
    x = np.asarray(jax.jit(lambda key: ours.sample({"net": {}}, {}, key, num))(jax.random.key(3)))[:, 0]
    mean, std = exact.data
    assert abs(x.mean() - mean) < 4 * std / np.sqrt(num) + 2e-3
    assert abs(x.var() / std**2 - 1) < 4 * np.sqrt(2 / num) + 0.01
    assert stats.kstest(x.astype(np.float64), stats.norm(mean, std).cdf).statistic < 0.015


def test_noise_of_any_scale_preserves_the_marginals():
    """Halfway, too, and with a constant epsilon: variance at u = 0.3 of paths that start at u = 0.7."""
    exact, num = Gaussians(*INTERPOLANTS[0]), 10_000
    first, last = time_change(jnp.asarray(0.7)), time_change(jnp.asarray(0.3))
    start = exact.mean(first) + jnp.sqrt(exact.variance(first)) * jax.random.normal(CONTEXT.key, (num, 1))
    for solver in (SDE(300, 0.5, 0.0, 0.3), SDE(300, 2.0, 1.0, 0.3)):
        end = jax.jit(lambda x, solver=solver: solver.solve(exact.estimate, exact.gamma, x, CONTEXT.key))(
            start
        )
        assert abs(jnp.mean(end) - exact.mean(last)) < 5 * jnp.sqrt(exact.variance(last) / num) + 2e-3
        assert abs(jnp.var(end) / exact.variance(last) - 1) < 5 * np.sqrt(2 / num) + 5e-3


@pytest.mark.parametrize(("path", "gamma"), [INTERPOLANTS[0], INTERPOLANTS[2]], ids=names)
def test_likelihood_is_the_datas_density(path, gamma):
    exact = Gaussians(path, gamma)
    solver = OdeLikelihood(steps=40, method="rk4", probes=0, low=1e-3, high=0.999, power=1.0)
    ours = Interpolant(exact, (2,), path=path, gamma=gamma, base=exact, likelihood=solver)
    x = jnp.asarray([[0.7, 0.7], [0.2, 1.5], [-0.1, 0.4]])
    values = jax.jit(lambda x: ours.log_prob({"net": {}}, {}, {"x": x}, CONTEXT.key))(x)
    np.testing.assert_allclose(values, stats.norm(*exact.data).logpdf(x).sum(axis=1), atol=2e-3)


def test_rectified_flow_is_the_interpolant_without_latent_noise():
    """The same loss on the same draws, from the same network."""
    x0 = jax.random.normal(jax.random.key(0), (32, 2))
    flow = Diffusion(Tiny(), (2,), process=RectifiedFlow(), predict=Velocity())
    ours = Interpolant(Tiny(), (2,), gamma=NoLatent())
    params, _ = jax.jit(flow.init)(jax.random.key(1), {"x": x0})
    losses = [jax.jit(each.loss)(params, {}, {"x": x0}, CONTEXT)[0] for each in (flow, ours)]
    np.testing.assert_allclose(*losses, rtol=1e-6)


@pytest.mark.slow
def test_loss_is_the_two_regressions():
    """Against an explicit computation with scipy's assignment on the same draws, between a ring and data."""
    x0 = np.random.RandomState(0).randn(32, 2).astype(np.float32)
    ring = Ring(5, 2.0, 0.3)
    ours = Interpolant(Tiny(), (2,), gamma=Bridge(0.5), base=ring, coupling=MinibatchOT())
    params, _ = jax.jit(ours.init)(jax.random.key(1), {"x": jnp.asarray(x0)})
    loss, aux = jax.jit(ours.loss)(params, {}, {"x": x0}, CONTEXT)
    t = np.asarray(UniformTimes().draw(RectifiedFlow(), named(CONTEXT.key, "times"), 32))[:, None]
    x1 = np.asarray(ring.draw(named(CONTEXT.key, "noise"), (32, 2)))
    x1 = x1[linear_sum_assignment(np.sum((x0[:, None] - x1[None]) ** 2, axis=2))[1]]
    z = np.asarray(jax.random.normal(named(CONTEXT.key, "latent"), (32, 2)))
    x = (1 - t) * x0 + t * x1 + np.sqrt(0.5 * t * (1 - t)) * z
    out = np.asarray(Tiny().apply(params["net"], jnp.asarray(x), jnp.asarray(t[:, 0]), out=(4,)))
    parts = [np.mean((out[:, :2] - (x1 - x0)) ** 2), np.mean((out[:, 2:] - z) ** 2)]
    np.testing.assert_allclose(loss, sum(parts), rtol=1e-4)
    np.testing.assert_allclose([aux.metrics["v"], aux.metrics["eta"]], parts, rtol=1e-4)


def test_the_losses_minimisers_are_conditional_expectations():
    """At a fixed time both are affine in x_t: the loss is stationary there, within 5 standard errors."""
    exact, num, t = Gaussians(*INTERPOLANTS[3]), 50_000, jnp.asarray(0.3)
    times = UniformTimes(0.3, 0.3)
    ours = Interpolant(Affine(), (1,), path=exact.path, gamma=exact.gamma, base=exact, times=times)
    x0 = exact.data[0] + exact.data[1] * jax.random.normal(jax.random.key(0), (num, 1))
    known = jax.jit(exact.estimate)(jnp.asarray([[0.0], [1.0]]), t)
    rows = np.concatenate([known.v, known.eta], axis=1)
    leaf = {"kernel": rows[1:] - rows[:1], "bias": rows[0]}
    params = {"net": {"params": {"Dense_0": leaf}}}
    loss = lambda params: ours.loss(params, {}, {"x": x0}, CONTEXT)[0]
    slope = jax.jit(jax.grad(loss))(params)["net"]["params"]["Dense_0"]
    away = jax.jit(jax.grad(loss))(jax.tree.map(lambda leaf: 0.5 * leaf, params))["net"]["params"]["Dense_0"]
    for name in leaf:
        assert float(jnp.max(jnp.abs(slope[name]))) < 5 * 2 * 2.5 / np.sqrt(num)
    assert float(jnp.min(jnp.abs(away["kernel"]))) > 5 * 2 * 2.5 / np.sqrt(num)


def test_ring_is_the_mixture_of_its_fields():
    """Log-density of the data set's ring; samples have its covariance and all modes."""
    ring, num = Ring(8, 1.5, 0.2), 10_000
    x = jax.jit(ring.draw, static_argnums=1)(jax.random.key(0), (num, 2))
    mixture = GaussianMixture(count=8, radius=1.5, noise=0.2)
    np.testing.assert_allclose(
        jax.jit(ring.log_density)(x[:100]), mixture.log_density(np.asarray(x[:100])), atol=1e-4
    )
    np.testing.assert_allclose(np.cov(x.T), (1.5**2 / 2 + 0.2**2) * np.eye(2), atol=5 * 1.2 / np.sqrt(num))
    nearest = np.argmin(np.linalg.norm(np.asarray(x)[:, None] - mixture.modes()[0][None], axis=2), axis=1)
    assert stats.chisquare(np.bincount(nearest, minlength=8)).pvalue > 1e-3
    with pytest.raises(UserError, match="for points of shape"):
        ring.draw(jax.random.key(0), (4, 3))


def test_sde_without_latent_noise_raises():
    ours = Interpolant(Tiny(), (2,), gamma=NoLatent(), sampler=SDE())
    params, _ = jax.jit(ours.init)(jax.random.key(1), {"x": jnp.zeros((2, 2))})
    with pytest.raises(UserError, match="score"):
        ours.sample(params, {}, jax.random.key(0), 4)
    assert dataclasses.replace(ours, likelihood=OdeLikelihood(steps=0)).log_prob_kind == ""
