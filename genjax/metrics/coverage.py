"""Fidelity and diversity by nearest neighbours: precision, recall, density, coverage.

With B(x) the ball around x that reaches to the k-th nearest neighbour of x within its own set:

    precision = share of fakes  that lie in B(r) of at least one real r   (Kynkäänniemi et al. 2019, eqs. 1-2)
    recall    = share of reals  that lie in B(f) of at least one fake f
    density   = mean over fakes of the number of balls B(r) around them, / k  (Naeem et al. 2020, section 3)
    coverage  = share of reals r whose own ball B(r) holds a fake            (Naeem et al. 2020, section 3)

When both sets come from one distribution, E[density] = 1 and coverage has the expectation that
`expected_coverage` gives, whatever the distribution; precision and recall have no such constant, so compare
them with a real-against-real value at equal counts.
"""

import numpy as np
from jaxtyping import Float, Float64
from numpy import ndarray
from scipy.spatial.distance import cdist

from genjax.errors import UserError


def neighbour_radii(x: Float64[ndarray, "n d"], k: int, chunk: int = 1024) -> Float64[ndarray, " n"]:
    """Squared distance of each row to its k-th nearest other row (duplicates count as rows)."""
    radii = np.empty(len(x))
    for start in range(0, len(x), chunk):
        block = cdist(x[start : start + chunk], x, "sqeuclidean")
        rows = np.arange(len(block))
        block[rows, start + rows] = np.inf
        radii[start : start + chunk] = np.partition(block, k - 1, axis=1)[:, k - 1]
    return radii


def prdc(
    real: Float[ndarray, "n d"], fake: Float[ndarray, "m d"], k: int = 5, chunk: int = 1024
) -> dict[str, float]:
    """Precision, recall, density and coverage; memory is O(chunk * max(n, m)).

    Distances are taken directly and not by expanding |a - b|^2, so that equal rows are at distance zero;
    balls are closed.

    Args:
        real: features of real examples.
        fake: features of generated examples.
        k: neighbours that define a ball's radius.
        chunk: rows of one block of the distance matrix.

    Returns:
        "precision", "recall", "coverage" in [0, 1], "density" in [0, n / k].

    Raises:
        UserError: a set has k examples or fewer.
    """
    if k < 1 or min(len(real), len(fake)) <= k:
        raise UserError(
            f"prdc with k={k} needs more than k >= 1 examples in each set, got {len(real)} and {len(fake)}"
        )
    real, fake = real.astype(np.float64), fake.astype(np.float64)
    real_radii, fake_radii = neighbour_radii(real, k, chunk), neighbour_radii(fake, k, chunk)
    balls = np.zeros(len(fake))  # how many real balls hold each fake
    recalled = covered = 0
    for start in range(0, len(real), chunk):
        squared = cdist(real[start : start + chunk], fake, "sqeuclidean")
        inside = squared <= real_radii[start : start + chunk, None]
        balls += inside.sum(axis=0)
        covered += int(inside.any(axis=1).sum())
        recalled += int((squared <= fake_radii[None]).any(axis=1).sum())
    return {
        "precision": float((balls > 0).mean()),
        "recall": recalled / len(real),
        "density": float(balls.mean()) / k,
        "coverage": covered / len(real),
    }


def expected_coverage(real: int, fake: int, k: int) -> float:
    """Expected coverage of `fake` examples of the very distribution of the `real` ones (Naeem et al. 2020, Lemma 2).

    A real ball stays empty when the k examples nearest to its centre, among the others of both sets, are all
    real: 1 - prod_{i=1..k} (real - i) / (real + fake - i). Holds for every distribution without ties.
    """
    i = np.arange(1, k + 1, dtype=np.float64)
    return 1.0 - float(np.prod((real - i) / (real + fake - i)))
