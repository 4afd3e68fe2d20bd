"""What a report takes: examples, how they are compared, and what is refused, in one line each."""

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Int, Shaped
from numpy import ndarray

from genjax.core.errors import UserError
from genjax.metrics.features.classifier import Recipe


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a report is made.

    Attributes:
        folds: parts of the training set, at least 2; each has its own feature spaces.
        k: neighbours of precision, recall, density and coverage.
        most: upper limit on the examples of each set in a comparison.
        least: a set with fewer examples is refused.
        whitened: upper limit on the training examples that give the mean and covariance by which features are whitened.
        recipe: how the classifiers are trained.
        rate: samples in a second, of sounds.
    """

    folds: int = 4
    k: int = 5
    most: int = 5000
    least: int = 32
    whitened: int = 10_000
    recipe: Recipe = Recipe()
    rate: int = 8000


@dataclasses.dataclass(frozen=True)
class Examined:
    """Examples [n, ...], and their labels where there are any."""

    x: Shaped[ndarray, "_ ..."]
    labels: Int[ndarray, " _"] | None = None

    def __getitem__(self, index: Int[ndarray, " m"]) -> "Examined":
        return Examined(self.x[index], None if self.labels is None else self.labels[index])


def check(sets: Mapping[str, Examined], settings: Settings) -> None:
    """Refuses what cannot be compared, in one line."""
    shape, least = sets["train"].x.shape, max(settings.least, settings.k + 1)
    for name, data in sets.items():
        x, labels = data.x, data.labels
        if x.ndim not in (2, 3, 4) or x.shape[1:] != shape[1:]:
            raise UserError(
                f"{name} is {x.shape}, train {shape}: give images [n, h, w, c], sounds [n, t, c] or vectors [n, d]"
            )
        if x.ndim == 4 and x.dtype != np.uint8:
            raise UserError(f"{name} are images of {x.dtype}: give the data's own units, uint8 0..255")
        if x.ndim == 2 and not np.issubdtype(x.dtype, np.floating):
            raise UserError(f"{name} are vectors of {x.dtype}: give float32 or float64")
        if len(x) < least:
            raise UserError(f"{name}: {len(x)} examples, at least {least} are needed")
        if not np.isfinite(x).all():
            raise UserError(f"{name}: {int((~np.isfinite(x)).sum())} of {x.size} values are NaN or infinite")
        if (x == x[:1]).all():
            raise UserError(f"{name}: all {len(x)} examples are equal, there is no distribution to compare")
        if labels is not None and (len(labels) != len(x) or labels.min() < 0):
            raise UserError(
                f"{name}: {len(x)} examples but {len(labels)} labels; give one label >= 0 for each"
            )
    labelled = {name for name, data in sets.items() if data.labels is not None}
    if labelled not in (set(), {"train", "test"}, {"train", "test", "samples"}):
        raise UserError(
            f"only {' and '.join(sorted(labelled))} have labels: give those of train and test together"
        )
    if settings.folds < 2 or shape[0] < settings.folds * least:
        raise UserError(
            f"train: {shape[0]} examples in {settings.folds} folds; needs 2 or more of {least} or more"
        )
