"""The answer: each sentence says what its numbers carry, and no more."""

from __future__ import annotations

import re
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import made_sweeps as made
from cnnbench.report.analysis import conclusions as words
from cnnbench.report.analysis.comparisons import review
from cnnbench.report.analysis.conclusions import answer, more_seeds, some
from cnnbench.report.analysis.limitations import limits
from cnnbench.report.load.sweep import read
from cnnbench.report.number_format import p_value, points, signed
from report_of import reviewed

A, B, C, D = ({"model": model} for model in "abcd")
BASE = (0.80, 0.82, 0.81, 0.83, 0.84)
BETTER = (0.85, 0.88, 0.86, 0.87, 0.90)
SAME = (0.81, 0.81, 0.83, 0.82, 0.83)


# ---- numbers in words --------------------------------------------------------------------------------------------------------


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
def test_points_have_a_digit_and_small_ones_two(value, text):
    assert points(value) == text


@pytest.mark.parametrize(("value", "text"), [(0.019, "+1.9"), (-0.019, "-1.9"), (0.0, "0.0"), (0.0000001, "0.0")])
def test_a_difference_in_a_table_has_its_sign(value, text):
    assert signed(value) == text


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
def test_p_values_have_three_digits_and_more_where_those_would_hide_on_which_side_they_are(p, text):
    assert p_value(p) == text


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (6, 20, "between 6 and 20 more seeds"),
        (1, 1, "1 more seed"),
        (0, 4, "up to 4 more seeds"),
        (0, 1, "up to 1 more seed"),
    ],
)
def test_how_many_more_seeds_is_said_as_one_would(low, high, text):
    assert more_seeds(low, high) == text


def test_of_many_names_some_are_told():
    assert some(list("abcdef")) == "a, b, c, d and 2 more"


# ---- one cell ----------------------------------------------------------------------------------------------------------------


def test_one_run_alone_has_an_accuracy_and_no_interval():
    assert answer(reviewed([(A, [0.8])])) == [
        "a has a test accuracy of 0.8000 in one run; how far seeds scatter is not known."
    ]


def test_several_seeds_of_one_cell_have_an_interval():
    assert answer(reviewed([(A, BASE)])) == [
        "a has a test accuracy of 0.8200 (95 % interval 0.8004 to 0.8396, 5 seeds)."
    ]


def test_runs_that_come_out_equal_are_not_called_one_run():
    assert "in each of 3 runs" in answer(reviewed([(A, [0.8, 0.8, 0.8])]))[0]


def test_before_any_run_is_done_nothing_is_known():
    assert answer(reviewed([(A, [None]), (B, [None])])) == ["Nothing is known yet: none of 2 runs is done."]


# ---- against a baseline ------------------------------------------------------------------------------------------------------


def test_a_difference_that_is_certain_is_said_with_size_interval_and_seeds():
    (told,) = answer(reviewed([(A, BASE), (B, BETTER)]))
    # differences 5 6 5 4 6 points: mean 5.2, sd sqrt(0.7), t 2.776
    assert (
        told == "b raises test accuracy by 5.2 points against a (95 % interval 4.2 to 6.2, 5 paired seeds, p < 0.001)."
    )


def test_a_loss_is_called_one():
    assert answer(reviewed([(A, BETTER), (B, BASE)]))[0].startswith("b lowers test accuracy by 5.2 points against a")


def test_an_undecided_difference_says_what_would_settle_it():
    (told,) = answer(reviewed([(A, BASE), (B, (0.83, 0.79, 0.84, 0.82, 0.88))]))
    assert told.startswith("Undecided whether b differs from a in test accuracy: 1.2 points more (95 % interval ")
    assert re.search(r"; between \d+ and \d+ more seeds would settle a difference of 1 point\.$", told)


def test_an_interval_within_a_point_says_that_it_holds_none():
    (told,) = answer(
        reviewed(
            [(A, BASE), (B, [value + shift for value, shift in zip(BASE, (1e-3, -1e-3, 2e-3, -2e-3, 0), strict=True)])]
        )
    )
    assert told.endswith(
        "no difference seen (95 % interval -0.2 to 0.2, 5 paired seeds, p 1.000); the interval holds no difference as large as 1 point."
    )


