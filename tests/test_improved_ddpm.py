"""Learned step variances: the bound against known densities, its optimum, its gradients; importance-sampled times."""

import collections
import dataclasses
import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import GaussianData
from scipy import stats

from genjax.core.errors import UserError
from genjax.core.objective import Context
from genjax.core.types import named
from genjax.diffusion import loss_history
from genjax.diffusion.guidance import ClassifierFree
from genjax.diffusion.process import VE, Cosine, Process
from genjax.diffusion.tables import discretise
from genjax.diffusion.threshold import Static
from genjax.distributions import gaussian
from genjax.objectives.diffusion.improved_ddpm import ImprovedDDPM
from genjax.samplers.grids import Uniform
from genjax.samplers.sde import Ancestral

pytestmark = pytest.mark.optimised

DATA = GaussianData()
KEY = jax.random.key(0)
with jax.enable_x64(True):
    POINTS = jnp.asarray([[-0.4], [0.5], [0.7], [1.9]])
    PARAMS = {"net": {"mean": jnp.zeros(()), "v": jnp.zeros(())}}


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@dataclass(frozen=True)
class Exact:
    """As a network: E[eps | x_t], and the v of the exact reverse variance, or a constant v; both may be perturbed."""

    process: Process
    steps: int
    v: float | None = None

    def init(self, *inputs, **options):
        return {"mean": jnp.zeros(()), "v": jnp.zeros(())}

    def exponents(self):
        """v with beta^v beta_tilde^(1 - v) = Var(x_{i-1} | x_i) = beta_tilde + c_x0^2 Var(x_0 | x_i), [T]."""
        tables, t = (
            discretise(self.process, self.steps, max_beta=1.0),
            np.arange(1, self.steps + 1) / self.steps,
        )
        alpha, sigma = (
            np.asarray(self.process.alpha(jnp.asarray(t))),
            np.asarray(self.process.sigma(jnp.asarray(t))),
        )
        of_x0 = DATA.std**2 * sigma**2 / (alpha**2 * DATA.std**2 + sigma**2)
        variance = tables.variance + tables.coefficients[0] ** 2 * of_x0
        small = np.append(tables.variance[1], tables.variance[1:])
        return np.log(variance / small) / np.log(tables.beta / small)

    def apply(self, params, x, t, cond=None, *, out, **options):
        with jax.ensure_compile_time_eval():
            v = jnp.asarray(self.exponents())
        v = v[jnp.round(t * self.steps).astype(int) - 1] if self.v is None else jnp.full_like(t, self.v)
        eps = DATA.denoise(self.process)(x, t).eps + params["mean"]
        return jnp.concatenate([eps, jnp.broadcast_to((2 * v - 1)[:, None] + params["v"], eps.shape)], axis=1)


def exact(steps=5, process=Cosine(), v=None, **changes):
    return ImprovedDDPM(Exact(process, steps, v), (1,), process=process, steps=steps, **changes)


@functools.partial(jax.jit, static_argnums=0)
def by_step(objective, params=PARAMS, x=POINTS, noise=((-1.0, 1.0), (0.5, 0.5))):
    """E_eps[L_i] for each x and i, [x, T]; two nodes are exact where the loss is a square of eps."""
    nodes, weights = (jnp.asarray(row) for row in noise)
    grid = jnp.meshgrid(x[:, 0], jnp.arange(objective.steps), nodes, indexing="ij")
    x0, index, eps = (axis.ravel() for axis in grid)
    each = objective.terms(params, x0[:, None], eps[:, None], index)[1]
    return each.reshape(len(x), objective.steps, -1) @ (weights / jnp.sum(weights))


def bound(objective, x=POINTS, **options):
    """L_vlb for each x."""
    return jnp.sum(by_step(objective, PARAMS, x, **options), axis=1) + objective.process.prior_kl(
        x, jnp.ones(())
    )


