"""The flow objective: densities integrate to 1, bounds hold in expectation, units are right, samples follow."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from test_flows import COARSE, SPLINE, made, perturbed
from tiny import Joint

from genjax.conditioning.labels import Labels
from genjax.core.errors import UserError
from genjax.core.objective import Context, HasLogProb, HasPath, HasWarp
from genjax.data import TFDS, Data, Dequantize, GaussianMixture, Moons, Scale
from genjax.distributions.flows import models
from genjax.distributions.flows.base import Logistic, Normal, StudentT, Uniform
from genjax.distributions.flows.bijector import Chain
from genjax.distributions.flows.continuous import Continuous
from genjax.distributions.flows.dequantize import UniformNoise, Variational
from genjax.distributions.flows.layers import Checkerboard, Coupling, Elementwise
from genjax.distributions.flows.linear import ActNorm
from genjax.distributions.flows.scalar import Affine, Spline
from genjax.distributions.flows.shape import Logit
from genjax.evaluation.likelihood import likelihood_report
from genjax.metrics.likelihood import summarise
from genjax.objectives.flow import Flow
from genjax.reports import planes, sampling_paths
from genjax.training import loop
from genjax.training.experiment import Evaluation, Experiment

KEY = jax.random.key(0)
NET = Joint(width=8)
PLANE = {
    "affine couplings": (models.coupling(NET, Affine(), count=2), Normal()),
    "spline couplings": (models.coupling(NET, SPLINE, count=2), Logistic()),
    "maf": (models.autoregressive(made("float32"), count=2), Normal()),
    "iaf": (models.autoregressive(made("float32"), count=2, fast=True), Normal()),
    "autoregressive splines": (models.autoregressive(made("float32"), SPLINE, count=2), Normal()),
    "continuous": (Chain((ActNorm(), Continuous(NET, COARSE))), Normal()),
}
FIRST = jnp.asarray(2.0 * np.random.default_rng(2).normal(size=(8, 2)), jnp.float32)


def started(objective, batch, size=1.0):
    """Parameters perturbed away from their initial values."""
    return {"flow": perturbed(jax.jit(lambda: objective.init(KEY, batch)[0]["flow"])(), size)}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name != "affine couplings")) for name in PLANE]
)
def test_densities_integrate_to_one(name):
    """On a grid of the plane to 1e-3, for every label; densities differ between labels."""
    bijector, base = PLANE[name]
    objective = Flow(bijector, (2,), base, condition=Labels(2))
    params = started(objective, {"x": FIRST, "label": jnp.arange(8) % 2}, 0.3)
    line = np.linspace(-26.0, 26.0, 401, dtype=np.float32)
    x = jnp.asarray(np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2))
    log_prob = jax.jit(
        lambda label: objective.log_prob(params, {}, {"x": x, "label": jnp.full(len(x), label)}, KEY)
    )
    first, second = (np.asarray(log_prob(label), np.float64) for label in (0, 1))
    for values in (first, second):
        assert np.exp(values).sum() * (line[1] - line[0]) ** 2 == pytest.approx(1.0, abs=1e-3)
    assert np.abs(np.exp(first) - np.exp(second)).max() > 1e-3


@pytest.mark.parametrize(
    ("base", "distribution"),
    [
        (Normal(), stats.norm()),
        (Logistic(), stats.logistic()),
        pytest.param(StudentT(3.0), stats.t(3), marks=pytest.mark.slow),
        (Uniform(), stats.uniform()),
    ],
    ids=lambda value: type(value).__name__,
)
def test_bases_match_scipy_and_temperature_scales_samples(base, distribution):
    z = np.linspace(-2.0, 2.0, 24).reshape(6, 2, 2)
    np.testing.assert_allclose(
        base.log_prob(jnp.asarray(z, jnp.float32)), distribution.logpdf(z).sum((1, 2)), rtol=1e-5
    )
    drawn = np.asarray(base.sample(KEY, (2000, 2)))
    assert stats.kstest(drawn.ravel(), distribution.cdf).pvalue > 1e-3
    middle = distribution.median()
    cold = Flow(Chain(), (2,), base, temperature=0.5).sample({"flow": {"bijector": {}}}, {}, KEY, 7)
    hot = Flow(Chain(), (2,), base).sample({"flow": {"bijector": {}}}, {}, KEY, 7)
    np.testing.assert_allclose(cold - middle, 0.5 * (hot - middle), atol=1e-6)
    assert distribution.cdf(base.window[1]) - distribution.cdf(base.window[0]) > 0.95


@pytest.mark.parametrize("levels", [0, 256])
def test_a_uniform_model_of_bytes_has_exactly_eight_bits(levels):
    """Dequantized by the objective or by the data's transforms."""
    x = np.random.default_rng(0).integers(0, 256, (2, 28, 28, 1)).astype(np.uint8)
    transforms = () if levels else (Dequantize(), Scale(0.0, 256.0, 0.0, 1.0))
    data = Data(TFDS("mnist"), transforms)
    seen = data.forward({"x": x}, KEY, False)
    objective = Flow(Chain(), data.shape, Uniform(), levels=levels)
    params, extra = objective.init(KEY, seen)
    values = np.asarray(objective.log_prob(params, extra, seen, KEY))
    found = summarise(values, 784, objective.log_prob_kind, data.log_det())
    assert found.bits_per_dim == pytest.approx(8.0, abs=1e-6)
    assert ("lower bound (uniform dequantization)" in objective.log_prob_kind) == bool(levels)


