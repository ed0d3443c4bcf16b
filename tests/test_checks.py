"""Checks of typed values: what they accept, and the line with which they refuse."""

from __future__ import annotations

import math

import pytest

from cnnbench.checks import require_bool, require_choice, require_number, require_range


@pytest.mark.parametrize(
    ("value", "checks"),
    [
        (0, {"at_least": 0}),
        (1, {"at_most": 1}),
        (0.5, {"above": 0, "below": 1}),
        (-3, {}),
        (7, {"integer": True, "above": 0}),
    ],
)
def test_a_number_within_its_bounds_is_accepted(value, checks):
    require_number("p", value, **checks)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None, "half", "1", True, [0.5]])
def test_what_is_no_finite_number_is_refused(value):
    with pytest.raises(ValueError, match=r"^p=.*: expected a number$"):
        require_number("p", value)


@pytest.mark.parametrize("value", [1.5, 2.0, "two", None, True, [4]])
def test_what_is_no_integer_is_refused(value):
    with pytest.raises(ValueError, match=r"^side=.*: expected an integer at least 1$"):
        require_number("side", value, integer=True, at_least=1)


@pytest.mark.parametrize(
    ("value", "checks", "message"),
    [
        (-1, {"at_least": 0}, "p=-1: expected a number at least 0"),
        (0, {"above": 0}, "p=0: expected a number above 0"),
        (1.5, {"at_least": 0, "at_most": 1}, "p=1.5: expected a number at least 0, at most 1"),
        (1, {"above": 0, "below": 1}, "p=1: expected a number above 0, below 1"),
        (0, {"integer": True, "above": 0}, "p=0: expected an integer above 0"),
    ],
)
def test_a_number_out_of_its_bounds_is_refused_with_the_bounds(value, checks, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        require_number("p", value, **checks)


def test_a_range_of_two_numbers_in_order_is_accepted():
    require_range("scale", [0.1, 0.5], above=0, at_most=1)
    require_range("scale", (1, 1))


@pytest.mark.parametrize("values", [None, 0.5, "all", [0.5], [0.1, 0.2, 0.3]])
def test_what_is_no_list_of_two_is_refused_as_a_range(values):
    with pytest.raises(ValueError, match=r"^scale=.*: expected a range \[a,b\]$"):
        require_range("scale", values)


@pytest.mark.parametrize("values", [[0.1, "b"], [math.nan, 1], [None, 1], [False, True], [0, 1], [0.5, 1.5]])
def test_each_end_of_a_range_is_checked(values):
    with pytest.raises(ValueError, match=r"^scale=.*: expected a number above 0, at most 1$"):
        require_range("scale", values, above=0, at_most=1)


def test_the_ends_of_a_range_may_not_be_exchanged():
    with pytest.raises(ValueError, match=r"^scale=\[0.9, 0.1\]: expected a range \[a,b\] with a at most b$"):
        require_range("scale", [0.9, 0.1])


def test_a_choice_is_returned():
    assert require_choice("norm", "none", ("batch", "none")) == "none"
    assert require_choice("depth", 18, {18: "a", 34: "b"}) == 18


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("layer", "branch=layer: expected one of 1, 3, double"),
        (5, "branch=5: expected one of 1, 3, double"),
        ("3", "branch='3': expected one of 1, 3, double"),
        (True, "branch=True: expected one of 1, 3, double"),
        (None, "branch=None: expected one of 1, 3, double"),
    ],
)
def test_another_value_than_the_choices_is_refused_with_the_choices(value, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        require_choice("branch", value, (1, 3, "double"))


@pytest.mark.parametrize("value", [0, 1, None, "yes", "true"])
def test_what_is_neither_true_nor_false_is_refused(value):
    with pytest.raises(ValueError, match=rf"^se={value}: expected true or false$"):
        require_bool("se", value)
    require_bool("se", True)
    require_bool("se", False)