@pytest.mark.parametrize("steps", [2, 5, 40])
@pytest.mark.parametrize(
    "process", [Cosine(), VE(sigma_min=0.1, sigma_max=2e3)], ids=lambda p: type(p).__name__
)
def test_the_bound_is_exact_for_exact_steps(process, steps):
    """The reverse steps of Gaussian data are Gaussian: with the exact mean and v the bound is tight for any T and x."""
    np.testing.assert_allclose(-bound(exact(steps, process)), DATA.log_density(np.asarray(POINTS)), atol=2e-5)


@pytest.mark.slow
def test_with_the_variance_beta_the_gap_falls_with_the_number_of_steps():
    """On average over the data, where v = 1 at every step."""
    x = DATA.mean + DATA.std * jnp.asarray([[-1.0], [1.0]])  # exact for squares
    entropy = 0.5 * (1 + np.log(2 * np.pi)) + np.log(DATA.std)
    gaps = np.asarray([jnp.mean(bound(exact(steps, v=1.0), x)) - entropy for steps in (4, 16, 64)])
    assert np.all(gaps > 0)
    assert np.all(np.diff(gaps) < 0), gaps


@pytest.mark.slow
def test_each_step_is_best_at_the_true_variance():
    """On average over data and noise L_i is stationary in v at the true posterior's, between beta_tilde and beta."""
    objective, x = exact(8), DATA.mean + DATA.std * jnp.asarray([[-1.0], [1.0]])

    def mean(shift):
        return jnp.mean(by_step(objective, {"net": PARAMS["net"] | {"v": shift}}, x), axis=0)

    zero = jnp.zeros(())
    slope, curvature = jax.jacfwd(mean)(zero), jax.jacfwd(jax.jacfwd(mean))(zero)
    np.testing.assert_allclose(slope, 0.0, atol=1e-9)
    assert np.all(curvature > 1e-4)
    v = objective.net.exponents()[1:]
    assert np.all((v > 0) & (v < 1))


def test_gaussian_kl_is_the_integral():
    x = np.linspace(-30, 30, 200_001)
    for gap, std_q, std_p in [(0.7, 1.3, 0.8), (0.0, 0.5, 2.0)]:
        q, p = stats.norm(1.0, std_q), stats.norm(1.0 + gap, std_p)
        expected = np.trapezoid(q.pdf(x) * (q.logpdf(x) - p.logpdf(x)), x)
        ours = gaussian.gaussian_kl(
            *(jnp.asarray(value) for value in (gap, 2 * np.log(std_q), 2 * np.log(std_p)))
        )
        np.testing.assert_allclose(ours, expected, rtol=1e-9)


def test_the_mean_learns_from_the_simple_loss_and_v_from_the_bound():
    """Hybrid: slopes of the two parameters are those of the two losses alone. With "vlb" both learn from the bound."""
    net, batch, ctx = {"mean": jnp.asarray(0.3), "v": jnp.asarray(-0.2)}, {"x": POINTS}, Context(KEY, 0, True)
    hybrid = exact(weight=0.01)
    whole = exact(criterion="vlb")
    slope = lambda objective: jax.jit(jax.grad(lambda n: objective.loss({"net": n}, {}, batch, ctx)[0]))(net)
    metrics = lambda n: whole.loss({"net": n}, {}, batch, ctx)[1].metrics
    ours, slopes = slope(hybrid), jax.jit(jax.jacrev(metrics))(net)
    simple, vlb = slopes["simple"], slopes["vlb"]
    np.testing.assert_allclose(ours["mean"], simple["mean"], rtol=1e-12)
    np.testing.assert_allclose(ours["v"], 0.01 * vlb["v"], rtol=1e-12)
    assert min(abs(vlb["mean"]), abs(simple["mean"]), abs(vlb["v"])) > 1e-3
    assert simple["v"] == 0
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-12), slope(whole), vlb)


