"""Differences between two groups of runs, by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from cnnbench.report.analysis.config_diff import (
    changed_keys,
    comparable_config,
    config_differences,
    environment_differences,
    image_differences,
    join_distinct,
    key_of_test_images,
    run_differences,
)
from cnnbench.report.load.run import Run
from cnnbench.runs.run_dir import RunDir
from cnnbench.runs.schema import Result


def run_of(config=None, choices=None, **result) -> Run:
    """A finished run with this config and result."""
    return Run(
        RunDir(Path("r")), {}, "done", config=config or {}, choices=choices or {}, result=Result(metrics={}, **result)
    )


# ---- config -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "texts"),
    [
        ({"epochs": 5}, {"epochs": 5}, []),
        ({"epochs": 5}, {"epochs": 10}, ["epochs 5 → 10"]),
        ({"ema": None, "steps": [1]}, {"ema": 0.9, "steps": [1, 2]}, ["ema null → 0.9", "steps [1] → [1,2]"]),
        ({"a": 1}, {"b": 2}, ["a 1 → absent", "b absent → 2"]),
    ],
)
def test_changed_keys_are_listed_with_both_values(before, after, texts):
    assert changed_keys(before, after) == texts


def test_a_changed_group_choice_hides_its_target_and_the_keys_that_only_one_choice_has():
    before = {"model": "lenet", "model._target_": "LeNet", "model.act": "relu", "model.width": 6}
    after = {"model": "vgg", "model._target_": "VGG", "model.depth": 11, "model.width": 64}
    assert changed_keys(before, after) == ["model lenet → vgg", "model.width 6 → 64"]


def test_keys_that_differ_in_every_pair_come_first_and_others_name_their_pairs():
    pairs = [
        ("a", {"lr": 1, "epochs": 5}, {"lr": 2, "epochs": 9}),
        ("b", {"lr": 1, "epochs": 5}, {"lr": 1, "epochs": 9}),
    ]
    assert config_differences(pairs) == ["epochs 5 → 9", "lr 1 → 2 in a"]


def test_without_pairs_no_key_differs():
    assert config_differences([]) == []


def test_seeds_folders_and_recipes_are_not_compared():
    run = run_of({"seed": 1, "data.root": "/a", "epochs": 5}, {"model": "lenet", "recipe": "fast"})
    assert comparable_config(run) == {"model": "lenet", "epochs": 5}


# ---- environment ------------------------------------------------------------------------------------------------------


def test_equal_environments_have_no_differences():
    result = Result(metrics={}, code="c0de", versions={"torch": "2"}, hardware={"cpu": "x"})
    assert environment_differences([result], [result]) == {"code": [], "packages": [], "machine": []}


def test_code_is_named_with_its_commit_and_its_changes():
    results = [
        Result(metrics={}, code="c0de"),
        Result(metrics={}, code="beef", git={"commit": "0123456789", "dirty": True}),
    ]
    assert environment_differences(results[:1], results[1:])["code"] == ["c0de → beef (commit 0123456 with changes)"]


def test_the_commit_alone_is_no_difference_of_the_code():
    results = [Result(metrics={}, code="c0de", git={"commit": commit}) for commit in ("1" * 40, "2" * 40)]
    assert environment_differences(results[:1], results[1:])["code"] == []


def test_packages_and_machine_are_listed_by_name():
    before = Result(metrics={}, versions={"torch": "2.0", "numpy": "1"}, threads=1, numerics={"tf32": False})
    after = Result(metrics={}, versions={"torch": "2.1", "numpy": "1"}, threads=2, numerics={"tf32": True})
    found = environment_differences([before], [after])
    assert found["packages"] == ["torch 2.0 → 2.1"]
    assert found["machine"] == ["threads 1 → 2", "tf32 false → true"]


def test_several_values_of_one_side_are_joined():
    assert join_distinct(["2.1", None, "2.0", "2.1"]) == "2.0 or 2.1 or absent"


# ---- images -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["data.fingerprint", "data.test_size"])
def test_runs_with_different_test_images_have_different_keys(key):
    assert key_of_test_images(run_of({key: 1})) != key_of_test_images(run_of({key: 2}))


@pytest.mark.parametrize("key", ["data.root", "data.val_size", "data.label_noise", "data.mean", "optimizer.lr"])
def test_other_keys_leave_the_test_images_equal(key):
    assert key_of_test_images(run_of({key: 1})) == key_of_test_images(run_of({key: 2}))


def test_the_split_and_the_labels_are_compared_where_both_runs_have_a_result():
    before, after = run_of(split_hash="1", label_hash="1"), run_of(split_hash="2", label_hash="1")
    assert image_differences([("a", before, after)]) == ["the split"]
    assert image_differences([("a", before, Run(RunDir(Path("r")), {}, "failed"))]) == []


def test_environments_are_compared_only_where_both_sides_have_results():
    run, failed = run_of(), Run(RunDir(Path("r")), {}, "failed")
    assert run_differences([("a", run, failed)], [run], [failed]) == {"config": [], "images": []}
    assert run_differences([("a", run, run)], [run], [run]).keys() == {
        "config",
        "code",
        "packages",
        "machine",
        "images",
    }