def test_equal_results_are_told_as_seen():
    assert answer(reviewed([(A, BASE), (B, BASE)])) == ["b and a come to the same test accuracy (5 paired seeds)."]


def test_one_seed_says_nothing_of_chance():
    (told,) = answer(reviewed([(A, [0.1]), (B, [0.9])]))
    assert told == (
        "Undecided whether b differs from a in test accuracy: 80.0 points more (no interval, 1 paired seed); "
        "one seed says nothing of chance: run at least three."
    )


def test_one_seed_that_comes_out_equal_is_neither_more_nor_less():
    assert "no difference seen (no interval, 1 paired seed)" in answer(reviewed([(A, [0.5]), (B, [0.5])]))[0]


def test_seeds_that_all_differ_by_the_same_settle_nothing():
    (told,) = answer(reviewed([(A, (0.5, 0.6)), (B, (0.7, 0.8))]))
    assert told.startswith("Undecided")
    assert "all seeds differ by the same" in told


def test_cells_without_common_seeds_are_told_to_get_them():
    (told,) = answer(reviewed([(A, {0: 0.5, 1: 0.6}), (B, {2: 0.7, 3: 0.5})]))
    assert "seeds not paired, 2 or more each" in told
    assert told.endswith("run the same seeds in both.")


def test_the_correction_counts_the_comparisons_that_have_a_p():
    told = answer(reviewed([(A, BASE), (B, BETTER), (C, BETTER), (D, [0.9])]))
    assert "after Holm over 2 comparisons" in told[0]


def test_what_is_certain_comes_first_the_largest_difference_first():
    told = answer(reviewed([(A, BASE), (B, SAME), (C, BETTER), (D, [0.01 + value for value in BETTER])]))
    assert [sentence.partition(" ")[0] for sentence in told] == ["d", "c", "Undecided"]


def test_many_undecided_are_one_sentence_with_their_sizes():
    told = answer(reviewed([(A, BASE), *(({"model": name}, SAME) for name in "bcd")]))
    assert len(told) == 1
    assert told[0].startswith(
        "Undecided whether they differ from the baseline: b (0.0 points, 95 % interval -1.8 to 1.8), c (0.0 points, "
    )
    assert ", 5 seeds each; between " in told[0]


def test_what_settles_several_settles_the_widest_of_them():
    wide = (0.70, 0.95, 0.75, 0.90, 0.85)
    cells = [(A, BASE), (B, SAME), (C, SAME), (D, wide)]
    found = reviewed(cells)
    low, high = found.settling(words.differences(found.cells[3], found.cells[0]), 0.01)
    assert f"between {low:,} and {high:,} more seeds" in answer(found)[0]


def test_a_baseline_without_results_leaves_nothing_to_compare_one_cell_with():
    told = answer(reviewed([(A, [None]), (B, BASE)], baseline=A))
    assert told == ["Undecided: no two cells have results that can be compared; no result of a."]


def test_where_the_stated_baseline_has_no_result_the_others_are_compared_all_the_same():
    (told,) = answer(reviewed([(A, [None]), (B, BASE), (C, BETTER)], baseline=A))
    assert told.startswith("c raises test accuracy by 5.2 points against b (95 % interval")


@pytest.mark.parametrize("last", [None, 0.9])
def test_three_factors_are_answered_whether_all_is_done_or_not(last):
    cells = [({"model": m, "lr": lr, "epochs": e}, [0.5, 0.6, 0.72]) for m, lr, e in product("ab", (1, 2), (3, 4))]
    cells[-1] = (cells[-1][0], [last] * 3)
    assert answer(reviewed(cells))


def test_a_grid_with_a_hole_is_answered_cell_by_cell():
    cells = [({"model": m, "lr": lr}, BASE if m == "a" else BETTER) for m, lr in product("ab", (1, 2))]
    cells[-1] = (cells[-1][0], [None] * 5)
    assert answer(reviewed(cells))[0].startswith("b raises test accuracy by 5.2 points against a (")


