"""Mean and spread: by hand, and how many digits stand in words."""

import math

import pytest

from genjax.reports.spread import in_words, spread


def test_the_spread_is_the_sample_standard_deviation_and_one_value_has_none():
    assert spread([1.0, 2.0, 4.0]) == {
        "mean": pytest.approx(7 / 3),
        "spread": pytest.approx(math.sqrt(7 / 3)),
        "values": [1.0, 2.0, 4.0],
    }
    assert spread([3.0])["spread"] is None


@pytest.mark.parametrize(
    ("mean", "around", "words"),
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
def test_two_digits_of_what_lies_around_say_how_many_the_mean_has(mean, around, words):
    assert in_words(mean, around) == words


def test_what_vanishes_in_the_digits_that_are_wanted_is_left_out():
    assert in_words(45.116828, 0.000045, "{:.0f}", most=3) == "45"
    assert in_words(0.8123, 0.0049, "{:.2f}", most=3) == "0.812 ± 0.005"
