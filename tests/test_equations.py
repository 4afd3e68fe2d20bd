"""Losses are their equations: every objective with networks of two numbers, computed again by hand."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

from genjax.adversarial.conditioning import Auxiliary
from genjax.adversarial.image_pool import ImagePool
from genjax.adversarial.penalties import R1
from genjax.conditioning.labels import Labels
from genjax.core.objective import Context
from genjax.diffusion.discrete import Absorbing
from genjax.diffusion.guidance import ClassifierFree
from genjax.diffusion.prediction import X0
from genjax.networks.convolutional.perceptual import RandomFeatures
from genjax.networks.noise_schedule import Monotone
from genjax.networks.vector_quantizers import Codebook
from genjax.objectives.adversarial.aae import AAE
from genjax.objectives.adversarial.bigan import BiGAN
from genjax.objectives.adversarial.cyclegan import CycleGAN
from genjax.objectives.adversarial.gan import GAN
from genjax.objectives.adversarial.pix2pix import Pix2Pix
from genjax.objectives.adversarial.stylegan import PathLength, StyleGAN
from genjax.objectives.diffusion.diffusion import Diffusion
from genjax.objectives.diffusion.token_diffusion import TokenDiffusion
from genjax.objectives.diffusion.vdm import VDM
from genjax.objectives.latent.vqgan import VQGAN, adaptive_weight
from genjax.objectives.latent.vqvae import VQVAE
from genjax.objectives.latent.vqvae2 import VQVAE2

KEY = jax.random.key(0)


@dataclasses.dataclass(frozen=True)
class Wave:
    """a tanh(W x) + b with fixed W: of all inputs, of any output shape, by JAX or, for arrays of NumPy, by NumPy."""

    styles: int = 3

    def init(self, key, *inputs, out, **options):
        return {"w": jax.random.normal(key, (2,))}

    def apply(self, params, x, t=None, cond=None, *, out, **options):
        xp = np if isinstance(x, np.ndarray) else jnp
        seen = [part.reshape(len(x), -1) for part in (x, cond) if part is not None]
        flat, shape = xp.concatenate(seen, axis=1), (out,) if isinstance(out, int) else out
        mix = np.cos(1.0 + np.arange(flat.shape[1] * math.prod(shape))).reshape(flat.shape[1], -1)
        a, b = params["w"]
        return (a * xp.tanh(flat @ mix.astype(np.float32)) + b).reshape(len(x), *shape)


@dataclasses.dataclass(frozen=True)
class Raise:
    """An augmentation that no evaluation may see."""

    def init(self):
        return {}

    def apply(self, state, key, x):
        return x + 1.0

    def adapt(self, state, margin):
        return {}, {}


NET = Wave()
mean = lambda x: float(np.mean(x))
softplus = lambda x: np.logaddexp(0.0, x)
compiled = lambda function, *inputs: jax.device_get(jax.jit(function)(*inputs))


def batch_of(shape, count=6):
    rng = np.random.default_rng(0)
    return {"x": rng.normal(size=(count, *shape)).astype(np.float32), "label": rng.integers(0, 3, count)}


@functools.partial(jax.jit, static_argnums=(0, 3))
def _losses(objective, batch, step, train):
    params, extra = objective.init(KEY, batch)
    ctx = Context(KEY, step, train)
    return params, extra, {n: p.loss(params, extra, batch, ctx) for n, p in objective.players().items()}


def losses_of(objective, batch, step=0, train=False):
    """(params, extra, player -> loss, player -> Aux), by one compiled call; arrays of NumPy."""
    params, extra, found = jax.device_get(_losses(objective, batch, jnp.asarray(step), train))
    values = {name: float(loss) for name, (loss, _) in found.items()}
    return params, extra, values, {name: aux for name, (_, aux) in found.items()}


@pytest.mark.parametrize("train", [False, True])
def test_gan(train):
    """Game, penalty and the costs of labels; the augmentation is seen in training only."""
    gan = GAN(
        NET, NET, (2,), 2, Labels(3), penalties=(R1(0.3),), augment=Raise(), conditioning=Auxiliary(0.5)
    )
    batch = batch_of((2,))
    params, _, values, _ = losses_of(gan, batch, train=train)
    labels = np.eye(3, dtype=np.float32)[batch["label"]]
    outputs = lambda x: NET.apply(params["discriminator"], x + np.float32(train), out=4)
    made = compiled(lambda labels: gan.generate(params, KEY, 6, labels), labels)
    real, fake = outputs(batch["x"]), outputs(made)
    entropy = lambda out: -0.5 * mean(np.sum(labels * log_softmax(out[:, 1:], axis=1), axis=1))
    a, b = params["discriminator"]["w"]
    first = np.cos(1.0 + np.arange(8)).reshape(2, 4)[:, 0]  # of W; the derivative of tanh is 1 - tanh^2
    slope = a * (1.0 - ((real[:, :1] - b) / a) ** 2) * first
    game = mean(softplus(-real[:, 0])) + mean(softplus(fake[:, 0]))
    penalty = 0.15 * mean(np.sum(slope**2, axis=1))
    expected = game + penalty + entropy(real) + entropy(fake)
    assert values["discriminator"] == pytest.approx(expected, rel=1e-5)
    assert values["generator"] == pytest.approx(mean(softplus(-fake[:, 0])) + entropy(fake), rel=1e-5)


def test_bigan_and_aae():
    """Pairs of data and codes are real for one side of BiGAN and fake for the other; AAE's prior is real."""
    batch = batch_of((2,))
    bigan = BiGAN(NET, NET, NET, (2,), 3, penalties=())
    params, _, values, _ = losses_of(bigan, batch)
    pairs = compiled(lambda batch: bigan._pairs(params, batch, Context(KEY, jnp.int32(0))), batch)
    real, fake = (
        NET.apply(params["discriminator"], x, None, z, out=1)[:, 0] for x, z in (pairs[:2], pairs[2:])
    )
    assert values["discriminator"] == pytest.approx(mean(softplus(-real)) + mean(softplus(fake)), rel=1e-5)
    assert values["generator"] == pytest.approx(0.5 * mean(softplus(-fake) + softplus(real)), rel=1e-5)

    aae = AAE(NET, NET, NET, (2,), 3, penalties=(), weight=0.4)
    params, _, values, _ = losses_of(aae, batch)
    own, z = params["autoencoder"], compiled(lambda: aae.draw(KEY, 6))
    code = NET.apply(own["encoder"], batch["x"], out=3)
    real, fake = (NET.apply(params["discriminator"], codes, out=1)[:, 0] for codes in (z, code))
    assert values["discriminator"] == pytest.approx(mean(softplus(-real)) + mean(softplus(fake)), rel=1e-5)
    error = NET.apply(own["decoder"], code, out=(2,)) - batch["x"]
    nats = 0.5 * mean(error**2) + 0.5 * math.log(2 * math.pi)
    assert values["autoencoder"] == pytest.approx(nats + 0.4 * mean(softplus(-fake)), rel=1e-5)


