"""Fréchet distance of two Gaussians from sample moments, in float64.

Dowson & Landau 1982; over network features: Heusel et al. 2017 (arXiv:1706.08500), eq. 6:

    d^2 = |mu_a - mu_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^{1/2}).

With C = L L^T the last trace is the sum of the singular values of L_a^T L_b, because the eigenvalues of C_a C_b are
their squares. This avoids the square root of a non-symmetric matrix (no complex values) and keeps small eigenvalues
accurate.
"""

import dataclasses
from collections.abc import Iterable

import numpy as np
from jaxtyping import Float, Float64
from numpy import ndarray
from scipy.linalg import eigh

from genjax.core.errors import UserError
from genjax.metrics.distances.pairs import check_finite


@dataclasses.dataclass(frozen=True)
class Moments:
    """Mean and covariance of a stream by exact pairwise merging (Chan, Golub & LeVeque 1983).

    Attributes:
        count: number of examples.
        mean: [d] float64.
        scatter: [d, d] float64, sum of outer products of the centred examples.
    """

    count: int
    mean: Float64[ndarray, " d"]
    scatter: Float64[ndarray, "d d"]

    @staticmethod
    def of(x: Float[ndarray, "n d"]) -> "Moments":
        """Moments of one batch, x [n, d]; the neutral element of `merge` for n = 0.

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
        """Moments of all examples of an iterable of batches, which are not kept.

        Raises:
            UserError: the stream is empty, or holds NaN or infinity.
        """
        total = None
        for batch in batches:
            total = Moments.of(batch) if total is None else total.add(batch)
        if total is None:
            raise UserError("moments of an empty stream: needs at least one batch")
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
        """Whether there are too few examples (count < d + 1) for a covariance of full rank."""
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
    """L with L L^T = covariance; negative eigenvalues, due to rounding, are set to zero."""
    values, vectors = eigh(covariance)
    return vectors * np.sqrt(np.maximum(values, 0.0))[None]


def frechet(a: Moments, b: Moments) -> float:
    """Fréchet distance (squared 2-Wasserstein distance of the two Gaussians), in the features' unit squared.

    Biased upwards by the finite counts: compare values of equal counts only.

    Raises:
        UserError: dimensions differ, a set has fewer than two examples, or moments are not finite.
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
