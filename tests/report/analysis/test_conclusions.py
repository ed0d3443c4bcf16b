"""The sentences of the answer: each claims what its numbers support, and no more."""

from __future__ import annotations

import re
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import made_sweeps as made
from cnnbench.report.analysis.comparisons import review
from cnnbench.report.analysis.conclusions import answer, more_seeds
from cnnbench.report.analysis.limitations import limitations
from cnnbench.report.load.sweep import read_runs
from made_reviews import review_of

A, B, C, D = ({"model": model} for model in "abcd")
BASE = (0.80, 0.82, 0.81, 0.83, 0.84)
BETTER = (0.85, 0.88, 0.86, 0.87, 0.90)
SAME = (0.81, 0.81, 0.83, 0.82, 0.83)


# ---- words ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (6, 20, "between 6 and 20 more seeds"),
        (1, 1, "1 more seed"),
        (0, 4, "up to 4 more seeds"),
        (0, 1, "up to 1 more seed"),
    ],
)
def test_the_number_of_more_seeds_in_words(low, high, text):
    assert more_seeds(low, high) == text


# ---- one setting ----------------------------------------------------------------------------------------------------------


def test_a_single_run_has_an_accuracy_without_interval():
    assert answer(review_of([(A, [0.8])])) == [
        "a has a test accuracy of 0.8000 in one run; the variation between seeds is unknown."
    ]


def test_several_seeds_of_one_setting_have_an_interval():
    assert answer(review_of([(A, BASE)])) == [
        "a has a test accuracy of 0.8200 (95 % interval 0.8004 to 0.8396, 5 seeds)."
    ]


def test_equal_runs_are_counted():
    assert "in each of 3 runs" in answer(review_of([(A, [0.8, 0.8, 0.8])]))[0]


def test_while_no_run_is_done_nothing_is_known():
    assert answer(review_of([(A, [None]), (B, [None])])) == ["Nothing is known yet: none of 2 runs is done."]


# ---- against a baseline ---------------------------------------------------------------------------------------------------


def test_a_significant_difference_has_size_interval_seeds_and_p():
    (sentence,) = answer(review_of([(A, BASE), (B, BETTER)]))
    # differences 5 6 5 4 6 points: mean 5.2, sd sqrt(0.7), t 2.776
    assert (
        sentence
        == "b raises test accuracy by 5.2 points against a (95 % interval 4.2 to 6.2, 5 paired seeds, p < 0.001)."
    )


def test_a_loss_lowers_the_accuracy():
    assert answer(review_of([(A, BETTER), (B, BASE)]))[0].startswith("b lowers test accuracy by 5.2 points against a")


def test_an_undecided_difference_names_the_seeds_needed():
    (sentence,) = answer(review_of([(A, BASE), (B, (0.83, 0.79, 0.84, 0.82, 0.88))]))
    assert sentence.startswith("Undecided whether b differs from a in test accuracy: 1.2 points higher (95 % interval ")
    assert re.search(r"; between \d+ and \d+ more seeds would detect a difference of 1 point\.$", sentence)


def test_an_interval_below_1_point_excludes_a_difference_of_1_point():
    (sentence,) = answer(
        review_of(
            [(A, BASE), (B, [value + shift for value, shift in zip(BASE, (1e-3, -1e-3, 2e-3, -2e-3, 0), strict=True)])]
        )
    )
    assert sentence.endswith(
        "no difference observed (95 % interval -0.2 to 0.2, 5 paired seeds, p 1.000); the interval excludes a difference of 1 point."
    )


def test_equal_results_have_the_same_accuracy():
    assert answer(review_of([(A, BASE), (B, BASE)])) == ["b and a have the same test accuracy (5 paired seeds)."]


def test_one_seed_cannot_show_the_variation_between_seeds():
    (sentence,) = answer(review_of([(A, [0.1]), (B, [0.9])]))
    assert sentence == (
        "Undecided whether b differs from a in test accuracy: 80.0 points higher (no interval, 1 paired seed); "
        "one seed cannot show the variation between seeds: run at least three."
    )


def test_one_equal_seed_shows_no_difference():
    assert "no difference observed (no interval, 1 paired seed)" in answer(review_of([(A, [0.5]), (B, [0.5])]))[0]


def test_equal_differences_of_all_seeds_are_undecided():
    (sentence,) = answer(review_of([(A, (0.5, 0.6)), (B, (0.7, 0.8))]))
    assert sentence.startswith("Undecided")
    assert "all seeds differ by the same amount" in sentence


def test_settings_without_shared_seeds_need_them():
    (sentence,) = answer(review_of([(A, {0: 0.5, 1: 0.6}), (B, {2: 0.7, 3: 0.5})]))
    assert "unpaired, 2 or more seeds each" in sentence
    assert sentence.endswith("run the same seeds in both.")


def test_the_correction_counts_the_comparisons_that_have_a_p():
    sentences = answer(review_of([(A, BASE), (B, BETTER), (C, BETTER), (D, [0.9])]))
    assert "after Holm over 2 comparisons" in sentences[0]


def test_significant_differences_come_first_the_largest_first():
    sentences = answer(review_of([(A, BASE), (B, SAME), (C, BETTER), (D, [0.01 + value for value in BETTER])]))
    assert [sentence.partition(" ")[0] for sentence in sentences] == ["d", "c", "Undecided"]


def test_many_undecided_differences_share_a_sentence():
    sentences = answer(review_of([(A, BASE), *(({"model": name}, SAME) for name in "bcd")]))
    assert len(sentences) == 1
    assert sentences[0].startswith(
        "Undecided whether they differ from the baseline: b (0.0 points, 95 % interval -1.8 to 1.8), c (0.0 points, "
    )
    assert ", 5 seeds each; between " in sentences[0]