def test_cyclegan():
    """Both cycles and the identity in each generator's loss; the pool is used in training only."""
    objective = CycleGAN(NET, NET, (2, 4, 1), cycle=3.0, identity=2.0, history=ImagePool(6))
    batch = batch_of((2, 4, 1))
    params, _, values, auxes = losses_of(objective, batch)
    assert not any(aux.extra for aux in auxes.values())
    a, b = batch["x"][:, :, :2], batch["x"][:, :, 2:]
    to = lambda kind, x: NET.apply(params[f"generator_to_{kind}"], x, out=(2, 2, 1))
    cycles = mean(np.abs(to("a", to("b", a)) - a)) + mean(np.abs(to("b", to("a", b)) - b))
    for kind, x, other in (("a", a, b), ("b", b, a)):
        logit = lambda x, kind=kind: NET.apply(params[f"discriminator_{kind}"], x, out=1)
        fake = logit(to(kind, other))
        game = 0.5 * mean((logit(x) - 1) ** 2) + 0.5 * mean(fake**2)
        assert values[f"discriminator_{kind}"] == pytest.approx(game, rel=1e-5)
        expected = 0.5 * mean((fake - 1) ** 2) + 3.0 * cycles + 2.0 * mean(np.abs(to(kind, x) - x))
        assert values[f"generator_to_{kind}"] == pytest.approx(expected, rel=1e-5)


