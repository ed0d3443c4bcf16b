"""The statistics against scipy, statsmodels, scikit-learn and published examples; edge cases; coverage in simulated sweeps."""

from __future__ import annotations

import subprocess
import sys
from math import inf, nan
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.stats import binomtest
from sklearn.calibration import calibration_curve
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.proportion import confint_proportions_2indep
from torchmetrics.functional.classification import binary_calibration_error

from cnnbench.stats import (
    Difference,
    bootstrap_counts,
    calibration,
    ece_interval,
    holm,
    mcnemar,
    mean_interval,
    more_pairs,
    one_sample,
    paired,
    pairs_needed,
    pareto,
    power,
    sign_test,
    welch,
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


ACCURACIES = st.integers(0, 10_000).map(lambda correct: correct / 10_000)
SOME = st.lists(ACCURACIES, min_size=2, max_size=12)
PAIRS = st.lists(st.tuples(ACCURACIES, ACCURACIES), min_size=2, max_size=12)
SENSIBLE = st.floats(0.5, 0.999)


def varied(values):
    return np.std(values) > 1e-6


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


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_is_that_of_statsmodels(p_values):
    with patch("gc.collect"):  # statsmodels calls it each time
        theirs = multipletests(p_values, method="holm")[1]
    assert holm(p_values) == pytest.approx(theirs)


@settings(deadline=None)
@given(st.lists(st.none() | st.floats(0, 1), max_size=20))
def test_holm_keeps_none_and_does_not_count_it(p_values):
    adjusted = holm(p_values)
    assert [p is None for p in adjusted] == [p is None for p in p_values]
    assert [p for p in adjusted if p is not None] == holm([p for p in p_values if p is not None])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_keeps_the_order_of_p_values_and_their_upper_bound_1(p_values):
    in_order = [p for _, p in sorted(zip(p_values, holm(p_values), strict=True))]
    assert in_order == sorted(in_order)
    assert all(p <= adjusted <= 1 for p, adjusted in zip(sorted(p_values), in_order, strict=True))


@pytest.mark.parametrize("p", [-0.1, 1.1, nan])
def test_holm_refuses_numbers_that_are_not_p_values(p):
    with pytest.raises(ValueError, match="expected p values within 0 and 1"):
        holm([0.5, p])


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


@st.composite
def scored(draw):
    predictions = draw(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60))
    return tuple(np.array(side) for side in zip(*predictions, strict=True))


@settings(deadline=None)
@given(scored(), st.integers(1, 20))
def test_the_bins_are_those_of_scikit_learn(predictions, bins):
    confidence, correct = predictions
    found = calibration(confidence, correct, bins)
    accuracy, mean = calibration_curve(correct, confidence, n_bins=bins, strategy="uniform")
    assert [share for share in found.accuracy if share is not None] == pytest.approx(accuracy)
    assert [share for share in found.confidence if share is not None] == pytest.approx(mean)


@settings(deadline=None)
@given(scored(), st.integers(1, 20))
def test_each_image_is_in_one_bin_and_above_its_lower_edge(predictions, bins):
    confidence, correct = predictions
    found = calibration(confidence, correct, bins)
    lower, upper = np.array(found.edges[:-1]), np.array(found.edges[1:])
    inside = (lower < confidence[:, None]) & (confidence[:, None] <= upper)
    inside[confidence == 0, 0] = True
    assert found.count == inside.sum(0).tolist()
    assert [count == 0 for count in found.count] == [mean is None for mean in found.confidence]


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_the_calibration_error_is_that_of_torchmetrics(bins):
    rng = np.random.default_rng(0)
    confidence = rng.uniform(size=500)
    correct = rng.uniform(size=500) < confidence**2
    theirs = binary_calibration_error(torch.tensor(confidence), torch.tensor(correct).int(), n_bins=bins)
    assert calibration(confidence, correct, bins).ece == pytest.approx(float(theirs), abs=1e-6)


def test_the_calibration_error_of_four_images_is_that_computed_by_hand():
    found = calibration([0.6, 0.7, 0.9, 1.0], [1, 0, 1, 1], bins=4)
    assert found.edges == [0, 0.25, 0.5, 0.75, 1]
    assert found.count == [0, 0, 2, 2]
    assert found.confidence == [None, None, pytest.approx(0.65), pytest.approx(0.95)]
    assert found.accuracy == [None, None, 0.5, 1]
    assert found.ece == pytest.approx((2 * 0.15 + 2 * 0.05) / 4)


@pytest.mark.parametrize(
    ("confidence", "correct", "bins"),
    [
        ([1.1], [1], 15),
        ([-0.1], [1], 15),
        ([-0.1, 0.5], [1, 0], 15),
        ([nan], [1], 15),
        ([0.5], [2], 15),
        ([], [], 15),
        ([0.5], [1], 0),
        ([0.5], [1, 0], 15),
    ],
)
def test_values_that_are_not_confidences_are_refused(confidence, correct, bins):
    with pytest.raises(ValueError, match="expected"):
        calibration(confidence, correct, bins)