def test_cells_sum_to_one():
    """Differences of the normal distribution function, summing to 1; values and gradients are finite in the tails."""
    levels = 256
    cells = jax.jit(lambda x, m, s: gaussian.log_cells(x, m, s, levels))
    values = np.linspace(-1, 1, levels)
    mean, std = np.array([0.1, -0.9, 1.3]), np.array([0.3, 0.01, 0.05])
    x, m, s = (jnp.asarray(np.broadcast_to(a, (levels, 3))) for a in (values[:, None], mean, np.log(std)))
    ours = cells(x, m, s)
    np.testing.assert_allclose(jnp.exp(ours).sum(axis=0), 1.0, rtol=1e-9)
    edges = np.concatenate([[-np.inf], 0.5 * (values[1:] + values[:-1]), [np.inf]])[:, None]
    expected = np.diff(stats.norm(mean, std).cdf(edges), axis=0)
    likely = expected > 1e-8
    np.testing.assert_allclose(np.exp(ours)[likely], expected[likely], rtol=1e-7)
    x, m, s = (jnp.asarray(a, jnp.float32) for a in (x, m, np.log(std / 30) + np.zeros_like(x)))
    far = cells(x, m, s)
    slopes = jax.jit(jax.grad(lambda m, s: jnp.sum(cells(x, m, s)), (0, 1)))(m, s)
    assert far.dtype == jnp.float32
    np.testing.assert_allclose(far, cells(-x, -m, s), rtol=1e-3)  # both tails alike
    assert all(np.isfinite(leaf).all() for leaf in (far, *slopes))


def test_the_bound_is_one_on_the_probability_of_discrete_data():
    """Summed over all values exp(-L_vlb) cannot exceed 1 for any model; here it is close to 1."""
    levels = 5
    hermite = tuple(tuple(row) for row in np.polynomial.hermite_e.hermegauss(40))
    x = jnp.linspace(-1.0, 1.0, levels)[:, None]
    totals = [
        float(jnp.sum(jnp.exp(-bound(exact(6, v=v, levels=levels), x, noise=hermite)))) for v in (None, 3.0)
    ]
    assert 0.5 < totals[0] < 1
    assert totals[1] < totals[0]


def test_loss_and_log_prob_estimate_the_bound():
    objective, x, num = exact(6, v=1.0, criterion="vlb"), POINTS[:1], 4096
    batch, expected = {"x": jnp.tile(x, (num, 1))}, float(bound(objective, x)[0])
    values = np.asarray(jax.jit(lambda: objective.log_prob(PARAMS, {}, batch, KEY))())
    assert abs(values.mean() + expected) < 4 * values.std() / np.sqrt(num)
    steps = expected - float(objective.process.prior_kl(x, jnp.ones(()))[0])
    loss, aux = jax.jit(lambda: objective.loss(PARAMS, {}, batch, Context(KEY, 0, True)))()
    assert abs(loss - steps) < 0.1
    np.testing.assert_allclose(loss, aux.metrics["vlb"])
    assert objective.log_prob_kind == "lower bound (VLB, 6 steps)"


@pytest.mark.slow
def test_importance_sampling_is_unbiased():
    """Weighted losses at the drawn times have the uniform mean for any history; draws are stratified."""
    losses = jnp.asarray(np.random.default_rng(0).lognormal(size=7))
    past = loss_history.History(jnp.outer(losses**2, jnp.ones(10)), jnp.full(7, 10.0))
    p, num = loss_history.probabilities(past), 70_000
    np.testing.assert_allclose(p, 0.999 * losses / losses.sum() + 1e-3 / 7, rtol=1e-12)
    index, weight = loss_history.draw(p, KEY, num)
    np.testing.assert_allclose(np.bincount(index, minlength=7) / num, p, atol=2 / num)
    np.testing.assert_allclose(jnp.mean(weight * losses[index]), losses.mean(), rtol=1e-3)
    assert jnp.std(weight * losses[index]) < 0.1 * jnp.std(losses)
    young = dataclasses.replace(past, counts=past.counts.at[3].set(9.0))
    np.testing.assert_allclose(loss_history.probabilities(young), 1 / 7, rtol=1e-12)


