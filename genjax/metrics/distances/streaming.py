"""Streaming statistics of a set, over batches, devices and processes, without holding the set.

An accumulator is a frozen record with `merge`, which is associative and commutative up to rounding: every partition of
a set into batches, in any order, gives the same result to 1e-9. Sums take O(d^2) memory, independent of the count:

- `Moments` (frechet.py): mean and covariance, for Fréchet distances.
- `ClassEntropy` (scores.py): sums of probabilities, for the score.
- `Hits`: correct predictions of a classifier.
- `ClassScatter`: squared distances within classes, for diversity. With n examples, sum s and sum of squares q,
  sum_{i<j} |x_i - x_j|^2 = n q - |s|^2 needs no pairs; n, s / n and q - |s|^2 / n are stored, to avoid cancellation.

Pairwise metrics (kernels, neighbours, tests) need the features: `Rows` stores them, n x d, with their indices in the
set; the pairs are then processed in blocks.
"""

import dataclasses
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Float64, Int
from numpy import ndarray

from genjax.core.errors import UserError
from genjax.metrics.distances.frechet import Moments
from genjax.metrics.distances.scores import ClassEntropy


@runtime_checkable
class Accumulator(Protocol):
    """Statistics of a part of a set."""

    def merge(self, other: Any) -> Any:
        """The statistics of the union with a disjoint part, of the same type."""
        ...


@dataclasses.dataclass(frozen=True)
class Hits:
    """Counts of examples whose most probable class is the label.

    Attributes:
        count: number of examples.
        correct: number of correct predictions.
    """

    count: int = 0
    correct: int = 0

    @staticmethod
    def of(logits: Float[ndarray, "n k"], labels: Int[ndarray, " n"]) -> "Hits":
        """The counts of one batch."""
        return Hits(len(labels), int((logits.argmax(axis=1) == labels).sum()))

    def merge(self, other: "Hits") -> "Hits":
        """The counts of both parts."""
        return Hits(self.count + other.count, self.correct + other.correct)

    @property
    def accuracy(self) -> float:
        """Share of correct predictions; NaN without examples."""
        return self.correct / self.count if self.count else np.nan


@dataclasses.dataclass(frozen=True)
class ClassScatter:
    """Within-class scatter.

    Attributes:
        classes: label -> count, mean [d] and sum of squared distances from the mean.
    """

    classes: dict[int, tuple[int, Float64[ndarray, " d"], float]]

    @staticmethod
    def of(features: Float[ndarray, "n d"], labels: Int[ndarray, " n"]) -> "ClassScatter":
        """The scatter of one batch."""
        found = {}
        for label in np.unique(labels):
            rows = features[labels == label].astype(np.float64)
            mean = rows.mean(axis=0)
            found[int(label)] = (len(rows), mean, float(((rows - mean[None]) ** 2).sum()))
        return ClassScatter(found)

    def merge(self, other: "ClassScatter") -> "ClassScatter":
        """The scatter of both parts (Chan, Golub & LeVeque 1983)."""
        merged = dict(self.classes)
        for label, (n, mean, scatter) in other.classes.items():
            if label in merged:
                m, before, sum_before = merged[label]
                step = mean - before
                scatter += sum_before + float(step @ step) * m * n / (m + n)
                n, mean = m + n, before + step * (n / (m + n))
            merged[label] = (n, mean, scatter)
        return ClassScatter(merged)

    def mean_squares(self) -> dict[int, float]:
        """Mean of |x_i - x_j|^2 over pairs i < j of each class, 2 tr(covariance); classes with at least 2 examples."""
        return {label: 2.0 * s / (n - 1) for label, (n, _, s) in sorted(self.classes.items()) if n > 1}


def scatter_ratios(real: ClassScatter, made: ClassScatter) -> Float64[ndarray, " k"]:
    """Root mean square distance of two samples of a class over that of two real examples, by class.

    Unlike `scores.class_diversity` it needs no pairs, and outliers have more weight.
    """
    usual, found = real.mean_squares(), made.mean_squares()
    known = [label for label in usual if usual[label] > 0 and label in found]
    return np.sqrt([found[label] / usual[label] for label in known])


