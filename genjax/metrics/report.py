"""One report on how close samples are to the data, every number beside the same number for real data.

Cross-fitting: the training set is cut into `folds` parts. For each, the feature spaces are fitted on the other
parts, and samples and the part left out are each compared with test data, at equal counts n. So the reference is
real data that the features have not been fitted to; with data that they have, a distance would be too large (a
classifier separates what it was trained on better), and a model would look better than real data. Values are
means over folds, a ratio is the ratio of such means. Memorisation is measured on the data's own values, against
the whole training set.
"""

import dataclasses
import functools
from collections.abc import Mapping

import numpy as np
from jaxtyping import Int, Shaped
from numpy import ndarray

from genjax.metrics.distances.coverage import prdc
from genjax.metrics.distances.distance import RBF, Moments, Polynomial, frechet, kernel_mmd
from genjax.metrics.distances.memorization import nearest_training
from genjax.metrics.distances.modes import dimension_report
from genjax.metrics.distances.scores import class_diversity
from genjax.metrics.distances.sliced import sliced_wasserstein
from genjax.metrics.distances.two_sample import classifier_test, neighbour_accuracy
from genjax.metrics.examined import Examined, Settings, check
from genjax.metrics.features.classifier import Classifier, as_is, train_classifier
from genjax.metrics.features.features import (
    FeatureSpace,
    identity,
    of_classifier,
    of_spectrogram,
    random_convolutions,
)
from genjax.metrics.features.spectrogram import log_mel


@dataclasses.dataclass(frozen=True)
class Judge:
    """Data and the feature spaces fitted on them, ready to judge any number of sets of samples.

    Attributes:
        train: what models were trained on.
        test: data that they were not trained on.
        folds: for each, the examples of `train` left out, the feature spaces fitted on the others (the main one
            first), and their classifier if there is one.
        seed: of subsets.
        settings: counts and sizes.
    """

    train: Examined
    test: Examined
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
        made, settings = Examined(samples, sample_labels), self.settings
        check({"train": self.train, "test": self.test, "samples": made}, settings)
        count = min(len(samples), len(self.test.x), len(self.folds[0][0]), settings.most)
        rng = np.random.default_rng(self.seed)
        rng.permutation(len(self.train.x))  # the one that cut the folds
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
            result["covariance"] = f"singular ({words}): Fréchet distances are biased upwards, read the ratio"
        result |= _means(rows, [_distance_name(space) for space in spaces])
        result |= _diversity(spaces[0], self.test, made)
        result |= _memorisation(drawn[: settings.most], self.train.x, "")
        result |= _memorisation(test[: min(len(samples), settings.most)], self.train.x, "_test")
        return result | (dimension_report(samples, self.test.x) if self.train.x.ndim == 2 else {})


