"""Transforms: inverses, Jacobians against autodiff, and the bits per dimension of a uniform model."""

import dataclasses
import functools
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from genjax.data import Binarize, Crop, Data, Dequantize, Digits, Flip, Quantize, Scale, Table
from genjax.data.source import Kind

KEY = jax.random.key(0)


@dataclasses.dataclass(frozen=True)
class Ramp:
    """All values of a dtype (or 0 ... levels - 1), repeated, as examples [n, 4, 4, 1]."""

    levels: int
    dtype: str
    lowest: int = 0

    kind: ClassVar[Kind] = "image"
    shape: ClassVar[tuple[int, ...]] = (4, 4, 1)
    classes: ClassVar[int] = 0
    splits: ClassVar[tuple[str, ...]] = ("train", "test")

    def load(self, split):
        values = np.resize(
            np.arange(self.lowest, self.lowest + self.levels), 16 * 8 * max(1, self.levels // 16)
        )
        return Table({"x": values.reshape(-1, 4, 4, 1).astype(self.dtype)})


@functools.partial(jax.jit, static_argnames=("data", "train"))
def forward(data: Data, x: np.ndarray, train: bool = False, key=KEY) -> jax.Array:
    return data.forward({"x": x}, key, train)["x"]


SOURCES = [
    (Digits(), 14, 0.0),
    (Ramp(256, "uint8"), 14, 0.0),
    (Ramp(2**16, "int16", -(2**15)), 6, -(2.0**15)),
]


@pytest.mark.parametrize(("source", "bits", "low"), SOURCES, ids=["digits", "uint8", "int16"])
@pytest.mark.parametrize("dequantize", [True, False])
def test_inverse_undoes_forward_exactly(source, bits, low, dequantize):
    """For every level; the model's inputs stay within [-1, 1], to the last bit of float32."""
    x = source.load("train").arrays["x"]
    assert len(np.unique(x)) == source.levels
    width = source.levels if dequantize else source.levels - 1
    chain = (Dequantize(bits),) if dequantize else ()
    data = Data(source, (*chain, Scale(low, low + width)))
    for seed in range(2):
        z = forward(data, x, key=jax.random.key(seed))
        assert z.dtype == jnp.float32
        assert -1 <= float(z.min()) < float(z.max()) <= 1
        back = data.inverse(z)
        assert back.dtype == x.dtype
        np.testing.assert_array_equal(back, x)


@pytest.mark.parametrize(("source", "bits", "low"), SOURCES[1:], ids=["uint8", "int16"])
def test_dequantization_stays_inside_its_cell_at_both_ends(source, bits, low, monkeypatch):
    x = source.load("train").arrays["x"]
    data = Data(source, (Dequantize(bits), Scale(low, low + source.levels)))
    for word in (0, 2**16 - 1):
        with monkeypatch.context() as patch:
            patch.setattr(
                jax.random, "bits", lambda key, shape, dtype, word=word: jnp.full(shape, word, dtype)
            )
            np.testing.assert_array_equal(data.inverse(data.forward({"x": x}, KEY, False)["x"]), x)


def test_dequantization_noise_is_uniform():
    x = np.full((4096, 4, 4, 1), 7, np.uint8)
    noise = np.asarray(forward(Data(Digits(), (Dequantize(),)), x)).ravel() - 7
    assert stats.kstest(noise, "uniform").pvalue > 1e-3


def test_inverse_clips_to_the_range_of_the_data():
    data = Data(Digits(), (Scale(0.0, 16.0),))
    wild = np.array([-3.0, -1.01, 0.0, 1.01, 9.0], np.float32).reshape(5, 1, 1, 1)
    np.testing.assert_array_equal(data.inverse(wild).ravel(), [0, 0, 8, 16, 16])
    wide = Data(Ramp(2**16, "int16"), (Scale(0.0, 2.0**15, 0.0, 1.0),))
    np.testing.assert_array_equal(wide.inverse(np.array([-2.0, 2.0])), [-(2**15), 2**15 - 1])


def test_tokens_and_labels_pass_unchanged():
    x = np.arange(6, dtype=np.uint8).reshape(2, 3)
    label = np.array([3, 4], np.int32)
    batch = Data(Digits()).forward({"x": x, "label": label}, KEY, True)
    assert batch["x"].dtype == jnp.int32
    np.testing.assert_array_equal(batch["x"], x)
    np.testing.assert_array_equal(batch["label"], label)


CHAINS = {
    "scale": (Scale(0.0, 17.0),),
    "range": (Scale(2.0, -3.0, 0.0, 0.1),),
    "two": (Scale(0.0, 17.0), Scale(-1.0, 1.0, 0.0, 5.0)),
    "noisy": (Dequantize(), Scale(0.0, 17.0), Flip()),
    "mirrored": (Flip(), Scale(-1.0, 3.0)),
}


@pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS)
@pytest.mark.parametrize("train", [True, False])
def test_log_det_is_that_of_the_autodiff_jacobian(chain, train):
    data = Data(dataclasses.replace(Ramp(16, "float32")), chain)
    d = int(np.prod(data.shape))

    def flat(x):
        return data.forward({"x": x.reshape(1, *data.shape)}, KEY, train)["x"].ravel()

    jacobian = np.asarray(jax.jacobian(flat)(jnp.linspace(0.0, 1.0, d)), np.float64)
    assert data.log_det() == pytest.approx(np.linalg.slogdet(jacobian)[1], abs=1e-4)