def test_where_all_cells_have_but_one_seed_in_common_the_missing_runs_are_asked_for():
    seeds = ({0: 0.5, 1: 0.6}, {0: 0.6, 2: 0.7}, {0: 0.7, 1: 0.6}, {0: 0.6, 2: 0.8})
    cells = [({"model": m, "lr": lr}, found) for (m, lr), found in zip(product("ab", (1, 2)), seeds, strict=True)]
    found = reviewed(cells)
    assert "on average over" not in " ".join(answer(found))
    assert "Only one seed is done in all cells, so main effects are not known: run what is missing." in limits(found)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(st.integers(700, 900).map(lambda right: right / 1000), min_size=1, max_size=5), min_size=2, max_size=5
    )
)
def test_no_sentence_claims_what_its_interval_does_not_carry(values):
    for sentence in answer(reviewed([({"model": name}, own) for name, own in zip("abcde", values, strict=False)])):
        if " raises " in sentence or " lowers " in sentence:
            low, high = map(float, re.search(r"interval (\S+) to ([^,]+),", sentence).groups())
            assert (low >= 0) if " raises " in sentence else (high <= 0)  # 0.0 may be what 0.04 is rounded to
            assert float(re.search(r"p (?:< )?([0-9.]+)", sentence)[1]) < 0.0505


# ---- several factors ---------------------------------------------------------------------------------------------------------


def grid(twist=0.0):
    """Two nets at two rates: b is 5 points better, by `twist` more so at the second rate, of which the seeds scatter otherwise."""

    def accuracy(model, lr, seed):
        ours = 0.05 + twist * (lr == 0.2) if model == "b" else 0.0
        return BASE[seed] + ours + 0.001 * (seed * 7 % 5) * (lr == 0.2)

    return [
        ({"model": model, "optimizer.lr": lr}, [accuracy(model, lr, seed) for seed in range(5)])
        for model, lr in product("ab", (0.1, 0.2))
    ]


def test_main_effects_are_on_average_over_the_other_factor():
    cells = grid()
    cells[3][1][0] += 0.002
    told = answer(reviewed(cells))
    # 5 points at each rate, and 0.2 more of one of five seeds at one of two
    assert told[0].startswith("b raises test accuracy by 5.0 points against a, on average over lr (95 % interval ")
    assert told[0].endswith(", 5 paired seeds, p < 0.001 after Holm over 2 comparisons).")


def test_an_interplay_that_is_certain_names_both_levels():
    cells = grid(twist=0.03)
    cells[3][1][0] += 0.001
    told = answer(reviewed(cells))
    assert told[-1].startswith(
        "The factors interact: the effect of b is 3.0 points higher at lr 0.2 than at lr 0.1 (95 % interval "
    )


def test_an_effect_that_is_the_same_everywhere_is_told_as_seen():
    values = {("a", 0.1): (0.5, 0.75), ("a", 0.2): (0.5, 0.75), ("b", 0.1): (0.75, 0.875), ("b", 0.2): (0.75, 0.875)}
    told = answer(reviewed([({"model": model, "lr": lr}, own) for (model, lr), own in values.items()]))
    assert told[-1] == "In these runs the effect of b is the same at every lr (2 paired seeds)."


def test_many_undecided_effects_are_one_sentence():
    cells = [
        ({"model": model, "lr": lr}, SAME if model == "a" else BASE)
        for model, lr in product("ab", (0.1, 0.2, 0.3, 0.4))
    ]
    told = answer(reviewed(cells))
    assert len(told) == 2  # these, and the interplay
    assert told[0].startswith("Undecided, on average over the other factors: ")


def test_the_answer_of_a_made_folder_is_that_of_its_numbers(tmp_path):
    folder = made.sweep(tmp_path / "s", [(A, dict(enumerate(BASE))), (B, dict(enumerate(BETTER)))])
    assert answer(review(read(folder))) == answer(reviewed([(A, BASE), (B, BETTER)]))
