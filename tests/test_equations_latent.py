"""Latent models, adapters and flows are their equations, with networks of two numbers."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rows import Untrained
from test_equations import KEY, NET, Wave, batch_of, losses_of

from genjax.core.objective import Aux, Context, Player
from genjax.data.codes import CODES, FINGERPRINT
from genjax.diffusion.interpolants import ODE
from genjax.distributions.elbo import ELBO, Beta
from genjax.distributions.flows.bijector import Chain
from genjax.distributions.flows.layers import Elementwise
from genjax.distributions.likelihoods import Gaussian
from genjax.distributions.outputs import LogisticMixture
from genjax.distributions.priors import Mixture
from genjax.networks.convolutional.ladder import Moments
from genjax.networks.noise_schedule import Monotone
from genjax.networks.vector_quantizers import Codebook
from genjax.objectives.autoregressive import Autoregressive
from genjax.objectives.diffusion.interpolant import Interpolant
from genjax.objectives.diffusion.vdm import VDM
from genjax.objectives.flow import Flow
from genjax.objectives.latent.ladder import LadderVAE
from genjax.objectives.latent.latent import Latent
from genjax.objectives.latent.vae import VAE
from genjax.objectives.latent.vqvae import VQVAE
from genjax.objectives.lora import LoRA

CTX = Context(KEY, jnp.int32(0))


@dataclasses.dataclass(frozen=True)
class Steps:
    """Two levels: z_1 ~ N(0, 1), z_2 | z_1 ~ N(z_1 / 2, e^-1); posteriors around x; the output is both."""

    def init(self, key, x, *inputs, **options):
        return {"w": jnp.ones(())}

    def apply(self, params, x, t=None, cond=None, *, out, draw, num=0, train=False):
        one = jnp.ones((num if x is None else len(x), 1))
        posterior = lambda mean, log_std: None if x is None else Moments(mean * x[:, :1], log_std * one)
        first = draw(0, Moments(0.0 * one, 0.0 * one), posterior(0.7, -0.4))
        second = draw(1, Moments(0.5 * first, -0.5 * one), posterior(-0.3, -0.8))
        return params["w"] * jnp.concatenate([first, second], axis=1)


def normal_kl(gap, log_std, other):
    return other - log_std + 0.5 * (np.exp(2 * log_std) + gap**2) / np.exp(2 * other) - 0.5


def test_ladder():
    """KL by level, their log-ratios and the noise of two levels, over many draws for one example."""
    num, model = 4000, LadderVAE(Steps(), (2,), likelihood=Gaussian(0.5))
    params = {"net": {"w": jnp.ones(())}}
    batch = {"x": jnp.broadcast_to(jnp.asarray([[1.5, -0.5]]), (num, 2))}
    z, kl, log_ratio = (np.asarray(part, np.float64) for part in model.infer(params, batch["x"], None, KEY))
    np.testing.assert_allclose(kl[:, 0], normal_kl(1.05, -0.4, 0.0), rtol=1e-5)
    np.testing.assert_allclose(kl[:, 1], normal_kl(-0.45 - 0.5 * z[:, 0], -0.8, -0.5), rtol=1e-4)
    apart = kl.sum(1) + log_ratio
    assert abs(apart.mean()) < 4.5 * apart.std() / num**0.5
    noise = (z - [1.05, -0.45]) / np.exp([-0.4, -0.8])
    assert np.all(np.abs(noise.mean(0)) < 4.5 / num**0.5)
    assert abs(np.corrcoef(noise.T)[0, 1]) < 4.5 / num**0.5
    loss, aux = model.loss(params, {}, batch, CTX)
    given = -2.0 * ((z - [1.5, -0.5]) ** 2).sum(1) - 2 * math.log(0.5) - math.log(2 * math.pi)
    assert float(loss) == pytest.approx(kl.sum(1).mean() - given.mean(), abs=0.1)
    assert float(loss) == pytest.approx(-float(aux.metrics["elbo"]), rel=1e-5)


@dataclasses.dataclass(frozen=True)
class Coded:
    """A fixed linear autoencoder, x = z / w - 1."""

    values = 0
    latent_shape = (2,)
    condition = None

    def init(self, key, batch):
        return {"coder": {"w": jnp.full((), 4.0)}}, {"shift": jnp.ones(())}

    def players(self):
        return {"coder": Player(lambda *given: (jnp.zeros(()), Aux()))}

    def encode(self, params, extra, batch, key):
        return params["coder"]["w"] * (batch["x"] + extra["shift"])

    def decode(self, params, extra, z, key, cond=None):
        return z / params["coder"]["w"] - extra["shift"]

    def log_decode(self, params, extra, batch, key):
        return self.encode(params, extra, batch, key), jnp.zeros(len(batch["x"]))


@dataclasses.dataclass(frozen=True)
class Given:
    """A model of latents whose loss is their mean, and whose sample is a constant."""

    shape: tuple[int, ...] = (2,)

    condition = None

    def init(self, key, batch):
        return {"net": {"w": jnp.mean(batch["x"])}}, {"seen": jnp.zeros(())}

    def players(self):
        def loss(params, extra, batch, ctx):
            return jnp.mean(batch["x"]), Aux({}, {"seen": extra["seen"] + 1.0})

        return {"net": Player(loss)}

    @property
    def sampling(self):
        raise NotImplementedError

    def sample(self, params, extra, key, num, cond=None):
        return jnp.full((num, 2), 3.0)


def test_latent():
    """Latents of unit variance, the coder frozen, its extra state and the model's apart, samples decoded."""
    model, batch = Latent(Coded(), Untrained(), Given()), {"x": jnp.asarray(batch_of((2,))["x"])}
    params, extra = model.init(KEY, batch)
    z = model.encode(params, extra, batch, KEY)
    assert float(jnp.std(z)) == pytest.approx(1.0, rel=1e-5)
    assert float(params["net"]["w"]) == pytest.approx(float(jnp.mean(z)), rel=1e-4)
    np.testing.assert_allclose(model.decode(params, extra, z, KEY), batch["x"], rtol=1e-5, atol=1e-6)
    scale = float(extra["scale"])
    drawn = model._coder.decode({"coder": {"w": 4.0}}, {"shift": 1.0}, 3.0 / scale, KEY)
    np.testing.assert_allclose(model.decode(params, extra, jnp.full((1, 2), 3.0), KEY), drawn, rtol=1e-5)
    player = model.players()["net"]
    loss = lambda held: player.loss(params, {**extra, "autoencoder": held}, batch, CTX)
    for leaf in jax.tree.leaves(jax.grad(loss, has_aux=True)(extra["autoencoder"])[0]):
        np.testing.assert_array_equal(leaf, 0.0)
    value, aux = loss(extra["autoencoder"])
    assert float(value) == pytest.approx(float(jnp.mean(z)), rel=1e-4)
    assert float(aux.extra["model"]["seen"]) == 1.0


