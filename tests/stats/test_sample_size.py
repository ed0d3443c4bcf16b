"""Power and the number of pairs that it needs against statsmodels and G*Power; edge cases."""

from __future__ import annotations

from math import inf, nan

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.power import TTestPower

from accuracies import SENSIBLE, SOME, varied
from cnnbench.stats import (
    more_pairs,
    pairs_needed,
    power,
)


@settings(deadline=None)
@given(st.integers(2, 200), st.floats(-1.5, 1.5), st.floats(0.001, 0.3))
def test_power_is_that_of_statsmodels(n, effect, alpha):
    theirs = TTestPower().power(effect, n, alpha)
    assume(np.isfinite(theirs))
    assert power(n, effect, 1, alpha) == pytest.approx(theirs, abs=1e-6)


@given(st.integers(2, 10**6), st.floats(0.001, 0.3))
def test_without_a_difference_power_is_alpha(n, alpha):
    assert power(n, 0, 1, alpha) == pytest.approx(alpha, abs=1e-6)


@pytest.mark.parametrize(("n", "effect"), [(2, 1e4), (10, 40), (1000, 1e6)])
def test_the_power_for_a_huge_difference_is_1(n, effect):
    assert power(n, effect, 1) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(("effect", "pairs"), [(0.2, 199), (0.5, 34), (0.8, 15)])
def test_pairs_needed_for_cohens_effects_are_those_of_g_power(effect, pairs):
    # G*Power 3.1, "difference between two dependent means", two tails, alpha 0.05, power 0.8
    assert pairs_needed(effect, 1) == pairs


@settings(deadline=None)
@given(st.floats(0.002, 20), st.floats(0.001, 0.3), st.floats(0.05, 0.99))
def test_pairs_needed_is_the_smallest_number_with_the_power(effect, alpha, wanted):
    n = pairs_needed(effect, 1, alpha, wanted)
    assert power(n, effect, 1, alpha) >= wanted
    assert n == 2 or power(n - 1, effect, 1, alpha) < wanted


def test_a_million_pairs_agree_with_the_normal_distribution():
    z = stats.norm.ppf(0.975) + stats.norm.ppf(0.8)
    assert pairs_needed(0.0028, 1) == pytest.approx((z / 0.0028) ** 2, rel=1e-5)


@pytest.mark.parametrize(
    "call",
    [
        lambda: power(1, 1, 1),
        lambda: power(5, 1, 0),
        lambda: power(5, nan, 1),
        lambda: power(5, 1, inf),
        lambda: power(5, 1, 1, alpha=0),
        lambda: pairs_needed(0, 1),
        lambda: pairs_needed(1, -1),
        lambda: pairs_needed(1, 1, power=1),
        lambda: more_pairs([1], 1),
        lambda: more_pairs([1, 2], 0),
    ],
)
def test_impossible_studies_are_refused(call):
    with pytest.raises(ValueError, match="expected"):
        call()


@settings(deadline=None)
@given(SOME.filter(varied), st.floats(0.001, 0.1), SENSIBLE)
def test_more_pairs_are_the_pairs_needed_at_the_ends_of_the_deviations_interval(differences, settle, level):
    n = len(differences)
    low, high = np.std(differences, ddof=1) * np.sqrt((n - 1) / np.array(stats.chi2.interval(level, n - 1)))[::-1]
    expected = tuple(max(0, pairs_needed(settle, deviation) - n) for deviation in (low, high))
    assert more_pairs(differences, settle, level=level) == pytest.approx(expected, rel=1e-9, abs=1)


def test_more_pairs_is_0_where_there_are_enough():
    assert more_pairs([0.1, 0.11, 0.09, 0.1, 0.12, 0.1, 0.08], 0.5) == (0, 0)


def test_more_pairs_is_unknown_for_equal_differences():
    assert more_pairs([0.3, 0.1 + 0.2, 0.3], 0.01) is None
