"""Fidelity and diversity by nearest neighbours: precision, recall, density, coverage.

With B(x) the ball around x whose radius is the distance to the k-th nearest neighbour of x within its own set:

    precision = share of fakes  that lie in B(r) of at least one real r   (Kynkäänniemi et al. 2019, eqs. 1-2)
    recall    = share of reals  that lie in B(f) of at least one fake f
    density   = mean over fakes of the number of balls B(r) around them, / k  (Naeem et al. 2020, section 3)
    coverage  = share of reals r whose ball B(r) contains a fake             (Naeem et al. 2020, section 3)

If both sets come from one distribution, E[density] = 1 and E[coverage] = `expected_coverage`, for every distribution;
precision and recall have no such constant: compare them with a real-against-real value at equal counts.
"""

import numpy as np
from jaxtyping import Float, Float64, Shaped
from numpy import ndarray

from genjax.core.errors import UserError
from genjax.metrics.distances.pairs import blocks, check_pair, inside, nearest


def neighbour_radii(x: Shaped[ndarray, "n d"], k: int, chunk: int = 1024) -> Float64[ndarray, " n"]:
    """Distance of each row to its k-th nearest other row (duplicates count as rows).

    Args:
        x: rows [n, d].
        k: neighbour, from 1 to n - 1.
        chunk: rows per block.

    Returns:
        Distances float64 [n].
    """
    return nearest(x, x, k, itself=np.arange(len(x)), chunk=chunk)[0][:, k - 1]


def prdc(
    real: Float[ndarray, "n d"], fake: Float[ndarray, "m _"], k: int = 5, chunk: int = 1024
) -> dict[str, float]:
    """Precision, recall, density and coverage; memory is O(chunk^2) beside the features.

    Equal rows are at distance zero, and balls are closed; see `pairs`.

    Args:
        real: features of real examples [n, d].
        fake: features of generated examples [m, d].
        k: the radius of a ball is the distance to the k-th neighbour.
        chunk: rows and columns per block of the distance matrix.

    Returns:
        "precision", "recall", "coverage" in [0, 1], "density" in [0, n / k].

    Raises:
        UserError: k below 1, a set has k examples or fewer, dimensions that differ, or NaN.
    """
    if k < 1:
        raise UserError(f"k={k}: the number of neighbours must be at least 1")
    check_pair(real, fake, f"precision and recall with k={k}", (k + 1, k + 1))
    real_radii, fake_radii = neighbour_radii(real, k, chunk), neighbour_radii(fake, k, chunk)
    centre = real.mean(axis=0, dtype=np.float64, keepdims=True)
    balls = np.zeros(len(fake))  # number of real balls that contain each fake
    recalled, covered = np.zeros(len(real), bool), np.zeros(len(real), bool)
    for rows in blocks(len(real), chunk):
        for columns in blocks(len(fake), chunk):
            block = real[rows], fake[columns]
            held = inside(*block, real_radii[rows, None], centre)
            balls[columns] += held.sum(axis=0)
            covered[rows] |= held.any(axis=1)
            recalled[rows] |= inside(*block, fake_radii[None, columns], centre).any(axis=1)
    return {
        "precision": float((balls > 0).mean()),
        "recall": float(recalled.mean()),
        "density": float(balls.mean()) / k,
        "coverage": float(covered.mean()),
    }


def expected_coverage(real: int, fake: int, k: int) -> float:
    """Expected coverage if both sets come from one distribution (Naeem et al. 2020, Lemma 2).

    A real ball is empty if the k examples nearest to its centre, among the others of both sets, are all real:
    1 - prod_{i=1..k} (real - i) / (real + fake - i). Holds for every distribution without ties.

    Args:
        real: number of real examples.
        fake: number of generated examples.
        k: see `prdc`.

    Returns:
        The expectation, in [0, 1].
    """
    i = np.arange(1, k + 1, dtype=np.float64)
    return 1.0 - float(np.prod((real - i) / (real + fake - i)))
