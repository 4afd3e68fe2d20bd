"""Statistics of streams of images in a network's features, and their files."""

import struct
import zipfile
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax
from small_features import MATRIX, NETWORK, cut, features_of, gathered, images

from genjax.core.errors import UserError
from genjax.metrics.distances.streaming import Rows
from genjax.metrics.features.extraction import reduce_stream, stream_statistics
from genjax.metrics.features.inception import image_stream, to_bytes, to_rgb
from genjax.metrics.features.reference import load_statistics, save_statistics
from genjax.parallel.mesh import make_mesh


def test_features_of_a_stream_over_devices_are_in_order_for_any_batches():
    x, mesh = images(73), make_mesh()
    stream = lambda *ends: image_stream(cut(x, *ends), mesh, 20)
    features = stream_statistics(NETWORK, mesh, stream(1, 3, 60)).rows.features()
    np.testing.assert_allclose(features, features_of(x), rtol=1e-5)
    logits = reduce_stream(
        NETWORK, mesh, stream(50), lambda features, place, logits, labels: Rows.of(logits, place)
    )
    np.testing.assert_allclose(
        softmax(logits.features(), axis=1), softmax(features_of(x) @ MATRIX, axis=1), rtol=1e-5
    )


@pytest.mark.parametrize("levels", [2, 3, 17, 256])
def test_images_of_any_levels_are_mapped_to_bytes_and_grey_ones_to_rgb(levels):
    x = np.random.default_rng(levels).integers(0, levels, (5, 4, 6, 1)).astype(np.uint8)
    shown = to_bytes(x, levels).repeat(3, axis=-1)
    np.testing.assert_allclose(to_rgb(jnp.asarray(x), levels), shown / 255, rtol=1e-6)
    assert set(np.unique(to_bytes(np.arange(levels), levels))) >= {0, 255}


def test_streamed_statistics_equal_those_of_the_whole_set():
    x = images(101)
    streamed = stream_statistics(NETWORK, make_mesh(), image_stream([x], make_mesh(), 20))
    whole = streamed.rows.features().astype(np.float64)
    found = gathered(cut(x, 1, 34, 35, 90), 101, kept=30, splits=4)
    np.testing.assert_allclose(found.moments.mean, whole.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.moments.covariance, np.cov(whole, rowvar=False), rtol=1e-9)
    rows = {tuple(row) for row in whole.astype(np.float32)}
    assert len({tuple(row) for row in found.features} & rows) == len(found.features) == 30
    for batches, total in ((cut(x, 50), 100), (cut(x, 50), 102)):
        with pytest.raises(UserError, match=f"images where {total} were expected"):
            gathered(batches, total)
    with pytest.raises(UserError, match="these: 9 images, at least 10"):
        gathered([x[:9]], 9)


def test_statistics_are_restored_from_own_and_foreign_files(tmp_path):
    made, path = gathered([images(31)], 31), tmp_path / "deep" / "stats.npz"
    save_statistics(made, path)
    back = load_statistics(path, NETWORK)
    assert (back.count, back.weights, back.data) == (31, "digest", "these")
    for ours, theirs in [
        (made.moments.mean, back.moments.mean),
        (made.moments.covariance, back.moments.covariance),
        (made.features, back.features),
        (made.scores, back.scores),
    ]:
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    np.savez(path, mu=made.moments.mean, sigma=made.moments.covariance)
    back = load_statistics(path, NETWORK)
    assert back.foreign
    assert back.count is None
    np.testing.assert_array_equal(back.moments.covariance, made.moments.covariance)


def write(path: Path, save=np.savez, **changes):
    arrays = {"mu": np.zeros(3), "sigma": np.eye(3), "count": 5, "weights": "digest", "data": "these"}
    arrays |= {"features": np.zeros((5, 3), np.float32), "scores": np.ones(10)} | changes
    save(path, **{name: array for name, array in arrays.items() if array is not None})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mu": np.zeros(64)}, r"mu has the shape \(64,\), expected \(3,\)"),
        ({"sigma": np.eye(4)}, r"sigma has the shape \(4, 4\), expected \(3, 3\)"),
        ({"mu": None}, "holds no statistics: it lacks 'mu'"),
        ({"sigma": np.full((3, 3), np.nan)}, "sigma has values that are NaN or infinite"),
        ({"sigma": np.triu(np.ones((3, 3)))}, "sigma is not symmetric"),
        ({"weights": "another"}, "made with weights another, these are digest"),
        ({"features": None}, "damaged: it lacks 'features'"),
        ({"features": np.zeros((5, 2))}, "damaged: count=5, features"),
        ({"data": np.array([None])}, "cannot read statistics"),
    ],
)
def test_mismatched_statistics_raise_one_line(tmp_path, changes, words):
    write(tmp_path / "stats.npz", **changes)
    with pytest.raises(UserError, match=words) as caught:
        load_statistics(tmp_path / "stats.npz", NETWORK)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damaged_files_raise_one_line(tmp_path, save):
    """Truncated, and with every ninetieth byte inverted: in directory, headers or streams, compressed or not."""
    path, refused = tmp_path / "stats.npz", 0
    write(path, save, features=np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32))
    whole = path.read_bytes()
    turned = [whole[:i] + bytes([whole[i] ^ 0xFF]) + whole[i + 1 :] for i in range(0, len(whole), 90)]
    for content in (b"", b"nonsense", whole[: len(whole) // 2], *turned):
        path.write_bytes(content)
        line = ""
        try:
            load_statistics(path, NETWORK)  # some bytes, such as timestamps, are not checked
        except UserError as error:
            line = str(error)
        assert "\n" not in line
        refused += "cannot read statistics" in line
    assert refused > len(turned) / 3
    with pytest.raises(UserError, match="cannot read statistics"):
        load_statistics(tmp_path / "none.npz", NETWORK)


def test_an_invalid_compressed_stream_raises_one_line(tmp_path):
    """The first bytes of an array's stream are invalid for zlib."""
    path = tmp_path / "stats.npz"
    write(path, np.savez_compressed)
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("sigma.npy").header_offset
    content = bytearray(path.read_bytes())
    begins = start + 30 + sum(struct.unpack("<HH", content[start + 26 : start + 30]))
    content[begins : begins + 4] = b"\xff" * 4
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"cannot read statistics from .*: Error -3") as caught:
        load_statistics(path, NETWORK)
    assert "\n" not in str(caught.value)