def test_pix2pix():
    """The discriminator sees the input before the output."""
    objective = Pix2Pix(NET, NET, (2, 4, 1), weight=5.0, adversarial=0.5)
    batch = batch_of((2, 4, 1))
    params, _, values, _ = losses_of(objective, batch)
    a, b = batch["x"][:, :, :2], batch["x"][:, :, 2:]
    made = NET.apply(params["generator"], a, out=(2, 2, 1))
    logit = lambda b: NET.apply(params["discriminator"], np.concatenate([a, b], axis=-1), out=1)
    game = mean(softplus(-logit(b))) + mean(softplus(logit(made)))
    assert values["discriminator"] == pytest.approx(game, rel=1e-5)
    expected = 0.5 * mean(softplus(-logit(made))) + 5.0 * mean(np.abs(b - made))
    assert values["generator"] == pytest.approx(expected, rel=1e-5)


def test_stylegan():
    """The mean of styles moves slowly, truncation pulls styles to it, mixing switches at its place."""
    gan = GAN(NET, NET, (2,), 4, penalties=())
    model = StyleGAN(gan, NET, mixing=0.0, path_length=PathLength(weight=0.0), truncation=0.3, decay=0.9)
    batch = batch_of((2,))
    params, extra, values, auxes = losses_of(model, batch, train=True)
    style = lambda z: NET.apply(params["generator"]["mapping"], z, out=4)
    images = lambda w: NET.apply(params["generator"]["synthesis"], w, out=(2,))
    first, held = compiled(lambda: model.style(params, KEY, 6, None)), np.arange(4.0, dtype=np.float32)
    np.testing.assert_allclose(auxes["generator"].extra["style"]["mean"], 0.1 * first.mean(0), rtol=1e-5)
    logit = NET.apply(params["discriminator"], images(np.repeat(first[:, None], 3, axis=1)), out=1)
    assert values["generator"] == pytest.approx(mean(softplus(-logit)), rel=1e-5)
    extra = {"style": {**extra["style"], "mean": held}}
    z, other = batch_of((4,))["x"][:3], batch_of((4,))["x"][3:]
    near = lambda z: held + 0.3 * (style(z) - held)
    each = lambda w: np.repeat(w[:, None], 3, axis=1)
    decoded, mixed = compiled(
        lambda z, other: (model.decode(params, extra, z, KEY), model.mix(params, extra, z, other, 1, KEY)),
        z,
        other,
    )
    np.testing.assert_allclose(decoded, images(each(near(z))), rtol=1e-5)
    switched = np.concatenate([each(near(z))[:, :1], each(near(other))[:, 1:]], axis=1)
    np.testing.assert_allclose(mixed, images(switched), rtol=1e-5)


def test_vqvae_and_vqgan():
    """Nats per dimension and the codebook's cost; the game joins at its start, with its balance."""
    batch = batch_of((4,))
    coder = VQVAE(NET, NET, (4,), (2,), Codebook(5, 3))
    model = VQGAN(coder, NET, 2, RandomFeatures(NET), weight=0.6, start=2)
    for step, train in ((1, True), (2, True), (0, False)):
        params, _, values, auxes = losses_of(model, batch, step, train)
        own, z = params["vqvae"], NET.apply(params["vqvae"]["encoder"], batch["x"], out=(2, 3))
        table = own["quantizer"]["codebook"]
        e = table[((z[:, :, None] - table) ** 2).sum(-1).argmin(-1)]
        made = NET.apply(own["decoder"], e, out=(4,))
        nats = mean((made - batch["x"]) ** 2) + 0.5 * math.log(math.pi)
        metrics = auxes["vqvae"].metrics
        logit = lambda x, params=params: NET.apply(params["discriminator"], x, out=2)
        fooled = mean(softplus(-logit(made)))
        game = mean(softplus(-logit(batch["x"]))) + mean(softplus(logit(made)))
        assert values["discriminator"] == pytest.approx(game, rel=1e-5)
        total = nats + 1.25 * mean((z - e) ** 2) + float(metrics["perceptual"])
        if step >= 2 or not train:
            total += 0.6 * float(metrics["balance"]) * fooled
        assert values["vqvae"] == pytest.approx(total, rel=1e-5)
    slope = jax.grad(lambda a: adaptive_weight(a, jnp.ones(3)))(jnp.arange(3.0))
    np.testing.assert_array_equal(slope, 0.0)


