"""Main effects and interactions against scipy, statsmodels and hand computation."""

from __future__ import annotations

import statistics
from itertools import product

import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from cnnbench.report.analysis.main_effects import baseline_level, compared_levels, is_full_grid, levels
from made_reviews import review_of

ALONE = (0.80, 0.82, 0.81, 0.85, 0.83)
GRID = {
    ("a", 0.1): (0.70, 0.72, 0.71),
    ("a", 0.2): (0.74, 0.77, 0.73),
    ("b", 0.1): (0.80, 0.83, 0.80),
    ("b", 0.2): (0.80, 0.80, 0.83),
}


def grid_of(values=GRID, **record):
    return review_of([({"model": model, "lr": lr}, accuracies) for (model, lr), accuracies in values.items()], **record)


def test_a_main_effect_is_the_mean_over_the_other_factor_by_seed():
    effects = {effect.key: effect for effect in grid_of().effects}
    by_seed = [
        statistics.mean(GRID["b", lr][seed] - GRID["a", lr][seed] for lr in (0.1, 0.2)) for seed in range(3)
    ]  # fmt: skip
    expected = stats.ttest_1samp(by_seed, 0)
    assert effects["model"].difference.point == pytest.approx(statistics.mean(by_seed))
    assert effects["model"].difference.interval == pytest.approx(tuple(expected.confidence_interval()))
    assert effects["model"].others == ("lr",)


def test_main_effects_are_corrected_for_each_other():
    effects = grid_of().effects
    expected = multipletests([effect.difference.p for effect in effects], method="holm")[1]
    assert [effect.p for effect in effects] == pytest.approx(list(expected))


def test_an_interaction_is_the_difference_of_two_differences():
    (interaction,) = grid_of().interactions
    values = [(GRID["b", 0.2][s] - GRID["a", 0.2][s]) - (GRID["b", 0.1][s] - GRID["a", 0.1][s]) for s in range(3)]
    assert interaction.difference.point == pytest.approx(statistics.mean(values))
    assert interaction.difference.p == pytest.approx(stats.ttest_1samp(values, 0).pvalue)


def test_a_main_effect_excludes_seeds_that_one_cell_lacks():
    lacking = {**GRID, ("b", 0.2): (0.80, None, 0.83)}
    assert {effect.difference.n for effect in grid_of(lacking).effects} == {2}


def test_main_effects_are_against_the_stated_level():
    effects = grid_of(baseline={"model": "b", "lr": 0.2}).effects
    assert [(effect.level, effect.base) for effect in effects] == [("a", "b"), (0.1, 0.2)]


def test_an_incomplete_grid_has_no_main_effects():
    assert review_of([({"model": "a", "lr": 0.1}, ALONE), ({"model": "b", "lr": 0.2}, ALONE)]).effects == []


def test_cells_whose_keys_differ_have_no_main_effects():
    assert (
        review_of(
            [({"model": "a", "lr": 0.1}, ALONE), ({"model": "b"}, ALONE), ({"lr": 0.2}, ALONE), ({}, ALONE)]
        ).effects
        == []
    )


def test_a_key_with_one_level_is_not_averaged_over():
    cells = [({"model": model, "lr": lr, "epochs": 5}, ALONE) for model, lr in product("ab", (0.1, 0.2))]
    assert {effect.others for effect in review_of(cells).effects} == {("lr",), ("model",)}


def test_three_factors_have_main_effects_but_no_interactions():
    cells = [({"a": a, "b": b, "c": c}, ALONE) for a, b, c in product((0, 1), repeat=3)]
    found = review_of(cells)
    assert (len(found.effects), found.interactions) == (3, [])


def cells_of(*settings):
    return review_of([(setting, [0.5]) for setting in settings]).cells


def test_levels_are_in_the_order_of_the_cells():
    assert levels(cells_of({"lr": 0.2}, {"lr": 0.1}, {"lr": 0.2, "model": "a"}), "lr") == [0.2, 0.1]


@pytest.mark.parametrize(
    ("settings", "full"),
    [
        ([{"a": 0, "b": 0}, {"a": 0, "b": 1}, {"a": 1, "b": 0}, {"a": 1, "b": 1}], True),
        ([{"a": 0, "b": 0}, {"a": 0, "b": 1}, {"a": 1, "b": 0}], False),
        ([{"a": 0, "b": 0}, {"a": 1, "b": 0}], False),
        ([{"a": 0, "b": 0}, {"a": 0}], False),
    ],
)
def test_a_full_grid_has_a_cell_for_each_combination_of_at_least_two_factors(settings, full):
    assert is_full_grid(cells_of(*settings), ["a", "b"]) == full


@pytest.mark.parametrize(("baseline", "level", "other"), [({}, 1, 2), ({"lr": 2}, 2, 1), ({"lr": 3}, 1, 2)])
def test_the_baseline_level_is_the_stated_one_if_it_occurs_else_the_first(baseline, level, other):
    found = review_of([({"lr": 1}, [0.5]), ({"lr": 2}, [0.5])], baseline=baseline)
    assert baseline_level(found.cells, found.runs, "lr") == level
    assert compared_levels(found.cells, found.runs) == [("lr", other)]


def test_a_grid_in_which_one_level_shares_only_one_seed_has_no_main_effects():
    lacking = {**GRID, ("b", 0.2): (0.80, None, None)}
    assert grid_of(lacking).effects == []
