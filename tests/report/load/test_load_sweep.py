"""Reading folders of runs: which runs there are, their states, files that cannot be read."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise

import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import made_sweeps as made
from cnnbench import load_runs
from cnnbench.errors import ConfigError
from cnnbench.report.load.sweep import distinguishing_keys, read_runs, split_duplicates
from cnnbench.runs.liveness import this_process
from cnnbench.runs.schema import Result
from owners import DEAD

PLAIN, RES = {"model": "plain18"}, {"model": "resnet18"}


@pytest.fixture
def sweep(tmp_path):
    """Two cells of three seeds: one failed, one missing."""
    cells = [
        (PLAIN, {0: 0.80, 1: 0.82, 2: {"state": "failed", "reason": "out of memory"}}),
        (RES, {0: 0.90, 1: "missing", 2: 0.94}),
    ]
    return made.sweep(tmp_path / "mine", cells, question="Does it?", baseline=PLAIN)


def folder_of(sweep, setting, seed):
    return sweep / made.directory(setting, seed)


# ---- with sweep.json ------------------------------------------------------------------------------------------------------


def test_every_listed_run_is_read_in_the_order_of_the_sweep(sweep):
    runs = read_runs(sweep)
    assert [(run.cell_setting["model"], run.seed) for run in runs.runs] == [
        (model, seed) for model in ("plain18", "resnet18") for seed in range(3)
    ]
    assert runs.keys == ("model",)
    assert runs.sweep_record.question == "Does it?"


def test_a_listed_run_without_a_directory_is_missing(sweep):
    assert [run.state for run in read_runs(sweep).runs] == ["done", "done", "failed", "done", "missing", "done"]


def test_a_failure_has_its_reason(sweep):
    assert read_runs(sweep).runs[2].reason == "out of memory"


def test_a_running_run_whose_process_is_dead_is_interrupted(sweep):
    status = folder_of(sweep, PLAIN, 2) / "status.json"
    status.write_text(json.dumps({**this_process().model_dump(), **DEAD, "state": "running"}))
    assert read_runs(sweep).runs[2].state == "interrupted"


def test_a_running_run_whose_process_is_alive_is_running(sweep):
    status = folder_of(sweep, PLAIN, 2) / "status.json"
    status.write_text(json.dumps({**this_process().model_dump(), "state": "running"}))
    assert read_runs(sweep).runs[2].state == "running"


def test_a_run_that_the_sweep_does_not_list_is_named_and_excluded(sweep):
    made.run(sweep / "other_seed0_ffffffff", PLAIN, 0, 0.1)
    runs = read_runs(sweep)
    assert runs.unlisted == ["other_seed0_ffffffff"]
    assert "other_seed0_ffffffff" not in [run.name for run in runs.runs]


def test_a_repetition_of_a_listed_job_is_not_unlisted(sweep):
    first = folder_of(sweep, PLAIN, 0)
    shutil.copytree(first, first.with_name(f"{first.name}-2"))
    assert read_runs(sweep).unlisted == []


def test_the_setting_is_that_of_the_sweep_even_where_the_config_is_broken(sweep):
    (folder_of(sweep, RES, 0) / "config.yaml").write_text("{")
    run = read_runs(sweep).runs[3]
    assert (run.cell_setting, run.metric("test/acc")) == (RES, 0.90)


# ---- without sweep.json ---------------------------------------------------------------------------------------------------


def test_without_sweep_json_the_keys_are_those_in_which_configs_differ(tmp_path):
    cells = [({"model": "plain18", "optimizer.lr": lr}, {0: 0.8, 1: 0.9}) for lr in (0.1, 0.01)]
    runs = read_runs(made.sweep(tmp_path / "copy", cells, listed=False))
    assert runs.keys == ("optimizer.lr",)
    assert [run.cell_setting for run in runs.runs] == [{"optimizer.lr": lr} for lr in (0.01, 0.01, 0.1, 0.1)]


def test_a_learning_rate_that_varies_with_the_model_is_not_another_key(tmp_path):
    cells = [({"model": model, "optimizer.lr": lr}, {0: 0.8}) for model, lr in (("a", 0.1), ("b", 0.01))]
    assert read_runs(made.sweep(tmp_path / "copy", cells, listed=False)).keys == ("model",)


def test_a_single_run_has_no_keys(sweep):
    runs = read_runs(folder_of(sweep, RES, 2))
    assert (runs.keys, [run.seed for run in runs.runs]) == ((), [2])


def test_of_two_finished_runs_with_one_seed_the_later_counts(tmp_path):
    for name, accuracy, state in (
        ("a_00000000", 0.1, "done"),
        ("a_00000000-2", 0.2, "done"),
        ("a_00000000-3", 0.3, "failed"),
    ):
        made.run(tmp_path / name, PLAIN, 0, accuracy, state)
    runs = read_runs(tmp_path)
    assert [run.name for run in runs.runs] == ["a_00000000-2"]
    assert {run.name for run in runs.duplicates} == {"a_00000000", "a_00000000-3"}


def test_runs_with_different_numbers_of_steps_are_different_cells(tmp_path):
    for steps in (100, 1000):
        made.run(tmp_path / f"a_{steps}", PLAIN, 0, 0.5, config={"trainer.max_steps": steps})
    runs = read_runs(tmp_path)
    assert (runs.keys, runs.duplicates) == (("trainer.max_steps",), [])


def test_runs_on_different_numbers_of_devices_are_duplicates_unless_the_sweep_varied_them(tmp_path):
    for devices in (1, 2):
        made.run(tmp_path / f"a_{devices}", PLAIN, 0, 0.5, config={"trainer.devices": devices})
        made.run(
            tmp_path / "swept" / f"a_{devices}",
            PLAIN,
            0,
            0.5,
            config={"trainer.devices": devices, "swept": ["trainer.devices"]},
        )
    assert (len(read_runs(tmp_path).runs), len(read_runs(tmp_path).duplicates)) == (1, 1)
    assert read_runs(tmp_path / "swept").keys == ("trainer.devices",)


@given(
    st.lists(st.fixed_dictionaries({key: st.integers(0, 2) for key in ("a", "b", "c", "d")}), min_size=1, max_size=12)
)
def test_the_keys_distinguish_all_configs_that_differ(configs):
    keys = distinguishing_keys(configs, [{}] * len(configs))
    distinct = {tuple(config[key] for key in keys) for config in configs}
    assert len(distinct) == len({tuple(sorted(config.items())) for config in configs})


@given(
    st.lists(st.fixed_dictionaries({key: st.integers(0, 2) for key in ("a", "b", "c", "d")}), min_size=1, max_size=12)
)
def test_each_key_distinguishes_more_configs_than_the_keys_before_it(configs):
    keys = distinguishing_keys(configs, [{}] * len(configs))
    counts = [len({tuple(config[key] for key in keys[:most]) for config in configs}) for most in range(len(keys) + 1)]
    assert all(one < next_one for one, next_one in pairwise(counts))


# ---- broken files ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "[]", '{"metrics": 3}', "\x00", '{"metrics": {"test/acc": 0.5'])
def test_a_run_with_a_broken_result_is_named_and_is_not_done(sweep, text):
    path = folder_of(sweep, PLAIN, 1) / "result.json"
    path.write_text(text)
    runs = read_runs(sweep)
    assert (runs.runs[1].state, runs.runs[1].done) == ("interrupted", False)
    assert len(runs.problems) == 1
    assert runs.problems[0].startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("part", "value"),
    [("time", [1]), ("versions", "x"), ("hardware", 5), ("git", []), ("label_hash", ["a"]), ("classes", "abc")],
)
def test_a_field_of_a_result_of_the_wrong_type_is_named_and_counts_as_absent(sweep, part, value):
    path = folder_of(sweep, PLAIN, 1) / "result.json"
    path.write_text(json.dumps({"metrics": {"test/acc": 0.5}, part: value}))
    runs = read_runs(sweep)
    assert (runs.runs[1].metric("test/acc"), getattr(runs.runs[1].result, part)) == (
        0.5,
        getattr(Result(metrics={}), part),
    )
    assert runs.problems == [f"{path}: {part} cannot be understood"]


@pytest.mark.parametrize("accuracy", [1.5, -3])
def test_a_number_that_is_not_an_accuracy_is_named_and_counts_as_absent(sweep, accuracy):
    path = folder_of(sweep, PLAIN, 1) / "result.json"
    path.write_text(json.dumps({"metrics": {"test/acc": accuracy}}))
    runs = read_runs(sweep)
    assert runs.runs[1].metric("test/acc") is None
    assert runs.problems == [f"{path}: test/acc {accuracy} is not an accuracy, expected 0 to 1"]


def test_a_seed_that_is_a_list_is_read_as_text(sweep):
    record = json.loads((sweep / "sweep.json").read_text())
    record["jobs"][0]["setting"]["seed"] = [1]
    (sweep / "sweep.json").write_text(json.dumps(record))
    assert read_runs(sweep).runs[0].seed == "[1]"


@pytest.mark.parametrize("accuracy", ["high", None, float("nan"), float("inf"), [], 10**400])
def test_an_accuracy_that_is_not_a_finite_number_is_none(sweep, accuracy):
    path = folder_of(sweep, PLAIN, 1) / "result.json"
    path.write_text(json.dumps({"metrics": {"test/acc": accuracy}}))
    assert read_runs(sweep).runs[1].metric("test/acc") is None


@pytest.mark.parametrize("text", ["a: [", "- 1", "\tx", ""])
def test_a_run_with_a_broken_config_is_named_and_excluded(tmp_path, text):
    folder = made.sweep(tmp_path / "copy", [(PLAIN, {0: 0.8, 1: 0.9}), (RES, {0: 0.9, 1: 0.7})], listed=False)
    path = folder / made.directory(RES, 1) / "config.yaml"
    path.write_text(text)
    runs = read_runs(folder)
    assert (runs.keys, len(runs.runs)) == (("model",), 3)
    assert [problem.split(": ")[0] for problem in runs.problems] == [str(path)]


def test_a_broken_sweep_json_is_named_and_the_keys_come_from_the_configs(sweep):
    (sweep / "sweep.json").write_text("{")
    runs = read_runs(sweep)
    assert runs.keys == ("model",)
    assert runs.problems[0].startswith(f"{sweep / 'sweep.json'}: cannot be read")


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("jobs", 3), ("jobs", [3]), ("jobs", [{"directory": 1}]), ("keys", "model"), ("keys", [1]), ("baseline", "model"),
        ("claims", {}), ("claims", [{"says": "it is good"}]), ("question", []), ("name", None), ("fixed", None),
    ],
)  # fmt: skip
def test_a_wrong_field_of_sweep_json_is_named_and_the_keys_come_from_the_configs(sweep, part, value):
    path = sweep / "sweep.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), part: value}))
    runs = read_runs(sweep)
    assert runs.keys == ("model",)
    assert len(runs.done) == 4
    assert runs.problems[0].startswith(f"{path}: its {part}")


@pytest.mark.parametrize(
    "status", ["{", "[]", '{"state": "running", "pid": "x", "host": 1, "pid_started": null, "heartbeat": "y"}']
)
def test_a_broken_status_does_not_stop_the_reading(sweep, status):
    (folder_of(sweep, PLAIN, 2) / "status.json").write_text(status)
    assert len(read_runs(sweep).done) == 4


@pytest.mark.parametrize("text", ["", "epoch\n", "epoch,train/loss\n1,high\n2", "\x00\x01", "epoch,epoch\n1,2,3,4\n"])
def test_a_broken_metrics_csv_does_not_stop_the_reading(sweep, text):
    (folder_of(sweep, PLAIN, 0) / "metrics.csv").write_text(text)
    assert len(read_runs(sweep).done) == 4


@settings(max_examples=30, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["n", "time", "metrics", "params", "hardware", "classes"]),
        st.recursive(st.none() | st.floats() | st.text(), st.lists),
    )
)
def test_a_result_of_wrong_types_does_not_stop_the_reading(tmp_path_factory, values):
    folder = tmp_path_factory.mktemp("wrong")
    made.run(folder / "a", PLAIN, 0, result=values)
    assert len(load_runs(folder)) == 1


# ---- folders without runs -------------------------------------------------------------------------------------------------


def test_for_a_folder_without_runs_the_command_that_makes_some_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"holds no runs; cnnbench -m key=a,b \.\.\. makes some"):
        read_runs(tmp_path)


def test_a_folder_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="the folder does not exist"):
        read_runs(tmp_path / "none")


def test_for_a_folder_of_sweeps_one_of_them_is_suggested(sweep):
    with pytest.raises(ConfigError, match=f"did you mean {sweep}"):
        read_runs(sweep.parent)


def test_a_single_run_whose_config_cannot_be_read_is_refused(tmp_path):
    (tmp_path / "config.yaml").write_text("{")
    with pytest.raises(ConfigError, match=r"holds no run whose config\.yaml can be read"):
        read_runs(tmp_path)


# ---- duplicates -----------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=10))
def test_one_run_is_kept_per_seed_and_a_finished_one_if_there_is_one(of_runs):
    from cnnbench.report.load.run import Run
    from cnnbench.runs.run_dir import RunDir

    runs = [
        Run(RunDir(made.Path(f"r{place}")), {"seed": seed}, "", result=Result(metrics={}) if done else None)
        for place, (seed, done) in enumerate(of_runs)
    ]
    kept, duplicates = split_duplicates(runs)
    assert sorted(run.seed for run in kept) == sorted({seed for seed, _ in of_runs})
    assert len(kept) + len(duplicates) == len(runs)
    assert all(run.done or not any(done for seed, done in of_runs if seed == run.seed) for run in kept)


# ---- load_runs ------------------------------------------------------------------------------------------------------------


def test_load_runs_returns_one_row_per_run_with_its_keys_and_metrics(sweep):
    frame = load_runs(str(sweep))
    assert list(frame.columns[:4]) == ["run", "state", "model", "seed"]
    assert frame["state"].tolist() == ["done", "done", "failed", "done", "missing", "done"]
    means = frame.groupby("model")["test/acc"].mean()
    assert means.to_dict() == pytest.approx({"plain18": 0.81, "resnet18": 0.92})


def test_load_runs_with_epochs_returns_one_row_per_epoch(tmp_path):
    folder = made.sweep(
        tmp_path / "s", [(PLAIN, {0: {"epochs": made.epochs([1.0, 0.5])}, 1: {"epochs": made.epochs([2.0])}})]
    )
    frame = load_runs(folder, epochs=True)
    assert frame[["seed", "epoch", "train/loss"]].to_numpy().tolist() == [[0, 1, 1.0], [0, 2, 0.5], [1, 1, 2.0]]


def test_a_value_that_is_unknown_is_missing_in_the_frame(tmp_path):
    folder = made.sweep(tmp_path / "s", [(PLAIN, {0: {"epochs": made.epochs([None])}})])
    assert pandas.isna(load_runs(folder, epochs=True)["val/loss"][0])


def test_a_factor_of_lists_can_be_used_in_groupby(tmp_path):
    cells = [({"augment": steps, "epochs": [1, 2]}, {0: 0.5, 1: 0.7}) for steps in ("none", ["crop", "flip"])]
    frame = load_runs(made.sweep(tmp_path / "s", cells))
    assert dict(frame.groupby("augment")["test/acc"].mean()) == pytest.approx({"none": 0.6, "crop+flip": 0.6})
    assert set(frame["epochs"]) == {"[1,2]"}


def test_for_a_file_its_folder_is_suggested(sweep):
    with pytest.raises(ConfigError, match=f"it is a file, did you mean {sweep}"):
        read_runs(sweep / "sweep.json")
