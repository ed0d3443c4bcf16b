"""Estimates of a job from invented finished runs, and the makespan of a sweep against a simulation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnbench.sweep.launcher import freeze_to_disk
from cnnbench.sweep.time_estimates import (
    MAX_RUNS_READ,
    OVERHEAD_S,
    cost_key,
    estimate_from_finished,
    finished_runs,
    makespan,
)
from sweeping import plan, result_values, write_run

RUNS = Path("runs")


@pytest.fixture
def finished(in_this_process):
    """A finished job: 2 epochs of 100 images at 200 images per second, 3 s in all."""
    (planned,) = freeze_to_disk(plan("seed=0"), "typed").jobs
    write_run(planned, "done")
    return planned


def estimate(*overrides):
    """The estimate for the first job of another sweep."""
    return estimate_from_finished(plan(*overrides).jobs[0], finished_runs(RUNS))


def rows(planned, count):
    planned.job.directory.metrics.write_text("epoch\n" + "1\n" * count)


# ---- one job ---------------------------------------------------------------------------------------------------------


def test_a_finished_run_gives_seconds_per_image_and_further_seconds_per_epoch(finished):
    (seen,) = finished_runs(RUNS)[cost_key(finished.config)]
    assert seen.per_image == 1 / 200
    assert seen.per_epoch == pytest.approx(3 / 2 - 100 / 200)


def test_the_same_job_takes_the_same_time(finished):
    assert estimate("seed=1").seconds == pytest.approx(3.0 + OVERHEAD_S)


def test_more_epochs_take_longer(finished):
    assert estimate("epochs=6").seconds == pytest.approx(3 * 3.0 + OVERHEAD_S)


def test_more_images_take_longer(finished):
    assert estimate("data.train_size=300").seconds == pytest.approx(2 * (300 / 200 + 1.0) + OVERHEAD_S)


@pytest.mark.slow
def test_the_size_of_the_last_batch_does_not_matter(finished):
    # 100 images are 4 batches of 32, the last of 4 images; 65 images are 2, the last of 33
    assert estimate("data.train_size=65").seconds == pytest.approx(2 * (65 / 200 + 1.0) + OVERHEAD_S)


@pytest.mark.slow
def test_max_steps_may_end_a_job_in_an_epoch(finished):
    cut = ("trainer.max_steps=2", "data.train_size=128")
    (planned,) = freeze_to_disk(plan("name=cut", "seed=0", *cut), "typed").jobs
    write_run(planned, "done", n={"train": 128}, time={"fit_s": 2 * 1.64})
    assert estimate("seed=5", *cut).seconds == pytest.approx(0.5 * 1.64 + OVERHEAD_S)


def test_the_epochs_of_a_run_that_stopped_early_are_the_rows_of_metrics_csv(finished):
    rows(finished, 1)
    assert estimate("seed=1").seconds == pytest.approx(2 * 3.0 + OVERHEAD_S)


def test_the_estimate_is_the_median_of_several_runs_and_counts_them(finished):
    made = freeze_to_disk(plan("seed=1,2"), "typed")
    for planned, seconds in zip(made.jobs, (5.0, 50.0), strict=True):
        write_run(planned, "done", time={"fit_s": seconds})
    found = estimate("seed=7")
    assert found.seconds == pytest.approx(5.0 + OVERHEAD_S)
    assert found.source == "as 3 finished runs"


def test_the_source_of_one_run_is_in_the_singular(finished):
    assert estimate("seed=7").source == "as a finished run"


@pytest.mark.parametrize("other", [{"batch_size": 16}, {"precision": "bf16"}, {"threads": 2}])
def test_a_key_that_changes_the_speed_changes_the_cost_key(finished, other):
    assert cost_key(finished.config.model_copy(update=other)) != cost_key(finished.config)


@pytest.mark.parametrize("other", [{"init": "paddle"}, {"seed": 5}, {"epochs": 50}])
def test_a_key_that_does_not_change_the_speed_keeps_the_cost_key(finished, other):
    assert cost_key(finished.config.model_copy(update=other)) == cost_key(finished.config)


def test_another_net_has_no_estimate(finished):
    assert estimate("model=simplecnn") is None


def test_another_learning_rate_has_the_same_estimate(finished):
    assert estimate("optimizer.lr=0.5").seconds == pytest.approx(3.0 + OVERHEAD_S)


def test_the_memory_is_the_largest_of_all_runs(finished):
    for name, peak in (("a", 700.5), ("b", 300.0)):
        (planned,) = freeze_to_disk(plan(f"name={name}", "seed=0"), "typed").jobs
        status = write_run(planned, "done").path / "status.json"
        status.write_text(json.dumps({**json.loads(status.read_text()), "peak_mb": {"cpu": peak}}))
    assert estimate("seed=1").peak_mb == 700.5


def test_unknown_memory_stays_unknown(finished):
    assert estimate("seed=1").peak_mb is None


@pytest.mark.parametrize(
    "spoilt",
    [
        "",
        "[]",
        "{}",
        json.dumps({**result_values(), "samples_per_s": 0}),
        json.dumps({**result_values(), "time": None}),
        json.dumps({**result_values(), "hardware": {"system": "Plan9 mips"}}),
    ],
    ids=["empty", "a list", "nothing", "no speed", "no time", "another machine"],
)
def test_an_unusable_result_is_skipped(finished, spoilt):
    finished.job.directory.result.write_text(spoilt)
    assert finished_runs(RUNS) == {}


def test_a_run_without_its_config_is_skipped(finished):
    finished.job.directory.config.unlink()
    assert finished_runs(RUNS) == {}


def test_an_empty_folder_has_no_finished_runs(tmp_path):
    assert finished_runs(tmp_path / "runs") == {}


def test_at_most_the_newest_400_runs_are_read(tmp_path, monkeypatch):
    read = []
    for number in range(MAX_RUNS_READ + 5):
        path = tmp_path / "s" / f"run{number}"
        path.mkdir(parents=True)
        (path / "result.json").write_text("{}")
    monkeypatch.setattr("cnnbench.sweep.time_estimates.Result.parse", lambda text: read.append(text) or {}["none"])
    finished_runs(tmp_path)
    assert len(read) == MAX_RUNS_READ


# ---- a whole sweep ---------------------------------------------------------------------------------------------------


def by_the_clock(jobs, slots):
    """The second in which all jobs are done, found by stepping through time: each starts in its turn, when its slots are free."""
    waiting = [(seconds, min(devices, slots)) for devices, seconds in jobs]
    running, now = [], 0
    while waiting or running:
        running = [(end, taken) for end, taken in running if end > now]
        while waiting and sum(taken for _, taken in running) + waiting[0][1] <= slots:
            seconds, taken = waiting.pop(0)
            running.append((now + seconds, taken))
        now += bool(running)
    return now


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 20)), max_size=12), st.integers(1, 5))
def test_the_makespan_equals_that_of_a_simulation_second_by_second(jobs, slots):
    assert makespan(jobs, slots) == by_the_clock(jobs, slots)


def test_two_slots_halve_the_time_of_equal_jobs():
    assert makespan([(1, 10.0)] * 6, 2) == 30.0


def test_no_jobs_take_no_time():
    assert makespan([], 3) == 0.0
