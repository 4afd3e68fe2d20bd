"""Conformance of bijectors: inverses and log-determinants; a new bijector is one more row with every check."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import Joint

from genjax.core.errors import UserError
from genjax.diffusion.ode_likelihood import OdeLikelihood
from genjax.distributions.flows import models
from genjax.distributions.flows.bijector import Chain, Given, Inverse, Repeat
from genjax.distributions.flows.continuous import Continuous
from genjax.distributions.flows.layers import Autoregressive, Channels, Checkerboard, Coupling, Elementwise
from genjax.distributions.flows.linear import LU, ActNorm, Permutation
from genjax.distributions.flows.scalar import Affine, Shift, Spline
from genjax.distributions.flows.shape import Half, Logit, Squeeze
from genjax.networks import MADE

KEY = jax.random.key(0)
NET = Joint()
FINE = OdeLikelihood(400, "rk4", 0, low=0.0, high=1.0, power=1.0)
COARSE = OdeLikelihood(12, "rk4", 0, low=0.0, high=1.0, power=1.0)
SPLINE = Spline(bins=5, bound=2.0)
BATCH = 5


def made(dtype):
    return MADE(width=12, depth=1, dtype=dtype)


# name: dtype -> bijector, shape of an example
BIJECTORS = {
    "additive coupling": (lambda dtype: Coupling(NET, Shift()), (3,)),
    "affine coupling": (lambda dtype: Coupling(NET, Affine(), Channels(odd=True)), (3,)),
    "spline coupling": (lambda dtype: Coupling(NET, SPLINE), (3,)),
    "checkerboard": (lambda dtype: Coupling(NET, Affine(), Checkerboard(odd=True)), (2, 3, 1)),
    "maf": (lambda dtype: Autoregressive(made(dtype)), (4,)),
    "iaf": (lambda dtype: Inverse(Autoregressive(made(dtype))), (3,)),
    "autoregressive spline": (lambda dtype: Autoregressive(made(dtype), SPLINE), (3,)),
    "elementwise spline": (lambda dtype: Elementwise(SPLINE), (2, 2)),
    "actnorm": (lambda dtype: ActNorm(), (2, 2, 3)),
    "lu": (lambda dtype: LU(), (2, 1, 4)),
    "permutation": (lambda dtype: Permutation(3), (4,)),
    "logit": (lambda dtype: Logit(), (3,)),
    "continuous": (lambda dtype: Continuous(NET, FINE if dtype == "float64" else COARSE), (2,)),
    "realnvp": (lambda dtype: models.realnvp(NET, pairs=1), (4, 4, 1)),
    "glow": (lambda dtype: models.glow(NET, SPLINE, steps=2), (4, 4, 1)),
    "neural spline flow": (lambda dtype: models.coupling(NET, SPLINE, count=2), (2,)),
}
UNCONDITIONAL = {"elementwise spline", "actnorm", "lu", "permutation", "logit"}  # do not depend on cond
# Left to `./launch/local.sh test -m slow tests/test_flows.py`: similar to another row, or slow.
SLOW = {
    "additive coupling",
    "iaf",
    "autoregressive spline",
    "elementwise spline",
    "continuous",
    "permutation",
} | {
    "realnvp",
    "glow",
    "neural spline flow",
}
EACH = [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in BIJECTORS]


def perturbed(params, size=1.0):
    """Parameters perturbed away from their initial values: zero-initialised layers hide the ones before them."""
    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(0)
    scales = [0.5 * leaf.shape[-2] ** -0.5 if leaf.ndim > 1 else 0.3 for leaf in leaves]
    noise = [size * c * rng.standard_normal(leaf.shape) for c, leaf in zip(scales, leaves, strict=True)]
    return jax.tree.unflatten(
        tree, [leaf + jnp.asarray(n, leaf.dtype) for leaf, n in zip(leaves, noise, strict=True)]
    )


def inputs(name, dtype):
    shape = (BATCH, *BIJECTORS[name][1])
    rng = np.random.default_rng(1)
    x = rng.uniform(0.02, 0.98, shape) if name == "logit" else rng.normal(size=shape)
    return jnp.asarray(x, dtype), Given(jax.nn.one_hot(jnp.arange(BATCH) % 3, 3))


@functools.cache
def params_of(name):
    """Float32; the same for both dtypes."""
    x, given = inputs(name, "float32")
    # Chains of steep splines are ill-conditioned in float32: these are less steep.
    size = 0.3 if name == "glow" else 1.0
    return perturbed(jax.jit(BIJECTORS[name][0]("float32").init)(KEY, x, given), size)


def checks(name, dtype):
    """All outputs that the checks of a row need, compiled once."""
    bijector = BIJECTORS[name][0](dtype)

    def run(params, x, given):
        y, log_det = bijector.forward(params, x, given)
        one = lambda x, cond: bijector.forward(params, x[None], Given(cond[None]))[0].reshape(-1)
        jacobian = jax.vmap(jax.jacfwd(one))(x, given.cond).reshape(len(x), y[0].size, y[0].size)
        back = bijector.inverse(params, y, given)
        last_state = bijector.inverse_states(params, y, given)[-1]
        other = bijector.forward(params, x, Given(given.cond[::-1]))[0]
        return y, log_det, jnp.linalg.slogdet(jacobian)[1], back, last_state, other

    return jax.jit(run)


@pytest.mark.parametrize("name", EACH)
def test_forward_and_inverse_and_jacobian(name):
    """In float64: inverse to 1e-10, log-determinant against autodiff's Jacobian, examples independent."""
    params = params_of(name)
    with jax.enable_x64(True):
        x, given = inputs(name, "float64")
        run = checks(name, "float64")
        y, log_det, by_autodiff, back, last_state, other = run(params, x, given)
        assert y.dtype == log_det.dtype == np.float64
        assert y.shape == x.shape
        np.testing.assert_allclose(back, x, atol=1e-10)
        np.testing.assert_allclose(last_state, x, atol=1e-10)
        np.testing.assert_allclose(log_det, by_autodiff, atol=1e-9)
        assert jnp.abs(y - x).reshape(BATCH, -1).max(1).min() > 1e-3, "the bijector is the identity"
        moved = np.abs(np.asarray(other - y)).reshape(BATCH, -1).max(1) > 1e-4
        changed = np.arange(BATCH) % 3 != np.arange(BATCH)[::-1] % 3
        np.testing.assert_array_equal(moved, np.zeros_like(moved) if name in UNCONDITIONAL else changed)
        run(params, x + 0.01, given)
        assert run._cache_size() == 1


