"""Every metric of two sets raises a one-line UserError on invalid input; a row for each metric."""

import numpy as np
import pytest

from genjax.core.errors import UserError
from genjax.metrics.distances.coverage import prdc
from genjax.metrics.distances.frechet import Moments, frechet
from genjax.metrics.distances.memorization import nearer_than_neighbours, nearest_training
from genjax.metrics.distances.mmd import RBF, gaussian_mmd, kernel_distance, kernel_mmd
from genjax.metrics.distances.pairs import check_finite
from genjax.metrics.distances.sliced import sliced_wasserstein

ROWS = np.random.default_rng(0).normal(size=(12, 3))
# Each metric, and the minimum number of rows of each set.
METRICS = {
    "prdc": (lambda x, y: prdc(x, y, k=2), (3, 3)),
    "kernel_mmd": (kernel_mmd, (2, 2)),
    "kernel_distance": (lambda x, y: kernel_distance(x, y, subsets=1, size=2), (2, 2)),
    "gaussian_mmd": (gaussian_mmd, (2, 2)),
    "frechet": (lambda x, y: frechet(Moments.of(x), Moments.of(y)), (2, 2)),
    "sliced_wasserstein": (lambda x, y: sliced_wasserstein(x, y, directions=4), (1, 1)),
    "nearest_training": (nearest_training, (1, 2)),
    "nearer_than_neighbours": (nearer_than_neighbours, (1, 2)),
}


def broken(value, count=12):
    """The rows with an invalid value in the last one, which a random subset rarely contains."""
    x = ROWS[:count].copy()
    x[-1, 1] = value
    return x


@pytest.mark.parametrize("name", METRICS)
def test_incomparable_sets_raise_one_line(name):
    compute, least = METRICS[name]
    compute(ROWS[: least[0]], ROWS[-least[1] :])  # the minimum is accepted
    wrong = {
        "dimensions|equal example shape": [(ROWS, ROWS[:, :2]), (ROWS[:, :1], ROWS)],
        "examples": [(ROWS[: least[0] - 1], ROWS), (ROWS, ROWS[: least[1] - 1])],
        "1 of 12 examples hold values that are NaN or infinite": [
            pair for value in (np.nan, np.inf) for pair in ((broken(value), ROWS), (ROWS, broken(value)))
        ],
    }
    for words, pairs in wrong.items():
        for x, y in pairs:
            with pytest.raises(UserError, match=rf"\A[^\n]*({words})[^\n]*\Z"):
                compute(x, y)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_moments_and_bandwidths_of_non_finite_values_raise_one_line(value):
    line = r"\A[^\n]*(NaN or infin)[^\n]*\Z"
    for call in (
        lambda: Moments.of(broken(value)),
        lambda: Moments.of_stream([ROWS, broken(value)]),
        lambda: Moments.of(ROWS).add(broken(value)),
        lambda: RBF.median(broken(value)),
        lambda: frechet(Moments.of(ROWS), Moments(12, np.full(3, value), np.eye(3))),
        lambda: frechet(Moments(12, np.zeros(3), np.full((3, 3), value)), Moments.of(ROWS)),
    ):
        with pytest.raises(UserError, match=line):
            call()


def test_non_finite_rows_are_counted_over_blocks_and_shapes():
    x = np.zeros((5000, 2, 2), np.float32)
    check_finite(x, "these")
    check_finite(np.zeros((3, 2), np.uint8), "these")
    x[[0, 4095, 4096, 4999], 1, 0] = np.nan
    x[0] = np.inf
    with pytest.raises(UserError, match="these: 4 of 5000 examples"):
        check_finite(x, "these")
