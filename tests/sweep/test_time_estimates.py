"""How long jobs take, from finished runs that are made up, and how long all of them take in slots, by a clock that ticks."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnbench.sweep.estimate import OVERHEAD_S, Estimate
from cnnbench.sweep.launcher import freeze_to_disk
from cnnbench.sweep.time_estimates import READ, from_finished, kind, seen_in, together
from sweeping import a_result, leave, plan, quickly  # noqa: F401

RUNS = Path("runs")


@pytest.fixture
def finished(quickly):
    """A job that is done: 2 epochs of 100 images at 200 a second, 3 s in all."""
    (planned,) = freeze_to_disk(plan("seed=0"), "typed").jobs
    leave(planned, "done")
    return planned


def estimate(*overrides):
    """Of the first job of another sweep."""
    return from_finished(plan(*overrides).jobs[0], seen_in(RUNS))


def rows(planned, count):
    planned.job.directory.metrics.write_text("epoch\n" + "1\n" * count)


# ---- one job -------------------------------------------------------------------------------------------------------------


def test_a_finished_run_says_what_an_image_takes_and_what_an_epoch_takes_besides(finished):
    (seen,) = seen_in(RUNS)[kind(finished.config)]
    assert seen.per_image == 1 / 200
    assert seen.per_epoch == pytest.approx(3 / 2 - 100 / 200)


def test_the_same_job_takes_as_long_again(finished):
    assert estimate("seed=1").seconds == pytest.approx(3.0 + OVERHEAD_S)


def test_more_epochs_take_longer(finished):
    assert estimate("epochs=6").seconds == pytest.approx(3 * 3.0 + OVERHEAD_S)


def test_more_images_take_longer(finished):
    assert estimate("data.train_size=300").seconds == pytest.approx(2 * (300 / 200 + 1.0) + OVERHEAD_S)


@pytest.mark.slow
def test_the_last_batch_of_an_epoch_may_be_short_or_longer(finished):
    # 100 images are 4 batches of 32, the last of 4 images; 65 images are 2, the last of 33
    assert estimate("data.train_size=65").seconds == pytest.approx(2 * (65 / 200 + 1.0) + OVERHEAD_S)


@pytest.mark.slow
def test_max_steps_may_end_a_job_in_an_epoch(finished):
    cut = ("trainer.max_steps=2", "data.train_size=128")
    (planned,) = freeze_to_disk(plan("name=cut", "seed=0", *cut), "typed").jobs
    leave(planned, "done", n={"train": 128}, time={"fit_s": 2 * 1.64})
    assert estimate("seed=5", *cut).seconds == pytest.approx(0.5 * 1.64 + OVERHEAD_S)


def test_a_run_that_stopped_early_is_known_by_its_rows(finished):
    rows(finished, 1)
    assert estimate("seed=1").seconds == pytest.approx(2 * 3.0 + OVERHEAD_S)


def test_of_several_runs_the_median_counts_and_they_are_counted(finished):
    made = freeze_to_disk(plan("seed=1,2"), "typed")
    for planned, seconds in zip(made.jobs, (5.0, 50.0), strict=True):
        leave(planned, "done", time={"fit_s": seconds})
    found = estimate("seed=7")
    assert found.seconds == pytest.approx(5.0 + OVERHEAD_S)
    assert found.how == "as 3 finished runs"


def test_one_run_is_told_as_one(finished):
    assert estimate("seed=7").how == "as a finished run"


@pytest.mark.parametrize(
    "other", [{"batch_size": 16}, {"accumulate": 2}, {"ema": 0.5}, {"precision": "bf16"}, {"threads": 2}]
)
def test_what_takes_another_time_is_another_kind(finished, other):
    assert kind(finished.config.model_copy(update=other)) != kind(finished.config)


@pytest.mark.parametrize(
    "other", [{"init": "paddle"}, {"label_smoothing": 0.1}, {"seed": 5}, {"epochs": 50}, {"name": "x"}]
)
def test_what_takes_no_time_is_no_other_kind(finished, other):
    assert kind(finished.config.model_copy(update=other)) == kind(finished.config)


def test_of_another_net_nothing_is_known(finished):
    assert estimate("model=simplecnn") is None


def test_of_another_learning_rate_the_same_is_known(finished):
    assert estimate("optimizer.lr=0.5").seconds == pytest.approx(3.0 + OVERHEAD_S)


def test_the_memory_is_the_most_that_a_run_had(finished):
    for name, peak in (("a", 700.5), ("b", 300.0)):
        (planned,) = freeze_to_disk(plan(f"name={name}", "seed=0"), "typed").jobs
        status = leave(planned, "done").path / "status.json"
        status.write_text(json.dumps({**json.loads(status.read_text()), "peak_mb": {"cpu": peak}}))
    assert estimate("seed=1").peak_mb == 700.5


def test_no_memory_is_made_up(finished):
    assert estimate("seed=1").peak_mb is None


@pytest.mark.parametrize(
    "spoilt",
    [
        "",
        "[]",
        "{}",
        json.dumps({**a_result(), "samples_per_s": 0}),
        json.dumps({**a_result(), "time": None}),
        json.dumps({**a_result(), "hardware": {"system": "Plan9 mips"}}),
    ],
    ids=["empty", "a list", "nothing", "no speed", "no time", "another machine"],
)
def test_a_result_that_says_nothing_of_this_machine_is_passed_over(finished, spoilt):
    finished.job.directory.result.write_text(spoilt)
    assert seen_in(RUNS) == {}


def test_a_run_without_its_config_is_passed_over(finished):
    finished.job.directory.config.unlink()
    assert seen_in(RUNS) == {}


def test_where_there_are_no_runs_nothing_is_known(tmp_path):
    assert seen_in(tmp_path / "runs") == {}


def test_of_very_many_runs_the_newest_are_read(tmp_path, monkeypatch):
    read = []
    for number in range(READ + 5):
        path = tmp_path / "s" / f"run{number}"
        path.mkdir(parents=True)
        (path / "result.json").write_text("{}")
    monkeypatch.setattr("cnnbench.sweep.time_estimates.Config.load", lambda path: read.append(path) or {}["none"])
    seen_in(tmp_path)
    assert len(read) == READ


# ---- all of them -------------------------------------------------------------------------------------------------------------


def by_the_clock(jobs, slots):
    """When jobs are done that start in their order, each as soon as so many slots are free as it has devices."""
    waiting = [(seconds, min(devices, slots)) for seconds, devices in jobs]
    running, now = [], 0
    while waiting or running:
        running = [(end, taken) for end, taken in running if end > now]
        while waiting and sum(taken for _, taken in running) + waiting[0][1] <= slots:
            seconds, taken = waiting.pop(0)
            running.append((now + seconds, taken))
        now += bool(running)
    return now


def jobs_of(listed):
    return [
        (SimpleNamespace(config=SimpleNamespace(trainer=SimpleNamespace(devices=devices))), Estimate(seconds, None, ""))
        for seconds, devices in listed
    ]


@given(st.lists(st.tuples(st.integers(1, 20), st.integers(1, 4)), max_size=12), st.integers(1, 5))
def test_together_they_take_as_long_as_by_the_clock(listed, slots):
    assert together(jobs_of(listed), slots) == (by_the_clock(listed, slots), 0)


def test_two_slots_halve_equal_jobs():
    assert together(jobs_of([(10, 1)] * 6), 2) == (30.0, 0)


def test_jobs_without_an_estimate_are_counted():
    planned = jobs_of([(10, 1)])[0][0]
    assert together([*jobs_of([(10, 1)]), (planned, None), (planned, None)], 1) == (10.0, 2)


def test_nothing_takes_no_time():
    assert together([], 3) == (0.0, 0)
