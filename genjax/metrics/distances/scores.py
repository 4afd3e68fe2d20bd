"""Scores of samples by a classifier's probabilities and features.

Score of Salimans et al. (2016, arXiv:1606.03498, section 4), which is the Inception Score if the classifier is that
network, and only then:

    exp(E_x KL(p(y | x) || p(y))) = exp(H(y) - H(y | x)),   p(y) = E_x p(y | x),

between 1 and the number of classes, where every sample is surely of one class and all classes are there alike. Both
entropies are sums over samples, so that batches add up exactly.

Diversity within classes: the mean distance of two samples of one class over that of two real examples of the class, so
that 1 is as varied as real data; a distribution over all classes hides what is missing within them.
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
    """Sums from which the score is made.

    Attributes:
        count: samples seen.
        total: [k] float64, sum of the probabilities of each class.
        negative: sum of sum_y p log p, in nats.
    """

    count: int
    total: Float64[ndarray, " k"]
    negative: float

    @staticmethod
    def of(probabilities: Float[ndarray, "n k"]) -> "ClassEntropy":
        """Of one batch.

        Raises:
            UserError: the rows are no probabilities.
        """
        p = probabilities.astype(np.float64)
        if not len(p) or (p < 0).any() or not np.allclose(p.sum(axis=1), 1.0, atol=1e-4):
            raise UserError("class probabilities must be rows [n, k] that are not negative and sum to 1")
        return ClassEntropy(len(p), p.sum(axis=0), float(xlogy(p, p).sum()))

    @staticmethod
    def of_logits(logits: Float[ndarray, "n k"]) -> "ClassEntropy":
        """Of one batch of unnormalised log-probabilities; no rows are a batch, too."""
        log_p = log_softmax(logits.astype(np.float64), axis=1)
        p = np.exp(log_p)
        return ClassEntropy(len(p), p.sum(axis=0), float((p * log_p).sum()))

    def merge(self, other: "ClassEntropy") -> "ClassEntropy":
        """Of both batches together."""
        return ClassEntropy(
            self.count + other.count, self.total + other.total, self.negative + other.negative
        )

    @property
    def score(self) -> float:
        """exp of the mutual information of samples and classes, 1 ... k."""
        mean = self.total / self.count
        return float(np.exp(self.negative / self.count - xlogy(mean, mean).sum()))


def class_diversity(
    real: Float[ndarray, "m d"],
    real_labels: Int[ndarray, " m"],
    made: Float[ndarray, "n d"],
    made_labels: Int[ndarray, " n"],
    most: int = 500,
) -> Float64[ndarray, " k"]:
    """Diversity of each class among `real_labels`.

    Args:
        real: features of data.
        real_labels: their classes.
        made: features of samples.
        made_labels: the classes that they were asked for.
        most: examples of each class that are looked at.

    Returns:
        One number for each class, ascending; NaN where either side has fewer than two, or real ones are all equal.
    """

    def spread(x: ndarray, labels: ndarray, label: np.integer) -> float:
        rows = x[labels == label][:most].astype(np.float64)
        return float(pdist(rows).mean()) if len(rows) > 1 else np.nan

    found = []
    for label in np.unique(real_labels):
        usual = spread(real, real_labels, label)
        found.append(spread(made, made_labels, label) / usual if usual else np.nan)
    return np.asarray(found)
