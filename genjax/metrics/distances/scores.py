"""Scores of samples by a classifier's probabilities and features.

Score of Salimans et al. (2016, arXiv:1606.03498, section 4), which is the Inception Score only if the classifier is
Inception-v3:

    exp(E_x KL(p(y | x) || p(y))) = exp(H(y) - H(y | x)),   p(y) = E_x p(y | x),

between 1 and the number of classes; the maximum is reached if every sample has one certain class and all classes are
equally frequent. Both entropies are sums over samples, so that batches merge exactly.

Within-class diversity: the mean distance of two samples of one class over that of two real examples of the class; 1
matches real data. Distances over all classes do not reveal missing variety within them.
"""

import dataclasses

import numpy as np
from jaxtyping import Float, Float64, Int
from numpy import ndarray
from scipy.spatial.distance import pdist
from scipy.special import log_softmax, xlogy

from genjax.core.errors import UserError


@dataclasses.dataclass(frozen=True)
class ClassEntropy:
    """Accumulator of the score.

    Attributes:
        count: number of samples.
        total: [k] float64, sum of the probabilities of each class.
        negative: sum over samples of sum_y p log p, in nats.
    """

    count: int
    total: Float64[ndarray, " k"]
    negative: float

    @staticmethod
    def of(probabilities: Float[ndarray, "n k"]) -> "ClassEntropy":
        """The accumulator of one batch.

        Raises:
            UserError: the rows are not probabilities.
        """
        p = probabilities.astype(np.float64)
        if not len(p) or (p < 0).any() or not np.allclose(p.sum(axis=1), 1.0, atol=1e-4):
            raise UserError("class probabilities must be non-negative rows [n, k] that sum to 1")
        return ClassEntropy(len(p), p.sum(axis=0), float(xlogy(p, p).sum()))

    @staticmethod
    def of_logits(logits: Float[ndarray, "n k"]) -> "ClassEntropy":
        """The accumulator of one batch of logits; n may be 0."""
        log_p = log_softmax(logits.astype(np.float64), axis=1)
        p = np.exp(log_p)
        return ClassEntropy(len(p), p.sum(axis=0), float((p * log_p).sum()))

    def merge(self, other: "ClassEntropy") -> "ClassEntropy":
        """The accumulator of both batches."""
        return ClassEntropy(
            self.count + other.count, self.total + other.total, self.negative + other.negative
        )

    @property
    def score(self) -> float:
        """exp of the mutual information between samples and classes, 1 ... k."""
        mean = self.total / self.count
        return float(np.exp(self.negative / self.count - xlogy(mean, mean).sum()))


def class_diversity(
    real: Float[ndarray, "m d"],
    real_labels: Int[ndarray, " m"],
    made: Float[ndarray, "n d"],
    made_labels: Int[ndarray, " n"],
    max_per_class: int = 500,
) -> Float64[ndarray, " k"]:
    """Within-class diversity of each class in `real_labels`.

    Args:
        real: features of data [m, d].
        real_labels: their classes [m].
        made: features of samples [n, d].
        made_labels: the classes that the samples were conditioned on [n].
        max_per_class: upper limit on the examples of each class.

    Returns:
        One number per class, in ascending order of labels; NaN where either set has fewer than two examples, or real
        examples are all equal.
    """

    def mean_distance(x: ndarray, labels: ndarray, label: np.integer) -> float:
        rows = x[labels == label][:max_per_class].astype(np.float64)
        return float(pdist(rows).mean()) if len(rows) > 1 else np.nan

    found = []
    for label in np.unique(real_labels):
        usual = mean_distance(real, real_labels, label)
        found.append(mean_distance(made, made_labels, label) / usual if usual else np.nan)
    return np.asarray(found)
