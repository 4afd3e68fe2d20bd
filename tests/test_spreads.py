"""Mean and standard deviation over seeds against hand computation, and the digits of their text."""

import math

import pytest

from genjax.reports.spread import format_mean, mean_and_std


def test_std_is_the_sample_standard_deviation_and_none_for_one_value():
    assert mean_and_std([1.0, 2.0, 4.0]) == {
        "mean": pytest.approx(7 / 3),
        "std": pytest.approx(math.sqrt(7 / 3)),
        "values": [1.0, 2.0, 4.0],
    }
    assert mean_and_std([3.0])["std"] is None


@pytest.mark.parametrize(
    ("mean", "error", "words"),
    [
        (1.2345, None, "1.23"),
        (1.2345, 0.0, "1.23 ± 0"),
        (1.2345, math.inf, "1.23 ± inf"),
        (1.2345, 0.31, "1.23 ± 0.31"),
        (1.2345, 0.0312, "1.234 ± 0.031"),
        (1.2345, 0.000312, "1.2345 ± 0.0003"),
        (1.2345, 0.00004, "1.23"),
        (12345.6, 123.4, "12,346 ± 123"),
    ],
)
def test_two_digits_of_the_error_set_the_digits_of_the_mean(mean, error, words):
    assert format_mean(mean, error) == words


def test_an_error_that_rounds_to_zero_is_omitted():
    assert format_mean(45.116828, 0.000045, "{:.0f}", max_digits=3) == "45"
    assert format_mean(0.8123, 0.0049, "{:.2f}", max_digits=3) == "0.812 ± 0.005"