def test_cached_codes_are_used_if_they_are_this_coders():
    batch = {"x": jnp.asarray(batch_of((4,))["x"])}
    coder = VQVAE(NET, NET, (4,), (2,), Codebook(5, 3))
    params, held = coder.init(KEY, batch)
    model = Latent(coder, Untrained(), Given((2, 1)))
    extra = {"autoencoder": {"params": params, "extra": held}, "scale": jnp.ones(()), "fingerprint": 7}
    own, other = coder.encode(params, held, batch, KEY), jnp.full((6, 2, 1), 4, jnp.int32)
    for mark, expected in ((7, other), (8, own)):
        cached = {**batch, CODES: other, FINGERPRINT: jnp.full(6, mark)}
        np.testing.assert_array_equal(model.encode({}, extra, cached, KEY), expected)
    assert not np.array_equal(own, other)


def test_vae_of_a_prior_without_a_closed_form():
    """A mixture of one Gaussian has the KL of that Gaussian; warm-up of beta holds in training only."""
    num, batch = 4000, {"x": jnp.asarray([[0.3, -1.2]])}
    vae = VAE(NET, NET, (2,), 1, prior=Mixture(1), bound=ELBO(Beta(1.0, warmup=10), num))
    params, _, values, auxes = losses_of(vae, batch, train=True)
    mean, log_std = (float(part[0, 0]) for part in vae.posterior(params, batch["x"]))
    prior = params["vae"]["prior"]
    exact = normal_kl(mean - float(prior["mean"][0, 0]), log_std, float(prior["log_std"][0, 0]))
    metrics = auxes["vae"].metrics
    assert float(metrics["kl"]) == pytest.approx(
        exact, abs=4.5 * (1 + abs(mean)) * np.exp(log_std) / num**0.5
    )
    assert abs(exact) > 0.05
    assert values["vae"] == pytest.approx(-float(metrics["elbo"]) - float(metrics["kl"]), rel=1e-4)
    values, auxes = losses_of(vae, batch)[2:]
    assert values["vae"] == pytest.approx(-float(auxes["vae"].metrics["elbo"]), rel=1e-4)


def test_lora_adds_its_product_and_keeps_the_extra_state_of_the_inner_objective():
    @dataclasses.dataclass(frozen=True)
    class Inner(Given):
        def init(self, key, batch):
            return {"net": {"kernel": jnp.ones((2, 2))}}, {"seen": jnp.zeros(()), "other": jnp.ones(())}

    model, batch = LoRA(Inner(), Untrained(), rank=1), {"x": jnp.ones((3, 2))}
    params, extra = model.init(KEY, batch)
    own = {"net": {"kernel": {"A": jnp.asarray([[1.0], [2.0]]), "B": jnp.asarray([[3.0, 5.0]])}}}
    scale = model.alpha / model.rank
    merged = model.merged(own, extra)[0]["net"]["kernel"]
    np.testing.assert_allclose(merged, 1.0 + scale * np.asarray([[3.0, 5.0], [6.0, 10.0]]))
    changed = model.players()["net"].loss(params, extra, batch, CTX)[1].extra
    assert jax.tree.map(float, changed) == {"inner": {"seen": 1.0, "other": 1.0}}


