"""Agreement with normflows, weights copied: couplings, 1 x 1 convolutions, ActNorm, splines, and their compositions."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import normflows
import numpy as np
import pytest
import torch
from normflows.flows.neural_spline.autoregressive import MaskedPiecewiseRationalQuadraticAutoregressive
from normflows.flows.neural_spline.coupling import PiecewiseRationalQuadraticCoupling

from genjax.distributions.flows.bijector import Chain, Inverse
from genjax.distributions.flows.layers import Autoregressive, Channels, Coupling
from genjax.distributions.flows.linear import LU, ActNorm
from genjax.distributions.flows.scalar import Affine, Shift, Spline
from genjax.networks import MADE
from genjax.networks.autoregressive.made import degrees
from genjax.objectives.flow import Flow

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

KEY = jax.random.key(0)
PLAIN = Affine(bound=0.0)
SPLINE = Spline(bins=6, bound=2.5, least=6e-3)


class Perceptron(nn.Module):
    """One hidden layer; applied to each pixel of images."""

    @nn.compact
    def __call__(self, x, t=None, cond=None, *, out, train=False):
        hidden = jnp.tanh(nn.Dense(7, name="hidden")(x))
        return nn.Dense(out if isinstance(out, int) else out[-1], name="out")(hidden)


class Twin(torch.nn.Module):
    """The same in torch, channels first; `interleaved` reorders (scale, shift) of each element as normflows does."""

    def __init__(self, params, interleaved):
        super().__init__()
        self.params, self.interleaved = jax.tree.map(to_torch, params["params"]), interleaved

    def forward(self, x, context=None):
        x = x.movedim(1, -1)
        hidden = torch.tanh(x @ self.params["hidden"]["kernel"] + self.params["hidden"]["bias"])
        out = (hidden @ self.params["out"]["kernel"] + self.params["out"]["bias"]).movedim(-1, 1)
        if self.interleaved:
            out = out.unflatten(1, (-1, 2)).flip(2).flatten(1, 2)
        return out


def to_torch(x):
    return torch.tensor(np.asarray(x, np.float64))


def filled(bijector, x):
    params = jax.jit(bijector.init)(KEY, x)
    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(3)
    return jax.tree.unflatten(
        tree, [leaf + jnp.asarray(0.4 * rng.normal(size=leaf.shape), leaf.dtype) for leaf in leaves]
    )


def forward(bijector, params, x, dtype=jnp.float64):
    y, log_det = jax.jit(bijector.forward)(params, jnp.asarray(x, dtype))
    return np.asarray(y), np.asarray(log_det)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        torch.set_default_dtype(torch.float64)
        yield
        torch.set_default_dtype(torch.float32)


def agree(ours, theirs, first=False):
    y, log_det = (np.asarray(value.detach()) for value in theirs)
    y = np.moveaxis(y, 1, -1) if first else y
    np.testing.assert_allclose(ours[0], y, atol=1e-9)
    np.testing.assert_allclose(ours[1], np.broadcast_to(log_det, ours[1].shape), atol=1e-9)


X = np.random.default_rng(0).normal(size=(9, 4))
IMAGES = np.random.default_rng(1).normal(size=(5, 4, 6, 4))
NCHW = torch.tensor(np.moveaxis(IMAGES, -1, 1).copy())


@pytest.mark.parametrize("scalar", [PLAIN, Shift()], ids=["affine", "additive"])
def test_couplings(scalar):
    """Their inverse, from data to base, is (x - t) exp(-s): the inverse of ours."""
    bijector = Inverse(Coupling(Perceptron(), scalar))
    params = filled(bijector, jnp.asarray(X))
    scale = scalar is PLAIN
    twin = Twin(params, scale)
    theirs = normflows.flows.AffineCouplingBlock(twin, scale=scale, scale_map="exp")
    agree(forward(bijector, params, X), theirs.inverse(torch.tensor(X)))


def act_norm(params):
    theirs = normflows.flows.ActNorm((4, 1, 1))
    theirs.s.data = to_torch(params["log_scale"]).reshape(1, 4, 1, 1)
    theirs.t.data = to_torch(params["shift"]).reshape(1, 4, 1, 1)
    theirs.data_dep_init_done = torch.tensor(1.0)
    return theirs


def one_by_one(params):
    theirs = normflows.flows.Invertible1x1Conv(4, use_lu=True)
    p, _, upper = LU()._start(4)
    theirs.P.copy_(torch.tensor(p))
    theirs.sign_S.copy_(torch.tensor(np.sign(np.diag(upper))))
    theirs.L.data, theirs.U.data = to_torch(params["lower"]), to_torch(params["upper"])
    theirs.log_S.data = to_torch(params["log_scale"])
    return theirs


def test_actnorm_and_its_initialisation():
    bijector = Inverse(ActNorm())
    params = filled(bijector, jnp.asarray(IMAGES))
    agree(forward(bijector, params, IMAGES), act_norm(params).inverse(NCHW), first=True)
    fresh = normflows.flows.ActNorm((4, 1, 1))
    theirs = fresh(NCHW)  # initialises itself, by the unbiased standard deviation
    start = jax.jit(ActNorm().init)(KEY, jnp.asarray(IMAGES))
    bessel = np.sqrt(1 - 1 / (IMAGES.size // 4))
    ours = forward(ActNorm(), start, IMAGES)
    np.testing.assert_allclose(np.moveaxis(theirs[0].detach().numpy(), 1, -1), bessel * ours[0], atol=1e-5)


def test_one_by_one_convolutions():
    params = filled(LU(), jnp.asarray(IMAGES))
    agree(forward(LU(), params, IMAGES), one_by_one(params).inverse(NCHW), first=True)


class Shifted(torch.nn.Module):
    """A network whose raw derivatives are shifted so that zero is the identity, as in ours."""

    def __init__(self, net):
        super().__init__()
        self.net = net
        self.shift = torch.zeros(SPLINE.count)
        self.shift[2 * SPLINE.bins :] = np.log(np.expm1(1 - SPLINE.least))

    def forward(self, x, context=None):
        out = self.net(x)
        return out + self.shift.repeat(out.shape[1] // SPLINE.count)


def test_spline_couplings():
    bijector = Coupling(Perceptron(), SPLINE)
    params = filled(bijector, jnp.asarray(X))
    theirs = PiecewiseRationalQuadraticCoupling(
        mask=torch.tensor([0, 0, 1, 1]),
        transform_net_create_fn=lambda *_: Shifted(Twin(params, False)),
        num_bins=SPLINE.bins,
        tails="linear",
        tail_bound=SPLINE.bound,
        min_bin_width=1e-3,
        min_bin_height=1e-3,
        min_derivative=SPLINE.least,
    )
    ours = forward(bijector, params, X)
    assert np.abs(ours[0] - X).max() > 0.1
    agree(ours, theirs(torch.tensor(X)))
    back = theirs.inverse(torch.tensor(ours[0]))[0]
    np.testing.assert_allclose(back.detach(), X, atol=1e-9)


class Masked(torch.nn.Module):
    """Our MADE in torch: residual blocks between masked layers, masks from their definition."""

    def __init__(self, params, inputs, units, depth):
        super().__init__()
        self.params, self.depth = jax.tree.map(to_torch, params["params"]), depth
        first, hidden = degrees(inputs, units)
        each = self.params["out"]["kernel"].shape[1] // inputs
        see = lambda a, b, strict: to_torch(b[None] > a[:, None] if strict else b[None] >= a[:, None])
        self.masks = (
            see(first, hidden, False),
            see(hidden, hidden, False),
            see(hidden, first.repeat(each), True),
        )

    def layer(self, name, mask, x):
        return x @ (self.params[name]["kernel"] * mask) + self.params[name]["bias"]

    def forward(self, x, context=None):
        silu = torch.nn.functional.silu
        h = self.layer("in", self.masks[0], x)
        for index in range(self.depth):
            r = self.layer(f"MaskedDense_{2 * index}", self.masks[1], silu(h))
            h = h + self.layer(f"MaskedDense_{2 * index + 1}", self.masks[1], silu(r))
        return self.layer("out", self.masks[2], silu(h))


def test_autoregressive_splines():
    bijector = Autoregressive(MADE(width=10, depth=2, dtype="float64"), SPLINE)
    params = filled(bijector, jnp.asarray(X))
    theirs = MaskedPiecewiseRationalQuadraticAutoregressive(
        features=4,
        hidden_features=10,
        num_bins=SPLINE.bins,
        tails="linear",
        tail_bound=SPLINE.bound,
        min_bin_width=1e-3,
        min_bin_height=1e-3,
        min_derivative=SPLINE.least,
    )
    theirs.autoregressive_net = Shifted(Masked(params, 4, 10, 2))
    ours = forward(bijector, params, X)
    agree(ours, theirs(torch.tensor(X)))
    back = jax.jit(bijector.inverse)(params, jnp.asarray(ours[0]))
    np.testing.assert_allclose(back, theirs.inverse(torch.tensor(ours[0]))[0].detach(), atol=1e-9)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_log_prob_of_a_glow(dtype):
    """Two steps of (coupling, 1 x 1, ActNorm) and a standard normal base: log-probabilities to 1e-5."""
    step = (Inverse(Coupling(Perceptron(), PLAIN, Channels())), LU(), Inverse(ActNorm()))
    bijector = Chain(step + step)
    params = filled(bijector, jnp.asarray(IMAGES, jnp.float32))
    flows = []
    for index in (0, 3):
        coupling = normflows.flows.AffineCouplingBlock(Twin(params[str(index)], True), scale_map="exp")
        flows += [coupling, one_by_one(params[str(index + 1)]), act_norm(params[str(index + 2)])]
    base = normflows.distributions.DiagGaussian((4, 4, 6), trainable=False)
    theirs = normflows.NormalizingFlow(base, flows[::-1]).log_prob(NCHW).detach().numpy()
    objective = Flow(bijector, (4, 6, 4))
    batch = {"x": jnp.asarray(IMAGES, dtype)}
    ours = jax.jit(lambda batch: objective.log_prob({"flow": {"bijector": params}}, {}, batch, KEY))(batch)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5 if dtype == "float32" else 1e-10)
