"""Memorisation: are samples nearer to training examples than new examples of the data would be?

For a sample s with nearest training examples t_1, t_2, ... at distances d_1 <= d_2 <= ...:

- nearer than neighbours: d_1 < distance of t_1 to its own nearest training neighbour. New examples of the data
  do this too, with a probability that is far from 0 (the share of points in mutual nearest pairs: 2/3 in one
  dimension, 0.62 in two, towards 1/2 in many; Clark & Evans 1955), so it is read beside the same share for
  held-out data, which is returned too.
- near copies: d_1 <= d_2 / 3 (Yoon et al. 2023, "Diffusion Probabilistic Models Generalize when They Fail to
  Memorize"; also Gu et al. 2023, "On Memorization in Diffusion Models").
- extraction ratio: d_1 / (alpha * mean(d_1, ..., d_n)), alpha = 0.5, n = 50 (Carlini et al. 2023, "Extracting
  Training Data from Diffusion Models", section 5.1): small values, below 1, look like extracted examples.
- exact duplicates: d_1 = 0.

Distances are Euclidean, in the data's own units, over all values of an example.
"""

import dataclasses

import numpy as np
from jaxtyping import Float64, Int, Shaped
from numpy import ndarray

from genjax.errors import UserError


def _flat(x: Shaped[ndarray, "n *shape"]) -> Shaped[ndarray, "n d"]:
    return x.reshape(len(x), -1)


def nearest(
    queries: Shaped[ndarray, "m d"],
    points: Shaped[ndarray, "n d"],
    k: int,
    itself: Int[ndarray, " m"] | None = None,
    chunk: int = 2048,
) -> tuple[Float64[ndarray, "m k"], Int[ndarray, "m k"]]:
    """The k nearest points of each query, nearest first.

    Candidates come from |q|^2 - 2 <q, p> + |p|^2 by matrix products, in blocks of chunk x chunk; the distances
    of those kept are then taken directly, so that a copy is at distance exactly zero.

    Args:
        queries: any real dtype.
        points: any real dtype.
        k: 1 <= k <= number of points (less one with `itself`).
        itself: for each query its own index among the points, never returned.
        chunk: rows of a block.

    Returns:
        Distances float64 and indices, both [m, k].
    """
    centre = points.mean(axis=0, dtype=np.float64)  # less cancellation in the expanded square
    distances, indices = np.empty((len(queries), k)), np.empty((len(queries), k), np.int64)
    for start in range(0, len(queries), chunk):
        rows = slice(start, start + chunk)
        own = None if itself is None else itself[rows]
        raw = queries[rows].astype(np.float64)
        found = _candidates(raw - centre, points, centre, k, own, chunk)
        exact = np.stack(
            [np.linalg.norm(points[column].astype(np.float64) - raw, axis=1) for column in found.T], 1
        )
        order = np.argsort(exact, axis=1, kind="stable")
        distances[rows] = np.take_along_axis(exact, order, 1)
        indices[rows] = np.take_along_axis(found, order, 1)
    return distances, indices


def _candidates(
    queries: Float64[ndarray, "m d"],
    points: Shaped[ndarray, "n d"],
    centre: Float64[ndarray, " d"],
    k: int,
    itself: Int[ndarray, " m"] | None,
    chunk: int,
) -> Int[ndarray, "m k"]:
    """Indices of the k nearest points of centred queries, unsorted: a running best over blocks of points."""
    best, index = np.empty((len(queries), 0)), np.empty((len(queries), 0), np.int64)
    for start in range(0, len(points), chunk):
        block = points[start : start + chunk].astype(np.float64) - centre
        scores = (block * block).sum(axis=1)[None] - 2.0 * (
            queries @ block.T
        )  # |q|^2 does not change the order
        if itself is not None:
            here = (itself >= start) & (itself < start + len(block))
            scores[here, itself[here] - start] = np.inf
        numbers = np.broadcast_to(np.arange(start, start + len(block)), scores.shape)
        best, index = np.concatenate([best, scores], 1), np.concatenate([index, numbers], 1)
        if best.shape[1] > k:
            keep = np.argpartition(best, k - 1, axis=1)[:, :k]
            best, index = np.take_along_axis(best, keep, 1), np.take_along_axis(index, keep, 1)
    return index


@dataclasses.dataclass(frozen=True)
class NearestTraining:
    """What each of m samples has near it in the training set.

    Attributes:
        index: [m, k] training examples, nearest first (for pictures).
        distance: [m, k] distances to them.
        own: [m] distance of the nearest training example to its own nearest training neighbour.
    """

    index: Int[ndarray, "m k"]
    distance: Float64[ndarray, "m k"]
    own: Float64[ndarray, " m"]

    @property
    def nearer_than_neighbours(self) -> float:
        """Share of samples nearer to a training example than that one's nearest training neighbour is."""
        return float((self.distance[:, 0] < self.own).mean())

    @property
    def exact_duplicates(self) -> float:
        """Share of samples equal to a training example in every value."""
        return float((self.distance[:, 0] == 0.0).mean())

    def near_copies(self, ratio: float = 1 / 3) -> float:
        """Share of samples with d_1 <= ratio * d_2 (copies of a repeated training example count)."""
        return float((self.distance[:, 0] <= ratio * self.distance[:, 1]).mean())

    def extraction_ratio(self, alpha: float = 0.5) -> Float64[ndarray, " m"]:
        """d_1 / (alpha * mean of d_1..d_k) of each sample; 0 where all k distances are 0."""
        mean = self.distance.mean(axis=1)
        return np.where(
            mean > 0.0, self.distance[:, 0] / np.maximum(alpha * mean, np.finfo(np.float64).tiny), 0.0
        )


def nearest_training(
    samples: Shaped[ndarray, "m *shape"], train: Shaped[ndarray, "n *shape"], k: int = 50
) -> NearestTraining:
    """Finds the k nearest training examples of each sample (fewer where the training set is smaller).

    Args:
        samples: generated or held-out examples, in the data's own units.
        train: all training examples, in the same units.
        k: neighbours kept; 50 is what the extraction ratio of Carlini et al. averages over.

    Raises:
        UserError: no samples, or fewer than two training examples.
    """
    if len(samples) < 1 or len(train) < 2:
        raise UserError(
            f"needs a sample and at least 2 training examples, got {len(samples)} and {len(train)}"
        )
    points = _flat(train)
    distance, index = nearest(_flat(samples), points, min(k, len(train)))
    centres, inverse = np.unique(index[:, 0], return_inverse=True)
    own, _ = nearest(points[centres], points, 1, itself=centres)
    return NearestTraining(index, distance, own[inverse, 0])


def nearer_than_neighbours(samples: Shaped[ndarray, "m *shape"], train: Shaped[ndarray, "n *shape"]) -> float:
    """Share of samples nearer to a training example than that one's nearest training neighbour is.

    To be read beside the same share for held-out data (see the module's docstring).
    """
    return nearest_training(samples, train, k=2).nearer_than_neighbours
