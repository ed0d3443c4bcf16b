"""Intervals and differences of means against scipy and Student's published example; edge cases."""

from __future__ import annotations

from math import inf, nan

import numpy as np
import pytest
from hypothesis import assume, given, settings
from scipy import stats

from accuracies import PAIRS, SENSIBLE, SOME, varied
from cnnbench.stats import (
    Difference,
    ece_interval,
    mcnemar,
    mean_interval,
    more_pairs,
    one_sample,
    paired,
    sign_test,
    welch,
)


@settings(deadline=None)
@given(SOME.filter(varied), SENSIBLE)
def test_the_mean_interval_is_that_of_scipy(values, level):
    mean, interval = mean_interval(values, level)
    assert mean == pytest.approx(np.mean(values))
    assert interval == pytest.approx(stats.t.interval(level, len(values) - 1, np.mean(values), stats.sem(values)))


def test_one_value_has_no_interval():
    assert mean_interval([0.9]) == (0.9, None)


def test_equal_values_have_no_interval():
    assert mean_interval([0.1 + 0.2, 0.3, 0.3]) == (pytest.approx(0.3), None)


def test_the_paired_difference_of_students_sleep_data_is_the_published_one():
    # Student 1908, "The probable error of a mean": hours of sleep gained by two drugs; t = -4.0621, p = 0.002833
    first = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
    second = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    found = paired(first, second)
    assert (found.point, found.p, found.n) == (pytest.approx(-1.58), pytest.approx(0.002833, abs=5e-7), 10)
    assert found.interval == pytest.approx((-2.4598858, -0.7001142))


@settings(deadline=None)
@given(PAIRS, SENSIBLE)
def test_the_paired_difference_is_that_of_scipy(pairs, level):
    ours, theirs = zip(*pairs, strict=True)
    assume(varied(np.subtract(ours, theirs)))
    expected = stats.ttest_rel(ours, theirs)
    found = paired(ours, theirs, level)
    assert found.point == pytest.approx(np.mean(ours) - np.mean(theirs), abs=1e-12)
    assert found.p == pytest.approx(expected.pvalue, abs=1e-12)
    assert found.interval == pytest.approx(tuple(expected.confidence_interval(level)), abs=1e-9)
    assert found.n == len(pairs)


@settings(deadline=None)
@given(SOME.filter(varied), SENSIBLE)
def test_one_sample_is_the_test_of_scipy(values, level):
    theirs = stats.ttest_1samp(values, 0)
    found = one_sample(values, level)
    assert found.p == pytest.approx(theirs.pvalue, abs=1e-12)
    assert found.interval == pytest.approx(tuple(theirs.confidence_interval(level)), abs=1e-9)


@given(PAIRS)
def test_swapped_groups_have_the_mirrored_difference(pairs):
    ours, theirs = zip(*pairs, strict=True)
    found, mirrored = paired(ours, theirs), paired(theirs, ours)
    assert (mirrored.point, mirrored.p) == (-found.point, found.p)
    assert (mirrored.interval is None) == (found.interval is None)


def test_one_pair_has_neither_interval_nor_p():
    assert paired([0.9], [0.8]) == Difference(pytest.approx(0.1), None, None, 1)


def test_equal_pairs_have_difference_0_and_p_1():
    assert paired([0.9, 0.8, 0.7], [0.9, 0.8, 0.7]) == Difference(0.0, (0.0, 0.0), 1.0, 3)


def test_pairs_that_are_equal_up_to_rounding_count_as_equal():
    assert paired([0.1 + 0.2, 0.7], [0.3, 0.1 + 0.6]) == Difference(0.0, (0.0, 0.0), 1.0, 2)


def test_rounding_is_measured_against_the_largest_value():
    assert paired([0.1 + 0.2, 0.0], [0.3, 0.0]) == Difference(0.0, (0.0, 0.0), 1.0, 2)


def test_differences_that_are_equal_up_to_rounding_have_no_interval():
    assert 0.9 - 0.8 != 0.8 - 0.7
    assert paired([0.9, 0.8], [0.8, 0.7]) == Difference(pytest.approx(0.1), None, None, 2)


def test_a_small_spread_above_rounding_has_an_interval():
    assert paired([0.9, 0.9 + 1e-9], [0.8, 0.8]).interval is not None


def test_equal_values_other_than_0_have_no_interval():
    assert one_sample([0.3, 0.1 + 0.2, 0.3]) == Difference(pytest.approx(0.3), None, None, 3)


@pytest.mark.parametrize("bad", [[], [0.5, nan], [-inf]])
@pytest.mark.parametrize(
    "function",
    [mean_interval, one_sample, lambda v: paired(v, v), lambda v: welch(v, [1.0, 2.0]), lambda v: more_pairs(v, 1)],
)
def test_an_empty_sample_and_values_that_are_not_finite_are_refused(function, bad):
    with pytest.raises(ValueError, match="finite"):
        function(bad)


@pytest.mark.parametrize("function", [paired, mcnemar, sign_test])
def test_pairs_of_different_lengths_are_refused(function):
    with pytest.raises(ValueError, match="expected pairs, got 2 and 3"):
        function([1, 0], [1, 0, 1])


@pytest.mark.parametrize("level", [0, 95])
@pytest.mark.parametrize(
    "function",
    [
        lambda level: mean_interval([1, 2], level),
        lambda level: paired([1, 2], [2, 4], level),
        lambda level: welch([1, 2], [2, 4], level),
        lambda level: mcnemar([1, 0], [0, 1], level),
        lambda level: more_pairs([1, 2], 1, level=level),
        lambda level: ece_interval([0.5], [1], np.ones((1, 1), np.float32), level=level),
    ],
)
def test_levels_that_are_not_probabilities_are_refused(function, level):
    with pytest.raises(ValueError, match="expected a level between 0 and 1"):
        function(level)


@settings(deadline=None)
@given(SOME, SOME, SENSIBLE)
def test_the_welch_difference_is_that_of_scipy(ours, theirs, level):
    assume(varied(ours) or varied(theirs))
    oracle = stats.ttest_ind(ours, theirs, equal_var=False)
    found = welch(ours, theirs, level)
    assert found.point == pytest.approx(np.mean(ours) - np.mean(theirs), abs=1e-12)
    assert found.p == pytest.approx(oracle.pvalue, abs=1e-12)
    assert found.interval == pytest.approx(tuple(oracle.confidence_interval(level)), abs=1e-9)
    assert found.n == min(len(ours), len(theirs))


def test_welch_has_no_interval_for_a_group_of_one_value():
    assert welch([0.9], [0.7, 0.8, 0.75]) == Difference(pytest.approx(0.15), None, None, 1)


def test_welch_has_no_interval_for_groups_without_variation_unless_they_are_equal():
    assert welch([0.9, 0.9], [0.8, 0.8, 0.8]) == Difference(pytest.approx(0.1), None, None, 2)
    assert welch([0.3, 0.3], [0.1 + 0.2] * 3) == Difference(0.0, (0.0, 0.0), 1.0, 2)
