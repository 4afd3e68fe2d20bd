"""Games at their optima, penalties of known functions, normalisation against SVD, distributions of augmentations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.adversarial.augment import Adaptive, DiffAugment, NoAugment, cut_out, translate
from genjax.adversarial.conditioning import Auxiliary, Given, Projection
from genjax.adversarial.losses import (
    Hinge,
    LeastSquares,
    Minimax,
    NonSaturating,
    Relativistic,
    Wasserstein,
    accuracy,
)
from genjax.adversarial.penalties import R1, R2, Consistency, GradientPenalty, Lazy, total
from genjax.adversarial.spectral import SpectralNorm
from genjax.core.objective import Context
from genjax.networks import MLP, ConvEncoder, FeedForward

KEY = jax.random.key(0)
GAMES = [Minimax(), NonSaturating(), LeastSquares(), Hinge(), Wasserstein(), Relativistic()]
# Two distributions on five cells, as samples with exact frequencies: p = 8, 5, 4, 2, 1 and q = 2, 3, 4, 5, 6 in 20.
P, Q = np.array([8, 5, 4, 2, 1]) / 20, np.array([2, 3, 4, 5, 6]) / 20
REAL, FAKE = (np.repeat(np.arange(5), (20 * p).round().astype(int)) for p in (P, Q))


def at(game, outputs):
    """The discriminator's loss where its output is a free number for each cell."""
    return game.discriminator(outputs[REAL], outputs[FAKE])


def kl(a, b):
    return float(np.sum(a * np.log(a / b)))


@pytest.mark.parametrize(
    ("game", "optimum", "value"),
    [
        (NonSaturating(), np.log(P / Q), 2 * np.log(2) - kl(P, (P + Q) / 2) - kl(Q, (P + Q) / 2)),
        (LeastSquares(), P / (P + Q), 0.5 * np.sum(P * Q / (P + Q))),
        (Hinge(), np.sign(P - Q), 2 - np.abs(P - Q).sum()),
    ],
    ids=["logistic", "least squares", "hinge"],
)
def test_the_best_discriminator_and_its_loss_are_the_papers(game, optimum, value):
    """Jensen-Shannon, Pearson's chi square and total variation, by enumeration."""
    optimum = jnp.asarray(optimum, jnp.float32)
    np.testing.assert_allclose(at(game, optimum), value, rtol=1e-6)
    moves = np.random.default_rng(0).normal(size=(50, 5)).astype(np.float32)
    losses = jax.vmap(lambda move: at(game, optimum + 0.3 * move))(moves)
    assert np.all(losses > value)
    if not isinstance(game, Hinge):  # not differentiable there
        np.testing.assert_allclose(jax.grad(lambda d: at(game, d))(optimum), 0.0, atol=1e-7)


def test_generator_gradients_match_the_papers():
    """Each generator's derivative in D(G(z)), and which games are zero-sum."""
    f = jnp.linspace(-3.0, 3.0, 7)
    r = jnp.linspace(1.0, -2.0, 7)
    sigmoid = lambda x: 1 / (1 + np.exp(-np.asarray(x, np.float64)))
    slopes = {
        Minimax(): -sigmoid(f),
        NonSaturating(): -sigmoid(-f),
        LeastSquares(): f - 1,
        Hinge(): -np.ones(7),
        Wasserstein(): -np.ones(7),
        Relativistic(): -sigmoid(r - f),
    }
    for game, slope in slopes.items():
        given = r if game.paired else None
        found = jax.grad(lambda f, game=game, given=given: game.generator(given, f))(f)
        np.testing.assert_allclose(7 * found, slope, rtol=1e-5, atol=1e-6, err_msg=str(game))
    for game in (Minimax(), Wasserstein()):
        total = lambda f, game=game: game.discriminator(r, f) + game.generator(None, f)
        np.testing.assert_allclose(jax.grad(total)(f), 0.0, atol=1e-6)
    game = Relativistic()
    np.testing.assert_array_equal(game.generator(r, f), game.discriminator(f, r))
    np.testing.assert_allclose(game.discriminator(r + 5.0, f + 5.0), game.discriminator(r, f), rtol=1e-6)


