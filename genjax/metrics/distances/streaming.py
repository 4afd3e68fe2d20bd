"""Statistics of a set that is seen in batches, on several devices and by several processes, and never held.

An accumulator is a frozen record with `merge`, which is associative and commutative up to rounding: of any cut of a set
into batches, in any order, it gives the same to 1e-9. What is a sum is O(d^2) however many examples there are:

- `Moments` (distance.py): mean and covariance, for Fréchet distances.
- `ClassEntropy` (scores.py): sums of probabilities, for the score.
- `Hits`: labels that a classifier finds.
- `ClassSpread`: squared distances within classes, for diversity. With n examples, sum s and sum of squares q,
  sum_{i<j} |x_i - x_j|^2 = n q - |s|^2, so pairs need not be seen; kept are n, s / n and q - |s|^2 / n, which lose no
  digits.

What needs pairs (kernels, neighbours, tests) needs the features, which are small beside images: `Rows` keeps them,
n x d, with their places in the set, and the pairs are then walked in blocks.
"""

import dataclasses
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Float64, Int
from numpy import ndarray

from genjax.core.errors import UserError
from genjax.metrics.distances.distance import Moments
from genjax.metrics.distances.scores import ClassEntropy


@runtime_checkable
class Accumulator(Protocol):
    """Statistics of a part of a set."""

    def merge(self, other: Any) -> Any:
        """Of both parts together, of the same kind and with no example in common."""
        ...


@dataclasses.dataclass(frozen=True)
class Hits:
    """How often the most probable class is the label.

    Attributes:
        count: examples.
        right: those whose label was found.
    """

    count: int = 0
    right: int = 0

    @staticmethod
    def of(logits: Float[ndarray, "n k"], labels: Int[ndarray, " n"]) -> "Hits":
        """Of one batch."""
        return Hits(len(labels), int((logits.argmax(axis=1) == labels).sum()))

    def merge(self, other: "Hits") -> "Hits":
        """Of both parts."""
        return Hits(self.count + other.count, self.right + other.right)

    @property
    def accuracy(self) -> float:
        """The share; NaN without examples."""
        return self.right / self.count if self.count else np.nan


@dataclasses.dataclass(frozen=True)
class ClassSpread:
    """Sums from which the distances within each class follow.

    Attributes:
        classes: count, mean and sum of squared distances from the mean, by label.
    """

    classes: dict[int, tuple[int, Float64[ndarray, " d"], float]]

    @staticmethod
    def of(features: Float[ndarray, "n d"], labels: Int[ndarray, " n"]) -> "ClassSpread":
        """Of one batch."""
        found = {}
        for label in np.unique(labels):
            rows = features[labels == label].astype(np.float64)
            mean = rows.mean(axis=0)
            found[int(label)] = (len(rows), mean, float(((rows - mean[None]) ** 2).sum()))
        return ClassSpread(found)

    def merge(self, other: "ClassSpread") -> "ClassSpread":
        """Of both parts (Chan, Golub & LeVeque 1983)."""
        merged = dict(self.classes)
        for label, (n, mean, scatter) in other.classes.items():
            if label in merged:
                m, before, sum_before = merged[label]
                step = mean - before
                scatter += sum_before + float(step @ step) * m * n / (m + n)
                n, mean = m + n, before + step * (n / (m + n))
            merged[label] = (n, mean, scatter)
        return ClassSpread(merged)

    def mean_squares(self) -> dict[int, float]:
        """The mean of |x_i - x_j|^2 over pairs i < j of each class, 2 tr(covariance); classes of two or more."""
        return {label: 2.0 * s / (n - 1) for label, (n, _, s) in sorted(self.classes.items()) if n > 1}


def spread_ratios(real: ClassSpread, made: ClassSpread) -> Float64[ndarray, " k"]:
    """Root mean squared distance of two samples of a class over that of two real examples, by class.

    It needs no pairs where `scores.class_diversity` does; outliers weigh more in it.
    """
    usual, found = real.mean_squares(), made.mean_squares()
    known = [label for label in usual if usual[label] > 0 and label in found]
    return np.sqrt([found[label] / usual[label] for label in known])


