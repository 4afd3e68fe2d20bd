"""Mode coverage of a mixture with known centres, and per-dimension moments of any vectors.

For an isotropic mixture sum_k w_k N(c_k, std^2 I) (the ring and the grid of Metz et al. 2017 and Srivastava et al.
2017) a sample is of high quality if it lies within 3 std of its nearest centre. The true mixture itself has a share
below 1 there: 1 - exp(-9/2) = 0.989 in two dimensions with separated modes. Every number therefore comes with its
reference: the same number for as many draws of the true mixture.
"""

import dataclasses

import numpy as np
from jaxtyping import Float, Float64, Int
from numpy import ndarray
from scipy.spatial.distance import cdist

from genjax.core.errors import UserError


@dataclasses.dataclass(frozen=True)
class Mixture:
    """A known isotropic Gaussian mixture.

    Attributes:
        centres: [k, d] float64.
        std: standard deviation of each component in each dimension.
        weights: [k] float64, sum 1; None means equal.
    """

    centres: Float64[ndarray, "k d"]
    std: float
    weights: Float64[ndarray, " k"] | None = None

    @property
    def shares(self) -> Float64[ndarray, " k"]:
        """Weights [k], equal by default."""
        count = len(self.centres)
        return np.full(count, 1.0 / count) if self.weights is None else self.weights

    def draw(self, rng: np.random.Generator, num: int) -> Float64[ndarray, "num d"]:
        """Independent draws."""
        component = rng.choice(len(self.centres), size=num, p=self.shares)
        return self.centres[component] + self.std * rng.normal(size=(num, self.centres.shape[1]))


def mode_counts(samples: Float[ndarray, "n d"], mixture: Mixture, within: float = 3.0) -> Int[ndarray, " k"]:
    """Number of samples within `within` std of their nearest centre, by centre.

    Args:
        samples: [n, d], in the mixture's units.
        mixture: the true mixture.
        within: radius in standard deviations.

    Returns:
        Counts int [k].
    """
    distance = cdist(samples.astype(np.float64), mixture.centres)
    nearest = distance.argmin(axis=1)
    good = distance.min(axis=1) <= within * mixture.std
    return np.bincount(nearest[good], minlength=len(mixture.centres))


def mode_report(
    samples: Float[ndarray, "n d"],
    mixture: Mixture,
    *,
    share: float = 0.2,
    within: float = 3.0,
    references: int = 20,
    seed: int = 0,
) -> dict[str, float]:
    """Modes covered, high-quality fraction, and balance between modes, each with its reference.

    Args:
        samples: generated vectors [n, d], in the mixture's units.
        mixture: the true mixture.
        share: a mode is covered if its high-quality samples are at least `share` of the expected count w_k n.
        within: radius of high quality, in standard deviations.
        references: number of sets of n true draws over which the `*_reference` values are averaged.
        seed: seed of those draws.

    Returns:
        "modes", "modes_covered", "high_quality", "imbalance" (total variation between the modes' shares of
        high-quality samples and the weights; 1 when there are none) and `*_reference` of the last three.

    Raises:
        UserError: no samples, dimensions that differ, or NaN.
    """
    if samples.shape[1] != mixture.centres.shape[1] or len(samples) == 0:
        raise UserError(f"samples {samples.shape} do not fit mixture centres {mixture.centres.shape}")
    if not np.isfinite(samples).all():
        raise UserError("samples contain NaN or infinite values")

    def measure(x: Float[ndarray, "n d"]) -> dict[str, float]:
        counts = mode_counts(x, mixture, within)
        total = int(counts.sum())
        imbalance = 0.5 * float(np.abs(counts / total - mixture.shares).sum()) if total else 1.0
        covered = float(((counts > 0) & (counts >= share * mixture.shares * len(x))).sum())
        return {"modes_covered": covered, "high_quality": total / len(x), "imbalance": imbalance}

    rng = np.random.default_rng(seed)
    truths = [measure(mixture.draw(rng, len(samples))) for _ in range(references)]
    result = {"modes": float(len(mixture.centres)), **measure(samples)}
    return result | {f"{name}_reference": float(np.mean([t[name] for t in truths])) for name in truths[0]}


def dimension_moments(x: Float[ndarray, "n d"]) -> tuple[Float64[ndarray, " d"], Float64[ndarray, " d"]]:
    """Mean and unbiased variance of each dimension."""
    x = x.astype(np.float64)
    return x.mean(axis=0), x.var(axis=0, ddof=1)


def dimension_report(samples: Float[ndarray, "n d"], real: Float[ndarray, "m d"]) -> dict[str, float]:
    """Errors of the means and variances of single dimensions.

    Returns:
        "mean_error": the largest |mean - real mean| / real std over dimensions; "variance_ratio_min" and
        "variance_ratio_max": extremes of variance / real variance.

    Raises:
        UserError: a dimension of the real data is constant.
    """
    mean, variance = dimension_moments(samples)
    real_mean, real_variance = dimension_moments(real)
    if (real_variance == 0.0).any():
        raise UserError(f"dimension {int(np.argmin(real_variance))} of the real data is constant: remove it")
    ratio = variance / real_variance
    return {
        "mean_error": float((np.abs(mean - real_mean) / np.sqrt(real_variance)).max()),
        "variance_ratio_min": float(ratio.min()),
        "variance_ratio_max": float(ratio.max()),
    }