def test_vqvae2():
    """Both levels pay; the codes are one sequence with the top first, which decodes to the same outputs."""
    model = VQVAE2(*[NET] * 5, (4,), (4,), (2,), 3, Codebook(5, 2), Codebook(5, 3))
    batch = batch_of((4,))
    params, extra, values, _ = losses_of(model, batch)

    def run(params, extra, batch):
        found, out = model.quantize(params, extra, batch["x"], KEY, None)
        codes = model.encode(params, extra, batch, KEY)
        costs = found["top"].cost, found["bottom"].cost
        return costs, found["top"].codes, out, codes, model.decode(params, extra, codes, KEY)

    costs, top, out, codes, decoded = compiled(run, params, extra, batch)
    nats = mean((out - batch["x"]) ** 2) + 0.5 * math.log(math.pi)
    assert min(costs) > 1e-3
    assert values["vqvae"] == pytest.approx(nats + float(sum(costs)), rel=1e-5)
    np.testing.assert_array_equal(codes[:, :2], top[..., 0])
    np.testing.assert_allclose(decoded, out, rtol=1e-4, atol=1e-5)


def test_diffusion_is_guided_away_from_the_unconditional_model():
    model = Diffusion(NET, (2,), Labels(3), predict=X0(), guidance=ClassifierFree(3.0))
    batch = batch_of((2,))
    params, _ = compiled(lambda batch: model.init(KEY, batch), batch)
    apply = lambda cond: NET.apply(params["net"], batch["x"], None, cond, out=(2,))
    given, free = (apply(cond.astype(np.float32)) for cond in (np.eye(3)[batch["label"]], np.zeros((6, 3))))
    guided = lambda batch: model.guided(params, {"label": batch["label"]})(batch["x"], jnp.asarray(0.4)).x0
    found = compiled(guided, batch)
    np.testing.assert_allclose(found, free + 3.0 * (given - free), rtol=1e-4, atol=1e-5)


def test_token_diffusion():
    """The bound and, in the hybrid loss, the cross-entropy; guidance extrapolates from the unconditional model."""
    model = TokenDiffusion(NET, (3,), Absorbing(4), condition=Labels(3), hybrid=0.3, guidance=0.0)
    batch = {**batch_of((1,)), "x": np.arange(18).reshape(6, 3) % 4}
    params, _, values, auxes = losses_of(model, batch)
    metrics = auxes["net"].metrics
    assert float(metrics["cross_entropy"]) > 0.1
    expected = float(metrics["bound"]) + 0.3 * float(metrics["cross_entropy"])
    assert values["net"] == pytest.approx(expected, rel=1e-5)
    cond = {"label": batch["label"]}
    given, free = compiled(lambda cond: [model.sample(params, {}, KEY, 6, c) for c in (cond, None)], cond)
    np.testing.assert_array_equal(given, free)  # guidance 0 is the unconditional model


def test_the_schedule_of_vdm():
    """Its ends minimise the bound, its interior the mean square of the diffusion term."""
    model = VDM(NET, (2,), schedule=Monotone(-5.0, 4.0, width=4))
    batch = {"x": batch_of((2,))["x"]}
    params, _ = compiled(lambda batch: model.init(KEY, batch), batch)
    ctx = Context(KEY, jnp.int32(0))

    @jax.jit
    def run(own):
        given = lambda own: {**params, "schedule": own}
        rows = {"x": jnp.asarray(batch["x"])}
        terms = lambda own, moves: model.terms(given(own), rows, ctx, moves)
        bound = lambda own: sum(jnp.mean(term) for term in terms(own, "ends").values())
        square = lambda own: jnp.mean(terms(own, "interior")["diffusion"] ** 2)
        loss = lambda own: model.schedule_loss(given(own), {}, rows, ctx)[0]
        return jax.value_and_grad(loss)(own), jax.value_and_grad(lambda own: bound(own) + square(own))(own)

    (loss, slope), (expected, by_hand) = run(params["schedule"])
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)
    for ours, theirs in zip(jax.tree.leaves(slope), jax.tree.leaves(by_hand), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3 * float(jnp.max(jnp.abs(theirs))))
