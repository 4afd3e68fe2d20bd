"""The probability-flow ODE's likelihood against known densities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import CorrelatedData, GaussianData, fitted_order
from scipy import stats
from test_diffusion import PROCESSES

from genjax.conditioning.labels import Labels
from genjax.core.errors import UserError
from genjax.core.objective import HasLogProb
from genjax.diffusion.ode_likelihood import OdeLikelihood, basis, draw_probes, quadratic_forms
from genjax.diffusion.process import VE, VP, RectifiedFlow, Trigonometric
from genjax.objectives.diffusion.diffusion import Diffusion

pytestmark = pytest.mark.optimised

DATA = GaussianData()
KEY = jax.random.key(0)
EXACT = OdeLikelihood(steps=100, method="rk4", probes=0)
name = lambda value: type(value).__name__


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def points(num=6, dims=3):
    return DATA.mean + DATA.std * jax.random.normal(jax.random.key(7), (num, dims), jnp.float64)


def closed(process, x, low):
    """The prior's log-density at the end of the exact flow from `low`, and its log-determinant; nats per example."""
    low, high = jnp.asarray(low), jnp.asarray(1.0)
    end = np.asarray(DATA.transport(process, x, low, high))
    stretch = 0.5 * np.log(DATA.variance(process, high) / DATA.variance(process, low))
    return stats.norm(0, float(process.sigma(high))).logpdf(end).sum(axis=1) + 3 * stretch


@pytest.mark.parametrize("process", PROCESSES, ids=str)
def test_gaussian_data_to_1e_5(process):
    """Against the closed-form flow: end point, log-determinant, and the prior's density."""
    x = points()
    expected = closed(process, x, EXACT.low)
    solver = OdeLikelihood(steps=400, method="rk4", probes=0)
    ours = jax.jit(lambda x: solver.log_prob(DATA.denoise(process), process, x, KEY))(x)
    np.testing.assert_allclose(ours, expected, atol=1e-5)


@pytest.mark.parametrize("process", [RectifiedFlow(), Trigonometric(), VP(beta_max=60.0)], ids=name)
def test_density_of_the_data_to_1e_5(process):
    """Where alpha(1) is negligible the value is the log-density of the data."""
    solver = OdeLikelihood(steps=400, method="rk4", probes=0, low=1e-8)
    x = points()
    ours = jax.jit(lambda x: solver.log_prob(DATA.denoise(process), process, x, KEY))(x)
    np.testing.assert_allclose(ours, DATA.log_density(np.asarray(x)), atol=1e-5)


@pytest.mark.parametrize("process", [RectifiedFlow(), Trigonometric()], ids=name)
def test_density_of_correlated_data_to_1e_5(process):
    data = CorrelatedData()
    x = jax.random.normal(jax.random.key(1), (8, 2), jnp.float64) @ jnp.asarray(data.rows).T
    solver = OdeLikelihood(steps=400, method="rk4", probes=0, low=1e-8)
    ours = jax.jit(lambda x: solver.log_prob(data.denoise(process), process, x, KEY))(x)
    expected = stats.multivariate_normal(np.zeros(2), data.covariance).logpdf(np.asarray(x))
    np.testing.assert_allclose(ours, expected, atol=1e-5)


@pytest.mark.parametrize(("method", "order"), [("heun", 2), ("rk4", 4)])
@pytest.mark.parametrize("process", [pytest.param(VP(), marks=pytest.mark.slow), RectifiedFlow()], ids=name)
def test_order_of_convergence(process, method, order):
    """Of the log-likelihood, against the same solver with many more steps."""
    x = points()
    value = lambda steps: OdeLikelihood(steps=steps, method=method, probes=0, low=0.01, high=0.95).log_prob(
        DATA.denoise(process), process, x, KEY
    )
    exact = jax.jit(lambda: value(2048))()
    steps = [32, 64, 128]
    errors = [float(jnp.abs(value(number) - exact).max()) for number in steps]
    measured = fitted_order([1 / number for number in steps], errors)
    assert abs(measured - order) < 0.25, f"order {measured:.3f}, errors {errors}"


def test_one_rademacher_probe_is_exact_where_the_jacobian_is_diagonal():
    """Isotropic Gaussian data: z^T J z = tr J for every Rademacher z; a Gaussian probe has an error."""
    process, x = RectifiedFlow(), points()
    value = lambda solver, key: jax.jit(lambda: solver.log_prob(DATA.denoise(process), process, x, key))()
    exact = value(OdeLikelihood(probes=0), KEY)
    for seed in range(3):
        one = value(OdeLikelihood(probes=1), jax.random.key(seed))
        np.testing.assert_allclose(one, exact, rtol=1e-10)
    missed = value(OdeLikelihood(probes=1, probe="gaussian"), KEY)
    assert np.abs(missed - exact).max() > 0.1


MATRIX = np.array([[0.5, -1.0, 0.3], [0.8, 0.2, 0.0], [-0.4, 0.9, -1.1]])
SYMMETRIC = 0.5 * (MATRIX + MATRIX.T)
VARIANCE = {
    "rademacher": 2 * (np.sum(SYMMETRIC**2) - np.sum(np.diag(SYMMETRIC) ** 2)),
    "gaussian": 2 * np.sum(SYMMETRIC**2),
}


@pytest.mark.parametrize("probe", VARIANCE)
def test_hutchinson_has_the_mean_and_variance_of_theory(probe):
    num = 20_000
    x = jnp.zeros((2, 3))
    function = lambda x: jnp.sin(x) @ jnp.asarray(MATRIX).T + 1.0
    value, products = quadratic_forms(function, x, draw_probes(KEY, probe, num, x))
    np.testing.assert_allclose(value, function(x))
    for row in np.asarray(products).T:
        assert abs(row.mean() - np.trace(MATRIX)) < 4 * np.sqrt(VARIANCE[probe] / num)
        np.testing.assert_allclose(row.var(), VARIANCE[probe], rtol=0.06)
    assert abs(np.corrcoef(np.asarray(products).T)[0, 1]) < 4 / np.sqrt(num)