def overconfident(images, seed=0):
    """Confidence and correctness of a net whose accuracy is 0.2 below its confidence."""
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0.5, 1, images)
    return confidence, rng.uniform(size=images) < confidence - 0.2


def test_the_interval_of_the_calibration_error_is_the_bootstrap_of_scipy():
    confidence, correct = overconfident(300)
    theirs = stats.bootstrap(
        (confidence, correct), lambda *sample: calibration(*sample).ece, paired=True, vectorized=False,
        method="percentile", n_resamples=3000, random_state=np.random.default_rng(1),
    ).confidence_interval  # fmt: skip
    point, interval = ece_interval(confidence, correct, bootstrap_counts(300, np.random.default_rng(2), 3000))
    assert point == calibration(confidence, correct).ece
    assert interval == pytest.approx(tuple(theirs), abs=0.005)


def test_the_same_generator_gives_the_same_interval():
    first, again, other = (
        ece_interval(*overconfident(100), bootstrap_counts(100, np.random.default_rng(seed))) for seed in (0, 0, 1)
    )
    assert first == again != other


def test_equal_runs_do_not_narrow_the_interval_of_the_calibration_error():
    confidence, correct = overconfident(100)
    drawn = bootstrap_counts(100, np.random.default_rng(0))
    thrice = ece_interval(np.stack([confidence] * 3), np.stack([correct] * 3), drawn)
    assert thrice[1] == pytest.approx(ece_interval(confidence, correct, drawn)[1], rel=1e-4)


def test_a_bootstrap_sample_has_as_many_images_as_the_test_split():
    assert set(bootstrap_counts(50, np.random.default_rng(0), 20).sum(1)) == {50}


@pytest.mark.parametrize(("images", "draws"), [(0, 1), (1, 0)])
def test_an_empty_bootstrap_is_refused(images, draws):
    with pytest.raises(ValueError, match="at least 1 draw"):
        bootstrap_counts(images, np.random.default_rng(0), draws)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=12))
def test_the_front_is_the_best_value_of_each_cost_if_it_beats_all_lower_costs(points):
    front = [
        best == max(value for cost, value in points if cost == price)
        and all(value < best for cost, value in points if cost < price)
        for price, best in points
    ]
    assert pareto([cost for cost, _ in points], [value for _, value in points]) == front


def test_equal_points_are_all_on_the_pareto_front():
    assert pareto([1, 1, 2, 2], [0.9, 0.9, 0.8, 0.95]) == [True, True, False, True]


@pytest.mark.parametrize(("costs", "values"), [([1, 2], [1]), ([nan], [1]), ([1], [inf])])
def test_points_that_are_not_finite_pairs_are_refused(costs, values):
    with pytest.raises(ValueError, match=r"finite|shorter"):
        pareto(costs, values)


def loaded(code):
    """The scientific packages that code imports."""
    check = f"{code}; import sys; print(*sorted({{'numpy', 'scipy.special', 'scipy.stats'}} & sys.modules.keys()))"
    return subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True).stdout.split()


def test_wilson_loads_neither_numpy_nor_scipy():
    assert loaded("from cnnbench.stats import wilson; wilson(3, 10)") == []


def test_a_t_test_does_not_load_scipy_stats():
    code = "from cnnbench import stats; stats.paired([1, 2], [2, 4]); stats.more_pairs([1, 2], 1)"
    assert loaded(code) == ["numpy", "scipy.special"]


SWEEPS = 2000


@pytest.mark.slow
@pytest.mark.parametrize("n", [3, 5, 10])
def test_paired_intervals_contain_the_true_difference_in_95_percent_of_sweeps(n):
    rng, true = np.random.default_rng(n), 0.01
    seeds = rng.normal(0.9, 0.02, (SWEEPS, n))
    ours, theirs = (seeds + shift + rng.normal(0, 0.01, (SWEEPS, n)) for shift in (true, 0))
    intervals = (paired(*groups).interval for groups in zip(ours, theirs, strict=True))
    held = sum(low <= true <= high for low, high in intervals)
    assert held / SWEEPS == pytest.approx(0.95, abs=0.015)


@pytest.mark.slow
def test_a_false_claim_about_ten_equal_groups_is_made_in_at_most_5_percent_of_sweeps():
    rng = np.random.default_rng(0)
    accuracies = rng.normal(0.9, 0.02, (SWEEPS, 1, 5)) + rng.normal(0, 0.01, (SWEEPS, 10, 5))
    claims = 0
    for baseline, *others in accuracies:
        claims += min(holm([paired(other, baseline).p for other in others])) < 0.05
    assert claims / SWEEPS <= 0.065


@pytest.mark.slow
@pytest.mark.parametrize("n", [3, 5, 10])
def test_the_upper_bound_of_more_pairs_has_the_power_in_80_percent_of_pilot_studies(n):
    deviation, settle = 0.01, 0.005
    pilots = np.random.default_rng(n).normal(0.002, deviation, (SWEEPS, n))
    enough = sum(power(n + more_pairs(pilot, settle)[1], settle, deviation) >= 0.8 for pilot in pilots)
    assert enough / SWEEPS >= 0.8
