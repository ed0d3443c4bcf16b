"""The records of status.json, result.json and sweep.json: what they accept, name as wrong, and write."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from cnnbench.runs.schema import Result, Status, SweepRecord, problem_of, wrong_field

BEFORE = Path(__file__).parents[1] / "fixtures" / "before"
MODELS = {"status.json": Status, "result.json": Result, "sweep.json": SweepRecord}
JOB = {"directory": "a_seed0_01234567", "identity": "f", "setting": {"seed": 0}, "facts": {}}
SWEEP = {"schema": 1, "name": "mine", "keys": ["seed"], "fixed": {}, "jobs": [JOB]}


@pytest.mark.parametrize("path", [path for name in MODELS for path in sorted(BEFORE.rglob(name))], ids=str)
def test_files_of_earlier_versions_load_and_are_written_with_the_same_fields(path):
    values = json.loads(path.read_text())
    written = json.loads(MODELS[path.name].model_validate_json(path.read_bytes()).to_json())
    assert list(written) == list(values)
    if path.name != "sweep.json":  # whose dotted paths of parts are brought up to date
        assert written == values


def test_unknown_fields_are_ignored():
    assert Status.model_validate_json('{"state": "done", "mood": "good"}') == Status(state="done")


@pytest.mark.parametrize("text", ["", "{", "\x00", "[]", "null", "[" * 100_000])
def test_a_text_without_a_json_object_cannot_be_read(text):
    with pytest.raises(ValidationError) as raised:
        Result.parse(text.encode())
    assert re.fullmatch(r"cannot be read \(.+\)", problem_of(raised.value))


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"schema": 2}, "schema"), ({"name": None}, "name"), ({"question": []}, "question"), ({"keys": [1]}, "keys"),
        ({"jobs": [3]}, "jobs"), ({"jobs": [{**JOB, "directory": 1}]}, "jobs (directory)"),
        ({"claims": [{"says": "it is good"}]}, "claims (of)"),
        ({"claims": [{"says": "x", "of": {}, "above": "high"}]}, "claims (above)"),
        ({"claims": [{"says": "x", "of": {}, "below": "low"}]}, "claims (below)"),
    ],
)  # fmt: skip
def test_the_wrong_field_of_a_sweep_is_named(change, wrong):
    with pytest.raises(ValidationError) as raised:
        SweepRecord.model_validate_json(json.dumps({**SWEEP, **change}))
    assert (wrong_field(raised.value), problem_of(raised.value)) == (wrong, f"its {wrong} cannot be understood")


def test_an_absent_baseline_or_list_of_claims_is_empty():
    record = SweepRecord.model_validate({**SWEEP, "baseline": None, "claims": None})
    assert (record.baseline, record.claims) == ({}, [])


def test_the_wrong_fields_of_a_result_are_named_and_left_out():
    text = json.dumps({"metrics": {"test/acc": 0.5}, "time": [1], "params": "many", "classes": "abc", "seed": 3})
    result, wrong = Result.parse(text.encode())
    assert sorted(wrong) == ["classes", "params", "time"]
    assert (result.metric("test/acc"), result.time, result.params, result.classes, result.seed) == (
        0.5,
        {},
        None,
        None,
        3,
    )


@pytest.mark.parametrize("text", ["{}", '{"metrics": 3}', '{"time": {}}'])
def test_a_result_without_metrics_is_refused(text):
    with pytest.raises(ValidationError):
        Result.parse(text.encode())


@pytest.mark.parametrize("value", ["high", None, math.nan, math.inf, [], 10**400])
def test_a_metric_that_is_no_finite_number_is_none(value):
    result, wrong = Result.parse(json.dumps({"metrics": {"test/acc": value}}).encode())
    assert (result.metric("test/acc"), wrong) == (None, [])


def test_a_number_is_found_at_a_path_of_nested_keys():
    result = Result(metrics={}, time={"fit_s": 3}, params=10)
    assert (result.fit_s, result.number("params"), result.number("time", "other")) == (3.0, 10.0, None)


def test_a_result_that_is_not_finite_is_not_written_and_a_status_is():
    with pytest.raises(ValueError, match="not JSON compliant"):
        Result(metrics={"test/loss": math.nan}).to_json(allow_nan=False)
    status = Status(state="running", loss=math.nan)
    assert math.isnan(Status.model_validate_json(status.to_json()).loss)


def test_only_fields_that_were_set_are_written():
    assert json.loads(Status(state="failed", reason=None).to_json()) == {"state": "failed", "reason": None}