def test_the_history_holds_the_last_ten():
    """Against ten-element queues filled sequentially."""
    past, queues = loss_history.empty(4), [collections.deque(maxlen=10) for _ in range(4)]
    update, rng = jax.jit(loss_history.update), np.random.default_rng(0)
    for _ in range(5):
        index, loss = rng.choice(4, p=[0.6, 0.3, 0.09, 0.01], size=24), rng.normal(size=24)
        past = update(past, jnp.asarray(index, jnp.int32), jnp.asarray(loss))
        for t, value in zip(index, loss, strict=True):
            queues[t].append(np.float32(value) ** 2)
        for row, queue in zip(past.squares, queues, strict=True):
            np.testing.assert_allclose(np.sort(row), np.sort([*queue, *[0.0] * (10 - len(queue))]), rtol=1e-6)
    assert past.counts.sum() == 5 * 24


def test_loss_records_its_history_and_samples_by_it():
    """The unweighted losses are recorded at the drawn times; once all have ten, sampling follows them."""
    objective, batch = exact(3, importance=True), {"x": jnp.tile(POINTS, (9, 1))}
    extra = objective.init(KEY, batch)[1]

    @jax.jit
    def loss(extra):
        ctx = Context(KEY, 0, True)
        value, aux = objective.loss(PARAMS, extra, batch, ctx)
        index, weight = loss_history.draw(
            loss_history.probabilities(extra["history"]), named(KEY, "times"), 36
        )
        eps = jax.random.normal(named(KEY, "noise"), batch["x"].shape, batch["x"].dtype)
        simple, vlb = objective.terms(PARAMS, batch["x"], eps, index)
        return value, aux.extra, index, weight, simple + objective.weight * 3 * vlb

    for known in (False, True):
        value, after, index, weight, each = loss(extra)
        np.testing.assert_allclose(value, jnp.mean(weight * each), rtol=1e-6)
        assert (np.ptp(weight) > 0.01) == known
        for t in range(3):
            last = np.asarray(each)[np.asarray(index) == t][-10:] ** 2
            held = np.asarray(after["history"].squares[t])
            assert all(np.isclose(held, square, rtol=1e-5).any() for square in last)
        extra = after


def test_sampling_with_the_learned_variance_is_exact():
    """Nine steps of the true reverse variances: samples have the marginal at t = 0.1; not with a constant v."""
    num, grid = 100_000, Uniform(end=0.1)
    marginal = lambda v: jax.jit(
        lambda: exact(10, v=v, sampler=Ancestral(steps=9, grid=grid)).sample(PARAMS, {}, KEY, num)
    )()
    t = jnp.asarray(0.1)
    law = stats.norm(float(Cosine().alpha(t)) * DATA.mean, float(jnp.sqrt(DATA.variance(Cosine(), t))))
    x, wrong = np.asarray(marginal(None))[:, 0], np.asarray(marginal(1.0))[:, 0]
    assert stats.kstest(x, law.cdf).statistic < 0.006
    assert abs(x.var() / law.var() - 1) < 5 * np.sqrt(2 / num)
    assert wrong.var() / law.var() > 1.1


@pytest.mark.slow
def test_guidance_and_thresholds_keep_v():
    objective = exact()
    denoise = Static(0.5).constrain(objective.denoise(PARAMS), objective.process)
    guided = ClassifierFree(scale=2.0).apply(denoise, exact(v=0.0).denoise(PARAMS), objective.process)
    t = jnp.asarray(0.4)
    np.testing.assert_array_equal(guided(POINTS, t).v, objective.denoise(PARAMS)(POINTS, t).v)
    assert np.all(np.abs(denoise(POINTS, t).x0) <= 0.5)


def test_invalid_settings_raise():
    for change in ({"levels": -2}, {"steps": 1}, {"shape": (3,)}):
        with pytest.raises(UserError):
            dataclasses.replace(exact(), **change).init(KEY, {"x": POINTS})
