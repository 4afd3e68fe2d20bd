"""Parts of FID's network, and the files of its weights."""

import hashlib
import itertools
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from genjax.core.errors import UserError
from genjax.metrics.features import inception
from genjax.metrics.features.inception import convert, expected_arrays, load_network, read_weights
from genjax.networks.convolutional.inception import MixedA, MixedC, MixedE, Unit, max_pool, mean_pool, resize

RNG = np.random.default_rng(0)


# The network.


def neighbours(x, i, j):
    return x[:, max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2]


def test_pools_ignore_padding():
    x = jnp.asarray(RNG.normal(size=(2, 5, 4, 3)) - 10.0, jnp.float32)
    places = list(itertools.product(range(5), range(4)))
    means = np.stack(
        [neighbours(np.asarray(x), *place).mean(axis=(1, 2)) for place in places], axis=1
    ).reshape(x.shape)
    most = np.stack([neighbours(np.asarray(x), *place).max(axis=(1, 2)) for place in places], axis=1).reshape(
        x.shape
    )
    np.testing.assert_allclose(mean_pool(x), means, rtol=1e-6)
    np.testing.assert_array_equal(max_pool(x), most)
    assert mean_pool(jnp.ones((1, 3, 3, 1))).min() == 1.0


@pytest.mark.parametrize("size", [8, 28, 299, 640])
def test_a_resized_ramp_is_the_ramp_at_the_clipped_half_pixel_centres(size):
    """Linear between pixels, constant beyond the outermost; also when downsampling."""
    ramp = np.arange(size, dtype=np.float32)
    x = np.broadcast_to(2 * ramp[:, None] + 3 * ramp[None] - 7, (size, size))[None, :, :, None]
    place = np.clip((np.arange(299) + 0.5) * size / 299 - 0.5, 0, size - 1)
    np.testing.assert_allclose(
        resize(jnp.asarray(x))[0, :, :, 0], 2 * place[:, None] + 3 * place[None] - 7, rtol=1e-5, atol=1e-3
    )


def test_resizing_down_does_not_smooth():
    x = RNG.uniform(size=(1, 7, 11, 2)).astype(np.float32)
    place = [np.clip((np.arange(5) + 0.5) * n / 5 - 0.5, 0, n - 1) for n in x.shape[1:3]]
    low = [np.floor(q).astype(int) for q in place]
    high = [np.minimum(q + 1, n - 1) for q, n in zip(low, x.shape[1:3], strict=True)]
    a, b = (place[0] - low[0])[:, None, None], (place[1] - low[1])[None, :, None]
    at = lambda i, j: x[0][np.ix_(i, j)]
    rows = [(1 - b) * at(i, low[1]) + b * at(i, high[1]) for i in (low[0], high[0])]
    np.testing.assert_allclose(resize(jnp.asarray(x), 5)[0], (1 - a) * rows[0] + a * rows[1], atol=1e-6)


def test_batch_norm_uses_the_given_statistics():
    values = {
        name: RNG.uniform(0.5, 2.0, size=4).astype(np.float32) for name in ("scale", "bias", "mean", "var")
    }
    kernel = RNG.normal(size=(1, 1, 3, 4)).astype(np.float32)
    x = jnp.asarray(RNG.normal(size=(2, 3, 3, 3)), jnp.float32)
    z = (np.asarray(x) @ kernel[0, 0] - values["mean"]) / np.sqrt(values["var"] + 0.001)
    found = Unit(4).apply({"params": {"conv": {"kernel": jnp.asarray(kernel)}, **values}}, x)
    np.testing.assert_allclose(
        found, np.maximum(z * values["scale"] + values["bias"], 0), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("block", "channels", "pool"),
    [
        (MixedA(32), 32, mean_pool),
        (MixedC(128), 192, mean_pool),
        (MixedE(), 192, mean_pool),
        (MixedE(by_max=True), 192, max_pool),
    ],
)
def test_each_block_has_its_kind_of_pool(block, channels, pool):
    """All kernels are zero but the pooled branch's, which selects channels of the pool's output."""
    x = jnp.asarray(RNG.uniform(size=(1, 4, 4, channels + 5)), jnp.float32)
    shapes = jax.eval_shape(block.init, jax.random.key(0), x)["params"]
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    params["branch_pool"]["conv"]["kernel"][0, 0, :channels] = np.eye(channels)
    params["branch_pool"] |= {name: np.ones(channels, np.float32) for name in ("scale", "var")}
    y = jax.jit(block.apply)({"params": params}, x)
    picked = pool(x)[..., :channels] / np.sqrt(1.001)
    np.testing.assert_allclose(y[..., -channels:], picked, rtol=1e-5)
    assert not y[..., :-channels].any()


