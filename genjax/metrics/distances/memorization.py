"""Memorisation: whether samples are nearer to training examples than held-out data are.

For a sample s with nearest training examples t_1, t_2, ... at distances d_1 <= d_2 <= ...:

- nearer than neighbours: d_1 < distance of t_1 to its own nearest training neighbour. Held-out data satisfy this with
  a probability well above 0 (the share of points in mutual nearest pairs: 2/3 in one dimension, 0.62 in two, towards
  1/2 in many; Clark & Evans 1955): compare with the same share for held-out data.
- near copies: d_1 <= d_2 / 3 (Yoon et al. 2023, "Diffusion Probabilistic Models Generalize when They Fail to
  Memorize"; also Gu et al. 2023, "On Memorization in Diffusion Models").
- extraction ratio: d_1 / (alpha * mean(d_1, ..., d_n)), alpha = 0.5, n = 50 (Carlini et al. 2023, "Extracting
  Training Data from Diffusion Models", section 5.1): values well below 1 indicate extracted examples.
- exact duplicates: d_1 = 0.

Distances are Euclidean, in the data's own units, over all values of an example.
"""

import dataclasses

import numpy as np
from jaxtyping import Float64, Int, Shaped
from numpy import ndarray

from genjax.metrics.distances.pairs import check_pair, nearest


def _flat(x: Shaped[ndarray, "n *shape"]) -> Shaped[ndarray, "n d"]:
    return x.reshape(len(x), -1)


@dataclasses.dataclass(frozen=True)
class NearestTraining:
    """Nearest training examples of m samples.

    Attributes:
        index: [m, k] indices of training examples, nearest first.
        distance: [m, k] distances to them.
        own: [m] distance of the nearest training example to its own nearest training neighbour.
    """

    index: Int[ndarray, "m k"]
    distance: Float64[ndarray, "m k"]
    own: Float64[ndarray, " m"]

    @property
    def nearer_than_neighbours(self) -> float:
        """Share of samples nearer to their nearest training example than its nearest training neighbour is."""
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
    samples: Shaped[ndarray, "m ..."], train: Shaped[ndarray, "n ..."], k: int = 50
) -> NearestTraining:
    """Finds the k nearest training examples of each sample (fewer where the training set is smaller).

    Args:
        samples: generated or held-out examples [m, ...], in the data's own units.
        train: all training examples [n, ...], in the same units.
        k: neighbours kept; 50 is n of the extraction ratio of Carlini et al.

    Returns:
        Indices and distances of the neighbours.

    Raises:
        UserError: no samples, fewer than two training examples, shapes that differ, or NaN.
    """
    check_pair(samples, train, "nearest training examples", (1, 2))
    points = _flat(train)
    distance, index = nearest(_flat(samples), points, min(k, len(train)))
    centres, inverse = np.unique(index[:, 0], return_inverse=True)
    own, _ = nearest(points[centres], points, 1, itself=centres)
    return NearestTraining(index, distance, own[inverse, 0])


def nearer_than_neighbours(samples: Shaped[ndarray, "m ..."], train: Shaped[ndarray, "n ..."]) -> float:
    """Share of samples nearer to their nearest training example than its nearest training neighbour is.

    Compare with the same share for held-out data (see the module's docstring).
    """
    return nearest_training(samples, train, k=2).nearer_than_neighbours
