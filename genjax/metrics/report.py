"""Distribution report: distances between samples and data, each with the same number for unseen real data.

Cross-fitting: the training set is split into `folds` parts. For each fold, the feature spaces are fitted on the other
parts, and both the samples and the held-out fold are compared with test data, at equal counts n. The reference is thus
real data that the features were not fitted to; with fitted data its distance would be too large (a classifier
separates its training data better), and a model would look better than real data. Values are means over folds, ratios
are ratios of these means. Memorisation is measured in the data's own units, against the whole training set.
"""

import dataclasses
import functools
from collections.abc import Mapping

import numpy as np
from jaxtyping import Int, Shaped
from numpy import ndarray

from genjax.metrics.distances.coverage import prdc
from genjax.metrics.distances.frechet import Moments, frechet
from genjax.metrics.distances.memorization import nearest_training
from genjax.metrics.distances.mmd import RBF, Polynomial, kernel_mmd
from genjax.metrics.distances.modes import dimension_report
from genjax.metrics.distances.scores import class_diversity
from genjax.metrics.distances.sliced import sliced_wasserstein
from genjax.metrics.distances.two_sample import classifier_test, one_nn_accuracy
from genjax.metrics.features.classifier import Classifier, as_is, train_classifier
from genjax.metrics.features.features import (
    FeatureSpace,
    identity,
    of_classifier,
    of_spectrogram,
    random_convolutions,
)
from genjax.metrics.features.spectrogram import log_mel
from genjax.metrics.inputs import SampleSet, Settings, check_sets


@dataclasses.dataclass(frozen=True)
class SampleReference:
    """Real data and the feature spaces fitted on them; compares any number of sample sets with the data.

    Attributes:
        train: training data of the models.
        test: held-out data.
        folds: per fold: indices of the held-out examples of `train`, the feature spaces fitted on the others (the main
            one first), and their classifier, or None.
        seed: seed of the subsets.
        settings: counts and sizes.
    """

    train: SampleSet
    test: SampleSet
    folds: tuple[tuple[Int[ndarray, " _"], list[FeatureSpace], Classifier | None], ...]
    seed: int
    settings: Settings

    @property
    def features(self) -> str:
        """Name of the main feature space."""
        return self.folds[0][1][0].name

    def report(
        self, samples: Shaped[ndarray, "..."], sample_labels: Int[ndarray, " _"] | None = None
    ) -> dict[str, float | str]:
        """Compares samples with the data; deterministic. See `distribution_report`."""
        made, settings = SampleSet(samples, sample_labels), self.settings
        check_sets({"train": self.train, "test": self.test, "samples": made}, settings)
        count = min(len(samples), len(self.test.x), len(self.folds[0][0]), settings.max_examples)
        rng = np.random.default_rng(self.seed)
        rng.permutation(len(self.train.x))  # advances the generator past the draw that defined the folds
        test, drawn = self.test.x[rng.permutation(len(self.test.x))], samples[rng.permutation(len(samples))]

        rows = []
        for fold, (held, spaces, classifier) in enumerate(self.folds):
            row = _accuracies(classifier, {"classifier": self.test, "label": made})
            others = {"": _window(drawn, fold, count), "_reference": self.train.x[held[:count]]}
            for number, space in enumerate(spaces):
                row |= _compare(space, _window(test, fold, count), others, settings.k, main=number == 0)
            rows.append(row)

        spaces = self.folds[0][1]
        dim = spaces[0].extract(test[:1]).shape[1]
        result: dict[str, float | str] = {
            "features": spaces[0].name,
            "feature_dim": float(dim),
            "count": float(count),
            "folds": float(len(rows)),
        }
        if count <= dim:
            words = f"{count} examples of {dim} features"
            result["covariance"] = f"singular ({words}): Fréchet distances are biased upwards, use the ratio"
        result |= _means(rows, [_distance_name(space) for space in spaces])
        result |= _diversity(spaces[0], self.test, made)
        result |= _memorisation(drawn[: settings.max_examples], self.train.x, "")
        result |= _memorisation(test[: min(len(samples), settings.max_examples)], self.train.x, "_test")
        return result | (dimension_report(samples, self.test.x) if self.train.x.ndim == 2 else {})