NOISES = {
    "uniform": UniformNoise(),
    "variational": Variational(Chain((Coupling(NET, mask=Checkerboard()), Elementwise()))),
}


@pytest.mark.slow
@pytest.mark.parametrize("noise", NOISES)
def test_a_bound_averages_to_the_probability(noise):
    """E_q[p(x + u) / q(u | x)] = P(x), the model's mass of the cell by quadrature; the mean log lies below log P(x)."""
    levels, shape = 3, (1, 2, 1)
    objective = Flow(
        Chain((Logit(), Elementwise(Spline(4, 4.0)))), shape, levels=levels, dequantize=NOISES[noise]
    )
    x = jnp.asarray([[0, 2], [1, 1], [2, 0]]).reshape(3, *shape)
    params = started(objective, {"x": x})
    nodes = (np.arange(400) + 0.5) / 400 / levels
    cells = (np.arange(levels) / levels)[:, None] + nodes[None]  # of one pixel
    y = jnp.asarray(np.broadcast_to(cells.reshape(-1)[:, None], (1200, 2)), jnp.float32).reshape(-1, *shape)
    theta = params["flow"]["bijector"]["1"]["theta"]

    def marginal(pixel):
        """Probability of each cell of one pixel: the pixels are independent."""
        z, first = objective.bijector.parts[0].forward({}, y)
        at = jnp.broadcast_to(theta[:, pixel][None], (1200, 1, 1, theta.shape[-1]))
        v, slope = objective.bijector.parts[1].scalar.forward(z[:, :, pixel], at)
        density = stats.norm.pdf(np.asarray(v)) * np.exp(np.asarray(slope + 0.5 * first[:, None, None]))
        return density.reshape(levels, 400).mean(1) / levels

    mass = np.asarray([marginal(pixel) for pixel in (0, 1)])
    exact = [np.log(mass[0, a] * mass[1, b]) for a, b in np.asarray(x).reshape(3, 2)]
    values = jax.jit(jax.vmap(lambda key: objective.log_prob(params, {}, {"x": x}, key)))(
        jax.random.split(KEY, 4000)
    )
    ratio = np.exp(np.asarray(values) - np.asarray(exact)[None])
    np.testing.assert_allclose(ratio.mean(0), 1.0, atol=4 * ratio.std(0).max() / 4000**0.5)
    assert ratio.std(0).min() > 0.01
    assert (np.asarray(values).mean(0) < exact).all()
    many = dataclasses.replace(objective, draws=400)
    tight = jax.jit(lambda: many.log_prob(params, {}, {"x": x}, KEY))()
    np.testing.assert_allclose(tight, exact, atol=5 * ratio.std(0).max() / 20)
    assert f"{noise} dequantization, 400 draws" in many.log_prob_kind


@pytest.fixture(scope="module")
def run():
    data = Data(Moons(512, 64), (Scale(-2.0, 2.0, -4.0, 4.0),))
    flow = Flow(models.coupling(NET, count=2), (2,))
    return loop.prepare(Experiment(flow, data, batch_size=16, evaluation=Evaluation(num=80, batch_size=40)))


@pytest.mark.slow
def test_plots_show_the_states_of_base_samples_and_grid_after_each_layer(run):
    """The path ends in the sample, the warp is the path of given points, and the plot has one tile per state."""
    objective, state = run.experiment.objective, run.make_state()
    assert isinstance(objective, HasLogProb)
    assert isinstance(objective, HasPath)
    assert isinstance(objective, HasWarp)
    times, states = sampling_paths.draw_path(run, state, 6, 3, seed=1)
    assert times[0] == 0
    assert times[-1] == 3, "a scan of two layers after ActNorm"
    path = jax.jit(objective.path, static_argnums=3)(state.ema, {}, KEY, 6)[1]
    np.testing.assert_allclose(path[-1], objective.sample(state.ema, {}, KEY, 6), atol=1e-4)
    np.testing.assert_allclose(objective.warp(state.ema, {}, path[0])[1], path, atol=1e-4)
    warped = planes.warped_grids(run, state)
    side = planes.CELLS
    assert set(warped) == {0.0, 1.0, 2.0, 3.0}
    corner = objective.warp(state.ema, {}, jnp.full((1, 2), 3.0))[1][-1, 0]
    np.testing.assert_allclose(warped[3.0][side - 1, side - 1], corner / 2.0, atol=1e-3)
    image = sampling_paths.show_path(run, state, times, states)
    assert image.width == (len(times) + 1) * 306


