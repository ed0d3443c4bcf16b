"""McNemar's test, its interval and the sign test against statsmodels, scipy and published examples."""

from __future__ import annotations

from math import nan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.proportion import confint_proportions_2indep

from accuracies import SENSIBLE
from cnnbench.stats import (
    mcnemar,
    sign_test,
    wilson,
)


def images(both, only_ours, only_theirs, neither):
    """Whether two nets are correct on each image, from the counts of the four cases."""
    ours = [True] * (both + only_ours) + [False] * (only_theirs + neither)
    theirs = [True] * both + [False] * only_ours + [True] * only_theirs + [False] * neither
    return ours, theirs


TABLES = st.tuples(*[st.integers(0, 60)] * 4).filter(any)


@settings(deadline=None)
@given(TABLES)
def test_the_p_of_mcnemar_is_the_exact_one_of_statsmodels(table):
    both, only_ours, only_theirs, neither = table
    found = mcnemar(*images(*table))
    assert found.p == pytest.approx(statsmodels_mcnemar([[both, only_ours], [only_theirs, neither]], exact=True).pvalue)
    assert found.point == pytest.approx((only_ours - only_theirs) / sum(table))
    assert found.n == sum(table)


@pytest.mark.parametrize(
    ("table", "interval"), [((59, 6, 16, 80), (-0.1186, -0.0046)), ((1, 1, 7, 12), (-0.507, -0.026))]
)
def test_the_intervals_of_two_medical_studies_are_the_published_ones(table, interval):
    # Fagerland, Lydersen and Laake, "Statistical Analysis of Contingency Tables", section 8.6: Cavo 2012 and Bentur 2009
    assert mcnemar(*images(*table)).interval == pytest.approx(interval, abs=5e-4 if sum(table) == 21 else 5e-5)


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(0, 60), SENSIBLE)
def test_against_a_net_that_is_always_correct_the_interval_is_that_of_independent_proportions(both, only_ours, level):
    n = both + only_ours
    theirs = confint_proportions_2indep(n, n, both, n, method="newcomb", compare="diff", alpha=1 - level)
    assert mcnemar(*images(both, only_ours, 0, 0), level).interval == pytest.approx(theirs, abs=1e-9)


def test_the_continuity_correction_sets_a_weak_correlation_to_0():
    theirs = confint_proportions_2indep(5, 10, 5, 10, method="newcomb", compare="diff")
    assert mcnemar(*images(3, 2, 2, 3)).interval == pytest.approx(theirs)


def test_nets_that_are_correct_on_opposite_images_have_the_sum_of_both_widths():
    half = wilson(5, 10)[1][1] - 0.5  # phi = -1: sqrt(h^2 + h^2 + 2h^2)
    assert mcnemar(*images(0, 5, 5, 0)).interval == pytest.approx((-2 * half, 2 * half))


def test_nets_that_are_correct_on_the_same_images_have_a_narrow_interval():
    half = wilson(5, 10)[1][1] - 0.5  # phi = (25 - 10 / 2) / 25
    width = half * np.sqrt(2 - 2 * 0.8)
    assert mcnemar(*images(5, 0, 0, 5)).interval == pytest.approx((-width, width))


@settings(deadline=None)
@given(TABLES, SENSIBLE)
def test_the_interval_of_mcnemar_contains_the_point_and_mirrors_for_swapped_nets(table, level):
    found, mirrored = (mcnemar(*sides, level) for sides in (images(*table), images(*table)[::-1]))
    low, high = found.interval
    assert -1 <= low <= found.point <= high <= 1
    assert mirrored.interval == pytest.approx((-high, -low), abs=1e-12)


@pytest.mark.parametrize("bad", [[], [0.5, 1], [nan, 1], [[1, 0], [0, 1]]])
def test_values_that_are_neither_correct_nor_wrong_are_refused(bad):
    with pytest.raises(ValueError, match="expected"):
        mcnemar(bad, bad)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=60))
def test_the_sign_test_is_the_binomial_test_of_scipy_on_the_images_that_differ(seeds_correct):
    ours, theirs = np.array(seeds_correct).T
    ahead, behind = (ours > theirs).sum(), (ours < theirs).sum()
    expected = binomtest(ahead, ahead + behind).pvalue if ahead + behind else 1.0
    assert sign_test(ours / 5, theirs / 5) == pytest.approx(expected)


def test_fractions_that_are_equal_up_to_rounding_count_as_equal():
    assert sign_test([0.1 + 0.2] * 50, [0.3] * 50) == 1


@settings(deadline=None)
@given(TABLES)
def test_for_one_seed_the_sign_test_is_that_of_mcnemar(table):
    ours, theirs = images(*table)
    assert sign_test(np.array(ours, float), np.array(theirs, float)) == mcnemar(ours, theirs).p