def test_accuracy_uses_the_games_threshold():
    real, fake = jnp.array([0.2, 0.7, 2.0, -1.0]), jnp.array([-0.5, 0.3, -2.0, 0.1])
    assert accuracy(NonSaturating(), real, fake) == 0.5 * (3 / 4 + 2 / 4)
    assert accuracy(LeastSquares(), real, fake) == 0.5 * (2 / 4 + 4 / 4)
    assert accuracy(Wasserstein(), real, fake) == 3 / 4


# D(x) = x A x / 2 + b x with a symmetric A has the gradient A x + b.
A = np.array([[2.0, 0.5, 0.0], [0.5, -1.0, 0.3], [0.0, 0.3, 0.7]], np.float32)
B = np.array([0.3, -0.2, 1.0], np.float32)
X, Y = jnp.asarray(np.random.default_rng(1).normal(size=(2, 6, 3)), jnp.float32)


def quadratic(x, scale=1.0):
    return scale * (0.5 * jnp.einsum("bi,ij,bj->b", x, A, x) + x @ B)


def test_gradient_penalties_of_a_quadratic_match_closed_forms():
    """Values, and the gradients by a parameter that scales D: that of s^2 |Ax + b|^2 w / 2 is w s |Ax + b|^2."""
    squares = lambda x: np.sum((np.asarray(x) @ A + B) ** 2, axis=1)
    for penalty, x in ((R1(0.7), X), (R2(0.7), Y)):
        cost = lambda s, penalty=penalty: penalty.cost(lambda at: quadratic(at, s), X, Y, KEY)
        value, slope = jax.jit(jax.value_and_grad(cost))(1.5)
        np.testing.assert_allclose(value, 0.35 * 1.5**2 * squares(x).mean(), rtol=1e-5)
        np.testing.assert_allclose(slope, 0.7 * 1.5 * squares(x).mean(), rtol=1e-5)
    patches = lambda x: jnp.stack([quadratic(x), 3.0 * quadratic(x)], axis=1)[:, None]
    np.testing.assert_allclose(R1(1.0).cost(patches, X, Y, KEY), 0.5 * 4 * squares(X).mean(), rtol=1e-5)


def test_gradient_penalty_of_a_linear_critic_matches_the_closed_form():
    """|grad| = |w| everywhere; between equal sets it is also known for a quadratic."""
    w = np.array([3.0, 4.0, 0.0], np.float32)
    linear = lambda x: x @ w
    np.testing.assert_allclose(GradientPenalty(10.0).cost(linear, X, Y, KEY), 10 * 4.0**2, rtol=1e-5)
    np.testing.assert_allclose(GradientPenalty(2.0, 0.0).cost(linear, X, Y, KEY), 2 * 5.0**2, rtol=1e-5)
    np.testing.assert_allclose(
        GradientPenalty(1.0, 7.0, one_sided=True).cost(linear, X, Y, KEY), 0.0, atol=1e-6
    )
    norms = np.linalg.norm(np.asarray(X) @ A + B, axis=1)
    np.testing.assert_allclose(
        GradientPenalty(1.0).cost(quadratic, X, X, KEY), ((norms - 1) ** 2).mean(), rtol=1e-5
    )
    # Points lie on the segments: a critic that is constant there has no penalty.
    flat = lambda x: jnp.sum(jax.nn.relu(x[:, :1] - 1.0) + jax.nn.relu(-x[:, :1]), axis=1)
    ones, zeros = jnp.ones((6, 3)), jnp.zeros((6, 3))
    np.testing.assert_allclose(GradientPenalty(1.0, 0.0).cost(flat, ones, zeros, KEY), 0.0, atol=1e-6)


