"""Precision, recall, density, coverage and memorisation against definitions and distribution-free laws."""

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from genjax.core.errors import UserError
from genjax.metrics.distances.coverage import expected_coverage, prdc
from genjax.metrics.distances.memorization import nearer_than_neighbours, nearest_training
from genjax.metrics.distances.pairs import nearest


def by_definition(real, fake, k):
    """The four formulas of the papers, one pair at a time."""

    def radius(x, i):
        return sorted(np.linalg.norm(x[i] - x[j]) for j in range(len(x)) if j != i)[k - 1]

    real_radii = [radius(real, i) for i in range(len(real))]
    fake_radii = [radius(fake, j) for j in range(len(fake))]
    inside = lambda a, b, r: np.linalg.norm(a - b) <= r
    return {
        "precision": np.mean(
            [any(inside(f, c, r) for c, r in zip(real, real_radii, strict=True)) for f in fake]
        ),
        "recall": np.mean(
            [any(inside(c, f, r) for f, r in zip(fake, fake_radii, strict=True)) for c in real]
        ),
        "density": sum(inside(f, c, r) for f in fake for c, r in zip(real, real_radii, strict=True))
        / (k * len(fake)),
        "coverage": np.mean(
            [any(inside(f, c, r) for f in fake) for c, r in zip(real, real_radii, strict=True)]
        ),
    }


@pytest.mark.parametrize(("k", "chunk"), [(1, 1000), (3, 7), (5, 16)])
def test_prdc_equals_its_definition(k, chunk):
    rng = np.random.default_rng(k)
    real, fake = rng.normal(size=(40, 3)), rng.normal(size=(33, 3)) + 1.2
    expected = by_definition(real, fake, k)
    assert 0.0 < expected["recall"] < 1.0
    assert 0.0 < expected["precision"] < 1.0
    assert prdc(real, fake, k, chunk) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("chunk", [5, 100])
def test_copies_lie_on_the_edge_of_balls_and_within_them(chunk):
    """Far from the origin, where rounding of the expanded square exceeds the differences being compared."""
    rng = np.random.default_rng(2)
    real = 3000.0 + rng.integers(0, 3, (30, 12)) * 0.1 + rng.normal(size=(30, 1)) * 1e-3
    real[20:] = real[:10]
    fake = real[rng.permutation(30)][:25]
    for k in (1, 2):
        assert prdc(real, fake, k, chunk) == pytest.approx(by_definition(real, fake, k), rel=1e-12)


def test_same_distribution_has_density_one_and_lemma_2s_coverage():
    """Neither constant depends on the distribution: a law of exchangeability."""
    rng = np.random.default_rng(0)
    draws = {"normal": lambda n: rng.normal(size=(n, 2)), "heavy": lambda n: rng.standard_cauchy((n, 5))}
    for draw in draws.values():
        found = [prdc(draw(30), draw(20), k=3) for _ in range(400)]
        for name, expected in {"density": 1.0, "coverage": expected_coverage(30, 20, 3)}.items():
            values = [f[name] for f in found]
            assert abs(np.mean(values) - expected) < 4 * np.std(values) / np.sqrt(len(values))


def test_expected_coverage_of_one_neighbour_is_the_chance_that_a_fake_is_nearest():
    assert expected_coverage(10, 7, 1) == pytest.approx(7 / 16)


def test_precision_and_recall_distinguish_infidelity_from_collapse():
    rng = np.random.default_rng(0)
    real, other, wide = (rng.normal(size=(200, 4)) * s for s in (1.0, 1.0, 6.0))
    same, noisy = prdc(real, other), prdc(real, wide)
    collapsed = prdc(real, real[:1] + 0.05 * rng.normal(size=(200, 4)))
    assert noisy["precision"] < 0.5 < same["precision"]
    assert noisy["density"] < 0.5 < same["density"]
    assert collapsed["recall"] < 0.05 < 0.5 < same["recall"]
    assert collapsed["coverage"] < 0.3 < 0.8 < same["coverage"]


