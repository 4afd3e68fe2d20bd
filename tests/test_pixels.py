"""Networks over pixels: receptive fields, and incremental evaluation with rows at different places."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_networks import filled

from genjax.core.errors import UserError
from genjax.networks import PixelCNN, PixelCNNPP, PixelRNN
from genjax.networks.autoregressive.raster import check_image

KEY = jax.random.key(0)
LEVELS = 5
NETS = {
    "two scales": PixelCNNPP(width=4, blocks=1, scales=2, levels=LEVELS),
    "three scales": PixelCNNPP(width=4, blocks=1, scales=3, levels=LEVELS),
    "one scale": PixelCNNPP(width=4, blocks=2, scales=1, levels=LEVELS),
    "row LSTM": PixelRNN(width=4, depth=2, reach=1, kernel=5, hidden=4, levels=LEVELS),
    "gated": PixelCNN(width=4, depth=2, hidden=4, levels=LEVELS),
}
SLOW = {"one scale", "three scales", "gated"}


def each(slow):
    return [pytest.param(name, marks=pytest.mark.slow) if name in slow else name for name in NETS]


def made(name, shape):
    """(shifted images of three rows, parameters without zeros, conditions)."""
    x, cond = jax.random.randint(KEY, (3, *shape), 0, LEVELS), jnp.eye(3)
    return x, filled(NETS[name], x, None, cond, out=2), cond


@pytest.mark.parametrize("name", each(SLOW)[:-1])
def test_gradients_are_exactly_zero_in_later_inputs(name):
    """Shifted input p is pixel p - 1, so output p sees inputs 1 ... p; no scale divides the image's size."""
    h, w = 5, 3
    x, params, cond = made(name, (h, w, 1))
    apply = lambda x: jnp.sin(NETS[name].apply(params, x, None, cond[:1], out=2)).sum((0, 3)).reshape(h * w)
    size = np.abs(jax.jit(jax.jacrev(apply))(x[:1].astype(jnp.float32)).reshape(h * w, h * w))
    place = np.arange(h * w)
    allowed = (place[None] <= place[:, None]) & (place[None] > 0)
    np.testing.assert_array_equal(size[~allowed], 0.0)
    seen = allowed
    if (
        name == "row LSTM"
    ):  # rows above: columns to j + 2 k - 1 at k rows up, all of them here but the next row's
        pixel, here = place - 1, place
        up, right = here[:, None] // w - pixel[None] // w, pixel[None] % w - here[:, None] % w
        seen = allowed & ((up > 1) | (right <= 1) & (up > 0) | (up == 0) & (right >= -3))
    assert np.all(size[seen] > 1e-9), "a blind spot"
    np.testing.assert_array_equal(size[~seen], 0.0)


@pytest.mark.parametrize("name", each(SLOW | {"row LSTM", "two scales"}))
def test_incremental_evaluation_gives_the_outputs_of_all_places(name):
    """Two channels; in the first call one row takes all places, one takes seven, one takes none."""
    shape = (5, 6, 2)
    n = shape[0] * shape[1]
    x, params, cond = made(name, shape)
    expected = NETS[name].apply(params, x, None, cond, out=2).reshape(3, n, 2)
    decoder = NETS[name].incremental(params, shape[:2], cond, out=2, channels=2)
    extend = jax.jit(functools.partial(decoder.extend, last=False))
    late, count = x.reshape(3, n, 2), np.array([n, 7, 0])
    first, memory = extend(decoder.init(3), late, jnp.asarray(count))
    rest = jnp.stack([jnp.roll(row, -done, axis=0) for row, done in zip(late, count, strict=True)])
    second, memory = extend(memory, rest, jnp.asarray(n - count))
    for row, done in enumerate(count):
        found = jnp.concatenate([first[row, :done], second[row, : n - done]])
        np.testing.assert_allclose(found, expected[row], atol=1e-5)
    assert memory.place.tolist() == [n] * 3
    assert np.ptp(np.asarray(expected)) > 1


@pytest.mark.slow
def test_dropout_is_drawn_in_training_only():
    x, params, cond = made("one scale", (2, 2, 1))
    noisy = NETS["one scale"].clone(dropout=0.5)
    apply = jax.jit(
        lambda key, train: noisy.apply(params, x, None, cond, out=2, train=train, rngs={"dropout": key}),
        static_argnums=1,
    )
    plain = NETS["one scale"].apply(params, x, None, cond, out=2)
    np.testing.assert_allclose(apply(KEY, False), plain, atol=1e-5)
    assert jnp.abs(apply(KEY, True) - apply(jax.random.key(1), True)).max() > 1e-2


def test_wrong_shapes_raise():
    for net in NETS.values():
        with pytest.raises(UserError, match="keeps the shape"):
            net.init(KEY, jnp.zeros((1, 3, 2, 1), jnp.int32), out=(2, 3, 2))
    with pytest.raises(UserError, match="is for images"):
        check_image("PixelRNN", (3, 1), 2)
