"""Exact properties of paired data, the image pool, translators and StyleGAN."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rows import OUTLINES, ROWS, on_one_device
from test_networks import normal

from genjax.adversarial.image_pool import ImagePool
from genjax.adversarial.path_length import PathLength, lengths, projected
from genjax.adversarial.penalties import R1, Lazy
from genjax.adversarial.slopes import penalise_gradient
from genjax.api.edit import Edit, edit_workdir
from genjax.core.errors import UserError
from genjax.core.objective import Context, Player
from genjax.data import Both, DigitOutlines, Digits, Flip
from genjax.data.sources.pairs import enlarge, halves, outlines, side_by_side
from genjax.evaluation.sampling import draw_samples
from genjax.metrics.translation import neighbours, translation_report
from genjax.training import experiment, loop, workdir
from genjax.training.checkpoint import Checkpoints

pytestmark = pytest.mark.xdist_group("translation")  # shared fixtures are built once, in one process

KEY = jax.random.key(0)
STEP = Context(KEY, jnp.zeros((), jnp.int32))
rows = lambda examples: examples[np.arange(len(examples))]["x"]


def multiset(*batches) -> list[float]:
    return sorted(np.concatenate([np.asarray(x).reshape(-1) for x in batches]).tolist())


def test_a_pool_fills_then_exchanges_half_and_loses_nothing():
    """Numbered examples: stored and shown together equal previously stored and generated, each once."""
    pool, exchange = ImagePool(8), jax.jit(ImagePool(8).exchange)
    carried = pool.init((1,))
    for call in range(2):  # 4 + 4 fill it; generated images are shown unchanged
        made = 1.0 + 4 * call + jnp.arange(4.0)[:, None]
        carried, shown = exchange(carried, made, jax.random.key(call))
        np.testing.assert_array_equal(shown, made)
    np.testing.assert_array_equal(carried["stored"][:, 0], 1 + np.arange(8))
    swaps, places = 0, set()
    for call in range(2, 102):
        made = 1.0 + 4 * call + jnp.arange(4.0)[:, None]
        before = carried["stored"]
        carried, shown = exchange(carried, made, jax.random.key(call))
        assert multiset(before, made) == multiset(carried["stored"], shown)
        old = np.asarray(shown != made)[:, 0]
        assert np.isin(np.asarray(shown)[old], before).all()
        swaps, places = swaps + old.sum(), places | {*np.flatnonzero(np.asarray(before != carried["stored"]))}
    assert abs(swaps / 400 - 0.5) < 4 * 0.5 / 20
    assert places == {*range(8)}


@pytest.mark.parametrize(("size", "batch"), [(5, 4), (3, 4)])
def test_a_pool_size_that_is_no_multiple_of_the_batch_loses_no_example(size, batch):
    """The batch that fills the pool has leftovers; batches larger than the pool show the rest unchanged."""
    carried, exchange = ImagePool(size).init((1,)), jax.jit(ImagePool(size).exchange)
    for call in range(6):
        made = 1.0 + batch * call + jnp.arange(float(batch))[:, None]
        before = carried
        carried, shown = exchange(carried, made, jax.random.key(call))
        assert len({*np.asarray(shown).reshape(-1).tolist()}) == batch
        if int(before["count"]) < size:
            np.testing.assert_array_equal(shown, made)
        else:
            assert multiset(before["stored"], made) == multiset(carried["stored"], shown)
    assert int(carried["count"]) == size


def test_a_pool_of_size_0_shows_the_generated_images():
    carried, shown = ImagePool(0).exchange(ImagePool(0).init((2,)), normal(0, 3, 2), KEY)
    np.testing.assert_array_equal(shown, normal(0, 3, 2))
    assert carried["stored"].shape == (0, 2)


W = normal(1, 5, 2, 3)  # 5 examples of 2 styles of 3 numbers
Y = np.asarray(jax.random.normal(KEY, (5, 2, 2, 1)), np.float64).reshape(5, 4) / 2  # over sqrt(4 pixels)


def linear(kernel):
    """x = A (w_1 + 2 w_2): J^T y = (A^T y, 2 A^T y)."""
    return lambda w: jnp.einsum("kd,bd->bk", kernel, w[:, 0] + 2 * w[:, 1]).reshape(-1, 2, 2, 1)


def quadratic(kernel):
    """x_k = w_1^T Q_k w_1 / 2: J^T y = sum_k y_k sym(Q_k) w_1."""
    return lambda w: (0.5 * jnp.einsum("kde,bd,be->bk", kernel, w[:, 0], w[:, 0])).reshape(-1, 2, 2, 1)


def by_hand_linear(kernel, mean):
    slope = Y @ kernel
    size = np.sqrt(5 / 2 * (slope**2).sum(1))
    factor = 2 * (size - mean) * (5 / 2) / size / 5
    return size, np.einsum("b,bk,bd->kd", factor, Y, slope)


def by_hand_quadratic(kernel, mean):
    w = np.asarray(W[:, 0], np.float64)
    slope = np.einsum("bk,kde,be->bd", Y, (kernel + kernel.swapaxes(1, 2)) / 2, w)
    size = np.sqrt((slope**2).sum(1) / 2)
    outer = np.einsum("bd,be->bde", slope, w)
    factor = 2 * (size - mean) / (2 * size) / 5
    return size, np.einsum("b,bk,bde->kde", factor, Y, (outer + outer.swapaxes(1, 2)) / 2)


@pytest.mark.parametrize(
    ("make", "by_hand", "shape"),
    [(linear, by_hand_linear, (4, 3)), (quadratic, by_hand_quadratic, (4, 3, 3))],
)
def test_path_length_and_its_gradient_match_hand_computation(make, by_hand, shape):
    kernel, penalty = normal(2, *shape), PathLength(weight=3.0, every=1, decay=0.9)
    size, _ = by_hand(np.asarray(kernel, np.float64), 0.0)
    slope = jax.grad(projected(make(kernel), W, KEY))(W)
    np.testing.assert_allclose(lengths(slope), size, rtol=1e-5)
    mean = 0.9 * 0.7 + 0.1 * size.mean()

    def cost(kernel):
        return penalty.cost(make(kernel), W, jnp.asarray(0.7), KEY, STEP)

    (value, new), slope = jax.jit(jax.value_and_grad(cost, has_aux=True))(kernel)
    np.testing.assert_allclose(new, mean, rtol=1e-5)
    np.testing.assert_allclose(value, 3 * ((size - mean) ** 2).mean(), rtol=1e-4)
    expected = 3 * by_hand(np.asarray(kernel, np.float64), mean)[1]
    np.testing.assert_allclose(slope, expected, rtol=1e-3, atol=1e-4)


def test_gradient_penalties_match_reverse_over_reverse():
    """Value and gradients with respect to parameters and inputs, of a function that is not a sum over examples."""
    f = lambda a, x: jnp.sum(jnp.tanh(x @ a) ** 2) * jnp.sum(jnp.sin(x))
    penalty = lambda slope: jnp.sum(jnp.sqrt(jnp.sum(slope**2, axis=1)) ** 3)
    a, x = normal(0, 3, 4), normal(1, 5, 3)
    ours = lambda a, x: penalise_gradient(functools.partial(f, a), x, penalty)
    plain = lambda a, x: penalty(jax.grad(f, argnums=1)(a, x))
    found, expected = (jax.jit(jax.value_and_grad(way, argnums=(0, 1)))(a, x) for way in (ours, plain))
    for got, wanted in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_lazy_path_length_equals_eager_on_average():
    """With a fixed mean the sum over 4 steps is 4 times the eager cost; evaluation uses the eager cost."""
    make, mean = linear(normal(2, 4, 3)), jnp.asarray(0.7)
    lazy, eager = PathLength(every=4, decay=1.0), PathLength(every=1, decay=1.0)
    cost = jax.jit(lambda step: lazy.cost(make, W, mean, KEY, Context(KEY, step)))
    costs = [cost(jnp.asarray(step)) for step in range(8)]
    value, _ = eager.cost(make, W, mean, KEY, STEP)
    np.testing.assert_allclose(sum(cost for cost, _ in costs), 8 * value, rtol=1e-5)
    assert [float(cost) == 0 for cost, _ in costs] == [False, True, True, True] * 2
    judged, kept = lazy.cost(make, W, mean, KEY, Context(KEY, jnp.ones((), jnp.int32), train=False))
    np.testing.assert_allclose(judged, value, rtol=1e-6)
    assert kept == mean


@pytest.mark.slow
def test_lazy_path_length_counts_generator_updates():
    """A generator update every 2 steps and a penalty every 2 updates: every 4 steps, scaled by 2."""
    run = ROWS["stylegan-digits"].objective
    stylegan = dataclasses.replace(run, gan=dataclasses.replace(run.gan, every=2))
    assert stylegan.path_length.every == 2
    batch = {"x": jax.random.normal(KEY, (4, 8, 8, 1)), "label": jnp.arange(4)}
    params, extra = jax.jit(stylegan.init)(KEY, batch)

    @jax.jit
    def penalty(step):
        return stylegan.generator_loss(params, extra, batch, Context(KEY, step))[1].metrics["path_penalty"]

    assert [bool(penalty(jnp.asarray(step)) > 0) for step in (0, 2, 4, 6)] == [True, False, True, False]


def test_a_period_of_zero_raises():
    for wrong in (lambda: PathLength(every=0), lambda: Lazy(R1(), 0), lambda: Player(lambda *args: None, 0)):
        with pytest.raises(UserError, match="every=0"):
            wrong()


def test_pairs_are_joined_and_split():
    a, b = normal(0, 2, 3, 4, 1), normal(1, 2, 3, 4, 1)
    for ours, given in zip(halves(side_by_side(a, b)), (a, b), strict=True):
        np.testing.assert_array_equal(ours, given)
    flipped = Both(Flip()).forward({"x": side_by_side(a, b)}, KEY, True)["x"]
    mirrored = np.asarray(Flip().forward({"x": a}, KEY, True)["x"] != a).any((1, 2, 3))
    for ours, given in zip(halves(flipped), (a, b), strict=True):
        np.testing.assert_array_equal(ours, np.where(mirrored[:, None, None, None], given[:, :, ::-1], given))


def test_outlines_and_digits():
    """The test split has true pairs; unpaired training has disjoint halves in the order of the digits."""
    digits = rows(Digits().load("train"))
    left, right = halves(rows(DigitOutlines(size=8).load("train")))
    np.testing.assert_array_equal(right, digits)
    np.testing.assert_array_equal(left, outlines(right, 7.0))
    apart, other = halves(rows(DigitOutlines(paired=False, size=8).load("train")))
    np.testing.assert_array_equal(apart, left[:-1:2])
    np.testing.assert_array_equal(other, right[1::2])
    np.testing.assert_array_equal(
        rows(DigitOutlines().load("test")), rows(DigitOutlines(paired=False).load("test"))
    )
    with pytest.raises(UserError, match="multiple of the digits' 8"):
        DigitOutlines(size=12).load("test")


def test_outlines_match_hand_computation():
    square = np.zeros((1, 6, 6, 1), np.uint8)
    square[:, 1:5, 1:5] = 10
    expected = np.zeros((6, 6))
    expected[0:6, 0:6] = 16
    expected[[0, 0, -1, -1], [0, -1, 0, -1]] = 0  # corners have no neighbour inside
    expected[2:4, 2:4] = 0
    np.testing.assert_array_equal(outlines(square, 7.0)[0, ..., 0], expected)


def test_enlarging_a_ramp_gives_a_ramp():
    ramp = np.broadcast_to(np.arange(0, 16, 2, dtype=np.uint8)[None, :, None, None], (1, 8, 8, 1)).copy()
    expected = np.rint(np.clip((np.arange(16) + 0.5) - 1, 0, 14))
    np.testing.assert_array_equal(enlarge(ramp, 2)[0, :, 3, 0], expected)


def test_distances_match_hand_computation():
    grey = lambda *values: np.asarray(values, np.uint8).reshape(-1, 1, 1, 1)
    shown = {"input": grey(0, 10), "output": grey(4, 4), "target": grey(8, 2), "back": grey(1, 9)}
    report = translation_report(shown, (grey(1, 7), grey(3, 5)), 17)
    expected = {"l1": 3, "l1_input": 8, "l1_neighbour": 4, "l1_back": 1}
    assert report == {name: value / 16 for name, value in expected.items()}
    np.testing.assert_array_equal(neighbours(grey(1, 7, 200), grey(5, 0, 255)), [1, 0, 2])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pix2pix-outlines", "cyclegan-outlines"])
def test_a_translators_samples_use_test_inputs(name):
    run = on_one_device(ROWS[name])
    state, data = run.make_state(), run.experiment.data
    samples, _ = draw_samples(
        run.experiment.objective, data, state.ema, state.extra, run.mesh, seed=0, num=400, batch_size=100
    )
    if name.startswith("pix2pix"):
        given = {picture.tobytes() for picture in halves(samples)[0]}
        assert given == {picture.tobytes() for picture in halves(rows(OUTLINES.load("test")))[0]}
    with pytest.raises(UserError, match="needs input examples"):
        run.experiment.objective.sample(state.ema, state.extra, KEY, 4)


@pytest.mark.slow
def test_translations_are_shown_beside_another_run_and_the_nearest_neighbour(tmp_path):
    """Each run's outputs equal those drawn alone; the neighbour equals that of an exhaustive search."""
    for name, seed in (("one", 0), ("two", 1)):
        own = experiment.load(
            "pix2pix_digits:l1", [("seed", str(seed)), ("objective.generator.channels", "(8,)")]
        )
        workdir.open_workdir(own, "pix2pix_digits:l1", tmp_path / name)
        with Checkpoints(tmp_path / name / experiment.CHECKPOINTS) as checkpoints:
            checkpoints.save(1, loop.prepare(own).make_state())
    show = functools.partial(edit_workdir, overrides=(), how=Edit("translate"), num=8, seed=0)
    alone = [np.load(show(tmp_path / name, out=tmp_path / f"{name}.npz")) for name in ("one", "two")]
    both = np.load(show(tmp_path / "one", out=tmp_path / "both.npz", beside=tmp_path / "two"))
    assert list(both) == ["input", "output", "beside", "neighbour", "target"]
    np.testing.assert_array_equal(both["output"], alone[0]["output"])
    np.testing.assert_array_equal(both["beside"], alone[1]["output"])
    assert (both["output"] != both["beside"]).any()
    inputs, targets = halves(np.float64(rows(DigitOutlines().load("train"))))
    for given, found in zip(np.float64(both["input"]), both["neighbour"], strict=True):
        best = np.argmin(((inputs - given[None]) ** 2).sum(axis=(1, 2, 3)))
        np.testing.assert_array_equal(found, targets[best])
