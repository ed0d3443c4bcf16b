"""The findings of a review against scipy, statsmodels and hand computation."""

from __future__ import annotations

import statistics
from itertools import combinations, product

import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from made_reviews import review_of

A, B, C = ({"model": model} for model in "abc")
ALONE = (0.80, 0.82, 0.81, 0.85, 0.83)


# ---- against the baseline -------------------------------------------------------------------------------------------------


def test_the_difference_from_the_baseline_is_the_paired_test_of_scipy():
    ours = (0.83, 0.86, 0.82, 0.86, 0.88)
    cell = review_of([(A, ALONE), (B, ours)]).cells[1]
    theirs = stats.ttest_rel(ours, ALONE)
    assert cell.difference.point == pytest.approx(statistics.mean(ours) - statistics.mean(ALONE))
    assert cell.difference.interval == pytest.approx(tuple(theirs.confidence_interval()))
    assert cell.p == pytest.approx(theirs.pvalue)


def test_the_difference_from_the_baseline_uses_the_shared_seeds():
    cells = [(A, {0: 0.5, 1: 0.6, 2: 0.7, 3: 0.1}), (B, {1: 0.65, 2: 0.72, 0: 0.59, 9: 0.99})]
    cell = review_of(cells).cells[1]
    theirs = stats.ttest_rel([0.59, 0.65, 0.72], [0.5, 0.6, 0.7])
    assert (cell.difference.n, cell.difference.paired) == (3, True)
    assert cell.difference.p == pytest.approx(theirs.pvalue)


def test_cells_without_shared_seeds_are_compared_by_welch():
    ours, theirs = [0.9, 0.92, 0.85], [0.8, 0.7]
    cell = review_of([(A, dict(enumerate(theirs))), (B, dict(enumerate(ours, 10)))]).cells[1]
    expected = stats.ttest_ind(ours, theirs, equal_var=False)
    assert not cell.difference.paired
    assert cell.difference.p == pytest.approx(expected.pvalue)
    assert cell.difference.interval == pytest.approx(tuple(expected.confidence_interval()))


def test_p_values_are_corrected_over_all_cells():
    ours = {
        "b": (0.83, 0.86, 0.82, 0.86, 0.88),
        "c": (0.81, 0.80, 0.82, 0.84, 0.84),
        "d": (0.9, 0.91, 0.93, 0.94, 0.92),
    }
    cells = review_of([(A, ALONE), *(({"model": name}, values) for name, values in ours.items())]).cells
    expected = multipletests([stats.ttest_rel(values, ALONE).pvalue for values in ours.values()], method="holm")[1]
    assert [cell.p for cell in cells[1:]] == pytest.approx(list(expected))


def test_one_seed_each_gives_a_difference_without_p():
    cell = review_of([(A, [0.8]), (B, [0.9])]).cells[1]
    assert (cell.difference.point, cell.difference.interval, cell.p) == (pytest.approx(0.1), None, None)


def test_the_stated_baseline_may_be_any_cell():
    found = review_of([(A, ALONE), (B, ALONE), (C, ALONE)], baseline={"model": "c"})
    assert found.baseline_stated
    assert [cell.base for cell in found.cells] == [2, 2, None]


def test_a_baseline_of_one_factor_compares_at_equal_levels_of_the_other():
    cells = [({"model": model, "lr": lr}, ALONE) for model, lr in product("ab", (0.1, 0.01))]
    assert [cell.base for cell in review_of(cells, baseline={"model": "a"}).cells] == [None, None, 0, 1]


def test_without_a_stated_baseline_it_is_the_first_cell_with_results():
    found = review_of([(A, [None]), (B, ALONE), (C, ALONE)])
    assert not found.baseline_stated
    assert [cell.base for cell in found.cells] == [1, None, 1]


def test_a_stated_baseline_that_is_not_a_cell_is_replaced():
    found = review_of([(A, ALONE), (B, ALONE)], baseline={"model": "z"})
    assert (found.baseline_stated, [cell.base for cell in found.cells]) == (False, [None, 0])


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_the_difference_is_that_of_pandas(data):
    accuracies = st.integers(0, 1000).map(lambda correct: correct / 1000)
    values = {name: data.draw(st.dictionaries(st.integers(0, 4), accuracies, min_size=1)) for name in "ab"}
    cell = review_of([(A, values["a"]), (B, values["b"])]).cells[1]
    shared = pandas.DataFrame(values).dropna()
    expected = (
        (shared["b"] - shared["a"]).mean()
        if cell.difference is None or cell.difference.paired
        else pandas.Series(values["b"]).mean() - pandas.Series(values["a"]).mean()
    )
    if cell.difference is None:
        assert shared.empty
    else:
        assert cell.difference.point == pytest.approx(expected)


# ---- the best -------------------------------------------------------------------------------------------------------------


def test_cells_that_are_not_significantly_different_from_the_best_are_tied_with_it():
    cells = review_of([(A, (0.5, 0.51, 0.52)), (B, (0.901, 0.912, 0.921)), (C, (0.91, 0.90, 0.93))]).cells
    assert [(cell.best, cell.tied_with_best) for cell in cells] == [(False, False), (False, True), (True, False)]


def test_ties_with_the_best_are_corrected_for_the_number_of_pairs():
    values = {
        "a": (0.80, 0.81, 0.83, 0.82),
        "b": (0.82, 0.825, 0.835, 0.84),
        "c": (0.83, 0.85, 0.84, 0.86),
        "d": (0.80, 0.86, 0.84, 0.85),
    }
    cells = review_of([({"model": name}, accuracies) for name, accuracies in values.items()]).cells
    pairs = len(list(combinations(values, 2)))
    for name, cell in zip(values, cells, strict=True):
        if name != "c":
            assert cell.tied_with_best == (stats.ttest_rel(values["c"], values[name]).pvalue * pairs >= 0.05)


def test_with_one_seed_each_no_cell_differs_significantly_from_the_best():
    assert [cell.tied_with_best for cell in review_of([(A, [0.1]), (B, [0.9])]).cells] == [True, False]


def test_a_cell_without_results_is_neither_best_nor_tied_with_the_best():
    cells = review_of([(A, ALONE), (B, ALONE), (C, [None])]).cells
    assert (cells[2].best, cells[2].tied_with_best) == (False, False)


def test_a_cell_alone_is_not_called_the_best():
    assert not review_of([(A, ALONE), (B, [None])]).cells[0].best


# ---- how many more --------------------------------------------------------------------------------------------------------


def test_the_number_of_comparisons_counts_p_values():
    assert review_of([(A, ALONE), (B, (0.83, 0.86, 0.82)), (C, [0.9])]).number_of_comparisons == 1


def test_more_comparisons_need_more_seeds():
    differences = [0.01, -0.01, 0.02]
    few = review_of([(A, ALONE), (B, (0.83, 0.86, 0.82))]).seeds_needed(differences, 0.01)
    many = review_of([(A, ALONE), *(({"model": name}, (0.83, 0.86, 0.82)) for name in "bcdef")]).seeds_needed(
        differences, 0.01
    )
    assert few[0] < many[0]
    assert few[1] < many[1]


def test_one_seed_gives_no_estimate_of_the_seeds_needed():
    assert review_of([(A, [0.8]), (B, [0.9])]).seeds_needed([0.1], 0.01) is None
