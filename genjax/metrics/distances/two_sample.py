"""Two-sample tests: can anything tell samples from data? (Lopez-Paz & Oquab 2017, arXiv:1610.06545).

A classifier is trained to tell one half of both sets apart and tried on the other half, and the halves change places.
Where both sets come from one law its accuracy is 1/2, with a standard deviation of 1 / (2 sqrt(n)) over n cases.

The nearest neighbour needs no training: of each example, does the nearest other one come from its own set? 1/2 is what
one law gives; below it samples lie nearer to data than data do (copies), above it the sets are apart.
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
class Told:
    """How well two sets are told apart.

    Attributes:
        accuracy: of cases that the classifier has not seen; 1/2 is chance.
        p_value: probability of at least this accuracy if there is nothing to tell (normal approximation).
    """

    accuracy: float
    p_value: float


def _check(x: ndarray, y: ndarray) -> int:
    count = min(len(x), len(y))
    if x.shape[1:] != y.shape[1:] or count < 4:
        raise UserError(f"a two-sample test needs 4 or more vectors alike on each side: {x.shape}, {y.shape}")
    return count


def classifier_test(x: Float[ndarray, "m d"], y: Float[ndarray, "n d"], seed: int = 0) -> Told:
    """Logistic regression on the features and their squares; as many of each set.

    Args:
        x: features of one set.
        y: features of the other.
        seed: of the halves.

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
    return Told(right / total, 0.5 * math.erfc(z / math.sqrt(2.0)))


def neighbour_accuracy(
    x: Float[ndarray, "m d"], y: Float[ndarray, "n d"], seed: int = 0
) -> tuple[float, float]:
    """(of x, of y): the share whose nearest other example is of the same set; as many of each set.

    Args:
        x: features of one set, say data.
        y: features of the other, say samples: copies of data make both small, collapse makes that of y large.
        seed: of which ones are taken from the larger set.

    Raises:
        UserError: shapes differ, or there are fewer than four of a set.
    """
    count, rng = _check(x, y), np.random.default_rng(seed)
    both = np.concatenate([z[rng.permutation(len(z))[:count]].astype(np.float64) for z in (x, y)])
    closest = nearest(both, both, 1, itself=np.arange(2 * count))[1][:, 0]
    same = (closest < count) == (np.arange(2 * count) < count)
    return float(same[:count].mean()), float(same[count:].mean())