def test_lazy_penalties_over_a_period_are_the_eager_ones():
    eager, lazy = (R1(0.5), R2(0.2)), (Lazy(R1(0.5), 4), R2(0.2))

    @jax.jit
    def cost(step):
        return total(lazy, quadratic, X, Y, Context(KEY, step))

    rows = [cost(step) for step in range(8)]
    expected, parts = total(eager, quadratic, X, Y, Context(KEY, 0))
    np.testing.assert_allclose(np.mean([row[0] for row in rows]), expected, rtol=1e-6)
    np.testing.assert_allclose(
        [row[1]["r1"] for row in rows], [4 * parts["r1"], 0, 0, 0] * 2, rtol=1e-6, atol=0
    )
    np.testing.assert_allclose([row[1]["r2"] for row in rows], parts["r2"], rtol=1e-6)
    evaluated = total(lazy, quadratic, X, Y, Context(KEY, jnp.ones((), jnp.int32), train=False))[0]
    np.testing.assert_allclose(evaluated, expected, rtol=1e-6)


def test_consistency_is_the_squared_change_under_augmentation():
    x = jnp.asarray(np.random.default_rng(2).normal(size=(6, 4, 4, 2)), jnp.float32)
    mean = lambda x: jnp.mean(x, axis=(1, 2, 3))
    bright = DiffAugment(color=1.0, translation=0.0, cutout=0.0)
    still = lambda x: jnp.zeros(len(x))
    assert Consistency(3.0, bright).cost(still, x, x, KEY) == 0.0
    # A critic of each image's mean depends on brightness alone: E (U[-c/2, c/2])^2 = c^2 / 12.
    many = jnp.tile(x[:1], (4000, 1, 1, 1))
    np.testing.assert_allclose(
        jax.jit(lambda x: Consistency(3.0, bright).cost(mean, x, x, KEY))(many), 3 / 12, rtol=0.05
    )


def test_spectral_norm_converges_to_the_singular_values():
    """Every kernel's largest singular value, that of convolutions over (inputs, outputs); biases are unchanged."""
    rng, norm = np.random.default_rng(3), SpectralNorm()
    shapes = {"in": (3, 3, 2, 8), "out": (8, 3), "wide": (3, 9)}
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
    params = {name: {"kernel": draw(*shape), "bias": draw(4)} for name, shape in shapes.items()}
    vectors = norm.init(KEY, params)
    assert vectors.keys() == {f"{name}/kernel" for name in shapes}
    step = jax.jit(lambda vectors: norm.apply(params, vectors, train=True)[1])
    for _ in range(200):
        vectors = step(vectors)
    normalised, same = norm.apply(params, vectors)
    for name, own in params.items():
        before = np.asarray(own["kernel"])
        largest = np.linalg.svd(before.reshape(-1, before.shape[-1]), compute_uv=False)[0]
        np.testing.assert_allclose(normalised[name]["kernel"] * largest, before, rtol=1e-5)
        np.testing.assert_array_equal(normalised[name]["bias"], own["bias"])
    assert all(np.array_equal(same[name], u) for name, u in vectors.items())


def test_spectral_norms_gradient_has_no_part_along_the_leading_direction():
    """W / sigma does not change with W's scale, and d sigma / dW = v u^T (Miyato et al. 2018, equation 10)."""
    w = jnp.asarray(np.random.default_rng(3).normal(size=(5, 4)), jnp.float32)
    left, sigma, right = np.linalg.svd(w)
    norm, direction = SpectralNorm(), jnp.asarray(np.random.default_rng(4).normal(size=(5, 4)), jnp.float32)
    vectors = {"kernel": jnp.asarray(right[0])}
    loss = lambda w: jnp.sum(direction * norm.apply({"kernel": w}, vectors)[0]["kernel"])
    found, top = jax.grad(loss)(w), np.outer(left[:, 0], right[0])
    expected = (direction - np.sum(direction * w) / sigma[0] * top) / sigma[0]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(jnp.sum(found * w), 0.0, atol=1e-5)


