"""Wilson's interval against scipy and Newcombe's published example; edge cases."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from cnnbench.stats import (
    wilson,
)

TRIALS = st.integers(1, 10**6)
LEVELS = st.floats(0.01, 0.9999)


@st.composite
def counts(draw):
    trials = draw(TRIALS)
    return draw(st.integers(0, trials)), trials


@settings(deadline=None)
@given(counts(), LEVELS)
def test_wilson_is_scipys_wilson(count, level):
    successes, trials = count
    theirs = binomtest(successes, trials).proportion_ci(level, method="wilson")
    point, (low, high) = wilson(successes, trials, level)
    assert point == successes / trials
    assert (low, high) == pytest.approx((theirs.low, theirs.high), rel=1e-9, abs=1e-12)


def test_the_default_level_is_95_percent():
    assert wilson(81, 263) == wilson(81, 263, 0.95)


def test_81_of_263_gives_newcombes_published_interval():
    # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I, method 3
    assert wilson(81, 263)[1] == pytest.approx((0.2553, 0.3662), abs=5e-5)


@pytest.mark.parametrize("trials", [1, 10, 10_000])
def test_without_successes_the_interval_starts_at_0(trials):
    point, (low, high) = wilson(0, trials)
    z = 1.959963984540054
    assert point == 0
    assert low == pytest.approx(0, abs=1e-15)
    assert high == pytest.approx(z**2 / (trials + z**2))


@pytest.mark.parametrize("trials", [1, 10, 10_000])
def test_without_failures_the_interval_ends_at_1(trials):
    point, (low, high) = wilson(trials, trials)
    z = 1.959963984540054
    assert point == 1
    assert low == pytest.approx(trials / (trials + z**2))
    assert high == pytest.approx(1, abs=1e-15)


@settings(deadline=None)
@given(counts(), LEVELS)
def test_the_wilson_interval_is_within_0_and_1_and_contains_the_proportion(count, level):
    point, (low, high) = wilson(*count, level)
    assert 0 <= low <= high <= 1
    assert low - 1e-15 <= point <= high + 1e-15


@settings(deadline=None)
@given(counts(), LEVELS)
def test_the_interval_of_failures_mirrors_that_of_successes(count, level):
    successes, trials = count
    _, (low, high) = wilson(successes, trials, level)
    _, (mirrored_low, mirrored_high) = wilson(trials - successes, trials, level)
    assert (low, high) == pytest.approx((1 - mirrored_high, 1 - mirrored_low), abs=1e-12)


@settings(deadline=None)
@given(counts(), st.tuples(LEVELS, LEVELS).filter(lambda pair: pair[1] - pair[0] > 1e-3))
def test_a_higher_level_gives_a_wider_interval(count, levels):
    (_, (low, high)), (_, (lower, higher)) = (wilson(*count, level) for level in levels)
    assert higher - lower > high - low


@pytest.mark.parametrize(("successes", "trials"), [(-1, 10), (11, 10), (0, 0), (0, -1)])
def test_impossible_counts_are_refused(successes, trials):
    with pytest.raises(ValueError, match=f"got {successes} of {trials}"):
        wilson(successes, trials)


@pytest.mark.parametrize("level", [1.0, -1.0])
def test_wilson_refuses_a_level_that_is_not_a_probability(level):
    with pytest.raises(ValueError, match="expected a level between 0 and 1"):
        wilson(3, 10, level)
