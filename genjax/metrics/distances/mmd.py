"""Squared maximum mean discrepancy between two sets of vectors, in float64.

Unbiased estimate (Gretton et al. 2012, eq. 3; with a polynomial kernel of degree 3 over Inception features it is KID:
Binkowski et al. 2018, arXiv:1801.01401):

    MMD^2 = mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{i, j} k(x_i, y_j),

whose expectation is 0 when both sets come from one distribution; single values may be negative.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Float64
from numpy import ndarray
from scipy.spatial.distance import pdist

from genjax.core.errors import UserError
from genjax.metrics.distances.pairs import blocks, check_finite, check_pair, squared_distances

# A positive definite kernel between the rows of x [m, d] and y [n, d], both float64: values [m, n].
Kernel = Callable[[ndarray, ndarray], ndarray]


@dataclasses.dataclass(frozen=True)
class Polynomial:
    """k(x, y) = (gamma <x, y> + offset)^degree; gamma None means 1 / d (the three defaults are KID's)."""

    degree: int = 3
    gamma: float | None = None
    offset: float = 1.0

    def __call__(self, x: Float64[ndarray, "m d"], y: Float64[ndarray, "n d"]) -> Float64[ndarray, "m n"]:
        """Kernel values [m, n]."""
        gamma = 1.0 / x.shape[1] if self.gamma is None else self.gamma
        return (gamma * (x @ y.T) + self.offset) ** self.degree


@dataclasses.dataclass(frozen=True)
class RBF:
    """k(x, y) = mean over bandwidths s of exp(-|x - y|^2 / (2 s^2)): a characteristic kernel (MMD = 0 iff equal)."""

    bandwidths: tuple[float, ...] = (1.0,)

    @staticmethod
    def median(
        x: Float[ndarray, "n d"],
        factors: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0),
        max_rows: int = 1000,
    ) -> "RBF":
        """Median heuristic: bandwidths = factors times the median distance between the first rows of x.

        Args:
            x: features [n, d].
            factors: multiples of the median distance.
            max_rows: upper limit on the rows used.

        Returns:
            The kernel.

        Raises:
            UserError: the median distance is zero, or these rows hold NaN or infinity.
        """
        check_finite(x[:max_rows], "median distance")
        middle = float(np.median(pdist(x[:max_rows].astype(np.float64)))) if len(x) > 1 else 0.0
        if middle == 0.0:
            raise UserError(
                "the median distance between examples is zero: more than half of the pairs are equal"
            )
        return RBF(tuple(factor * middle for factor in factors))

    def __call__(self, x: Float64[ndarray, "m d"], y: Float64[ndarray, "n d"]) -> Float64[ndarray, "m n"]:
        """Kernel values [m, n]."""
        squared = squared_distances(x, y)
        total = np.zeros_like(squared)
        for s in self.bandwidths:
            total += np.exp(-squared / (2.0 * s * s))
        return total / len(self.bandwidths)


def _mean_kernel(
    x: Float[ndarray, "m d"], y: Float[ndarray, "n d"], kernel: Kernel, chunk: int, apart: bool
) -> float:
    """Mean of k over pairs, in blocks of `chunk` rows and columns; `apart` excludes the pairs i = j."""
    total = 0.0
    for rows in blocks(len(x), chunk):
        for columns in blocks(len(y), chunk):
            block = kernel(x[rows].astype(np.float64), y[columns].astype(np.float64))
            if apart and rows == columns:
                np.fill_diagonal(block, 0.0)
            total += float(block.sum())
    return total / (len(x) * (len(y) - apart))


def kernel_mmd(
    x: Float[ndarray, "m d"],
    y: Float[ndarray, "n _"],
    kernel: Kernel = Polynomial(),
    chunk: int = 1024,
    unbiased: bool = True,
) -> float:
    """Estimate of MMD^2 in the kernel's units; memory is O(chunk^2) beside the features.

    Args:
        x: features of one set [m, d].
        y: features of the other [n, d].
        kernel: `Polynomial()` (KID's) or `RBF(...)`.
        chunk: rows and columns per block of the kernel matrix.
        unbiased: exclude the pairs i = j; else the MMD^2 of the two empirical distributions, which is never negative
            (Gretton et al. 2012, eq. 5).

    Returns:
        The estimate of MMD^2.

    Raises:
        UserError: a set has fewer than two examples, dimensions that differ, or NaN.
    """
    check_pair(x, y, "kernel MMD", (2, 2))
    within = _mean_kernel(x, x, kernel, chunk, unbiased) + _mean_kernel(y, y, kernel, chunk, unbiased)
    return within - 2.0 * _mean_kernel(x, y, kernel, chunk, False)


def kernel_distance(
    x: Float[ndarray, "m d"],
    y: Float[ndarray, "n _"],
    kernel: Kernel = Polynomial(),
    subsets: int = 100,
    size: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """Mean and standard deviation of the unbiased MMD^2 over random subsets, as KID is reported.

    Time is O(subsets * size^2), independent of the counts; the mean is unbiased.

    Args:
        x: features of one set [m, d].
        y: features of the other [n, d].
        kernel: KID's by default.
        subsets: number of subsets.
        size: examples of each set per subset, reduced to the size of the smaller set.
        seed: seed of the subsets.

    Returns:
        (mean, standard deviation over subsets).

    Raises:
        UserError: a set has fewer than two examples, dimensions that differ, or NaN.
    """
    check_pair(x, y, "kernel distance", (2, 2))  # checks all rows, also those in no subset
    rng, size = np.random.default_rng(seed), min(size, len(x), len(y))
    draw = lambda z: z[rng.choice(len(z), size, replace=False)]
    values = [kernel_mmd(draw(x), draw(y), kernel) for _ in range(subsets)]
    return float(np.mean(values)), float(np.std(values))


def gaussian_mmd(
    x: Float[ndarray, "m d"], y: Float[ndarray, "n _"], sigma: float = 10.0, scale: float = 1000.0
) -> float:
    """MMD^2 with k(x, y) = exp(-|x - y|^2 / (2 sigma^2)), times `scale`; includes the pairs i = j.

    Over CLIP embeddings with the default sigma and scale it is CMMD (Jayasumana et al. 2024, arXiv:2401.09603, section
    4.2); over other features it is not, and needs another sigma.

    Args:
        x: features of one set [m, d].
        y: features of the other [n, d].
        sigma: the kernel's bandwidth, in the features' unit.
        scale: factor on the result, for readability.

    Returns:
        The scaled MMD^2.

    Raises:
        UserError: sigma is not above 0, a set has fewer than two examples, dimensions that differ, or NaN.
    """
    if sigma <= 0:
        raise UserError(f"sigma={sigma:g}: a kernel's bandwidth must be above 0")
    return scale * kernel_mmd(x, y, RBF((sigma,)), unbiased=False)
