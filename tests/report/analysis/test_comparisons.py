"""The numbers of a review against scipy, statsmodels and hand computation, on folders made for it."""

from __future__ import annotations

import statistics
from itertools import combinations, product

import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

import made_sweeps as made
from cnnbench.report.analysis.comparisons import review
from cnnbench.report.load.sweep import read
from report_of import reviewed

A, B, C = ({"model": model} for model in "abc")
ALONE = (0.80, 0.82, 0.81, 0.85, 0.83)


# ---- a cell ------------------------------------------------------------------------------------------------------------------


def test_a_cells_mean_deviation_and_interval_are_students():
    (cell,) = reviewed([(A, ALONE)]).cells
    assert (cell.n, cell.mean) == (5, pytest.approx(0.822))
    assert cell.sd == pytest.approx(statistics.stdev(ALONE))
    assert cell.interval == pytest.approx(stats.t.interval(0.95, 4, statistics.mean(ALONE), stats.sem(ALONE)))


def test_a_failed_run_is_counted_and_not_averaged():
    (cell,) = reviewed([(A, [0.8, None, 0.9])]).cells
    assert (cell.n, len(cell.runs), cell.mean) == (2, 3, pytest.approx(0.85))


def test_one_seed_has_neither_deviation_nor_interval():
    (cell,) = reviewed([(A, [0.8])]).cells
    assert (cell.mean, cell.sd, cell.interval) == (0.8, None, None)


def test_a_cell_of_failures_has_no_mean():
    assert reviewed([(A, [None, None])]).cells[0].mean is None


def test_an_interval_ends_where_accuracies_do():
    (cell,) = reviewed([(A, [0.99, 1.0, 0.95])]).cells
    assert cell.interval[1] == 1.0
    assert cell.interval[0] == pytest.approx(stats.t.interval(0.95, 2, 0.98, stats.sem([0.99, 1.0, 0.95]))[0])


def test_a_cells_cost_is_the_mean_of_its_finished_runs(tmp_path):
    outcomes = {seed: {"result": {"time": {"fit_s": fit_s}}} for seed, fit_s in enumerate((10.0, 20.0))}
    cells = [(A, {**outcomes, 2: "failed", 3: {"result": {"time": {"fit_s": float("nan")}}}})]
    (cell,) = review(read(made.sweep(tmp_path / "s", cells))).cells
    assert cell.fact("time", "fit_s") == 15.0
    assert cell.fact("time", "wait_s") is None


# ---- against the baseline ----------------------------------------------------------------------------------------------------


def test_a_difference_is_paired_by_seed_as_scipy_does_it():
    ours = (0.83, 0.86, 0.82, 0.86, 0.88)
    cell = reviewed([(A, ALONE), (B, ours)]).cells[1]
    theirs = stats.ttest_rel(ours, ALONE)
    assert cell.difference.point == pytest.approx(statistics.mean(ours) - statistics.mean(ALONE))
    assert cell.difference.interval == pytest.approx(tuple(theirs.confidence_interval()))
    assert cell.p == pytest.approx(theirs.pvalue)


def test_a_difference_uses_the_seeds_that_both_have():
    cells = [(A, {0: 0.5, 1: 0.6, 2: 0.7, 3: 0.1}), (B, {1: 0.65, 2: 0.72, 0: 0.59, 9: 0.99})]
    cell = reviewed(cells).cells[1]
    theirs = stats.ttest_rel([0.59, 0.65, 0.72], [0.5, 0.6, 0.7])
    assert (cell.difference.n, cell.paired) == (3, True)
    assert cell.difference.p == pytest.approx(theirs.pvalue)


def test_cells_without_common_seeds_are_compared_as_welch_does():
    ours, theirs = [0.9, 0.92, 0.85], [0.8, 0.7]
    cell = reviewed([(A, dict(enumerate(theirs))), (B, dict(enumerate(ours, 10)))]).cells[1]
    wanted = stats.ttest_ind(ours, theirs, equal_var=False)
    assert not cell.paired
    assert cell.difference.p == pytest.approx(wanted.pvalue)
    assert cell.difference.interval == pytest.approx(tuple(wanted.confidence_interval()))