def test_discrete_data_with_repeated_rows_is_inside_its_own_balls():
    real = np.repeat(np.arange(4.0)[:, None] + 1e6 / 3, 10, axis=0)
    assert prdc(real, real.copy(), k=3) == {
        "precision": 1.0,
        "recall": 1.0,
        "density": 10 / 3,
        "coverage": 1.0,
    }


def test_nearest_agrees_with_sklearn_across_blocks_and_an_offset():
    rng = np.random.default_rng(0)
    points, queries = rng.normal(size=(230, 6)) + 1e4, rng.normal(size=(90, 6)) + 1e4
    distance, index = nearest(queries, points, 4, chunk=50)
    expected = NearestNeighbors(n_neighbors=4, algorithm="kd_tree").fit(points).kneighbors(queries)
    np.testing.assert_allclose(distance, expected[0], rtol=1e-10)
    np.testing.assert_array_equal(index, expected[1])


def test_nearest_leaves_out_the_query_itself_but_not_its_copies():
    points = np.array([[0.0], [3.0], [3.0], [7.0]])
    own = np.array([0, 1, 3])
    distance, index = nearest(points[own], points, 1, itself=own, chunk=2)
    np.testing.assert_array_equal(distance[:, 0], [3.0, 0.0, 4.0])
    assert index[1, 0] == 2


@pytest.mark.parametrize(
    ("dims", "expected"),
    [(1, 2 / 3), (2, 6 * np.pi / (8 * np.pi + 3 * np.sqrt(3)))],
)
def test_new_data_are_nearer_than_neighbours_as_often_as_points_are_mutual_nearest(dims, expected):
    """Clark & Evans 1955: with one more point of the data, the pair (sample, nearest) is a mutual one."""
    rng = np.random.default_rng(dims)
    shares = [nearer_than_neighbours(rng.random((300, dims)), rng.random((2000, dims))) for _ in range(10)]
    assert np.mean(shares) == pytest.approx(expected, abs=0.03)


def test_copies_are_flagged_and_their_sources_found():
    rng = np.random.default_rng(0)
    train = rng.integers(0, 256, (300, 4, 4, 1), np.uint8)
    new = rng.integers(0, 256, (100, 4, 4, 1), np.uint8)
    source = rng.integers(0, 300, 100)
    copied = nearest_training(train[source], train)
    np.testing.assert_array_equal(copied.index[:, 0], source)
    assert copied.exact_duplicates == copied.near_copies() == copied.nearer_than_neighbours == 1.0
    slightly = train[source] ^ np.uint8(1)
    assert nearest_training(slightly, train).exact_duplicates == 0.0
    assert nearest_training(slightly, train).near_copies() == 1.0
    assert nearest_training(slightly, train).extraction_ratio().max() < 0.2
    honest = nearest_training(new, train)
    assert honest.exact_duplicates == honest.near_copies() == 0.0
    assert honest.extraction_ratio().min() > 0.5
    assert 0.3 < honest.nearer_than_neighbours < 0.8


def test_statistics_follow_their_formulas():
    train, sample = np.array([[0.0], [10.0], [11.0], [30.0]]), np.array([[12.5], [2.0]])
    found = nearest_training(sample, train, k=3)
    np.testing.assert_array_equal(found.distance, [[1.5, 2.5, 12.5], [2.0, 8.0, 9.0]])
    np.testing.assert_array_equal(found.own, [1.0, 10.0])
    assert found.nearer_than_neighbours == 0.5
    assert found.near_copies() == 0.5  # 2 <= 8 / 3 but 1.5 > 2.5 / 3
    np.testing.assert_allclose(found.extraction_ratio(), [1.5 / (0.5 * 5.5), 2 / (0.5 * 19 / 3)], rtol=1e-12)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: prdc(np.zeros((5, 2)), np.zeros((9, 2)), k=5),
        lambda: prdc(np.zeros((9, 2)), np.zeros((9, 2)), k=0),
        lambda: nearest_training(np.zeros((5, 2)), np.zeros((1, 2))),
    ],
)
def test_wrong_input_is_one_line(wrong):
    with pytest.raises(UserError, match=r"\A[^\n]+\Z"):
        wrong()
