"""Discrete and latent models whose evidence can be enumerated or has a closed form."""

import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from rows import ROWS, Untrained
from test_vae import ppca
from tiny import Affine

from genjax.core.errors import UserError
from genjax.core.objective import Context, HasLatents
from genjax.core.types import named
from genjax.data.codes import fingerprint
from genjax.distributions.likelihoods import Bernoulli
from genjax.networks.vector_quantizers import FSQ, Codebook
from genjax.objectives.diffusion.diffusion import Diffusion
from genjax.objectives.latent.latent import Latent
from genjax.objectives.latent.vqgan import adaptive_weight
from genjax.objectives.latent.vqvae import VQVAE

KEY = jax.random.key(0)
BITS = jnp.asarray(list(itertools.product((0.0, 1.0), repeat=4))).reshape(-1, 4, 1)


def coded() -> VQVAE:
    """Four bits, two positions with codes of three values: all of both can be enumerated."""
    return VQVAE(Folded(), Unfolded(), (4, 1), (2,), Codebook(3, 2), Bernoulli())


class Folded:
    """A linear network from [b, 4, 1] to [b, 2, features]."""

    def init(self, key, x, *, out):
        return 2.0 * jax.random.normal(key, (4, math.prod(out)))

    def apply(self, params, x, *, out):
        return ((x.reshape(len(x), -1) - 0.5) @ params).reshape(len(x), *out)


class Unfolded(Folded):
    """The inverse direction."""


class Uniform:
    """A uniform model of codes, or a model N(0, scale^2 I) of points."""

    condition = None

    def __init__(self, shape, values=0, scale=1.0):
        self.shape, self.values, self.scale, self.log_prob_kind = shape, values, scale, "exact"

    def init(self, key, batch):
        return {"net": {}}, {}

    def players(self):
        return {}

    def sample(self, params, extra, key, num, cond=None):
        return self.scale * jax.random.normal(key, (num, *self.shape))

    def log_prob(self, params, extra, batch, key):
        x = batch["x"]
        if self.values:
            return jnp.full(len(x), -math.prod(self.shape) * math.log(self.values))
        return jax.scipy.stats.norm.logpdf(x, 0.0, self.scale).sum(1)


def test_the_bound_of_codes_is_below_the_evidence_over_all_codes():
    """p(x) = sum over codes of p(code) p(x | code), which sums to 1; the bound is the term of the encoder's codes."""
    model = coded()
    params, extra = model.init(KEY, {"x": BITS})
    codes = jnp.asarray(list(itertools.product(range(3), repeat=2)), jnp.int32).reshape(-1, 2, 1)
    p = model.decode(params, extra, codes, KEY)  # probabilities [codes, 4, 1]
    given = np.asarray(
        Bernoulli().log_prob(jnp.log(p / (1 - p)).repeat(16, axis=0), jnp.tile(BITS, (9, 1, 1)))
    )
    joint = given.reshape(9, 16) - 2 * np.log(3)
    evidence = np.logaddexp.reduce(joint, axis=0)
    assert np.exp(evidence).sum() == pytest.approx(1.0, abs=1e-4)
    bound = np.asarray(model.log_prob(params, extra, {"x": BITS}, KEY))
    assert np.all(bound < evidence)
    own = np.asarray(model.encode(params, extra, {"x": BITS}, KEY))[..., 0] @ [3, 1]
    np.testing.assert_allclose(bound, joint[own, np.arange(16)], rtol=1e-4, atol=1e-4)
    prior = Latent(model, Untrained(), Uniform((2, 1), 3))
    held = {"autoencoder": {"params": params, "extra": extra}, "scale": jnp.ones(()), "model": {}}
    np.testing.assert_allclose(prior.log_prob({}, held, {"x": BITS}, KEY), bound, rtol=1e-5)
    assert prior.log_prob_kind == "lower bound (its own codes; latents: exact)"


@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_latent_bound_equals_the_evidence_if_the_posterior_is_exact(scale):
    """Probabilistic PCA's VAE with its own prior in the scaled latents: log N(0, s^2 I), for every s."""
    with jax.enable_x64(True):
        vae, params, batch, evidence = ppca()
        model = Latent(vae, Untrained(), Uniform((2,), scale=scale))
        held = {"autoencoder": {"params": params, "extra": {}}, "scale": jnp.asarray(scale), "model": {}}
        np.testing.assert_allclose(model.log_prob({}, held, batch, KEY), evidence, rtol=1e-9)
        assert model.log_prob_kind == "lower bound (ELBO; latents: exact)"


@pytest.mark.slow
def test_latents_have_unit_variance_and_samples_are_decoded():
    row = ROWS["latent-points"].objective
    batch = {"x": 7.0 * jax.random.normal(KEY, (64, 2))}
    params, extra = row.init(KEY, batch)
    key = jax.random.fold_in(KEY, 1)
    z = row.encode(params, extra, batch, key)
    assert float(jnp.std(z)) == pytest.approx(1.0, abs=0.1)
    raw = row.autoencoder.encode(*extra["autoencoder"].values(), batch, key)
    np.testing.assert_allclose(z, extra["scale"] * raw, rtol=1e-5)
    back = row.autoencoder.decode(*extra["autoencoder"].values(), raw, key)
    np.testing.assert_allclose(row.decode(params, extra, z, key), back, rtol=1e-4, atol=1e-5)
    points = Latent(row.autoencoder, Untrained(), Uniform((3,)))
    wide = dataclasses.replace(points, model=Uniform((3,), scale=2.0))
    drawn = [
        m.sample(params, {**extra, "scale": jnp.asarray(s)}, KEY, 5) for m, s in ((points, 1.0), (wide, 2.0))
    ]
    np.testing.assert_allclose(*drawn, rtol=1e-5)