def test_p_values_are_holms_over_all_cells():
    ours = {
        "b": (0.83, 0.86, 0.82, 0.86, 0.88),
        "c": (0.81, 0.80, 0.82, 0.84, 0.84),
        "d": (0.9, 0.91, 0.93, 0.94, 0.92),
    }
    cells = reviewed([(A, ALONE), *(({"model": name}, values) for name, values in ours.items())]).cells
    wanted = multipletests([stats.ttest_rel(values, ALONE).pvalue for values in ours.values()], method="holm")[1]
    assert [cell.p for cell in cells[1:]] == pytest.approx(list(wanted))


def test_one_seed_each_gives_a_difference_and_no_p():
    cell = reviewed([(A, [0.8]), (B, [0.9])]).cells[1]
    assert (cell.difference.point, cell.difference.interval, cell.p) == (pytest.approx(0.1), None, None)


def test_the_stated_baseline_is_compared_with_wherever_it_stands():
    found = reviewed([(A, ALONE), (B, ALONE), (C, ALONE)], baseline={"model": "c"})
    assert found.stated
    assert [cell.base for cell in found.cells] == [2, 2, None]


def test_a_baseline_of_one_factor_is_met_at_the_same_level_of_the_other():
    cells = [({"model": model, "lr": lr}, ALONE) for model, lr in product("ab", (0.1, 0.01))]
    assert [cell.base for cell in reviewed(cells, baseline={"model": "a"}).cells] == [None, None, 0, 1]


def test_without_a_baseline_it_is_the_first_cell_with_results():
    found = reviewed([(A, [None]), (B, ALONE), (C, ALONE)])
    assert not found.stated
    assert [cell.base for cell in found.cells] == [1, None, 1]


def test_a_baseline_that_is_no_cell_is_not_stated():
    found = reviewed([(A, ALONE), (B, ALONE)], baseline={"model": "z"})
    assert (found.stated, [cell.base for cell in found.cells]) == (False, [None, 0])


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_difference_is_what_pandas_makes_of_the_table(data):
    accuracies = st.integers(0, 1000).map(lambda right: right / 1000)
    values = {name: data.draw(st.dictionaries(st.integers(0, 4), accuracies, min_size=1)) for name in "ab"}
    cell = reviewed([(A, values["a"]), (B, values["b"])]).cells[1]
    apart = pandas.DataFrame(values).dropna()
    wanted = (
        (apart["b"] - apart["a"]).mean()
        if cell.paired
        else pandas.Series(values["b"]).mean() - pandas.Series(values["a"]).mean()
    )
    if cell.difference is None:
        assert apart.empty
    else:
        assert cell.difference.point == pytest.approx(wanted)


# ---- the best ----------------------------------------------------------------------------------------------------------------


def test_the_highest_mean_is_best_and_what_cannot_be_told_from_it_is_alike():
    cells = reviewed([(A, (0.5, 0.51, 0.52)), (B, (0.901, 0.912, 0.921)), (C, (0.91, 0.90, 0.93))]).cells
    assert [(cell.best, cell.alike) for cell in cells] == [(False, False), (False, True), (True, False)]


def test_alike_is_what_no_test_tells_from_the_best_corrected_for_every_pair():
    values = {
        "a": (0.80, 0.81, 0.83, 0.82),
        "b": (0.82, 0.825, 0.835, 0.84),
        "c": (0.83, 0.85, 0.84, 0.86),
        "d": (0.80, 0.86, 0.84, 0.85),
    }
    cells = reviewed([({"model": name}, own) for name, own in values.items()]).cells
    pairs = len(list(combinations(values, 2)))
    for name, cell in zip(values, cells, strict=True):
        if name != "c":
            assert cell.alike == (stats.ttest_rel(values["c"], values[name]).pvalue * pairs >= 0.05)


def test_one_seed_each_tells_nothing_from_the_best():
    assert [cell.alike for cell in reviewed([(A, [0.1]), (B, [0.9])]).cells] == [True, False]


def test_a_cell_without_results_is_neither_best_nor_alike():
    cells = reviewed([(A, ALONE), (B, ALONE), (C, [None])]).cells
    assert (cells[2].best, cells[2].alike) == (False, False)


def test_a_cell_alone_is_not_called_the_best():
    assert not reviewed([(A, ALONE), (B, [None])]).cells[0].best