def make_reference(
    *,
    train: Shaped[ndarray, "..."],
    test: Shaped[ndarray, "..."],
    train_labels: Int[ndarray, " _"] | None = None,
    test_labels: Int[ndarray, " _"] | None = None,
    seed: int = 0,
    settings: Settings = Settings(),
) -> SampleReference:
    """Fits the feature spaces of each fold: the slow part of a report, independent of the samples.

    Args and Raises: see `distribution_report`.

    Returns:
        The reference, for any number of `report` calls.
    """
    data = {"train": SampleSet(train, train_labels), "test": SampleSet(test, test_labels)}
    check_sets(data, settings)
    part = len(train) // settings.folds
    order = np.random.default_rng(seed).permutation(len(train))
    folds = []
    for fold in range(settings.folds):
        held = order[fold * part : (fold + 1) * part]
        folds.append((held, *_fit(data["train"][np.setdiff1d(order, held)], seed + fold, settings)))
    return SampleReference(data["train"], data["test"], tuple(folds), seed, settings)


def distribution_report(
    *,
    train: Shaped[ndarray, "..."],
    test: Shaped[ndarray, "..."],
    samples: Shaped[ndarray, "..."],
    train_labels: Int[ndarray, " _"] | None = None,
    test_labels: Int[ndarray, " _"] | None = None,
    sample_labels: Int[ndarray, " _"] | None = None,
    seed: int = 0,
    settings: Settings = Settings(),
) -> dict[str, float | str]:
    """Compares samples with data; deterministic given the seed.

    Args:
        train: training data of the model: uint8 images [n, h, w, c], sounds [n, t, c] (signed integers, or floating
            point in [-1, 1]) or float vectors [n, d].
        test: held-out data in the same units; any number.
        samples: generated examples in the same units; any number.
        train_labels: classes 0..K-1; with them images are compared in a classifier's features. Sounds are compared
            as log-mel spectrograms, which are also the input of their classifier.
        test_labels: required with `train_labels`.
        sample_labels: the classes that the samples were conditioned on.
        seed: seed of subsets, classifiers and random convolutions.
        settings: counts and sizes.

    Returns:
        Name -> number. Names that end in "_reference" hold the same number for unseen real data.

        - "features": name of the main feature space, "feature_dim": its dimension; "count": examples on each side of
          every comparison; "folds": comparisons averaged over; "covariance": present where there are too few examples
          for a covariance of full rank.
        - "frechet_<features>", and "frechet_ratio" to its reference (1 is as good as real data) with its
          standard deviation over folds, "frechet_ratio_std". For labelled images also
          "frechet_random_convolutions" and "frechet_random_convolutions_ratio".
        - "precision", "recall", "density", "coverage", "mmd_polynomial", "mmd_rbf", "sliced_wasserstein", in the main
          features.
        - "c2st_accuracy": accuracy of a classifier of samples against data; "one_nn_accuracy": share of samples whose
          nearest neighbour is a sample. Both are 1/2 for real data, see `two_sample`.
        - "diversity", "diversity_min": within-class distances of samples over those of test data, mean and minimum
          over classes.
        - "nearer_than_neighbours", "near_copies", "extraction_ratio" (median), "exact_duplicates", and the same with
          "_test" for as many test examples: see `memorization`. Over at most `settings.max_examples` samples.
        - "classifier_accuracy" on test data, and "label_accuracy" on samples with labels.
        - For vectors also the numbers of `dimension_report`.

    Raises:
        UserError: shapes or dtypes that do not fit, NaN, too few examples, all examples equal, missing labels.
    """
    reference = make_reference(
        train=train,
        test=test,
        train_labels=train_labels,
        test_labels=test_labels,
        seed=seed,
        settings=settings,
    )
    return reference.report(samples, sample_labels)


def _window(x: Shaped[ndarray, "n ..."], number: int, count: int) -> Shaped[ndarray, "m ..."]:
    """The `number`-th window of `count` examples, cyclic; windows are disjoint while number * count < len(x)."""
    return x[(number * count + np.arange(count)) % len(x)]