def test_the_seeds_needed_for_several_comparisons_are_those_of_the_widest():
    wide = (0.70, 0.95, 0.75, 0.90, 0.85)
    cells = [(A, BASE), (B, SAME), (C, SAME), (D, wide)]
    found = review_of(cells)
    low, high = found.seeds_needed(found.cells[3].difference.by_seed, 0.01)
    assert f"between {low:,} and {high:,} more seeds" in answer(found)[0]


def test_one_setting_with_results_cannot_be_compared():
    sentences = answer(review_of([(A, [None]), (B, BASE)], baseline=A))
    assert sentences == ["Undecided: no two settings have results that can be compared; no result of a."]


def test_without_a_result_of_the_stated_baseline_the_others_are_compared():
    (sentence,) = answer(review_of([(A, [None]), (B, BASE), (C, BETTER)], baseline=A))
    assert sentence.startswith("c raises test accuracy by 5.2 points against b (95 % interval")


@pytest.mark.parametrize("last", [None, 0.9])
def test_three_factors_have_an_answer_complete_or_not(last):
    cells = [({"model": m, "lr": lr, "epochs": e}, [0.5, 0.6, 0.72]) for m, lr, e in product("ab", (1, 2), (3, 4))]
    cells[-1] = (cells[-1][0], [last] * 3)
    assert answer(review_of(cells))


def test_an_incomplete_grid_is_answered_setting_by_setting():
    cells = [({"model": m, "lr": lr}, BASE if m == "a" else BETTER) for m, lr in product("ab", (1, 2))]
    cells[-1] = (cells[-1][0], [None] * 5)
    assert answer(review_of(cells))[0].startswith("b raises test accuracy by 5.2 points against a (")


def test_with_one_shared_seed_the_missing_seeds_are_asked_for():
    seeds = ({0: 0.5, 1: 0.6}, {0: 0.6, 2: 0.7}, {0: 0.7, 1: 0.6}, {0: 0.6, 2: 0.8})
    cells = [({"model": m, "lr": lr}, found) for (m, lr), found in zip(product("ab", (1, 2)), seeds, strict=True)]
    found = review_of(cells)
    assert "on average over" not in " ".join(answer(found))
    assert "Only one seed is done in all settings, so main effects are unknown: run the missing seeds." in limitations(
        found
    )


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(st.integers(700, 900).map(lambda correct: correct / 1000), min_size=1, max_size=5),
        min_size=2,
        max_size=5,
    )
)
def test_no_sentence_claims_a_difference_that_its_interval_does_not_support(values):
    for sentence in answer(
        review_of([({"model": name}, accuracies) for name, accuracies in zip("abcde", values, strict=False)])
    ):
        if " raises " in sentence or " lowers " in sentence:
            low, high = map(float, re.search(r"interval (\S+) to ([^,]+),", sentence).groups())
            assert (low >= 0) if " raises " in sentence else (high <= 0)  # 0.0 may be what 0.04 is rounded to
            assert float(re.search(r"p (?:< )?([0-9.]+)", sentence)[1]) < 0.0505


# ---- several factors ------------------------------------------------------------------------------------------------------


def grid(twist=0.0):
    """Two nets at two rates: b is 5 points better, and by `twist` more at the second rate, where the seeds vary differently."""

    def accuracy(model, lr, seed):
        ours = 0.05 + twist * (lr == 0.2) if model == "b" else 0.0
        return BASE[seed] + ours + 0.001 * (seed * 7 % 5) * (lr == 0.2)

    return [
        ({"model": model, "optimizer.lr": lr}, [accuracy(model, lr, seed) for seed in range(5)])
        for model, lr in product("ab", (0.1, 0.2))
    ]


def test_a_main_effect_is_averaged_over_the_other_factor():
    cells = grid()
    cells[3][1][0] += 0.002
    sentences = answer(review_of(cells))
    # 5 points at each rate, and 0.2 more of one of five seeds at one of two
    assert sentences[0].startswith("b raises test accuracy by 5.0 points against a, on average over lr (95 % interval ")
    assert sentences[0].endswith(", 5 paired seeds, p < 0.001 after Holm over 2 comparisons).")


def test_a_significant_interaction_names_both_levels():
    cells = grid(twist=0.03)
    cells[3][1][0] += 0.001
    sentences = answer(review_of(cells))
    assert sentences[-1].startswith(
        "The factors interact: the effect of b is 3.0 points higher at lr 0.2 than at lr 0.1 (95 % interval "
    )


def test_an_effect_that_is_equal_everywhere_is_called_the_same():
    values = {("a", 0.1): (0.5, 0.75), ("a", 0.2): (0.5, 0.75), ("b", 0.1): (0.75, 0.875), ("b", 0.2): (0.75, 0.875)}
    sentences = answer(
        review_of([({"model": model, "lr": lr}, accuracies) for (model, lr), accuracies in values.items()])
    )
    assert sentences[-1] == "In these runs the effect of b is the same at every lr (2 paired seeds)."


def test_many_undecided_effects_share_a_sentence():
    cells = [
        ({"model": model, "lr": lr}, SAME if model == "a" else BASE)
        for model, lr in product("ab", (0.1, 0.2, 0.3, 0.4))
    ]
    sentences = answer(review_of(cells))
    assert len(sentences) == 2  # these, and the interaction
    assert sentences[0].startswith("Undecided, on average over the other factors: ")


def test_the_answer_about_a_folder_is_that_about_its_accuracies(tmp_path):
    folder = made.sweep(tmp_path / "s", [(A, dict(enumerate(BASE))), (B, dict(enumerate(BETTER)))])
    assert answer(review(read_runs(folder))) == answer(review_of([(A, BASE), (B, BETTER)]))
