"""Distances between two distributions, from samples or features; all statistics in float64.

Fréchet distance of two Gaussians (Dowson & Landau 1982; over network features: Heusel et al. 2017, eq. 6):

    d^2 = |mu_a - mu_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^{1/2}).

With C = L L^T the last trace is the sum of the singular values of L_a^T L_b, because the eigenvalues of
C_a C_b are their squares. So no square root of a non-symmetric matrix is taken, nothing turns complex,
and small eigenvalues lose no digits.

Squared maximum mean discrepancy, unbiased (Gretton et al. 2012, eq. 3; polynomial kernel of degree 3 over
features, "KID": Binkowski et al. 2018):

    MMD^2 = mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{i, j} k(x_i, y_j),

whose expectation is 0 when both come from one distribution; single values may be negative.
"""

import dataclasses
from collections.abc import Callable, Iterable

import numpy as np
from jaxtyping import Float, Float64
from numpy import ndarray
from scipy.linalg import eigh
from scipy.spatial.distance import pdist

from genjax.core.errors import UserError
from genjax.metrics.distances.pairs import blocks, check_finite, check_pair, squared_distances


@dataclasses.dataclass(frozen=True)
class Moments:
    """Mean and covariance of a stream (Chan, Golub & LeVeque 1983): batches add up exactly.

    Attributes:
        count: number of examples seen.
        mean: [d] float64.
        scatter: [d, d] float64, sum of outer products of the examples less their mean.
    """

    count: int
    mean: Float64[ndarray, " d"]
    scatter: Float64[ndarray, "d d"]

    @staticmethod
    def of(x: Float[ndarray, "n d"]) -> "Moments":
        """Moments of one batch, x [n, d]; of no rows what changes nothing in a merge.

        Raises:
            UserError: x holds NaN or infinity.
        """
        check_finite(x, "mean and covariance")
        x = x.astype(np.float64)
        if not len(x):
            return Moments(0, np.zeros(x.shape[1]), np.zeros((x.shape[1],) * 2))
        mean = x.mean(axis=0)
        centred = x - mean
        return Moments(len(x), mean, centred.T @ centred)

    @staticmethod
    def of_stream(batches: Iterable[Float[ndarray, "_ d"]]) -> "Moments":
        """Moments of all examples of an iterable of batches, none of them kept.

        Raises:
            UserError: the stream is empty, or holds NaN or infinity.
        """
        total = None
        for batch in batches:
            total = Moments.of(batch) if total is None else total.add(batch)
        if total is None:
            raise UserError("moments of an empty stream: give at least one batch")
        return total

    def add(self, x: Float[ndarray, "n d"]) -> "Moments":
        """These moments with the examples x [n, d] added."""
        return self.merge(Moments.of(x))

    def merge(self, other: "Moments") -> "Moments":
        """Moments of the union of two disjoint sets of examples."""
        count = self.count + other.count
        if not self.count or not other.count:
            return self if self.count else other
        step = other.mean - self.mean
        mean = self.mean + step * (other.count / count)
        between = np.outer(step, step) * (self.count * other.count / count)
        return Moments(count, mean, self.scatter + other.scatter + between)

    @property
    def singular(self) -> bool:
        """Whether there are too few examples for a covariance of full rank, d + 1 being needed."""
        return self.count <= len(self.mean)

    @property
    def covariance(self) -> Float64[ndarray, "d d"]:
        """Unbiased covariance [d, d], scatter / (count - 1).

        Raises:
            UserError: fewer than two examples.
        """
        if self.count < 2:
            raise UserError(f"a covariance needs at least 2 examples, got {self.count}")
        return self.scatter / (self.count - 1)


def _root(covariance: Float64[ndarray, "d d"]) -> Float64[ndarray, "d d"]:
    """L with L L^T = covariance; eigenvalues below zero are rounding and count as zero."""
    values, vectors = eigh(covariance)
    return vectors * np.sqrt(np.maximum(values, 0.0))[None]


