"""Evaluation of samples of images, points and sounds: distances to the data, modes, signs of collapse."""

from typing import Any

import numpy as np

from genjax.core.errors import UserError
from genjax.data import Data, GaussianMixture
from genjax.metrics.distances.collapse import collapse, near_duplicate_report
from genjax.metrics.distances.modes import Mixture, mode_report
from genjax.metrics.inputs import Settings
from genjax.metrics.report import SampleReference, make_reference

Report = dict[str, Any]


def load_split(data: Data, split: str) -> dict[str, np.ndarray]:
    """All examples of a split that fits in memory, in the data's own units."""
    examples = data.load(split)
    return examples[np.arange(len(examples))]


def fit_reference(data: Data, seed: int) -> SampleReference:
    """Fits the reference for samples of images, points or sounds.

    Raises:
        UserError: too few data, or all equal; see `metrics.inputs`.
    """
    train, test = load_split(data, "train"), load_split(data, "test")
    return make_reference(
        train=train["x"],
        test=test["x"],
        train_labels=train.get("label"),
        test_labels=test.get("label"),
        seed=seed,
        settings=Settings(rate=data.rate),
    )


def compare_samples(
    reference: SampleReference, data: Data, samples: np.ndarray, labels: np.ndarray | None
) -> Report:
    """Distances between samples and data, and signs of collapse.

    Args:
        reference: the data's, fitted.
        data: images or points; modes are counted for a mixture.
        samples: [n, ...] in the data's own units.
        labels: the classes [n] that the samples were conditioned on, or None.

    Returns:
        "distribution" (only near-duplicates if all samples are equal), "modes" for a mixture, "collapse".
    """
    found: dict[str, float | str] = dict(near_duplicate_report(samples, reference.test.x))
    same = bool((samples == samples[:1]).all())
    if not same:
        found |= reference.report(samples, labels)
    numbers: Report = {"distribution": found}
    if isinstance(data.source, GaussianMixture):
        numbers["modes"] = mode_report(samples, Mixture(*data.source.modes()))
    words = "all samples are equal" if same else collapse(found | numbers.get("modes", {}))
    return numbers | {"collapse": words or "none"}


def sample_report(data: Data, samples: np.ndarray, labels: np.ndarray | None, seed: int) -> Report:
    """`compare_samples` with a newly fitted reference; {"not_measured": reason} with too few data or samples.

    Args:
        data: images, points or sounds.
        samples: [n, ...] in the data's own units.
        labels: the classes [n] that the samples were conditioned on, or None.
        seed: seed of the reference.

    Returns:
        See `compare_samples`.
    """
    if len(samples) < Settings.min_examples:
        words = f"samples: {len(samples)} examples, at least {Settings.min_examples} are needed"
        return {"distribution": {"not_measured": words}}
    try:
        reference = fit_reference(data, seed)
    except UserError as error:
        return {"distribution": {"not_measured": str(error)}}
    return compare_samples(reference, data, samples, labels)
