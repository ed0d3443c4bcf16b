"""Warnings about a baseline or a claim that matches no job."""

from __future__ import annotations

import pytest

from cnnbench.__main__ import main
from cnnbench.config.compose import compose
from cnnbench.sweep.check_claims import unmatched_claims, why_unmatched
from cnnbench.sweep.schema import SweepKeys

JOBS = ({"init": "torch"}, {"init": "paddle"})


def warnings_of(**policy) -> list[str]:
    jobs = [(setting, compose([f"{key}={value}" for key, value in setting.items()])) for setting in JOBS]
    return list(unmatched_claims(SweepKeys.model_validate(policy), jobs))


def test_a_baseline_without_a_job_is_named_with_the_values_that_jobs_have():
    assert warnings_of(baseline={"init": "zeros"}) == [
        "no job matches the baseline: init=zeros; the jobs have torch, paddle"
    ]


def test_a_claim_about_a_fixed_value_that_no_job_has_is_named():
    claim = {"says": "it wins", "of": {"model": "resnet18"}, "above": 0}
    assert warnings_of(claims=[claim]) == [
        "no job matches the claim that it wins: model=resnet18; the jobs have lenet5"
    ]


def test_a_baseline_and_a_claim_of_jobs_give_no_warning():
    claim = {"says": "it wins", "of": {"init": "torch", "model": "lenet5"}, "over": {"init": "paddle"}, "above": 0}
    assert warnings_of(baseline={"init": "torch"}, claims=[claim]) == []


def test_a_key_that_only_some_jobs_have_is_matched_by_these():
    known = [{"optimizer": "adam"}, {"optimizer": "sgd", "optimizer.momentum": 0.9}]
    assert why_unmatched({"optimizer.momentum": 0.9}, known) == ""
    assert "no job has all" in why_unmatched({"optimizer": "adam", "optimizer.momentum": 0.9}, known)


@pytest.mark.parametrize(
    "claim", ["{says: x,of:{model:a},above:0.9,below:0.5}", "{says: x,of:{model:a},above:0,metric:test/f1}"]
)
def test_a_claim_that_can_never_hold_is_refused(claim, capsys):
    assert main(["plan", "-m", "seed=0,1", f"sweep.claims=[{claim}]"]) == 2
    assert capsys.readouterr().err.startswith("cnnbench: sweep.claims=")