def test_the_unit_vectors_give_the_trace_of_the_jacobian():
    """Of a nonlinear function of images with different Jacobians, against jax.jacobian."""
    x = jax.random.normal(KEY, (4, 2, 2, 1), jnp.float64)
    mix = jax.random.normal(jax.random.key(1), (4, 4), jnp.float64)
    alone = lambda y: jnp.tanh(y.ravel() @ mix).reshape(y.shape) * y**2
    _, products = quadratic_forms(jax.vmap(alone), x, basis(x))
    expected = [np.trace(np.asarray(jax.jacobian(alone)(y)).reshape(4, 4)) for y in x]
    np.testing.assert_allclose(products.sum(axis=0), expected, rtol=1e-10)


@pytest.mark.parametrize(("probe", "probes"), [("rademacher", 1), ("gaussian", 1), ("rademacher", 4)])
def test_hutchinson_is_unbiased_and_more_probes_vary_less(probe, probes):
    """Along the whole path, for correlated data: the path does not depend on the probes."""
    data, process, num = CorrelatedData(), RectifiedFlow(), 4000
    x = jnp.broadcast_to(jnp.asarray([0.4, -0.2]), (num, 2))
    solver = OdeLikelihood(steps=20, probes=probes, probe=probe)
    value = lambda solver: np.asarray(
        jax.jit(lambda: solver.log_prob(data.denoise(process), process, x, KEY))()
    )
    exact = value(OdeLikelihood(steps=20, probes=0))
    estimates = value(solver)
    spread = estimates.std()
    assert abs(estimates.mean() - exact[0]) < 4 * spread / np.sqrt(num)
    assert spread > 0.05
    if probes > 1:
        single = value(OdeLikelihood(steps=20, probes=1, probe=probe)).std()
        assert spread / single == pytest.approx(1 / np.sqrt(probes), rel=0.1)


FADED = VP(beta_max=60.0)  # alpha(1) is negligible


class Oracle:
    """The exact eps-prediction for `GaussianData` under `FADED`, as a network; a label shifts its mean."""

    def init(self, key, x, t, cond, *, out):
        return {}

    def apply(self, params, x, t, cond, *, out, **options):
        shift = 0.0 if cond is None else cond[:, 1:2]
        alpha = FADED.alpha(t)[:, None]
        return DATA.denoise(FADED)(x - alpha * shift, t).eps


@pytest.mark.parametrize("classes", [0, 2])
def test_the_objective_gives_the_model_s_density_given_the_label(classes):
    solver = OdeLikelihood(steps=200, method="rk4", low=1e-8)
    objective = Diffusion(
        Oracle(), (3,), Labels(classes, 0.1) if classes else None, process=FADED, likelihood=solver
    )
    x, label = points(), jnp.asarray([0, 1, 0, 1, 0, 1])
    batch = {"x": x, "label": label} if classes else {"x": x}
    ours = jax.jit(lambda: objective.log_prob({"net": {}}, {}, batch, KEY))()
    shift = np.asarray(label)[:, None] if classes else 0.0
    np.testing.assert_allclose(ours, DATA.log_density(np.asarray(x) - shift), atol=1e-4)


@pytest.mark.slow
def test_adaptive_solver_keeps_its_tolerance_or_gives_nan():
    """Against the closed-form flow, also for VE's large values; NaN when the steps do not suffice."""
    x = points()
    for process in (RectifiedFlow(), VE()):
        value = lambda steps, tolerance, process=process: jax.jit(
            lambda: OdeLikelihood(
                steps, "adaptive", probes=0, low=1e-4, power=1.0, rtol=tolerance, atol=tolerance
            ).log_prob(DATA.denoise(process), process, x, KEY)
        )()
        exact = closed(process, x, 1e-4)
        np.testing.assert_allclose(value(5000, 1e-9), exact, atol=1e-6)
    assert 1e-7 < np.abs(value(5000, 1e-4) - exact).max() < 1e-2
    assert np.isnan(value(3, 1e-9)).all()


def test_kind_describes_the_estimate():
    kind = lambda **changes: Diffusion(Oracle(), (3,), likelihood=OdeLikelihood(**changes)).log_prob_kind
    assert kind() == "ODE estimate (Heun, 25 steps, Hutchinson 1 Rademacher probe)"
    assert kind(steps=9, method="rk4", probes=0) == "ODE estimate (RK4, 9 steps, exact trace)"
    assert kind(probes=2, probe="gaussian") == "ODE estimate (Heun, 25 steps, Hutchinson 2 Gaussian probes)"
    assert kind(method="adaptive", probes=0) == (
        "ODE estimate (Dopri5, adaptive to rtol 0.0001, atol 0.0001, exact trace)"
    )
    assert kind(steps=0) == ""
    assert isinstance(Diffusion(Oracle(), (3,)), HasLogProb)
    with pytest.raises(UserError, match="steps=0"):
        OdeLikelihood(steps=0).log_prob(DATA.denoise(VP()), VP(), points(), KEY)


def test_default_is_near_for_an_exact_denoiser():
    """25 Heun steps of VP: the error of the default for known data."""
    process, x = VP(), points(64)
    ours = OdeLikelihood().log_prob(DATA.denoise(process), process, x, KEY)
    assert np.abs(ours - DATA.log_density(np.asarray(x))).max() / 3 < 0.03