@pytest.mark.parametrize("name", EACH)
def test_inverse_in_float32(name):
    x, given = inputs(name, "float32")
    bijector, params = BIJECTORS[name][0]("float32"), params_of(name)
    run = jax.jit(lambda x: bijector.inverse(params, bijector.forward(params, x, given)[0], given))
    np.testing.assert_allclose(run(x), x, atol=1e-5)


def test_repeat_equals_its_unrolled_layers():
    """Values, log-determinants, the inverse's states, and data-dependent initialisation."""
    inner = Chain((ActNorm(), Coupling(NET)))
    scanned, remat, chain = Repeat(inner, 3), Repeat(inner, 3, remat=True), Chain((inner,) * 3)
    x = jax.random.normal(KEY, (40, 3)) * 3.0 + 1.0
    layers = lambda params: {str(i): jax.tree.map(lambda p, i=i: p[i], params) for i in range(3)}
    start, unrolled = jax.jit(lambda: (scanned.init(KEY, x), chain.init(KEY, x)))()
    for ours, theirs in zip(jax.tree.leaves(layers(start)), jax.tree.leaves(unrolled), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)

    @jax.jit
    def run(params):
        y, log_det = scanned.forward(params, x)
        states = scanned.inverse_states(params, y), chain.inverse_states(layers(params), y)
        return (y, log_det), chain.forward(layers(params), x), states, remat.forward(params, x)[0]

    (y, log_det), (other, other_det), states, again = run(perturbed(start))
    np.testing.assert_allclose(y, other, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(log_det, other_det, atol=1e-5)
    np.testing.assert_allclose(again, y, rtol=1e-5, atol=1e-5)
    assert len(states[0]) == 3
    np.testing.assert_allclose(states[0], states[1][1::2], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(states[0][-1], x, atol=1e-4)


def test_actnorm_starts_with_mean_0_and_variance_1():
    """Of every channel over batch and positions, also after another bijector and inside scans."""
    x = 5.0 + 3.0 * jax.random.normal(KEY, (16, 3, 2, 2)) * jnp.asarray([1.0, 0.1])[None, None, None]
    bijectors = ActNorm(), Chain((LU(), ActNorm())), Repeat(Chain((LU(), ActNorm())), 2)
    for y in jax.jit(lambda x: [b.forward(b.init(KEY, x), x)[0] for b in bijectors])(x):
        np.testing.assert_allclose(y.mean((0, 1, 2)), 0.0, atol=1e-5)
        np.testing.assert_allclose(y.var((0, 1, 2)), 1.0, atol=1e-4)


def test_made_is_autoregressive_by_its_gradients():
    """Gradients are exactly zero for masked inputs and non-zero for all others; with and without cond."""
    net, x, cond = MADE(width=9, depth=1), jax.random.normal(KEY, (1, 4)), jnp.ones((1, 2))
    params = perturbed(jax.jit(functools.partial(net.init, out=(4, 2)))(KEY, x, None, cond))
    apply = lambda x, cond: net.apply(params, x, None, cond, out=(4, 2))[0].sum(-1)
    sizes = jax.jit(lambda: (jax.jacrev(apply)(x, None), jax.jacrev(apply, (0, 1))(x, cond)))()
    for size in map(np.abs, (sizes[0][:, 0], sizes[1][0][:, 0])):
        np.testing.assert_array_equal(size > 1e-7, np.tri(4, k=-1, dtype=bool))
        assert not size[np.triu_indices(4)].any()
    assert (np.abs(sizes[1][1][:, 0]).max(-1) > 1e-7).all(), "each output depends on cond, the first one too"


@pytest.mark.parametrize("scalar", [Shift(), Affine(), Spline()], ids=lambda value: type(value).__name__)
def test_zero_parameters_are_the_identity(scalar):
    with jax.enable_x64(True):
        x = jnp.linspace(-5.0, 5.0, 41)
        y, log_slope = scalar.forward(x, jnp.zeros((41, scalar.count)))
        np.testing.assert_allclose(y, x, atol=1e-12)
        np.testing.assert_allclose(log_slope, 0.0, atol=1e-12)


def test_splines_are_smooth_with_linear_tails():
    """Continuous with its first derivative at every knot and at both ends, the identity outside, increasing."""
    with jax.enable_x64(True):
        theta = jnp.asarray(np.random.default_rng(0).normal(size=SPLINE.count) * 2.0)
        at = jax.jit(lambda x: SPLINE.forward(x, jnp.broadcast_to(theta, (*x.shape, SPLINE.count))))
        knots = SPLINE._ends(theta[:5])
        assert knots[0] == -2.0
        assert knots[-1] == 2.0
        before, after = at(knots - 1e-9), at(knots + 1e-9)
        np.testing.assert_allclose(before[0], after[0], atol=1e-7)
        np.testing.assert_allclose(before[1], after[1], atol=1e-6)
        assert np.ptp(np.asarray(after[1])) > 0.5
        far = jnp.asarray([-70.0, -2.5, 2.0001, 9.0])
        np.testing.assert_array_equal(at(far)[0], far)
        np.testing.assert_array_equal(at(far)[1], 0.0)
        assert (jnp.diff(at(jnp.linspace(-3.0, 3.0, 1001))[0]) > 0).all()


def test_a_linear_velocity_field_flows_as_its_matrix_exponential():
    """dx/dt = A x: x_1 = exp(A) x_0, log-determinant tr A; the same with Hutchinson's trace on average."""

    class Linear:
        init = staticmethod(lambda *args, **options: {})
        apply = staticmethod(lambda params, x, t, cond, *, out: x @ jnp.asarray(MATRIX, x.dtype).T)

    matrix = MATRIX
    x = jax.random.normal(KEY, (400, 2))
    y, log_det = jax.jit(Continuous(Linear(), COARSE).forward)({}, x)
    import scipy.linalg

    np.testing.assert_allclose(y, x @ scipy.linalg.expm(matrix).T.astype(np.float32), atol=1e-5)
    np.testing.assert_allclose(log_det, np.trace(matrix), atol=1e-5)
    noisy = OdeLikelihood(12, "rk4", 1, low=0.0, high=1.0, power=1.0)
    flow = Continuous(Linear(), noisy)
    found = jax.jit(flow.forward)({}, x, Given(key=KEY))[1]
    std = abs(MATRIX[0, 1] + MATRIX[1, 0])  # of one Rademacher probe
    assert float(found.std()) == pytest.approx(std, rel=0.02)
    assert abs(float(found.mean()) - np.trace(matrix)) < 4 * std / 20
    assert "Hutchinson 1 Rademacher probe" in flow.estimate
    with pytest.raises(UserError, match="needs a PRNG key"):
        flow.forward({}, x)


MATRIX = np.asarray([[0.3, -0.9], [0.4, -0.1]])


@pytest.mark.parametrize(
    ("words", "bijector", "shape"),
    [
        ("needs at least two channels", Coupling(NET), (1,)),
        ("Checkerboard needs images", Coupling(NET, mask=Checkerboard()), (4,)),
        ("even height and width", Squeeze(ActNorm()), (3, 4, 1)),
        ("must be even", Half(ActNorm()), (3,)),
    ],
)
def test_invalid_shapes_raise(words, bijector, shape):
    with pytest.raises(UserError, match=words):
        bijector.init(KEY, jnp.zeros((2, *shape)))


def test_invalid_hyperparameters_raise():
    with pytest.raises(UserError, match="layers must be at least 1"):
        Repeat(LU(), 0)
    with pytest.raises(UserError, match="positive bound"):
        Spline(bound=0.0)


def test_lu_half_and_squeeze_at_initialisation():
    """LU starts as a rotation; Half keeps the last channels; Squeeze of the identity is the identity."""
    x = jax.random.normal(KEY, (3, 4, 4, 2))
    y, log_det = LU().forward(LU().init(KEY, x), x)
    np.testing.assert_allclose((y**2).sum(-1), (x**2).sum(-1), rtol=1e-4)
    np.testing.assert_allclose(log_det, 0.0, atol=1e-4)
    half = Half(ActNorm())
    y, log_det = half.forward(half.init(KEY, x), x)
    np.testing.assert_array_equal(y[..., 1], x[..., 1])
    assert float(log_det[0]) == pytest.approx(-16 * math.log(float(x[..., 0].std())), rel=1e-4)
    np.testing.assert_array_equal(Squeeze(Chain()).forward({}, x)[0], x)
