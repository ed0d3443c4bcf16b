"""Numbers in words."""

from __future__ import annotations

import pytest

from cnnbench.report.number_format import accuracy_text, interval_text, p_value, plural, points, signed_points


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.019, "1.9"),
        (0.0004, "0.04"),
        (-0.0312, "-3.1"),
        (0.0, "0.0"),
        (-0.000001, "0.0"),
        (0.00096, "0.1"),
        (1.0, "100.0"),
    ],
)
def test_points_have_one_digit_and_small_ones_two(value, text):
    assert points(value) == text


@pytest.mark.parametrize(("value", "text"), [(0.019, "+1.9"), (-0.019, "-1.9"), (0.0, "0.0"), (0.0000001, "0.0")])
def test_signed_points_have_a_sign(value, text):
    assert signed_points(value) == text


@pytest.mark.parametrize(
    ("p", "text"),
    [
        (None, ""),
        (0.0004, "< 0.001"),
        (0.0123, "0.012"),
        (1.0, "1.000"),
        (0.0497, "0.0497"),
        (0.049998, "0.049998"),
        (0.0502, "0.050"),
    ],
)
def test_p_values_have_three_digits_and_more_if_rounding_would_cross_the_significance_level(p, text):
    assert p_value(p) == text


def test_accuracies_have_four_digits():
    assert [accuracy_text(value) for value in (0.98125, 1, None)] == ["0.9812", "1.0000", ""]


def test_intervals_are_in_points():
    assert interval_text((-0.0312, 0.019)) == "95 % interval -3.1 to 1.9"
    assert interval_text(None) == "no interval"


def test_a_noun_is_plural_unless_the_number_is_1():
    assert [plural(number, "seed") for number in (0, 1, 2, 1000)] == ["0 seeds", "1 seed", "2 seeds", "1,000 seeds"]