# ---- several factors ---------------------------------------------------------------------------------------------------------

GRID = {
    ("a", 0.1): (0.70, 0.72, 0.71),
    ("a", 0.2): (0.74, 0.77, 0.73),
    ("b", 0.1): (0.80, 0.83, 0.80),
    ("b", 0.2): (0.80, 0.80, 0.83),
}


def grid_of(values=GRID, **asked):
    return reviewed([({"model": model, "lr": lr}, own) for (model, lr), own in values.items()], **asked)


def test_a_main_effect_is_the_mean_over_the_other_factor_by_seed():
    effects = {effect.key: effect for effect in grid_of().effects}
    by_seed = [
        statistics.mean(GRID["b", lr][seed] - GRID["a", lr][seed] for lr in (0.1, 0.2)) for seed in range(3)
    ]  # fmt: skip
    wanted = stats.ttest_1samp(by_seed, 0)
    assert effects["model"].difference.point == pytest.approx(statistics.mean(by_seed))
    assert effects["model"].difference.interval == pytest.approx(tuple(wanted.confidence_interval()))
    assert effects["model"].others == ("lr",)


def test_main_effects_are_corrected_for_each_other():
    effects = grid_of().effects
    wanted = multipletests([effect.difference.p for effect in effects], method="holm")[1]
    assert [effect.p for effect in effects] == pytest.approx(list(wanted))


def test_an_interplay_is_the_difference_of_two_differences():
    (interplay,) = grid_of().interplays
    values = [(GRID["b", 0.2][s] - GRID["a", 0.2][s]) - (GRID["b", 0.1][s] - GRID["a", 0.1][s]) for s in range(3)]
    assert interplay.difference.point == pytest.approx(statistics.mean(values))
    assert interplay.difference.p == pytest.approx(stats.ttest_1samp(values, 0).pvalue)


def test_a_seed_that_one_cell_lacks_is_in_no_main_effect():
    lacking = {**GRID, ("b", 0.2): (0.80, None, 0.83)}
    assert {effect.difference.n for effect in grid_of(lacking).effects} == {2}


def test_effects_are_against_the_stated_level():
    effects = grid_of(baseline={"model": "b", "lr": 0.2}).effects
    assert [(effect.level, effect.base) for effect in effects] == [("a", "b"), (0.1, 0.2)]


def test_cells_that_are_no_whole_grid_have_no_main_effects():
    assert reviewed([({"model": "a", "lr": 0.1}, ALONE), ({"model": "b", "lr": 0.2}, ALONE)]).effects == []


def test_cells_whose_keys_differ_have_no_main_effects():
    assert (
        reviewed(
            [({"model": "a", "lr": 0.1}, ALONE), ({"model": "b"}, ALONE), ({"lr": 0.2}, ALONE), ({}, ALONE)]
        ).effects
        == []
    )


def test_a_key_with_one_level_is_no_factor_to_average_over():
    cells = [({"model": model, "lr": lr, "epochs": 5}, ALONE) for model, lr in product("ab", (0.1, 0.2))]
    assert {effect.others for effect in reviewed(cells).effects} == {("lr",), ("model",)}


def test_three_factors_have_effects_and_no_interplays():
    cells = [({"a": a, "b": b, "c": c}, ALONE) for a, b, c in product((0, 1), repeat=3)]
    found = reviewed(cells)
    assert (len(found.effects), found.interplays) == (3, [])


# ---- how many more -----------------------------------------------------------------------------------------------------------


def test_comparisons_count_what_has_a_p():
    assert reviewed([(A, ALONE), (B, (0.83, 0.86, 0.82)), (C, [0.9])]).comparisons == 1


def test_more_comparisons_need_more_seeds():
    differences = [0.01, -0.01, 0.02]
    few = reviewed([(A, ALONE), (B, (0.83, 0.86, 0.82))]).settling(differences, 0.01)
    many = reviewed([(A, ALONE), *(({"model": name}, (0.83, 0.86, 0.82)) for name in "bcdef")]).settling(
        differences, 0.01
    )
    assert few[0] < many[0]
    assert few[1] < many[1]


def test_one_seed_cannot_say_how_many_more():
    assert reviewed([(A, [0.8]), (B, [0.9])]).settling([0.1], 0.01) is None
