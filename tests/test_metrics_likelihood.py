"""Units and standard errors of likelihoods; modes and moments of vectors."""

import math

import numpy as np
import pytest
from scipy.stats import chi2

from genjax.core.errors import UserError
from genjax.metrics.distances.modes import Mixture, dimension_report, mode_counts, mode_report
from genjax.metrics.likelihood import bits_per_dim, scaling_log_det, summarise


def test_uniform_model_of_8_bit_data_has_8_bits_per_dim():
    dims = 784
    discrete = np.full(5, -dims * math.log(256))
    np.testing.assert_allclose(bits_per_dim(discrete, dims), 8.0, rtol=1e-14)
    for low, high in ((0.0, 1.0), (-1.0, 1.0)):  # a uniform density on the scaled cube, any scaling
        density = np.full(5, -dims * math.log(high - low), np.float32)
        log_det = scaling_log_det((high - low) / 256, dims)
        np.testing.assert_allclose(bits_per_dim(density, dims, log_det), 8.0, rtol=1e-6)


def test_scaling_is_the_jacobian_of_a_density():
    """log p(x) = log p(z) + log |dz/dx| for a Gaussian in one scale and in the other."""
    x, scale = np.array([3.0, 250.0]), 2 / 256
    normal = lambda v, s: -0.5 * (v / s) ** 2 - math.log(s) - 0.5 * math.log(2 * math.pi)
    expected = -normal(x, 100.0) / math.log(2)
    found = bits_per_dim(normal(scale * x, scale * 100.0), 1, scaling_log_det(scale, 1))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_standard_error_of_equal_sizes_is_std_over_root_n():
    values = -np.random.default_rng(0).gamma(2.0, 50.0, 64)
    found = summarise(values, 10, "exact")
    assert found.nats == pytest.approx(values.mean())
    assert found.nats_error == pytest.approx(values.std(ddof=1) / 8)
    assert found.bits_per_dim == pytest.approx(-values.mean() / 10 / math.log(2))
    assert found.bits_per_dim_error == pytest.approx(values.std(ddof=1) / 8 / 10 / math.log(2))


def test_standard_errors_are_the_standard_deviation_of_repeated_evaluations():
    """Sequences of different lengths, with log-probabilities proportional to the length."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(600):
        sizes = rng.integers(5, 60, 100)
        found.append(summarise(-sizes * (1.0 + 0.3 * rng.normal(size=100)), sizes, "exact"))
    for name in ("nats", "nats_per_dim", "bits_per_dim", "perplexity"):
        std = np.std([getattr(f, name) for f in found])
        assert np.mean([getattr(f, f"{name}_error") for f in found]) == pytest.approx(std, rel=0.1)


def test_a_rate_per_element_counts_every_element_once():
    """Nats of all examples over elements of all examples, not the mean of the examples' own rates."""
    found = summarise(np.asarray([-2.0, -30.0]), np.asarray([1, 9]), "exact")
    assert found.nats_per_dim == pytest.approx(3.2)
    assert found.bits_per_dim == pytest.approx(3.2 / math.log(2.0))


def test_perplexity_of_a_uniform_vocabulary_is_its_size():
    sizes = np.array([1, 5, 20])
    found = summarise(-sizes * math.log(50.0), sizes, "exact")
    assert found.perplexity == pytest.approx(50.0)
    assert found.perplexity_error == pytest.approx(0.0, abs=1e-9)


def test_a_likelihood_prints_its_kind():
    text = str(summarise(np.array([-1.0, -2.0]), 1, "lower bound (ELBO)"))
    assert "lower bound (ELBO)" in text
    assert "2 examples" in text


RING = np.stack([np.cos(np.arange(8) * np.pi / 4), np.sin(np.arange(8) * np.pi / 4)], 1) * 4.0


def test_true_mixture_matches_chi_square_and_its_reference():
    mixture = Mixture(RING, 0.1)
    report = mode_report(mixture.draw(np.random.default_rng(5), 20000), mixture)
    assert report["modes"] == report["modes_covered"] == report["modes_covered_reference"] == 8.0
    assert report["high_quality_reference"] == pytest.approx(chi2.cdf(9.0, 2), abs=1e-3)
    assert report["high_quality"] == pytest.approx(chi2.cdf(9.0, 2), abs=5e-3)
    assert report["imbalance"] < 3 * report["imbalance_reference"] < 0.05


def test_collapsed_blurred_and_unbalanced_samples():
    rng = np.random.default_rng(0)
    mixture = Mixture(RING, 0.1)
    collapsed = mode_report(Mixture(RING[:3], 0.1).draw(rng, 3000), mixture)
    assert collapsed["modes_covered"] == 3.0
    assert collapsed["imbalance"] == pytest.approx(5 / 8, abs=0.03)
    blurred = mode_report(Mixture(RING, 0.3).draw(rng, 3000), mixture)
    assert blurred["high_quality"] == pytest.approx(chi2.cdf(1.0, 2), abs=0.03)
    assert mode_report(RING + 1.0, mixture)["modes_covered"] == 0.0


def test_a_mode_is_covered_from_the_given_share_on():
    weights = np.array([0.5, 0.5])
    mixture = Mixture(np.array([[0.0], [10.0]]), 1.0, weights)
    samples = np.concatenate([np.zeros((90, 1)), np.full((10, 1), 10.0)])
    np.testing.assert_array_equal(mode_counts(samples, mixture), [90, 10])
    assert mode_report(samples, mixture, share=0.2)["modes_covered"] == 2.0  # 10 >= 0.2 * 0.5 * 100
    assert mode_report(samples, mixture, share=0.21)["modes_covered"] == 1.0
    assert mode_report(samples, mixture)["imbalance"] == pytest.approx(0.4)


def test_dimension_report_detects_shift_and_scale_of_single_dimensions():
    real = np.random.default_rng(0).normal(size=(500, 3))
    changed = real * np.array([1.0, 3.0, 0.5]) + np.array([0.7, 0.0, 0.0]) * real.std(axis=0, ddof=1)
    changed[:, 1:] -= changed[:, 1:].mean(axis=0) - real[:, 1:].mean(axis=0)
    report = dimension_report(changed, real)
    assert report == pytest.approx({"mean_error": 0.7, "variance_ratio_min": 0.25, "variance_ratio_max": 9.0})


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: summarise(np.array([1.0]), 1, "exact"),
        lambda: summarise(np.array([1.0, np.nan]), 1, "exact"),
        lambda: mode_report(np.zeros((5, 3)), Mixture(RING, 0.1)),
        lambda: mode_report(np.full((5, 2), np.nan), Mixture(RING, 0.1)),
        lambda: dimension_report(np.zeros((5, 2)), np.zeros((5, 2))),
    ],
)
def test_wrong_input_is_one_line(wrong):
    with pytest.raises(UserError, match=r"\A[^\n]+\Z"):
        wrong()
