"""Claims: which values are compared, and which interval gives which outcome."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import made_sweeps as made
from cnnbench.report.analysis.claims import claim_outcome, judge_claims
from cnnbench.report.analysis.comparisons import review
from cnnbench.report.load.sweep import read_runs

CLAIM = {"says": "shortcuts help", "of": {"model": "res"}, "over": {"model": "plain"}, "above": 0.0}
PLAIN, RES = (0.80, 0.82, 0.81), (0.85, 0.88, 0.86)


def verdict_of(tmp_path, claim, cells):
    folder = made.sweep(
        tmp_path / "s", [(setting, dict(enumerate(values))) for setting, values in cells], claims=[claim]
    )
    (verdict,) = judge_claims(review(read_runs(folder)))
    return verdict


def two(plain=PLAIN, res=RES):
    return [({"model": "plain"}, plain), ({"model": "res"}, res)]


def test_the_difference_of_a_claim_is_paired_by_seed(tmp_path):
    verdict = verdict_of(tmp_path, CLAIM, two())
    assert (verdict.outcome, verdict.n) == ("reproduced", 3)
    assert verdict.interval == pytest.approx(tuple(stats.ttest_rel(RES, PLAIN).confidence_interval()))


def test_a_claim_is_written_as_a_condition(tmp_path):
    assert verdict_of(tmp_path, CLAIM, two()).condition == "test/acc of model=res minus that of model=plain above 0"


def test_a_claim_that_the_whole_interval_contradicts_is_not_reproduced(tmp_path):
    assert verdict_of(tmp_path, {**CLAIM, "above": 0.2}, two()).outcome == "not reproduced"


def test_a_claim_whose_bound_is_inside_the_interval_is_undecided(tmp_path):
    assert verdict_of(tmp_path, {**CLAIM, "above": 0.05}, two()).outcome == "undecided"


def test_a_claim_about_one_seed_is_undecided(tmp_path):
    assert verdict_of(tmp_path, CLAIM, two((0.1,), (0.9,))).outcome == "undecided"


def test_a_claim_about_differences_that_cancel_up_to_rounding_is_undecided(tmp_path):
    cells = [
        ({"model": "plain", "lr": 0.1}, (0.8, 0.7)), ({"model": "plain", "lr": 0.2}, (0.2, 0.3)),
        ({"model": "res", "lr": 0.1}, (0.9, 0.8)), ({"model": "res", "lr": 0.2}, (0.1, 0.2)),
    ]  # fmt: skip
    assert verdict_of(tmp_path, {**CLAIM, "above": -1e-3, "below": 1e-3}, cells).outcome == "undecided"


def test_a_claim_about_one_setting_is_about_its_mean(tmp_path):
    verdict = verdict_of(tmp_path, {"says": "x", "of": {"model": "res"}, "above": 0.8, "below": 0.95}, two())
    assert verdict.point == pytest.approx(sum(RES) / 3)
    assert verdict.outcome == "reproduced"


def test_a_claim_may_name_another_metric(tmp_path):
    cells = [({"model": "res"}, [{"metrics": {"best/val/acc": value}} for value in (0.6, 0.61)])]
    claim = {"says": "x", "of": {"model": "res"}, "metric": "best/val/acc", "below": 0.9}
    assert verdict_of(tmp_path, claim, cells).point == pytest.approx(0.605)


def test_a_claim_about_a_setting_that_does_not_exist_is_undecided(tmp_path):
    verdict = verdict_of(tmp_path, {**CLAIM, "of": {"model": "vgg"}}, two())
    assert (verdict.outcome, verdict.n, verdict.point) == ("undecided", 0, None)


def test_a_claim_compares_at_equal_levels_of_the_other_factors(tmp_path):
    cells = [
        ({"model": "plain", "lr": 0.1}, (0.5, 0.6)), ({"model": "plain", "lr": 0.2}, (0.7, 0.7)),
        ({"model": "res", "lr": 0.1}, (0.6, 0.8)), ({"model": "res", "lr": 0.2}, (0.9, 0.8)),
    ]  # fmt: skip
    verdict = verdict_of(tmp_path, CLAIM, cells)
    # by seed, the mean over both rates: (0.1 + 0.2) / 2 and (0.2 + 0.1) / 2
    assert (verdict.point, verdict.n) == (pytest.approx(0.15), 2)


def test_a_claim_uses_the_seeds_that_all_its_settings_have(tmp_path):
    assert verdict_of(tmp_path, CLAIM, two(plain=("failed", 0.8, 0.81), res=(0.9, 0.9, 0.92))).n == 2


def test_a_fixed_value_of_a_claim_is_found_in_the_config(tmp_path):
    claim = {**CLAIM, "of": {"model": "res", "optimizer.lr": 0.1}}
    assert verdict_of(tmp_path, claim, two()).n == 3


def test_a_setting_whose_first_run_is_missing_is_found(tmp_path):
    claim = {**CLAIM, "of": {"model": "res", "optimizer.lr": 0.1}}
    assert verdict_of(tmp_path, claim, two(res=("missing", 0.9, 0.92))).n == 2


BOUNDS = st.none() | st.floats(-1, 1)


@given(st.tuples(st.floats(-1, 1), st.floats(-1, 1)).map(sorted), BOUNDS, BOUNDS, st.floats(0, 1))
def test_a_claim_is_reproduced_if_every_value_of_the_interval_meets_it_and_not_reproduced_if_none_does(
    interval, above, below, share
):
    low, high = interval
    value = min(high, max(low, low + share * (high - low)))
    meets = (above is None or value > above) and (below is None or value < below)
    outcome = claim_outcome((low, high), above, below)
    assert not (outcome == "reproduced" and not meets)
    assert not (outcome == "not reproduced" and meets)


def test_a_claim_without_an_interval_is_undecided():
    assert claim_outcome(None, 0.0, None) == "undecided"
