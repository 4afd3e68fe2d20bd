"""Sliced Wasserstein distance, a mean over directions (Rabin et al. 2011; Bonneel et al. 2015).

With uniformly drawn unit vectors theta and the one-dimensional p-Wasserstein distance, computed by sorting,

    SW_p^p(a, b) = E_theta W_p^p(<theta, a>, <theta, b>),   W_p^p(u, v) = int_0^1 |F_u^{-1}(q) - F_v^{-1}(q)|^p dq.

For two Gaussians with equal covariances and mean difference m, SW_2^2 = |m|^2 / d.
"""

import numpy as np
from jaxtyping import Float, Float64
from numpy import ndarray

from genjax.metrics.distances.pairs import blocks, check_pair


def quantiles(x: Float64[ndarray, "n k"], count: int) -> Float64[ndarray, "count k"]:
    """Quantiles of each column at the midpoints of `count` equal probability intervals."""
    ordered = np.sort(x, axis=0)
    if len(x) == count:
        return ordered
    return ordered[np.minimum(((np.arange(count) + 0.5) / count * len(x)).astype(int), len(x) - 1)]


def sliced_wasserstein(
    x: Float[ndarray, "m d"],
    y: Float[ndarray, "n _"],
    directions: int = 256,
    p: int = 2,
    seed: int = 0,
) -> float:
    """SW_p in the features' unit; biased upwards by finite counts, so compare values of equal counts.

    Args:
        x: features of one set [m, d].
        y: features of the other [n, d].
        directions: number of random directions.
        p: order of the Wasserstein distance.
        seed: seed of the directions.

    Returns:
        SW_p.

    Raises:
        UserError: the dimensions differ, a set is empty, or NaN.
    """
    check_pair(x, y, "sliced Wasserstein distance")
    theta = np.random.default_rng(seed).normal(size=(x.shape[1], directions))
    theta /= np.linalg.norm(theta, axis=0, keepdims=True)
    count = max(len(x), len(y))
    project = lambda z: np.concatenate([z[rows].astype(np.float64) @ theta for rows in blocks(len(z), 4096)])
    a, b = (quantiles(project(z), count) for z in (x, y))
    return float((np.abs(a - b) ** p).mean() ** (1.0 / p))