def _fit(fit: SampleSet, seed: int, settings: Settings) -> tuple[list[FeatureSpace], Classifier | None]:
    """Feature spaces, the main one first, and the classifier of labelled data."""
    spaces, preprocess = [], as_is
    some = np.random.default_rng(seed).permutation(len(fit.x))[: settings.whitening_examples]
    few = fit.x[np.sort(some)]
    if fit.x.ndim == 2:
        spaces = [identity(fit.x.shape[1])]
    elif fit.x.ndim == 3:
        spaces = [of_spectrogram(few, settings.rate)]
        preprocess = functools.partial(log_mel, rate=settings.rate)
    else:
        spaces = [random_convolutions(few, seed)]
    if fit.labels is None:
        return spaces, None
    classifier = train_classifier(fit.x, fit.labels, recipe=settings.recipe, seed=seed, preprocess=preprocess)
    return ([of_classifier(classifier, few)] if fit.x.ndim == 4 else []) + spaces, classifier


def _accuracies(classifier: Classifier | None, sets: Mapping[str, SampleSet]) -> dict[str, float]:
    if classifier is None:
        return {}
    return {
        f"{name}_accuracy": classifier.accuracy(data.x, data.labels)
        for name, data in sets.items()
        if data.labels is not None
    }


def _diversity(space: FeatureSpace, test: SampleSet, made: SampleSet) -> dict[str, float]:
    """Within-class diversity; empty without labels."""
    if test.labels is None or made.labels is None:
        return {}
    found = class_diversity(space.extract(test.x), test.labels, space.extract(made.x), made.labels)
    known = found[np.isfinite(found)]
    return {"diversity": float(known.mean()), "diversity_min": float(known.min())} if len(known) else {}


def _distance_name(space: FeatureSpace) -> str:
    return f"frechet_{space.name.replace(' ', '_')}"


def _compare(
    space: FeatureSpace,
    real: Shaped[ndarray, "n ..."],
    others: Mapping[str, Shaped[ndarray, "n ..."]],
    k: int,
    main: bool,
) -> dict[str, float]:
    """Distances of each set of `others` from real examples, with its key as suffix; all metrics if `main`."""
    features = space.extract(real)
    polynomial = Polynomial(
        gamma=1.0 / float((features**2).sum(axis=1).mean())
    )  # gamma <x, x> is 1 on average
    result: dict[str, float] = {}
    for suffix, x in others.items():
        other = space.extract(x)
        values = {_distance_name(space): frechet(Moments.of(other), Moments.of(features))}
        if main:
            values |= prdc(features, other, k)
            values["mmd_polynomial"] = kernel_mmd(other, features, polynomial)
            values["mmd_rbf"] = kernel_mmd(other, features, RBF.median(features))
            values["sliced_wasserstein"] = sliced_wasserstein(other, features)
            values["c2st_accuracy"] = classifier_test(features, other).accuracy
            values["one_nn_accuracy"] = one_nn_accuracy(features, other)[1]
        result |= {name + suffix: value for name, value in values.items()}
    return result


def _means(rows: list[dict[str, float]], distances: list[str]) -> dict[str, float]:
    """Means over folds, and the ratio of each Fréchet distance to its reference; the first is "frechet_ratio"."""
    result = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    for number, name in enumerate(distances):
        ratio = "frechet_ratio" if number == 0 else f"{name}_ratio"
        result[ratio] = result[name] / result[f"{name}_reference"]
        result[f"{ratio}_std"] = float(np.std([row[name] / row[f"{name}_reference"] for row in rows], ddof=1))
    return result


def _memorisation(
    x: Shaped[ndarray, "m ..."], train: Shaped[ndarray, "n ..."], suffix: str
) -> dict[str, float]:
    """The statistics of `memorization`."""
    found = nearest_training(x, train)
    return {
        f"nearer_than_neighbours{suffix}": found.nearer_than_neighbours,
        f"near_copies{suffix}": found.near_copies(),
        f"extraction_ratio{suffix}": float(np.median(found.extraction_ratio())),
        f"exact_duplicates{suffix}": found.exact_duplicates,
    }
