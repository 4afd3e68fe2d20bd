"""GANs with known optima: two Gaussians on a line, where divergence and distance are integrals.

Also parts of discriminators, BiGAN and AAE. Slow tests: `./launch/local.sh test -m slow
tests/test_gan.py tests/test_adversarial.py`.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.stats import norm
from tiny import Affine

from genjax.adversarial.augment import DiffAugment
from genjax.adversarial.conditioning import Auxiliary
from genjax.adversarial.losses import LeastSquares, Minimax, Relativistic, Wasserstein
from genjax.adversarial.penalties import R1, GradientPenalty
from genjax.adversarial.spectral import SpectralNorm
from genjax.conditioning.labels import Labels
from genjax.core.errors import UserError
from genjax.core.objective import Context
from genjax.distributions.priors import Mixture
from genjax.networks import MLP, FeedForward, WithMinibatch
from genjax.networks.layers.minibatch import closeness, group_std
from genjax.objectives.adversarial.aae import AAE
from genjax.objectives.adversarial.bigan import BiGAN
from genjax.objectives.adversarial.gan import GAN

KEY = jax.random.key(0)
POINTS = np.linspace(-8.0, 8.0, 4001, dtype=np.float32)
STEP = float(POINTS[1] - POINTS[0])
P, Q = norm.pdf(POINTS, -0.5, 1.0), norm.pdf(POINTS, 1.0, 0.6)  # data, and generated
GENERATOR = {"params": {"Dense_0": {"kernel": jnp.full((1, 1), 0.6), "bias": jnp.ones(1)}}}  # 1 + 0.6 z


def outputs_after_training(gan, steps: int, size: int = 1024, start: float = 1.0):
    """The discriminator's outputs at POINTS after training on new samples of both distributions."""
    player = gan.players()["discriminator"]
    batch = lambda key: {"x": -0.5 + jax.random.normal(key, (size, 1))}
    params, extra = gan.init(KEY, batch(KEY))
    # The two-sided gradient penalty has minima at the slopes 1 and -1: a start near the wrong one stays there.
    first = jax.tree.map(lambda leaf: start * leaf, params["discriminator"])
    optimizer = optax.adam(optax.cosine_decay_schedule(1e-2, steps))

    def move(carry, step):
        own, moments = carry
        key = jax.random.fold_in(KEY, step)
        loss = lambda own: player.loss(
            {"discriminator": own, "generator": GENERATOR}, extra, batch(key), Context(key, step)
        )[0]
        updates, moments = optimizer.update(jax.grad(loss)(own), moments, own)
        return (optax.apply_updates(own, updates), moments), None

    @jax.jit
    def run(own):
        (own, _), _ = jax.lax.scan(move, (own, optimizer.init(own)), jnp.arange(steps))
        return gan.discriminator.apply(own, jnp.asarray(POINTS)[:, None], out=1)[:, 0]

    return np.asarray(run(first), np.float64)


@pytest.mark.optimised
def test_the_discriminator_of_two_gaussians_reaches_the_jensen_shannon_optimum():
    """Its loss, by quadrature, is 2 log 2 - 2 JS(p, q), and the probability of "real" p / (p + q)."""
    mean = (P + Q) / 2
    js = 0.5 * STEP * np.sum(P * np.log(P / mean) + Q * np.log(Q / mean))
    gan = GAN(Affine(), FeedForward((24, 24), "tanh"), (1,), 1, penalties=())
    found = outputs_after_training(gan, 300)
    loss = STEP * np.sum(P * np.logaddexp(0, -found) + Q * np.logaddexp(0, found))
    estimate = np.log(2) - loss / 2
    assert 0.98 * js < estimate < 1.0001 * js, (estimate, js)
    assert STEP * np.sum(mean * np.abs(1 / (1 + np.exp(-found)) - P / (P + Q))) < 0.02


@pytest.mark.slow
@pytest.mark.optimised
def test_the_gradient_penalised_critic_of_two_gaussians_estimates_their_w1():
    """W1 is the mean distance of equal quantiles; with penalty weight w the estimate is W1 (1 + W1 / 2 w)."""
    levels = (np.arange(20_000) + 0.5) / 20_000
    w1 = np.mean(np.abs(norm.ppf(levels, -0.5, 1.0) - norm.ppf(levels, 1.0, 0.6)))
    gan = GAN(
        Affine(),
        FeedForward((24, 24), "tanh"),
        (1,),
        1,
        game=Wasserstein(),
        penalties=(GradientPenalty(50.0),),
    )
    found = outputs_after_training(gan, 300, start=-1.0)
    estimate = STEP * np.sum((P - Q) * found)
    assert abs(estimate / w1 - 1) < 0.05, (estimate, w1)


def made(gan, count=6, seed=0):
    """(params, extra, batch) of a small GAN of points with three labels."""
    rng = np.random.default_rng(seed)
    batch = {
        "x": jnp.asarray(rng.normal(size=(count, *gan.shape)), jnp.float32),
        "label": jnp.asarray(rng.integers(0, 3, count)),
    }
    return *jax.jit(gan.init)(KEY, batch), batch