def images(seed: int, count: int = 16):
    return jnp.asarray(np.random.default_rng(seed).uniform(-1, 1, (count, 6, 8, 3)), jnp.float32)


@pytest.mark.slow
def test_augmentation_is_differentiable_and_the_identity_at_zero():
    x, augment = images(0), DiffAugment(translation=0.25)
    np.testing.assert_array_equal(NoAugment().apply({}, KEY, x), x)
    adaptive = Adaptive(augment)
    apply = jax.jit(adaptive.apply)
    np.testing.assert_array_equal(apply(adaptive.init(), KEY, x), x)
    always = apply({"p": jnp.ones(())}, KEY, x)
    # It is affine in x, so that a directional derivative equals a difference, to rounding.
    change, direction = jax.jit(lambda x: augment.apply({}, KEY, x)), images(7)
    np.testing.assert_allclose(always, change(x), atol=1e-6)
    slope = jax.jit(jax.grad(lambda x: jnp.sum(direction * change(x))))(x)
    difference = jnp.sum(direction * (change(x + direction) - change(x)))
    np.testing.assert_allclose(jnp.sum(slope * direction), difference, rtol=1e-4)


def test_the_fraction_of_changed_images_is_p():
    x = images(0, 1000)
    transform = jax.jit(DiffAugment(color=0.0, translation=0.0).transform)
    for p in (0.2, 0.8):
        changed = transform(KEY, x, jnp.asarray(p))
        found = np.mean(np.any(np.asarray(changed != x), axis=(1, 2, 3)))
        assert abs(found - p) < 4 * np.sqrt(p * (1 - p) / 1000)


def test_colour_changes_have_the_documented_distributions():
    """Brightness and contrast of an image are uniform: mean and variance; saturation keeps each pixel's mean."""
    x = jnp.tile(images(1, 1), (20_000, 1, 1, 1))
    changed = jax.jit(DiffAugment(color=0.6, translation=0.0, cutout=0.0).apply)({}, KEY, x)
    brightness = np.mean(changed, axis=(1, 2, 3)) - float(x[0].mean())
    np.testing.assert_allclose([brightness.mean(), brightness.var()], [0.0, 0.6**2 / 12], atol=0.005)
    grey = lambda x: np.asarray(jnp.mean(x, axis=-1) - jnp.mean(x, axis=(1, 2, 3))[:, None, None])
    contrast = np.sum(grey(changed) * grey(x), axis=(1, 2)) / np.sum(grey(x) ** 2, axis=(1, 2))
    np.testing.assert_allclose([contrast.mean(), contrast.var()], [1.0, 0.6**2 / 12], atol=0.005)
    np.testing.assert_allclose(grey(changed[:9]), contrast[:9, None, None] * grey(x[:9]), atol=1e-5)
    colour = lambda x: np.asarray(x - jnp.mean(x, axis=-1, keepdims=True))
    both = np.sum(colour(changed) * colour(x), axis=(1, 2, 3)) / np.sum(colour(x) ** 2, axis=(1, 2, 3))
    np.testing.assert_allclose((both / contrast).var(), 1.2**2 / 12, rtol=0.05)


