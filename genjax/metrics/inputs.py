"""Inputs of a distribution report: sets of examples, settings, and validation."""

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Int, Shaped
from numpy import ndarray

from genjax.core.errors import UserError
from genjax.metrics.features.classifier import Recipe


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of a distribution report.

    Attributes:
        folds: cross-fitting folds of the training set, at least 2; each has its own feature spaces.
        k: neighbours of precision, recall, density and coverage.
        max_examples: upper limit on the examples of each set in a comparison.
        min_examples: smallest accepted set.
        whitening_examples: upper limit on the training examples whose mean and covariance whiten the features.
        recipe: training hyperparameters of the classifiers.
        rate: sample rate of sounds, in Hz.
    """

    folds: int = 4
    k: int = 5
    max_examples: int = 5000
    min_examples: int = 32
    whitening_examples: int = 10_000
    recipe: Recipe = Recipe()
    rate: int = 8000


@dataclasses.dataclass(frozen=True)
class SampleSet:
    """Examples x [n, ...] with optional integer labels [n]."""

    x: Shaped[ndarray, "_ ..."]
    labels: Int[ndarray, " _"] | None = None

    def __getitem__(self, index: Int[ndarray, " m"]) -> "SampleSet":
        return SampleSet(self.x[index], None if self.labels is None else self.labels[index])


def check_sets(sets: Mapping[str, SampleSet], settings: Settings) -> None:
    """Raises unless the sets can be compared.

    Args:
        sets: "train", "test" and optionally "samples".
        settings: folds and minimum counts.

    Raises:
        UserError: shapes or dtypes that do not fit, NaN or infinity, too few or equal examples, or missing labels.
    """
    shape, least = sets["train"].x.shape, max(settings.min_examples, settings.k + 1)
    for name, data in sets.items():
        x, labels = data.x, data.labels
        if x.ndim not in (2, 3, 4) or x.shape[1:] != shape[1:]:
            raise UserError(
                f"{name} is {x.shape}, train {shape}: pass images [n, h, w, c], sounds [n, t, c] or vectors [n, d]"
            )
        if x.ndim == 4 and x.dtype != np.uint8:
            raise UserError(f"{name} are images of {x.dtype}: pass the data's own units, uint8 0..255")
        if x.ndim == 2 and not np.issubdtype(x.dtype, np.floating):
            raise UserError(f"{name} are vectors of {x.dtype}: pass float32 or float64")
        if len(x) < least:
            raise UserError(f"{name}: {len(x)} examples, at least {least} are needed")
        if not np.isfinite(x).all():
            raise UserError(f"{name}: {int((~np.isfinite(x)).sum())} of {x.size} values are NaN or infinite")
        if (x == x[:1]).all():
            raise UserError(f"{name}: all {len(x)} examples are equal, there is no distribution to compare")
        if labels is not None and (len(labels) != len(x) or labels.min() < 0):
            raise UserError(
                f"{name}: {len(x)} examples but {len(labels)} labels; pass one label >= 0 per example"
            )
    labelled = {name for name, data in sets.items() if data.labels is not None}
    if labelled not in (set(), {"train", "test"}, {"train", "test", "samples"}):
        raise UserError(
            f"only {' and '.join(sorted(labelled))} have labels: pass labels for both train and test"
        )
    if settings.folds < 2 or shape[0] < settings.folds * least:
        raise UserError(
            f"train: {shape[0]} examples in {settings.folds} folds; needs at least 2 folds of at least {least}"
        )
