"""Statistics of streams of images in a network's features, and their files."""

from pathlib import Path

import numpy as np
import pytest
from small_features import MATRIX, NETWORK, cut, features_of, images

from genjax.errors import UserError
from genjax.metrics.reference import gather_statistics, load_statistics, save_statistics


def test_a_stream_over_devices_is_looked_at_in_order_whatever_its_batches():
    x = images(73)
    looked = list(NETWORK.look(cut(x, 1, 3, 60)))
    features, probabilities = (np.concatenate(parts) for parts in zip(*looked, strict=True))
    np.testing.assert_allclose(features, features_of(x), rtol=1e-5)
    odds = np.exp(features_of(x) @ MATRIX)
    np.testing.assert_allclose(probabilities, odds / odds.sum(axis=1, keepdims=True), rtol=1e-5)
    grey = next(NETWORK.look([x[:5, :, :, :1]]))[0]
    np.testing.assert_array_equal(grey, grey[:, :1].repeat(3, axis=1))


def test_streamed_statistics_are_those_of_the_whole_set():
    x = images(101)
    whole = np.concatenate([features for features, _ in NETWORK.look([x])]).astype(np.float64)
    found = gather_statistics(NETWORK, cut(x, 1, 34, 35, 90), 101, data="these", kept=30, splits=4)
    np.testing.assert_allclose(found.moments.mean, whole.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.moments.covariance, np.cov(whole, rowvar=False), rtol=1e-9)
    rows = {tuple(row) for row in whole.astype(np.float32)}
    assert len({tuple(row) for row in found.features} & rows) == len(found.features) == 30
    for batches, total in ((cut(x, 50), 100), (cut(x, 50), 102)):
        with pytest.raises(UserError, match=f"images where {total} were expected"):
            gather_statistics(NETWORK, batches, total, data="these")
    with pytest.raises(UserError, match="these: 9 images, at least 10"):
        gather_statistics(NETWORK, [x[:9]], 9, data="these")


def test_statistics_come_back_from_their_file_and_from_that_of_others(tmp_path):
    made, path = gather_statistics(NETWORK, [images(31)], 31, data="these"), tmp_path / "deep" / "stats.npz"
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


def write(path: Path, **changes):
    arrays = {"mu": np.zeros(3), "sigma": np.eye(3), "count": 5, "weights": "digest", "data": "these"}
    arrays |= {"features": np.zeros((5, 3), np.float32), "scores": np.ones(10)} | changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mu": np.zeros(64)}, r"mu has the shape \(64,\), expected \(3,\)"),
        ({"sigma": np.eye(4)}, r"sigma has the shape \(4, 4\), expected \(3, 3\)"),
        ({"mu": None}, "holds no statistics: it lacks 'mu'"),
        ({"sigma": np.full((3, 3), np.nan)}, "sigma has values that are no numbers"),
        ({"sigma": np.triu(np.ones((3, 3)))}, "sigma is not symmetric"),
        ({"weights": "another"}, "made with weights another, these are digest"),
        ({"features": None}, "damaged: it lacks 'features'"),
        ({"features": np.zeros((5, 2))}, "damaged: count=5, features"),
        ({"data": np.array([None])}, "cannot read statistics"),
    ],
)
def test_statistics_that_do_not_fit_are_one_line(tmp_path, changes, words):
    write(tmp_path / "stats.npz", **changes)
    with pytest.raises(UserError, match=words) as caught:
        load_statistics(tmp_path / "stats.npz", NETWORK)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_statistics_are_one_line(tmp_path):
    path = tmp_path / "stats.npz"
    write(path)
    whole = path.read_bytes()
    for content in (b"", b"nonsense", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(UserError, match="cannot read statistics") as caught:
            load_statistics(path, NETWORK)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="cannot read statistics"):
        load_statistics(tmp_path / "none.npz", NETWORK)