@dataclasses.dataclass(frozen=True)
class Rows:
    """Features of a part of a set, and where in the set they belong.

    Attributes:
        place: [n] numbers of the examples.
        parts: features, as they came: together [n, d].
    """

    place: Int[ndarray, " n"]
    parts: tuple[Float[ndarray, "_ d"], ...]

    @staticmethod
    def of(features: Float[ndarray, "n d"], place: Int[ndarray, " n"]) -> "Rows":
        """Of one batch."""
        return Rows(place, (features,))

    def merge(self, other: "Rows") -> "Rows":
        """Both parts; nothing is copied yet."""
        return Rows(np.concatenate([self.place, other.place]), self.parts + other.parts)

    def features(self) -> Float[ndarray, "n d"]:
        """All of them in the set's order, whoever has seen which.

        Raises:
            UserError: an example has been seen twice.
        """
        if len(np.unique(self.place)) < len(self.place):
            raise UserError("features of one example were seen twice: parts that are merged must be disjoint")
        return np.concatenate(self.parts)[np.argsort(self.place)]


@dataclasses.dataclass(frozen=True)
class Seen:
    """What is known of a part of a set after one pass; made by `extraction.look`.

    Attributes:
        moments: of the features.
        entropy: of a classifier's probabilities, where there is one.
        hits: of the classifier, where there are labels.
        spread: within classes, where there are labels.
        rows: the features, if they are kept.
    """

    moments: Moments
    entropy: ClassEntropy | None = None
    hits: Hits | None = None
    spread: ClassSpread | None = None
    rows: Rows | None = None

    @staticmethod
    def of(
        features: Float[ndarray, "n d"],
        place: Int[ndarray, " n"],
        logits: Float[ndarray, "n k"] | None = None,
        labels: Int[ndarray, " n"] | None = None,
        keep: bool = True,
    ) -> "Seen":
        """Of one batch; no rows are a batch, too.

        Args:
            features: in float32 or float64.
            place: numbers of the examples in the whole set.
            logits: of a classifier.
            labels: classes.
            keep: the features, for what needs pairs.

        Raises:
            UserError: features are NaN or infinite.
        """
        if not np.isfinite(features).all():
            bad = int((~np.isfinite(features)).any(axis=1).sum())
            raise UserError(f"{bad} of {len(features)} examples have features that are NaN or infinite")
        entropy = None if logits is None else ClassEntropy.of_logits(logits)
        return Seen(
            Moments.of(features),
            entropy,
            None if logits is None or labels is None else Hits.of(logits, labels),
            None if labels is None else ClassSpread.of(features, labels),
            Rows.of(features, place) if keep else None,
        )

    def merge(self, other: "Seen") -> "Seen":
        """Of both parts; what one of them lacks is left out."""

        def both(a: Any, b: Any) -> Any:
            return None if a is None or b is None else a.merge(b)

        pairs = (
            (getattr(self, field.name), getattr(other, field.name)) for field in dataclasses.fields(self)
        )
        return Seen(*(both(*pair) for pair in pairs))


@dataclasses.dataclass(frozen=True)
class Prefixed:
    """A set of which the first examples are known by themselves as well, to be compared with as many of another set.

    Attributes:
        first: of the first examples.
        rest: of all others, without their features.
    """

    first: Seen
    rest: Seen

    @staticmethod
    def of(
        features: Float[ndarray, "n d"],
        place: Int[ndarray, " n"],
        logits: Float[ndarray, "n k"] | None = None,
        labels: Int[ndarray, " n"] | None = None,
        *,
        most: int,
        keep: bool = True,
    ) -> "Prefixed":
        """Of one batch.

        Args and errors are those of `Seen.of`; `most` is how many examples are the first.
        """

        def some(rows: Bool[ndarray, " n"], keep: bool) -> Seen:
            scores, classes = (None if array is None else array[rows] for array in (logits, labels))
            return Seen.of(features[rows], place[rows], scores, classes, keep)

        return Prefixed(some(place < most, keep), some(place >= most, False))

    def merge(self, other: "Prefixed") -> "Prefixed":
        """Of both parts."""
        return Prefixed(self.first.merge(other.first), self.rest.merge(other.rest))

    @property
    def whole(self) -> Seen:
        """Of all examples; no features are kept."""
        return dataclasses.replace(self.first, rows=None).merge(self.rest)
