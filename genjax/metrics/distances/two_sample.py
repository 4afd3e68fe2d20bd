"""Classifier two-sample tests (C2ST; Lopez-Paz & Oquab 2017, arXiv:1610.06545).

A classifier of samples against data is trained on one half of both sets and tested on the other, by two-fold
cross-validation. If both sets come from one distribution, its accuracy is 1/2 with a standard deviation of
1 / (2 sqrt(n)) over n test cases.

The leave-one-out 1-nearest-neighbour classifier needs no training: its accuracy is the share of examples whose nearest
other example is of the same set: 1/2 for equal distributions, lower if samples copy data, higher if the sets differ.
"""

import dataclasses
import math

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from genjax.core.errors import UserError
from genjax.metrics.distances.pairs import nearest


@dataclasses.dataclass(frozen=True)
class ClassifierTest:
    """Result of a classifier two-sample test.

    Attributes:
        accuracy: held-out accuracy; 1/2 is chance.
        p_value: probability of at least this accuracy under equal distributions (normal approximation).
    """

    accuracy: float
    p_value: float


def _check(x: ndarray, y: ndarray) -> int:
    count = min(len(x), len(y))
    if x.shape[1:] != y.shape[1:] or count < 4:
        raise UserError(
            f"a two-sample test needs 4 or more vectors of one size per set: {x.shape}, {y.shape}"
        )
    return count


def classifier_test(x: Float[ndarray, "m d"], y: Float[ndarray, "n d"], seed: int = 0) -> ClassifierTest:
    """C2ST by logistic regression on the features and their squares, at equal counts.

    Args:
        x: features of one set [m, d].
        y: features of the other [n, d].
        seed: seed of the subsets and halves.

    Returns:
        Accuracy and p-value.

    Raises:
        UserError: shapes differ, or there are fewer than four of a set.
    """
    count, rng = _check(x, y), np.random.default_rng(seed)
    rows = [z[rng.permutation(len(z))[:count]].astype(np.float64) for z in (x, y)]
    features = np.concatenate(rows)
    features = np.concatenate([features, features**2], axis=1)
    label = np.repeat([0, 1], count)
    half = np.tile(np.arange(count) % 2, 2)
    right = 0
    for held in (0, 1):
        seen = half != held
        scale = StandardScaler().fit(features[seen])
        model = LogisticRegression(C=0.1, max_iter=500).fit(scale.transform(features[seen]), label[seen])
        right += int((model.predict(scale.transform(features[~seen])) == label[~seen]).sum())
    total = 2 * count
    z = (right / total - 0.5) * 2.0 * math.sqrt(total)
    return ClassifierTest(right / total, 0.5 * math.erfc(z / math.sqrt(2.0)))


def one_nn_accuracy(x: Float[ndarray, "m d"], y: Float[ndarray, "n d"], seed: int = 0) -> tuple[float, float]:
    """Leave-one-out 1-NN accuracy, at equal counts.

    Args:
        x: features of one set [m, d], such as data.
        y: features of the other [n, d], such as samples. Copies of data lower both accuracies, collapse raises y's.
        seed: seed of the subset of the larger set.

    Returns:
        (accuracy on x, accuracy on y): shares whose nearest other example is of the same set.

    Raises:
        UserError: shapes differ, or there are fewer than four of a set.
    """
    count, rng = _check(x, y), np.random.default_rng(seed)
    both = np.concatenate([z[rng.permutation(len(z))[:count]].astype(np.float64) for z in (x, y)])
    closest = nearest(both, both, 1, itself=np.arange(2 * count))[1][:, 0]
    same = (closest < count) == (np.arange(2 * count) < count)
    return float(same[:count].mean()), float(same[count:].mean())