@pytest.mark.parametrize("levels", [17, 256])
def test_uniform_model_scores_log2_levels_bits_per_dimension(levels):
    """p_model = 2^-d on [-1, 1]^d, so log p_data = log det - d log 2: exactly 8 bits for 8-bit data."""
    data = Data(Ramp(levels, "uint8"), (Dequantize(), Scale(0.0, float(levels))))
    d = np.prod(data.shape)
    bits = -(data.log_det() - d * np.log(2)) / (d * np.log(2))
    assert bits == pytest.approx(np.log2(levels), abs=1e-12)


def test_change_of_variables_integrates_to_one():
    """exp(log p_model(f(x)) + log_det) is a density over x, for a Gaussian p_model."""
    scale = Scale(-1.0, 4.0)
    x = np.linspace(-40, 40, 4001)[:, None]
    z = np.asarray(scale.forward({"x": jnp.asarray(x, jnp.float32)}, KEY, False)["x"])[:, 0]
    density = stats.norm.pdf(z) * np.exp(scale.log_det((1,)))
    assert np.trapezoid(density, x[:, 0]) == pytest.approx(1.0, abs=1e-5)


def test_binarize_draws_with_the_pixels_probability():
    levels = np.arange(17, dtype=np.uint8)
    x = np.broadcast_to(levels, (20_000, 17)).reshape(20_000, 17, 1, 1)
    data = Data(Digits(), (Binarize(16.0),))
    z = np.asarray(forward(data, x))
    assert set(np.unique(z)) == {0.0, 1.0}
    p = levels / 16
    error = np.sqrt(p * (1 - p) / len(x))
    assert np.all(np.abs(z.mean(axis=(0, 2, 3)) - p) <= 4.5 * error)
    assert set(np.unique(data.inverse(z))) == {0, 16}
    threshold = Data(Digits(), (Binarize(16.0, random=False),))
    np.testing.assert_array_equal(forward(threshold, x[:1]).ravel(), levels > 8)


@pytest.mark.parametrize("values", [2, 7, 16, 256])
def test_quantize_rounds_to_the_nearest_step(values):
    x = np.arange(256).astype(np.uint8).reshape(16, 4, 4, 1)
    data = Data(Ramp(256, "uint8"), (Quantize(values),))
    z = forward(data, x)
    assert z.dtype == jnp.int32
    steps = np.linspace(0, 255, values)
    distance = np.abs(x.reshape(-1, 1) - steps[None])
    np.testing.assert_array_equal(distance[np.arange(256), np.asarray(z).ravel()], distance.min(axis=1))
    back = data.inverse(z)
    assert {0, 255} <= set(np.unique(back))
    np.testing.assert_array_equal(forward(data, back), z)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(1, 17, (512, 8, 8, 1)).astype(np.uint8)


def test_flip_mirrors_half_of_the_images(images):
    z = np.asarray(forward(Data(Digits(), (Flip(),)), images, train=True))
    same = np.all(z == images, axis=(1, 2, 3))
    mirrored = np.all(z == images[:, :, ::-1], axis=(1, 2, 3))
    assert np.all(same ^ mirrored)
    assert stats.binomtest(int(mirrored.sum()), len(images)).pvalue > 1e-4


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect"])
def test_crop_is_a_uniform_shift_of_the_padded_image(images, mode):
    pad = 2
    z = np.asarray(forward(Data(Digits(), (Crop(pad, mode),)), images, train=True))
    padded = np.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode=mode)
    shifts = [(i, j) for i in range(2 * pad + 1) for j in range(2 * pad + 1)]
    hits = np.stack([np.all(z == padded[:, i : i + 8, j : j + 8], axis=(1, 2, 3)) for i, j in shifts])
    assert np.all(hits.sum(axis=0) == 1)
    assert stats.chisquare(hits.sum(axis=1)).pvalue > 1e-4


def test_evaluation_does_not_augment(images):
    np.testing.assert_array_equal(forward(Data(Digits(), (Flip(), Crop(2))), images), images)


def test_randomness_depends_on_key_and_position_only(images):
    data = Data(Digits(), (Dequantize(), Dequantize()))
    first, again = forward(data, images), forward(data, images)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, forward(data, images, key=jax.random.key(1)))
    once = np.asarray(forward(Data(Digits(), (Dequantize(),)), images)) - images
    second = np.asarray(first) - images - once
    assert abs(np.corrcoef(once.ravel(), second.ravel())[0, 1]) < 0.03