def make_judge(
    *,
    train: Shaped[ndarray, "..."],
    test: Shaped[ndarray, "..."],
    train_labels: Int[ndarray, " _"] | None = None,
    test_labels: Int[ndarray, " _"] | None = None,
    seed: int = 0,
    settings: Settings = Settings(),
) -> Judge:
    """Fits the feature spaces of each fold: the slow half of a report, which no sample enters.

    Args and errors are those of `distribution_report`.
    """
    data = {"train": Examined(train, train_labels), "test": Examined(test, test_labels)}
    check(data, settings)
    part = len(train) // settings.folds
    order = np.random.default_rng(seed).permutation(len(train))
    folds = []
    for fold in range(settings.folds):
        held = order[fold * part : (fold + 1) * part]
        folds.append((held, *_fit(data["train"][np.setdiff1d(order, held)], seed + fold, settings)))
    return Judge(data["train"], data["test"], tuple(folds), seed, settings)


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
        train: what the model was trained on, uint8 images [n, h, w, c], sounds [n, t, c] (signed
            integers, or floating point in [-1, 1]) or float vectors [n, d].
        test: data that it was not trained on, in the same units; any number.
        samples: what it made, in the same units; any number.
        train_labels: classes 0..K-1; with them images are compared in a classifier's features. Sounds are compared
            as log-mel spectrograms, and their classifier is shown these.
        test_labels: needed when `train_labels` are given.
        sample_labels: the classes that the samples were asked for.
        seed: of subsets, classifiers and random convolutions.
        settings: counts and sizes.

    Returns:
        Name -> number. Those that end in "_reference" are for real, unseen data in the samples' place.

        - "features": the main feature space, of "feature_dim" dimensions; "count": examples on each side of every
          comparison; "folds": of how many comparisons the values are means; "covariance": says so, where the examples
          are too few for one of full rank.
        - "frechet_<features>", and "frechet_ratio" to its reference (1 is as good as real data) with its
          standard deviation over folds, "frechet_ratio_std". For labelled images also
          "frechet_random_convolutions" and "frechet_random_convolutions_ratio".
        - "precision", "recall", "density", "coverage", "mmd_polynomial", "mmd_rbf", "sliced_wasserstein", in the main
          features.
        - "told_apart": accuracy of a classifier that is to tell samples from data, "neighbours_alike": share of samples
          whose nearest neighbour is a sample; 1/2 is what real data have, see `two_sample`.
        - "diversity", "diversity_least": distances of samples of one class over those of test data of the class, as
          the mean and the least over classes.
        - "nearer_than_neighbours", "near_copies", "extraction_ratio" (the median), "exact_duplicates", and the
          same with "_test" for as many test examples: see `memorization`. Of at most `settings.most` samples.
        - "classifier_accuracy" on test data, and "label_accuracy" on samples with labels.
        - For vectors also those of `dimension_report`.

    Raises:
        UserError: shapes or dtypes that do not fit, NaN, too few examples, all examples equal, missing labels.
    """
    judge = make_judge(
        train=train,
        test=test,
        train_labels=train_labels,
        test_labels=test_labels,
        seed=seed,
        settings=settings,
    )
    return judge.report(samples, sample_labels)


def _window(x: Shaped[ndarray, "n ..."], number: int, count: int) -> Shaped[ndarray, "m ..."]:
    """The `number`-th window of `count` examples, cyclic: disjoint as long as they last."""
    return x[(number * count + np.arange(count)) % len(x)]


def _fit(fit: Examined, seed: int, settings: Settings) -> tuple[list[FeatureSpace], Classifier | None]:
    """Feature spaces, the main one first, and the classifier of labelled data."""
    spaces, see = [], as_is
    some = np.random.default_rng(seed).permutation(len(fit.x))[: settings.whitened]
    few = fit.x[np.sort(some)]
    if fit.x.ndim == 2:
        spaces = [identity(fit.x.shape[1])]
    elif fit.x.ndim == 3:
        spaces, see = [of_spectrogram(few, settings.rate)], functools.partial(log_mel, rate=settings.rate)
    else:
        spaces = [random_convolutions(few, seed)]
    if fit.labels is None:
        return spaces, None
    classifier = train_classifier(fit.x, fit.labels, recipe=settings.recipe, seed=seed, see=see)
    return ([of_classifier(classifier, few)] if fit.x.ndim == 4 else []) + spaces, classifier


def _accuracies(classifier: Classifier | None, sets: Mapping[str, Examined]) -> dict[str, float]:
    if classifier is None:
        return {}
    return {
        f"{name}_accuracy": classifier.accuracy(examined.x, examined.labels)
        for name, examined in sets.items()
        if examined.labels is not None
    }


def _diversity(space: FeatureSpace, test: Examined, made: Examined) -> dict[str, float]:
    """Within classes; nothing where there are none."""
    if test.labels is None or made.labels is None:
        return {}
    found = class_diversity(space.extract(test.x), test.labels, space.extract(made.x), made.labels)
    known = found[np.isfinite(found)]
    return {"diversity": float(known.mean()), "diversity_least": float(known.min())} if len(known) else {}


def _distance_name(space: FeatureSpace) -> str:
    return f"frechet_{space.name.replace(' ', '_')}"


def _compare(
    space: FeatureSpace,
    real: Shaped[ndarray, "n ..."],
    others: Mapping[str, Shaped[ndarray, "n ..."]],
    k: int,
    main: bool,
) -> dict[str, float]:
    """Distances of each of `others` from real examples, under names that end in its key; all kinds if `main`."""
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
            values["told_apart"] = classifier_test(features, other).accuracy
            values["neighbours_alike"] = neighbour_accuracy(features, other)[1]
        result |= {name + suffix: value for name, value in values.items()}
    return result


def _means(rows: list[dict[str, float]], distances: list[str]) -> dict[str, float]:
    """Means over folds, and each Fréchet distance's ratio to its reference; the first is "frechet_ratio"."""
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