def test_translations_are_uniform_and_cut_outs_squares():
    x = jnp.arange(1.0, 49.0).reshape(1, 6, 8, 1)
    moved = np.asarray(jax.jit(lambda x: translate(KEY, x, 0.25))(jnp.tile(x, (3000, 1, 1, 1))))
    # 6 rows shift by up to round(1.5) = 2, 8 columns by up to 2: 25 equally likely images, zero-padded.
    padded = np.pad(np.asarray(x)[0], ((2, 2), (2, 2), (0, 0)))
    shifts = {(i, j): padded[2 + i :, 2 + j :][:6, :8] for i in range(-2, 3) for j in range(-2, 3)}
    counts = [np.sum(np.all(moved == shift, axis=(1, 2, 3))) for shift in shifts.values()]
    assert sum(counts) == 3000
    assert np.all(np.abs(np.array(counts) - 120) < 5 * np.sqrt(120))
    cut = np.asarray(jax.jit(lambda x: cut_out(KEY, x, 0.5))(jnp.ones((2000, 6, 8, 1))))[..., 0] == 0
    rows, columns = cut.any(axis=2).sum(axis=1), cut.any(axis=1).sum(axis=1)
    np.testing.assert_array_equal(cut.sum(axis=(1, 2)), rows * columns)
    assert rows.max() == 3
    assert columns.max() == 4
    assert rows.min() >= 2  # the centre lies inside


def test_adaptive_augmentation_follows_the_sign():
    ada = Adaptive(target=0.5, speed=0.25)
    state, seen = ada.init(), []
    for margin in (
        [1.0, 2.0, 0.1, -1.0],
        [1.0] * 4,
        [3.0] * 4,
        [1.0] * 4,
        [1.0] * 4,
        [-1.0, -2.0, 1.0, -1.0],
    ):
        state, metrics = ada.adapt(state, jnp.array(margin))
        seen.append(float(state["p"]))
    assert seen == [0.0, 0.25, 0.5, 0.75, 1.0, 0.75]
    assert metrics["augment_r"] == -0.5


@pytest.mark.parametrize(
    "net",
    [
        FeedForward((12,), "relu"),
        pytest.param(ConvEncoder((8,), width=12, norm="none"), marks=pytest.mark.slow),
        pytest.param(MLP(width=12, depth=1), marks=pytest.mark.slow),
    ],
    ids=["feedforward", "encoder", "mlp"],
)
def test_projection_is_the_papers_formula(net):
    """D(x, y) = (w + e_y).phi(x) + b + b_y, with the features phi of the network itself."""
    x, labels = images(5, 7), jax.nn.one_hot(jnp.array([0, 2, 1, 1, 0, 2, 2]), 3)
    projection = Projection()
    make = lambda: net.init(KEY, x, None, projection.given(labels), out=projection.outputs(3))
    params = jax.jit(make)()
    params = jax.tree.map(lambda leaf: leaf + 0.1, params)
    head = jax.tree.map(np.asarray, params["params"]["out"])
    apply = jax.jit(net.apply, static_argnames="out")
    out = apply(params, x, out=4)
    # The features are the inputs of the last layer: obtained by replacing it by the identity.
    width = head["kernel"].shape[0]
    last = {"kernel": jnp.eye(width), "bias": jnp.zeros(width)}
    phi = np.asarray(apply({"params": {**params["params"], "out": last}}, x, out=width))
    e, b = np.asarray(labels) @ head["kernel"][:, 1:].T, np.asarray(labels) @ head["bias"][1:]
    expected = np.sum(phi * (head["kernel"][:, 0] + e), axis=1) + head["bias"][0] + b
    np.testing.assert_allclose(projection.logit(out, labels), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(projection.logit(out, jnp.zeros_like(labels)), out[:, 0])
    np.testing.assert_array_equal(projection.logit(out, None), Given().logit(out, labels))


def test_the_auxiliary_classifiers_cost_is_the_cross_entropy():
    out = jnp.asarray(np.random.default_rng(6).normal(size=(4, 4)), jnp.float32)
    labels = jax.nn.one_hot(jnp.array([0, 2, 1, -1]), 3)  # the last has none
    cost, metrics = Auxiliary(2.0).cost(out, labels)
    logits = np.asarray(out[:, 1:], np.float64)
    log_prob = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(cost, -2 * sum(log_prob[i, y] for i, y in enumerate((0, 2, 1))) / 4, rtol=1e-6)
    assert 0.0 <= metrics["label_accuracy"] <= 1.0
    assert Auxiliary().logit(out, labels).shape == (4,)