@dataclasses.dataclass(frozen=True)
class Rows:
    """Features of a part of a set, with their indices in the set.

    Attributes:
        place: [n] indices of the examples.
        parts: features by batch, together [n, d].
    """

    place: Int[ndarray, " n"]
    parts: tuple[Float[ndarray, "_ d"], ...]

    @staticmethod
    def of(features: Float[ndarray, "n d"], place: Int[ndarray, " n"]) -> "Rows":
        """The rows of one batch."""
        return Rows(place, (features,))

    def merge(self, other: "Rows") -> "Rows":
        """Both parts, without copying the features."""
        return Rows(np.concatenate([self.place, other.place]), self.parts + other.parts)

    def features(self) -> Float[ndarray, "n d"]:
        """All features in the order of the set.

        Raises:
            UserError: an index occurs twice.
        """
        if len(np.unique(self.place)) < len(self.place):
            raise UserError("features of one example occur twice: merged parts must be disjoint")
        return np.concatenate(self.parts)[np.argsort(self.place)]


@dataclasses.dataclass(frozen=True)
class FeatureStatistics:
    """All statistics of a part of a set after one pass, see `extraction.stream_statistics`.

    Attributes:
        moments: of the features.
        entropy: of a classifier's probabilities, or None.
        hits: of the classifier, None without labels.
        scatter: within classes, None without labels.
        rows: the features, if kept.
    """

    moments: Moments
    entropy: ClassEntropy | None = None
    hits: Hits | None = None
    scatter: ClassScatter | None = None
    rows: Rows | None = None

    @staticmethod
    def of(
        features: Float[ndarray, "n d"],
        place: Int[ndarray, " n"],
        logits: Float[ndarray, "n k"] | None = None,
        labels: Int[ndarray, " n"] | None = None,
        keep: bool = True,
    ) -> "FeatureStatistics":
        """The statistics of one batch; n may be 0.

        Args:
            features: float32 or float64 [n, d].
            place: indices [n] of the examples in the whole set.
            logits: logits [n, k] of a classifier.
            labels: classes [n].
            keep: keep the features, for pairwise metrics.

        Returns:
            The statistics.

        Raises:
            UserError: features are NaN or infinite.
        """
        if not np.isfinite(features).all():
            bad = int((~np.isfinite(features)).any(axis=1).sum())
            raise UserError(f"{bad} of {len(features)} examples have features that are NaN or infinite")
        entropy = None if logits is None else ClassEntropy.of_logits(logits)
        return FeatureStatistics(
            Moments.of(features),
            entropy,
            None if logits is None or labels is None else Hits.of(logits, labels),
            None if labels is None else ClassScatter.of(features, labels),
            Rows.of(features, place) if keep else None,
        )

    def merge(self, other: "FeatureStatistics") -> "FeatureStatistics":
        """The statistics of both parts; None where one part has None."""

        def both(a: Any, b: Any) -> Any:
            return None if a is None or b is None else a.merge(b)

        pairs = (
            (getattr(self, field.name), getattr(other, field.name)) for field in dataclasses.fields(self)
        )
        return FeatureStatistics(*(both(*pair) for pair in pairs))


@dataclasses.dataclass(frozen=True)
class PrefixStatistics:
    """Statistics of the first examples of a set and of all others, for comparisons at equal counts.

    Attributes:
        first: statistics of the first examples.
        rest: statistics of all others, without their features.
    """

    first: FeatureStatistics
    rest: FeatureStatistics

    @staticmethod
    def of(
        features: Float[ndarray, "n d"],
        place: Int[ndarray, " n"],
        logits: Float[ndarray, "n k"] | None = None,
        labels: Int[ndarray, " n"] | None = None,
        *,
        prefix: int,
        keep: bool = True,
    ) -> "PrefixStatistics":
        """The statistics of one batch; `prefix` is the number of first examples.

        Other Args and Raises: see `FeatureStatistics.of`.

        Returns:
            The statistics.
        """

        def some(rows: Bool[ndarray, " n"], keep: bool) -> FeatureStatistics:
            scores, classes = (None if array is None else array[rows] for array in (logits, labels))
            return FeatureStatistics.of(features[rows], place[rows], scores, classes, keep)

        return PrefixStatistics(some(place < prefix, keep), some(place >= prefix, False))

    def merge(self, other: "PrefixStatistics") -> "PrefixStatistics":
        """The statistics of both parts."""
        return PrefixStatistics(self.first.merge(other.first), self.rest.merge(other.rest))

    @property
    def whole(self) -> FeatureStatistics:
        """The statistics of all examples, without features."""
        return dataclasses.replace(self.first, rows=None).merge(self.rest)
