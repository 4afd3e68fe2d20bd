"""Scores and two-sample tests against closed forms, and their ranking of sets of known quality."""

import numpy as np
import pytest
from scipy.stats import wasserstein_distance

from genjax.core.errors import UserError
from genjax.metrics.distances.scores import ClassEntropy, class_diversity
from genjax.metrics.distances.sliced import sliced_wasserstein
from genjax.metrics.distances.two_sample import classifier_test, one_nn_accuracy

RNG = np.random.default_rng(0)


def test_sliced_distance_in_one_dimension_equals_scipys():
    x, y = RNG.normal(size=(300, 1)), RNG.normal(0.5, 2.0, size=(300, 1))
    assert sliced_wasserstein(x, y, 3, p=1) == pytest.approx(wasserstein_distance(x[:, 0], y[:, 0]), rel=1e-9)


def test_sliced_distance_of_shifted_sets():
    """Shifted points: W_2 along theta is |<theta, m>|, whose mean square is |m|^2 / d."""
    x, m = RNG.normal(size=(200, 5)), np.array([3.0, 0.0, 4.0, 0.0, 0.0])
    assert sliced_wasserstein(x, x + m[None], 20_000) == pytest.approx(5.0 / 5**0.5, rel=0.01)
    assert sliced_wasserstein(x, x[::-1], 50) == pytest.approx(0.0, abs=1e-12)
    twice = np.repeat(x, 2, axis=0)
    assert sliced_wasserstein(x, twice, 50) == pytest.approx(0.0, abs=1e-12)
    with pytest.raises(UserError, match="equal example shape"):
        sliced_wasserstein(x, x[:, :2])


def test_two_sample_tests_are_at_chance_for_equal_distributions():
    """Accuracies are 1/2 within their standard deviation, and p-values are spread over 0 ... 1."""
    told = [classifier_test(*RNG.normal(size=(2, 200, 3)), seed=i) for i in range(40)]
    accuracies = np.asarray([one.accuracy for one in told])
    assert abs(accuracies.mean() - 0.5) < 4 * 0.5 / (400 * 40) ** 0.5 * 1.5
    p_values = np.asarray([one.p_value for one in told])
    assert 0.2 < p_values.mean() < 0.8
    assert (p_values < 0.05).mean() < 0.25
    near = np.mean([one_nn_accuracy(*RNG.normal(size=(2, 100, 3))) for _ in range(40)], axis=0)
    np.testing.assert_allclose(near, 0.5, atol=0.03)


def test_the_best_linear_classifier_is_found():
    """Two Gaussians m apart: the best accuracy is Phi(m / 2), 0.841 for m = 2."""
    x, y = RNG.normal(size=(4000, 2)), RNG.normal(size=(4000, 2)) + np.array([[2.0, 0.0]])
    told = classifier_test(x, y)
    assert told.accuracy == pytest.approx(0.8413, abs=0.015)
    assert told.p_value < 1e-9
    wide = classifier_test(x, 3.0 * RNG.normal(size=(4000, 2)))  # separable only by the squares
    assert wide.accuracy > 0.75
    with pytest.raises(UserError, match="4 or more"):
        classifier_test(x[:3], y[:3])


def test_one_nn_accuracy_detects_copies_and_collapse():
    data = RNG.normal(size=(200, 4))
    assert one_nn_accuracy(data, data + 1e-6) == (0.0, 0.0)
    of_data, of_samples = one_nn_accuracy(
        data, np.repeat(data[:1], 200, axis=0) + 1e-3 * RNG.normal(size=(200, 4))
    )
    assert of_samples > 0.98
    assert of_data > 0.9


def test_score_of_certain_and_of_constant_probabilities():
    """k certain, equally frequent classes give k; equal rows give 1; else the exponential of the mutual information."""
    sure = np.eye(4).repeat(3, axis=0)
    assert ClassEntropy.of(sure).score == pytest.approx(4.0)
    assert ClassEntropy.of(np.tile([[0.7, 0.2, 0.1]], (5, 1))).score == pytest.approx(1.0)
    p = RNG.dirichlet(np.ones(5), size=64)
    mean = p.mean(axis=0)
    by_hand = np.exp((p * np.log(p / mean[None])).sum(axis=1).mean())
    whole = ClassEntropy.of(p)
    assert whole.score == pytest.approx(by_hand, rel=1e-12)
    parts = ClassEntropy.of(p[:10]).merge(ClassEntropy.of(p[10:]))
    assert parts.score == pytest.approx(whole.score, rel=1e-12)
    with pytest.raises(UserError, match="sum to 1"):
        ClassEntropy.of(p * 2)


def test_diversity_is_relative_to_that_of_the_class():
    """A class shrunk to a tenth has diversity 0.1; a class with one sample has NaN."""
    labels = np.repeat([0, 1, 2], 50)
    real = RNG.normal(size=(150, 3)) + 100.0 * labels[:, None]
    made = np.where(labels[:, None] == 1, 100.0 + 0.1 * (real - 100.0), real)
    found = class_diversity(real, labels, made[:101], labels[:101])
    np.testing.assert_allclose(found[:2], [1.0, 0.1], rtol=1e-9)
    assert np.isnan(found[2])