def test_the_expected_file_has_as_many_values_as_the_published_network():
    """21,785,568 trained values before the last layer: 21,768,352 of Keras' InceptionV3 plus its missing scales."""
    sizes = {name: int(np.prod(shape)) for name, (_, shape) in expected_arrays().items()}
    trained = [name for name in sizes if "running" not in name and name != "fc.weight"]
    scales = sum(size for name, size in sizes.items() if name.endswith("bn.weight"))
    assert sum(sizes[name] for name in trained) == 21_785_568 == 21_768_352 + scales
    assert expected_arrays()["fc.weight"][1] == (1008, 2048)
    assert expected_arrays()["Mixed_6b.branch7x7_2.conv.weight"][1] == (128, 128, 1, 7)


# Files of weights.


def blank(value=0.0):
    """Arrays with the right names and shapes, broadcast to save memory."""
    return {name: np.broadcast_to(np.float32(value), shape) for name, (_, shape) in expected_arrays().items()}


@pytest.fixture
def torch(monkeypatch):
    """A fake torch that loads the arrays put into it, only with weights_only."""
    held = {}

    def load(path, map_location, weights_only):
        assert weights_only
        assert map_location == "cpu"
        return {name: types.SimpleNamespace(numpy=lambda a=array: a) for name, array in held.items()}

    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(load=load))
    return held


def test_a_conversion_equals_the_pth_and_identifies_the_original(torch, tmp_path, monkeypatch):
    source, target = tmp_path / "weights.pth", tmp_path / "weights.safetensors"
    source.write_bytes(b"a file")
    torch |= blank(0.5) | {"fc.bias": np.zeros(1008), "Conv2d_1a_3x3.bn.num_batches_tracked": np.zeros(())}
    torch["Mixed_6b.branch7x7_2.conv.weight"] = RNG.normal(size=(128, 128, 1, 7)).astype(np.float32)
    convert(source, target)
    arrays, digest, original = read_weights(source)
    again, same, still = read_weights(target)
    assert (digest, original) == (same, still) == (digest, False)
    np.testing.assert_array_equal(*(a["Mixed_6b.branch7x7_2.conv.weight"] for a in (arrays, again)))
    monkeypatch.setattr(inception, "ORIGINAL", hashlib.sha256(b"a file").hexdigest()[:8])
    network = load_network(target)
    assert network.original
    assert read_weights(source)[2]
    kernel = network.params["params"]["Mixed_6b"]["branch7x7_2"]["conv"]["kernel"]
    np.testing.assert_array_equal(kernel[0, 2, 5, 7], arrays["Mixed_6b.branch7x7_2.conv.weight"][7, 5, 0, 2])
    forged = {inception.FILE_DIGEST: inception.ORIGINAL}
    save_file(arrays, target, forged)
    assert not read_weights(target)[2]
    save_file(arrays, target, forged | {inception.ARRAYS_DIGEST: "0" * 64})
    with pytest.raises(UserError, match="its arrays do not match their checksum"):
        read_weights(target)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"fc.weight": np.zeros((1000, 2048), np.float32)},
            r"'fc.weight' has the shape \(1000, 2048\), expected \(1008",
        ),
        ({"AuxLogits.conv0.conv.weight": np.zeros(1)}, "it has 'AuxLogits.conv0.conv.weight', which FID's"),
        ({"Mixed_7c.branch_pool.bn.bias": None}, "it lacks 'Mixed_7c.branch_pool.bn.bias'"),
        (
            {"Mixed_7c.branch_pool.bn.bias": np.full(192, np.nan)},
            "'Mixed_7c.branch_pool.bn.bias' has values that are NaN",
        ),
    ],
)
def test_weights_of_another_network_raise_one_line(torch, tmp_path, change, words):
    torch |= {name: array for name, array in (blank() | change).items() if array is not None}
    path = tmp_path / "weights.pth"
    path.write_bytes(b"")
    with pytest.raises(UserError, match=words) as caught:
        read_weights(path)
    assert "\n" not in str(caught.value)


def test_unreadable_files_raise_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    pth, bad = tmp_path / "weights.pth", tmp_path / "bad.safetensors"
    pth.write_bytes(b"pickle")
    bad.write_bytes(b"nonsense")
    for call, words in [
        (lambda: read_weights(tmp_path / "none.pth"), "no file of weights .*none.pth"),
        (
            lambda: read_weights(pth),
            "needs torch to be read: .* source=.*weights.safetensors",
        ),
        (lambda: read_weights(bad), "bad.safetensors is damaged"),
        (lambda: convert(bad, pth), "from a .pth to a .safetensors"),
    ]:
        with pytest.raises(UserError, match=words) as caught:
            call()
        assert "\n" not in str(caught.value)