@pytest.mark.slow
def test_autoencoder_gets_no_gradient_and_the_loss_is_the_models():
    row = ROWS["latent-points"].objective
    batch = {"x": jax.random.normal(KEY, (8, 2))}
    params, extra = row.init(KEY, batch)
    ctx = Context(KEY, jnp.zeros((), jnp.int32))
    player = row.players()["net"]
    slope = jax.grad(lambda held: player.loss(params, {**extra, "autoencoder": held}, batch, ctx)[0])
    for leaf in jax.tree.leaves(slope(extra["autoencoder"])):
        np.testing.assert_array_equal(leaf, 0.0)
    z = row.encode(params, extra, batch, named(KEY, "latents"))
    own, _ = row.model.loss(params, {}, {"x": z}, ctx)
    np.testing.assert_allclose(player.loss(params, extra, batch, ctx)[0], own, rtol=1e-6)


@pytest.mark.slow
def test_cached_codes_are_used_if_their_fingerprint_matches():
    coder = coded()
    params, extra = coder.init(KEY, {"x": BITS})
    mark = fingerprint((params, extra))
    model = Latent(coder, Untrained(), Uniform((2, 1), 3))
    held = {"autoencoder": {"params": params, "extra": extra}, "scale": jnp.ones(()), "fingerprint": mark}
    own, other = coder.encode(params, extra, {"x": BITS}, KEY), jnp.ones((16, 2, 1), jnp.int32)
    encode = lambda z, mark: model.encode({}, held, {"x": BITS, "z": z, "z_of": jnp.full(16, mark)}, KEY)
    np.testing.assert_array_equal(encode(other, mark), other)
    np.testing.assert_array_equal(encode(other, mark + 1), own)
    swapped = jax.tree.map(lambda leaf: leaf[::-1], params)
    bent = jax.tree.map(lambda leaf: jnp.nextafter(leaf, 9.0), params)
    assert len({int(fingerprint((p, extra))) for p in (params, swapped, bent)}) == 3


def test_mismatched_latents_raise():
    row = ROWS["latent-points"].objective
    batch = {"x": jnp.zeros((4, 2))}
    with pytest.raises(UserError, match=r"config.objective.model.shape=3$"):
        dataclasses.replace(row, model=dataclasses.replace(row.model, shape=(2,))).init(KEY, batch)
    with pytest.raises(UserError, match="a Diffusion, which has no latents"):
        dataclasses.replace(row, autoencoder=row.model).init(KEY, batch)
    with pytest.raises(UserError, match=r"config.objective.model.values=3$"):
        Latent(coded(), Untrained(), Uniform((2, 1), 4)).init(KEY, {"x": BITS})


@pytest.mark.slow
def test_vqvae2_codes_form_one_sequence_top_first():
    """Decoding the encoder's codes gives the same outputs; changing a top code changes every output."""
    model = ROWS["vqvae2-points"].objective
    x = jax.random.normal(KEY, (3, 2))
    params, extra = model.init(KEY, {"x": x})
    found, out = model.quantize(params, extra, x, KEY, None)
    codes = model.encode(params, extra, {"x": x}, KEY)
    assert codes.shape == (3, *model.latent_shape) == (3, 2 + 4)
    np.testing.assert_array_equal(codes[:, :2], found["top"].codes.reshape(3, 2))
    np.testing.assert_allclose(model.decode(params, extra, codes, KEY), out, atol=1e-5)
    other = model.decode(params, extra, codes.at[:, 0].set((codes[:, 0] + 1) % model.values), KEY)
    assert np.all(np.abs(np.asarray(other - out)).max(1) > 1e-6)


def test_adaptive_weight_equalises_the_gradient_norms():
    a, b = jax.random.normal(KEY, (4, 5)), 37.0 * jax.random.normal(jax.random.key(1), (4, 5))
    norm = lambda x: float(jnp.sqrt(jnp.sum(x**2)))
    assert norm(adaptive_weight(a, b) * b) == pytest.approx(norm(a), rel=1e-4)


@pytest.mark.slow
def test_adversarial_loss_has_no_gradient_before_its_start():
    model = ROWS["vqgan-points"].objective
    x = jax.random.normal(KEY, (4, 2))
    params, extra = model.init(KEY, {"x": x})

    def slope(step, discriminator):
        def loss(own):
            given = {"vqvae": own, "discriminator": discriminator}
            return model.loss(given, extra, {"x": x}, Context(KEY, jnp.asarray(step)))[0]

        return ravel_pytree(jax.grad(loss)(params["vqvae"]))[0]

    discriminator = params["discriminator"]
    other = jax.tree.map(lambda leaf: leaf + 0.1, discriminator)
    np.testing.assert_allclose(slope(0, discriminator), slope(0, other), rtol=1e-4, atol=1e-6)
    assert np.abs(slope(1, discriminator) - slope(1, other)).max() > 1e-4


@pytest.mark.parametrize(
    "name", ["vae-points", "vqvae-points", "vqvae2-points", "vqgan-points", "latent-points"]
)
def test_autoencoders_have_latents(name):
    assert isinstance(ROWS[name].objective, HasLatents)
    assert not isinstance(Diffusion(Affine(), (2,)), HasLatents)


def test_codes_of_any_quantizer_have_the_latent_shape():
    model = dataclasses.replace(coded(), quantizer=FSQ((3, 3)))
    params, extra = model.init(KEY, {"x": BITS})
    assert extra == {}
    assert model.encode(params, extra, {"x": BITS}, KEY).shape == (16, *model.latent_shape) == (16, 2, 1)
    assert model.values == 9