def frechet(a: Moments, b: Moments) -> float:
    """Fréchet distance (squared 2-Wasserstein distance of the two Gaussians), in the features' unit squared.

    Biased upwards by the finite counts: compare values of equal counts only.

    Raises:
        UserError: dimensions differ, a set has fewer than two examples, or moments (of a file, say) are no numbers.
    """
    if a.mean.shape != b.mean.shape:
        raise UserError(
            f"Fréchet distance between {a.mean.size} and {b.mean.size} dimensions: use one feature map"
        )
    if not all(np.isfinite(part).all() for one in (a, b) for part in (one.mean, one.scatter)):
        raise UserError("Fréchet distance: a mean or a covariance holds NaN or infinity")
    covariances = a.covariance, b.covariance
    shift = a.mean - b.mean
    cross = np.linalg.svd(_root(covariances[0]).T @ _root(covariances[1]), compute_uv=False).sum()
    return max(0.0, float(shift @ shift + np.trace(covariances[0]) + np.trace(covariances[1]) - 2.0 * cross))


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
    """k(x, y) = mean over bandwidths s of exp(-|x - y|^2 / (2 s^2)): characteristic, so it sees every difference."""

    bandwidths: tuple[float, ...] = (1.0,)

    @staticmethod
    def median(
        x: Float[ndarray, "n d"], factors: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0), most: int = 1000
    ) -> "RBF":
        """Bandwidths = factors times the median distance between the first `most` rows of x.

        Raises:
            UserError: the median distance is zero, or these rows hold NaN or infinity.
        """
        check_finite(x[:most], "median distance")
        middle = float(np.median(pdist(x[:most].astype(np.float64)))) if len(x) > 1 else 0.0
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
    """Mean of k over pairs, in blocks of `chunk` rows and columns; `apart` leaves out the pairs i = j."""
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
        x: features of one set.
        y: features of the other.
        kernel: `Polynomial()` (KID's) or `RBF(...)`.
        chunk: rows and columns of one block of the kernel matrix.
        unbiased: without the pairs i = j; with them it is the MMD^2 of the two sets of points, never negative (Gretton
            et al. 2012, eq. 5).

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

    Time is O(subsets * size^2), whatever the counts; the mean is as unbiased as one estimate of all.

    Args:
        x: features of one set.
        y: features of the other.
        kernel: KID's by default.
        subsets: how many.
        size: examples of each set in a subset, fewer where a set has fewer.
        seed: of the subsets.

    Raises:
        UserError: a set has fewer than two examples, dimensions that differ, or NaN.
    """
    check_pair(x, y, "kernel distance", (2, 2))  # of all rows: a subset need not hold the one that is wrong
    rng, size = np.random.default_rng(seed), min(size, len(x), len(y))
    draw = lambda z: z[rng.choice(len(z), size, replace=False)]
    values = [kernel_mmd(draw(x), draw(y), kernel) for _ in range(subsets)]
    return float(np.mean(values)), float(np.std(values))


def gaussian_mmd(
    x: Float[ndarray, "m d"], y: Float[ndarray, "n _"], sigma: float = 10.0, scale: float = 1000.0
) -> float:
    """MMD^2 with k(x, y) = exp(-|x - y|^2 / (2 sigma^2)), times `scale`; the pairs i = j are counted.

    Over CLIP embeddings with these sigma and scale it is CMMD (Jayasumana et al. 2024, arXiv:2401.09603, section 4.2);
    over other features it is not, and sigma is to be chosen for them.

    Args:
        x: features of one set.
        y: features of the other.
        sigma: the kernel's bandwidth, in the features' unit.
        scale: makes numbers that are easy to read.

    Raises:
        UserError: sigma is not above 0, a set has fewer than two examples, dimensions that differ, or NaN.
    """
    if sigma <= 0:
        raise UserError(f"sigma={sigma:g}: a kernel's bandwidth must be above 0")
    return scale * kernel_mmd(x, y, RBF((sigma,)), unbiased=False)