@pytest.mark.slow
def test_losses_are_the_sum_of_their_parts():
    """In evaluation: the game, the penalties and the label cost of the network's outputs."""
    net = FeedForward((8,))
    gan = GAN(
        Affine(),
        net,
        (2,),
        2,
        Labels(3),
        LeastSquares(),
        (R1(0.3),),
        spectral=SpectralNorm(),
        conditioning=Auxiliary(0.5),
    )
    params, extra, batch = made(gan)
    ctx = Context(KEY, jnp.zeros((), jnp.int32), train=False)
    loss, aux = jax.jit(gan.discriminator_loss)(params, extra, batch, ctx)
    assert not aux.extra
    own = {
        "params": {
            name: layer | {"kernel": layer["kernel"] / np.linalg.svd(layer["kernel"], compute_uv=False)[0]}
            for name, layer in params["discriminator"]["params"].items()
        }
    }
    labels = jax.nn.one_hot(batch["label"], 3)
    fake = gan.generate(params, KEY, 6, labels)
    real_out, fake_out = (net.apply(own, x, out=4) for x in (batch["x"], fake))
    entropy = lambda out: -jnp.mean(jnp.sum(labels * jax.nn.log_softmax(out[:, 1:]), axis=1))
    slope = jax.grad(lambda x: jnp.sum(net.apply(own, x, out=4)[:, 0]))(batch["x"])
    parts = {
        "game": 0.5 * jnp.mean((real_out[:, 0] - 1) ** 2) + 0.5 * jnp.mean(fake_out[:, 0] ** 2),
        "r1": 0.15 * jnp.mean(jnp.sum(slope**2, axis=1)),
    }
    for name, value in parts.items():
        np.testing.assert_allclose(aux.metrics[name], value, rtol=2e-3)
    told = 0.5 * (entropy(real_out) + entropy(fake_out))
    np.testing.assert_allclose(loss, sum(parts.values()) + told, rtol=2e-3)
    loss, _ = gan.generator_loss(params, extra, batch, ctx)
    expected = 0.5 * jnp.mean((fake_out[:, 0] - 1) ** 2) + 0.5 * entropy(fake_out)
    np.testing.assert_allclose(loss, expected, rtol=2e-3)


@pytest.mark.slow
def test_a_normalised_discriminator_is_lipschitz():
    """No gradient norm of D is above 1, for kernels scaled by 100: relu layers of spectral norm 1."""
    gan = GAN(Affine(), FeedForward((16, 16), "relu"), (2,), 2, spectral=SpectralNorm(), penalties=())
    params, extra, batch = made(gan, 64)
    params = {**params, "discriminator": jax.tree.map(lambda leaf: 100.0 * leaf, params["discriminator"])}
    context = Context(KEY, jnp.zeros((), jnp.int32))
    outputs, new = gan.discriminator_fn(params, extra, None, context, update_spectral=True)
    slope = jax.jit(jax.grad(lambda x: jnp.sum(outputs(x, "real"))))(batch["x"])
    assert np.linalg.norm(slope, axis=1).max() < 1.01
    assert new["spectral"].keys() == extra["spectral"].keys()


@pytest.mark.slow
def test_augmentation_applies_in_training_only():
    """With a full cut-out the discriminator's inputs are zero: no gradient reaches the generator, in training."""
    gan = GAN(
        MLP(8, 0),
        FeedForward((8,)),
        (4, 4, 1),
        2,
        game=Relativistic(),
        penalties=(R1(1.0),),
        augment=DiffAugment(color=0.0, translation=0.0, cutout=3.0),
    )
    params, extra, batch = made(gan)
    for train in (True, False):
        ctx = Context(KEY, jnp.zeros((), jnp.int32), train)
        loss = lambda own, ctx=ctx: gan.generator_loss({**params, "generator": own}, extra, batch, ctx)[0]
        moves = any(np.any(leaf != 0) for leaf in jax.tree.leaves(jax.grad(loss)(params["generator"])))
        assert moves != train
        assert (gan.discriminator_loss(params, extra, batch, ctx)[1].metrics["r1"] == 0) == train


def test_group_std_and_closeness_are_the_papers():
    x = np.random.default_rng(0).normal(size=(8, 3, 2)).astype(np.float32)
    found = group_std(jnp.asarray(x), 4)
    for index in range(8):
        group = x[[i for i in range(8) if i % 2 == index % 2]]
        np.testing.assert_allclose(found[index], group.std(axis=0).mean(), rtol=1e-5)
    np.testing.assert_allclose(group_std(jnp.ones((6, 5)), 4), 1e-4, rtol=1e-5)  # groups of 3, all the same
    m = np.random.default_rng(1).normal(size=(5, 2, 3)).astype(np.float32)
    expected = [
        [sum(np.exp(-np.abs(m[i, b] - m[j, b]).sum()) for j in range(5) if j != i) for b in range(2)]
        for i in range(5)
    ]
    np.testing.assert_allclose(closeness(jnp.asarray(m)), expected, rtol=1e-5)