def test_flow_in_nats_per_dimension_and_with_several_draws():
    """The loss is the mean per dimension; the log of a mean of k draws has less spread, and the same probability."""
    flow = Flow(Chain((Elementwise(),)), (2,))
    batch = {"x": jnp.asarray(batch_of((2,))["x"])}
    params, extra, values, _ = losses_of(flow, batch)
    exact = -float(jnp.mean(flow.log_prob(params, extra, batch, KEY)))
    assert values["flow"] == pytest.approx(exact / 2, rel=1e-5)
    batch = {"x": jnp.zeros((500, 1), jnp.int32)}
    one, many = (
        Flow(Chain((Elementwise(),)), (1,), levels=2, draws=draws).log_prob(
            {"flow": {"bijector": {"0": {"theta": jnp.asarray([[2.0, 0.0]])}}, "dequantize": {}}},
            {},
            batch,
            KEY,
        )
        for draws in (1, 40)
    )
    assert float(jnp.std(many)) < 0.3 * float(jnp.std(one))
    assert float(jnp.mean(jnp.exp(one))) == pytest.approx(float(jnp.mean(jnp.exp(many))), rel=0.1)


class Middle:
    """Noise that is always 1 / 2, with a log-density of 0.7."""

    name = "middle"

    def init(self, key, x, levels, cond):
        return {}

    def draw(self, params, x, levels, given):
        return jnp.full(x.shape, 0.5), jnp.full(len(x), 0.7)


def test_dequantization_pays_for_its_noise_and_samples_stay_in_range():
    flow, x = Flow(Chain(), (2,), levels=4, dequantize=Middle()), jnp.asarray([[0, 3], [1, 2]])
    params = {"flow": {"bijector": {}, "dequantize": {}}}
    y = (np.asarray(x) + 0.5) / 4
    expected = -0.5 * (y**2).sum(1) - math.log(2 * math.pi) - 0.7 - 2 * math.log(4)
    np.testing.assert_allclose(flow.log_prob(params, {}, {"x": x}, KEY), expected, rtol=1e-5)
    drawn = np.asarray(flow.sample(params, {}, KEY, 200))
    assert (drawn.min(), drawn.max()) == (0, 3)


class Penalty(Wave):
    """Causal or not, with an auxiliary loss of 5."""

    def penalised(self, params, x, t=None, cond=None, *, out, **options):
        return (
            self.apply(params, x.astype(jnp.float32), t, cond, out=out),
            jnp.asarray(5.0),
            {"load": jnp.ones(())},
        )


def test_autoregressive():
    """A network's penalty in training only; documents in one row begin anew; every channel is an element."""
    model, batch = Autoregressive(Penalty(), (4,), 3), {"x": jnp.asarray([[0, 1, 2, 1], [2, 2, 0, 1]])}
    params = {"net": NET.init(KEY, None, out=1)}
    trained, held_out = (
        model.loss(params, {}, batch, Context(KEY, CTX.step, train))[0] for train in (True, False)
    )
    assert float(trained - held_out) == pytest.approx(5.0, rel=1e-5)
    read = model._shifted(batch["x"], jnp.asarray([[0, 0, 1, 1], [0, 1, 1, 1]])[..., None])
    np.testing.assert_array_equal(read[..., 0], [[3, 0, 3, 2], [3, 3, 2, 0]])
    image = Autoregressive(Penalty(), (2, 2, 3), 5, LogisticMixture(2))
    np.testing.assert_array_equal(image.elements({"x": jnp.zeros((2, 2, 2, 3), jnp.int32)}), [12.0, 12.0])


def test_an_interpolant_starts_with_its_base_and_latent_noise():
    """Without velocity the samples are their start, here at t = 1 / 2: variance sigma^2 + gamma^2."""
    model = Interpolant(NET, (2,), sampler=ODE(steps=2, margin=0.5))
    drawn = model.sample({"net": {"w": jnp.zeros(2)}}, {}, KEY, 4000)
    half = jnp.asarray(0.5)
    variance = float(model.path.sigma(half) ** 2 + model.gamma.gamma(half) ** 2)
    assert float(jnp.var(drawn)) == pytest.approx(variance, rel=4.5 * (2 / 8000) ** 0.5)


def test_the_bound_of_vdm_is_the_mean_of_its_loss():
    """Prior, reconstruction and diffusion, on data far from the origin, where each counts."""
    model, batch = (
        VDM(NET, (2,), schedule=Monotone(-5.0, 4.0, width=4), times=2),
        {"x": jnp.full((4000, 2), 20.0)},
    )
    params, extra, values, auxes = losses_of(model, batch)
    bound = np.asarray(jax.jit(model.log_prob)(params, extra, batch, KEY), np.float64)
    assert float(auxes["net"].metrics["prior"]) > 5.0
    assert bound.mean() == pytest.approx(-values["net"], abs=9 * bound.std() / len(bound) ** 0.5)
