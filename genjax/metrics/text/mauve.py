"""MAUVE: area under a divergence curve of two quantised feature distributions (Pillutla et al. 2021,
arXiv:2102.01454).

Both sets of features are normalised to length 1, reduced to the principal components that explain 0.9 of their
variance and quantised together by k-means, so that P (data) and Q (samples) are histograms p and q over k cells. With
the mixtures r_w = w p + (1 - w) q, 0 < w < 1, the divergence curve and its area are

    C(P, Q) = { (exp(-c KL(q || r_w)), exp(-c KL(p || r_w))) } with the ends (1, 0) and (0, 1),    c = 5,

    MAUVE = area below C, by the trapezoid rule over evenly spaced w:    1 for p = q, 0 where no cell is shared.

Small counts per cell bias MAUVE downwards; adding 1/2 to every count (Krichevsky & Trofimov 1981) is the smoothing of
Pillutla et al. 2023 (arXiv:2212.14578, "MAUVE*"). The value depends on the features and on the numbers of examples and
cells: compare values with equal settings only, and with the value of real data against real data.
"""

import dataclasses

import numpy as np
from jaxtyping import Float, Float64, Int, Real
from numpy import ndarray
from scipy.special import rel_entr
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.preprocessing import normalize

from genjax.core.errors import UserError

VARIANCE = 0.9  # explained by the principal components


@dataclasses.dataclass(frozen=True)
class Mauve:
    """MAUVE of one comparison.

    Attributes:
        score: from the raw counts, 0 ... 1.
        smoothed: from the counts plus 1/2.
        cells: number of cells of the quantisation.
    """

    score: float
    smoothed: float
    cells: int


def divergence_curve(
    p: Real[ndarray, " k"], q: Real[ndarray, " k"], scale: float = 5.0, points: int = 25
) -> Float64[ndarray, "m 2"]:
    """The divergence curve of two histograms.

    Args:
        p: counts or probabilities of the data [k], with a positive sum.
        q: counts or probabilities of the samples [k].
        scale: c.
        points: number of mixtures; 25, as in the authors' code, gives the area to about 0.001.

    Returns:
        [points + 2, 2] of exp(-c KL(q || r)), exp(-c KL(p || r)), from (1, 0) to (0, 1).

    Raises:
        UserError: p and q are not two non-negative histograms over the same cells.
    """
    sums = float(p.sum()), float(q.sum())
    if p.shape != q.shape or min(sums) <= 0.0 or min(p.min(), q.min()) < 0:
        raise UserError(
            f"MAUVE needs two histograms, non-negative, over the same cells: {p.shape}, {q.shape}"
        )
    p, q = p / sums[0], q / sums[1]
    weight = np.linspace(1e-6, 1.0 - 1e-6, points)[:, None]
    mixed = weight * p[None] + (1.0 - weight) * q[None]
    divergences = np.stack([rel_entr(h[None], mixed).sum(axis=1) for h in (q, p)], axis=1)
    ends = np.array([[1.0, 0.0], [0.0, 1.0]])
    return np.concatenate([ends[:1], np.exp(-scale * divergences), ends[1:]])


def curve_area(curve: Float64[ndarray, "m 2"]) -> float:
    """The area under a curve that falls from (0, 1) to (1, 0), by the trapezoid rule."""
    return float(np.trapezoid(curve[::-1, 1], curve[::-1, 0]))


def quantise(
    p: Float[ndarray, "n d"], q: Float[ndarray, "m d"], cells: int, seed: int = 0
) -> tuple[Int[ndarray, " k"], Int[ndarray, " k"]]:
    """Counts of both sets in the cells of one k-means; deterministic given the seed.

    Args:
        p: features of data [n, d].
        q: features of samples [m, d].
        cells: k; reduced to the number of distinct rows.
        seed: seed of the k-means initialisations.

    Returns:
        Counts of p and of q, int [k] each.
    """
    both = normalize(np.concatenate([p, q]).astype(np.float64))
    if (both == both[:1]).all():
        return np.array([len(p)]), np.array([len(q)])
    reduced = PCA(VARIANCE, svd_solver="full").fit_transform(both)
    cells = min(cells, len(np.unique(reduced, axis=0)))
    labels = KMeans(cells, n_init=5, max_iter=500, random_state=seed).fit_predict(reduced)
    return np.bincount(labels[: len(p)], minlength=cells), np.bincount(labels[len(p) :], minlength=cells)


def mauve(
    p: Float[ndarray, "n _"],
    q: Float[ndarray, "m _"],
    *,
    cells: int = 0,
    scale: float = 5.0,
    points: int = 25,
    seed: int = 0,
) -> Mauve:
    """MAUVE of samples.

    Args:
        p: features of data [n, d].
        q: features of samples [m, d].
        cells: number of cells; 0 for a tenth of the size of the smaller set, at least 2.
        scale: c.
        points: see `divergence_curve`.
        seed: seed of k-means.

    Returns:
        MAUVE from raw and from smoothed counts, and the number of cells.

    Raises:
        UserError: shapes that do not fit, NaN, or too few examples.
    """
    if p.shape[1:] != q.shape[1:] or min(len(p), len(q)) < max(2, cells):
        raise UserError(
            f"MAUVE needs features of one size, at least {max(2, cells)} of each set: {p.shape}, {q.shape}"
        )
    if not (np.isfinite(p).all() and np.isfinite(q).all()):
        raise UserError("MAUVE: features are NaN or infinite")
    cells = cells or max(2, round(min(len(p), len(q)) / 10))
    counts = quantise(p, q, cells, seed)
    area = lambda add: curve_area(divergence_curve(counts[0] + add, counts[1] + add, scale, points))
    return Mauve(area(0.0), area(0.5), len(counts[0]))
