"""Claims: what is compared, and when the interval says so."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import made_sweeps as made
from cnnbench.report.analysis.claims import outcome, verdicts
from cnnbench.report.analysis.comparisons import review
from cnnbench.report.load.sweep import read

CLAIM = {"says": "shortcuts help", "of": {"model": "res"}, "over": {"model": "plain"}, "above": 0.0}
PLAIN, RES = (0.80, 0.82, 0.81), (0.85, 0.88, 0.86)


def verdict_of(tmp_path, claim, cells):
    folder = made.sweep(
        tmp_path / "s", [(setting, dict(enumerate(values))) for setting, values in cells], claims=[claim]
    )
    (verdict,) = verdicts(review(read(folder)))
    return verdict


def two(plain=PLAIN, res=RES):
    return [({"model": "plain"}, plain), ({"model": "res"}, res)]


def test_a_difference_is_paired_by_seed(tmp_path):
    verdict = verdict_of(tmp_path, CLAIM, two())
    assert (verdict.outcome, verdict.n) == ("reproduced", 3)
    assert verdict.interval == pytest.approx(tuple(stats.ttest_rel(RES, PLAIN).confidence_interval()))


def test_it_says_what_is_checked(tmp_path):
    assert verdict_of(tmp_path, CLAIM, two()).wants == "test/acc of model=res less that of model=plain above 0"


def test_a_claim_that_all_of_the_interval_contradicts_is_not_reproduced(tmp_path):
    assert verdict_of(tmp_path, {**CLAIM, "above": 0.2}, two()).outcome == "not reproduced"


def test_a_claim_that_the_interval_straddles_is_undecided(tmp_path):
    assert verdict_of(tmp_path, {**CLAIM, "above": 0.05}, two()).outcome == "undecided"


def test_one_seed_decides_no_claim(tmp_path):
    assert verdict_of(tmp_path, CLAIM, two((0.1,), (0.9,))).outcome == "undecided"


def test_differences_that_cancel_but_for_rounding_decide_nothing(tmp_path):
    cells = [
        ({"model": "plain", "lr": 0.1}, (0.8, 0.7)), ({"model": "plain", "lr": 0.2}, (0.2, 0.3)),
        ({"model": "res", "lr": 0.1}, (0.9, 0.8)), ({"model": "res", "lr": 0.2}, (0.1, 0.2)),
    ]  # fmt: skip
    assert verdict_of(tmp_path, {**CLAIM, "above": -1e-3, "below": 1e-3}, cells).outcome == "undecided"


def test_a_claim_of_a_level_is_on_its_mean(tmp_path):
    verdict = verdict_of(tmp_path, {"says": "x", "of": {"model": "res"}, "above": 0.8, "below": 0.95}, two())
    assert verdict.point == pytest.approx(sum(RES) / 3)
    assert verdict.outcome == "reproduced"


def test_a_claim_may_be_on_another_metric(tmp_path):
    cells = [({"model": "res"}, [{"metrics": {"best/val/acc": value}} for value in (0.6, 0.61)])]
    claim = {"says": "x", "of": {"model": "res"}, "metric": "best/val/acc", "below": 0.9}
    assert verdict_of(tmp_path, claim, cells).point == pytest.approx(0.605)


def test_a_claim_about_no_cell_is_undecided_and_has_no_seeds(tmp_path):
    verdict = verdict_of(tmp_path, {**CLAIM, "of": {"model": "vgg"}}, two())
    assert (verdict.outcome, verdict.n, verdict.point) == ("undecided", 0, None)


def test_a_claim_is_met_at_the_same_level_of_the_other_factors(tmp_path):
    cells = [
        ({"model": "plain", "lr": 0.1}, (0.5, 0.6)), ({"model": "plain", "lr": 0.2}, (0.7, 0.7)),
        ({"model": "res", "lr": 0.1}, (0.6, 0.8)), ({"model": "res", "lr": 0.2}, (0.9, 0.8)),
    ]  # fmt: skip
    verdict = verdict_of(tmp_path, CLAIM, cells)
    # by seed, the mean over both rates: (0.1 + 0.2) / 2 and (0.2 + 0.1) / 2
    assert (verdict.point, verdict.n) == (pytest.approx(0.15), 2)


def test_a_claim_uses_the_seeds_that_all_its_cells_have(tmp_path):
    assert verdict_of(tmp_path, CLAIM, two(plain=("failed", 0.8, 0.81), res=(0.9, 0.9, 0.92))).n == 2


def test_a_setting_that_is_fixed_is_found_in_the_config(tmp_path):
    claim = {**CLAIM, "of": {"model": "res", "optimizer.lr": 0.1}}
    assert verdict_of(tmp_path, claim, two()).n == 3


def test_a_cell_whose_first_run_is_missing_is_found_all_the_same(tmp_path):
    claim = {**CLAIM, "of": {"model": "res", "optimizer.lr": 0.1}}
    assert verdict_of(tmp_path, claim, two(res=("missing", 0.9, 0.92))).n == 2


BOUNDS = st.none() | st.floats(-1, 1)


@given(st.tuples(st.floats(-1, 1), st.floats(-1, 1)).map(sorted), BOUNDS, BOUNDS, st.floats(0, 1))
def test_reproduced_is_what_every_value_of_the_interval_meets_and_not_reproduced_what_none_does(
    interval, above, below, share
):
    low, high = interval
    value = min(high, max(low, low + share * (high - low)))
    meets = (above is None or value > above) and (below is None or value < below)
    told = outcome((low, high), above, below)
    assert not (told == "reproduced" and not meets)
    assert not (told == "not reproduced" and meets)


def test_without_an_interval_nothing_is_decided():
    assert outcome(None, 0.0, None) == "undecided"