@pytest.mark.parametrize("part", ["std", "discrimination"])
def test_minibatch_statistics_detect_copies(part):
    """The output of an example differs between a batch of its copies and a batch of other examples."""
    net = WithMinibatch(FeedForward((8,)), part, width=8)
    x = jnp.asarray(np.random.default_rng(2).normal(size=(4, 3)), jnp.float32)
    params = jax.jit(lambda: net.init(KEY, x, out=2))()
    apply = jax.jit(lambda x: net.apply(params, x, out=2))
    among_others, among_copies = apply(x)[0], apply(jnp.tile(x[:1], (4, 1)))[0]
    assert np.abs(among_others - among_copies).max() > 1e-3


@pytest.mark.slow
def test_bigan_loss_is_both_sides_of_the_game():
    """Zero-sum for the minimax game; for least squares each side has the other's target."""
    net = FeedForward((8,))
    gan = BiGAN(net, net, net, (2,), 3, Labels(3), penalties=())
    params, _, batch = made(gan)
    ctx = Context(KEY, jnp.zeros((), jnp.int32))
    losses = lambda gan: [player.loss(params, {}, batch, ctx)[0] for player in gan.players().values()]
    judge, maker = losses(dataclasses.replace(gan, game=Minimax()))
    np.testing.assert_allclose(2 * maker, -judge, rtol=1e-6)
    _, maker = losses(dataclasses.replace(gan, game=LeastSquares()))
    cond = jax.nn.one_hot(batch["label"], 3)
    x, code, image, z = gan._pairs(params, batch, ctx)
    real, fake = gan.logit(params, x, code, cond), gan.logit(params, image, z, cond)
    np.testing.assert_allclose(maker, 0.25 * (jnp.mean((fake - 1) ** 2) + jnp.mean(real**2)), rtol=1e-5)


def trained(objective, draw, steps: int, rate: float = 2e-3):
    """Parameters after training on new samples, by the library's train step."""
    from genjax.training.step import init_state, make_train_step

    optimizers = {name: optax.adam(rate, b1=0.5) for name in objective.players()}
    same = lambda batch, key, train: batch
    state = init_state(objective, optimizers, same, 0, {"x": draw(KEY)})
    step = make_train_step(objective, optimizers, same, seed=0)
    one = lambda state, index: (step(state, {"x": draw(jax.random.fold_in(KEY, index))})[0], None)
    return jax.jit(lambda state: jax.lax.scan(one, state, jnp.arange(steps))[0])(state).ema


MIX = jnp.array([[0.8, 0.3], [0.0, 0.5]])


@pytest.mark.slow
@pytest.mark.optimised
def test_the_bigans_encoder_inverts_its_generator():
    """On Gaussian data in the plane: E(G(z)) is near z, and codes of data are standard normal."""
    net = FeedForward((32, 32), "relu")
    gan = BiGAN(net, net, MLP(32, 1, "leaky_relu"), (2,), 2, penalties=(R1(0.1),))
    draw = lambda key: jax.random.normal(key, (256, 2)) @ MIX
    params = trained(gan, draw, 4000)
    z = jax.random.normal(jax.random.key(1), (2000, 2))
    back = gan.infer(params, gan.generate(params, z, None), None)
    assert jnp.mean((back - z) ** 2) < 0.1
    codes = gan.encode(params, {}, {"x": draw(jax.random.key(2))}, KEY)
    np.testing.assert_allclose(np.cov(codes.T), np.eye(2), atol=0.3)


def test_aae_with_a_trainable_prior_raises():
    net = MLP(4, 1)
    aae = AAE(net, net, net, (2,), 2, prior=Mixture(3))
    with pytest.raises(UserError, match="a Mixture has parameters"):
        jax.eval_shape(aae.init, KEY, {"x": jnp.zeros((4, 2))})


@pytest.mark.slow
@pytest.mark.optimised
def test_aae_codes_follow_the_prior():
    """Codes of correlated Gaussian points are standard normal, and decode to the points."""
    net = FeedForward((32, 32), "relu")
    aae = AAE(net, net, MLP(32, 1, "leaky_relu"), (2,), 2, penalties=(R1(0.1),), weight=1.0)
    draw = lambda key: jax.random.normal(key, (256, 2)) @ MIX
    params = trained(aae, draw, 3000)
    x = jnp.concatenate([draw(jax.random.key(i)) for i in range(1, 9)])
    codes = aae.encode(params, {}, {"x": x}, KEY)
    np.testing.assert_allclose(np.mean(codes, axis=0), 0.0, atol=0.25)
    np.testing.assert_allclose(np.cov(codes.T), np.eye(2), atol=0.35)
    assert jnp.mean((aae.decode(params, {}, codes, KEY) - x) ** 2) < 0.02