@pytest.mark.slow
def test_the_loss_is_the_mean_log_prob_per_dimension():
    objective = Flow(models.coupling(NET, count=1), (2,))
    params = started(objective, {"x": FIRST})
    loss, aux = objective.loss(params, {}, {"x": FIRST}, Context(KEY, jnp.int32(0), False))
    exact = -objective.log_prob(params, {}, {"x": FIRST}, KEY).mean()
    assert float(loss) == pytest.approx(float(exact) / 2, rel=1e-5)
    assert float(aux.metrics["nats"]) == pytest.approx(float(exact), rel=1e-5)


@pytest.mark.slow
def test_samples_follow_the_density():
    """The mean log-density of samples equals the integral of p log p."""
    objective = Flow(models.coupling(NET, SPLINE, count=2), (2,))
    params = started(objective, {"x": FIRST}, 0.5)
    x = jax.jit(lambda: objective.sample(params, {}, KEY, 4000))()
    line = np.linspace(-28.0, 28.0, 421, dtype=np.float32)
    grid = jnp.asarray(np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2))
    log_prob = jax.jit(lambda x: objective.log_prob(params, {}, {"x": x}, KEY))
    on_grid, of_samples = np.asarray(log_prob(grid), np.float64), np.asarray(log_prob(x), np.float64)
    expected = (np.exp(on_grid) * on_grid).sum() * (line[1] - line[0]) ** 2
    assert of_samples.mean() == pytest.approx(expected, abs=4 * of_samples.std() / 4000**0.5)


@pytest.mark.parametrize(("std", "kl"), [(0.5, 0.0), (1.0, 2.0 * math.log(2.0) - 0.75)])
def test_excess_nats_is_the_kl_from_data_to_model(std, kl):
    """Points from N(0, I / 4) under N(0, std^2 I): exactly 0 for std = 1/2, else the closed-form KL."""
    data = Data(GaussianMixture(8, 4000, count=1, radius=0.0, noise=0.5), (Scale(-std, std),))
    run = loop.prepare(
        Experiment(Flow(Chain(), (2,)), data, batch_size=8, evaluation=Evaluation(batch_size=4000))
    )
    found = likelihood_report(run.experiment, run.make_state(), run.mesh)
    assert found["excess_nats"] == pytest.approx(kl, abs=1e-6 + 4 * found["excess_nats_error"])
    assert found["excess_nats_error"] < (1e-6 if std == 0.5 else 0.02)
    assert found["entropy"] == pytest.approx(math.log(2.0 * math.pi * math.e * 0.25), abs=1e-6)


def test_log_prob_kind_names_exact_values_estimates_and_bounds():
    continuous = Chain((Continuous(NET, COARSE),))
    assert Flow(models.coupling(NET), (2,)).log_prob_kind == "exact"
    assert Flow(continuous, (2,)).log_prob_kind == "ODE estimate (RK4, 12 steps, exact trace)"
    both = Flow(continuous, (2,), levels=4, dequantize=NOISES["variational"]).log_prob_kind
    assert both.endswith("exact trace); lower bound (variational dequantization)")


@pytest.mark.parametrize(
    ("words", "objective", "x"),
    [
        ("the data are integers", Flow(Chain(), (2,)), jnp.zeros((1, 2), jnp.int32)),
        ("leave out transforms", Flow(Chain(), (2,), levels=3), jnp.zeros((1, 2))),
        ("examples of shape", Flow(Chain(), (3,)), jnp.zeros((1, 2))),
    ],
)
def test_invalid_arguments_raise(words, objective, x):
    with pytest.raises(UserError, match=words):
        objective.init(KEY, {"x": x})
    with pytest.raises(UserError, match="draws=0"):
        dataclasses.replace(objective, draws=0)


def test_samples_with_levels_are_integers():
    """Samples of a uniform base are uniform integers in the data's range."""
    objective = Flow(Chain(), (8, 8, 1), Uniform(), levels=17)
    params, _ = objective.init(KEY, {"x": jnp.zeros((1, 8, 8, 1), jnp.int32)})
    drawn = np.asarray(objective.sample(params, {}, KEY, 100))
    assert drawn.dtype == np.int32
    counts = np.bincount(drawn.ravel(), minlength=17)
    assert len(counts) == 17
    assert ((counts - 6400 / 17) ** 2 / (6400 / 17)).sum() < 16 + 4 * math.sqrt(32)
