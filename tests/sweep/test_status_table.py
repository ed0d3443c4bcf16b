"""What the user sees of a sweep: counts, time left, a line per job, a row per cell; for invented jobs."""

from __future__ import annotations

import io
import json
import statistics
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from cnnbench.console import make_console
from cnnbench.runs.run_dir import RunDir
from cnnbench.runs.schema import Status
from cnnbench.runs.sweep_dir import Job
from cnnbench.sweep.progress import ProgressTracker
from cnnbench.sweep.status_table import cell_table, job_line, progress_columns, retry_command, status_view
from cnnbench.text import duration


@pytest.fixture
def make(tmp_path):
    """Makes a job of a cell and a seed; with an accuracy it has a result."""

    def make(cell, seed, accuracy=None, seconds=10.0):
        directory = RunDir(tmp_path / f"{cell}_seed{seed}")
        directory.path.mkdir()
        if accuracy is not None:
            metrics = {"test/acc": accuracy, "best/val/acc": accuracy + 0.01}
            directory.result.write_text(json.dumps({"metrics": metrics, "time": {"fit_s": seconds}}))
        return Job(directory, f"{cell}{seed}", {"model": cell, "seed": seed}, {"params": 61_706})

    return make


def progress_of(jobs, states, slots=1, took=None):
    statuses = [(job, Status(state=state)) for job, state in zip(jobs, states, strict=True)]
    return ProgressTracker(statuses, slots, took)


def text_of(view):
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(view)
    return console.export_text()


# ---- counts and time ---------------------------------------------------------------------------------------------------------


def test_jobs_are_counted_by_state(make):
    now = progress_of([make("a", seed) for seed in range(4)], ["done", "failed", "done", "pending"])
    assert now.counts == {"done": 2, "failed": 1, "pending": 1}
    assert now.total == 4


def test_a_waiting_job_is_expected_to_take_as_long_as_others_of_its_cell(make):
    jobs = [make("a", 0), make("a", 1), make("b", 0), make("b", 1)]
    now = progress_of(jobs, ["done", "pending", "done", "interrupted"], took={"a_seed0": 10.0, "b_seed0": 100.0})
    assert now.left_s == 110.0


def test_a_job_of_a_cell_without_finished_jobs_is_expected_to_take_as_long_as_all_others(make):
    jobs = [make("a", 0), make("b", 0), make("c", 0)]
    now = progress_of(jobs, ["done", "done", "pending"], took={"a_seed0": 10.0, "b_seed0": 30.0})
    assert now.left_s == 20.0


def test_slots_divide_the_time_left(make):
    jobs = [make("a", seed) for seed in range(5)]
    now = progress_of(jobs, ["done", *["pending"] * 4], slots=2, took={"a_seed0": 10.0})
    assert now.left_s == 20.0


def test_a_running_job_has_the_time_left_of_its_own_status(make):
    jobs = [make("a", 0), make("a", 1)]
    jobs[1].directory.write_status("running", left_s=4.0)
    assert progress_of(jobs, ["done", "running"], took={"a_seed0": 10.0}).left_s == 4.0


def test_a_sweep_does_not_end_before_its_longest_running_job(make):
    jobs = [make("a", 0), make("a", 1), make("a", 2)]
    jobs[1].directory.write_status("running", left_s=1000.0)
    jobs[2].directory.write_status("running", left_s=1.0)
    assert progress_of(jobs, ["done", "running", "running"], slots=2, took={"a_seed0": 10.0}).left_s == 1000.0


def test_before_any_job_is_done_the_time_left_of_running_jobs_is_used_for_the_others(make):
    jobs = [make("a", 0), make("a", 1)]
    jobs[0].directory.write_status("running", left_s=8.0)
    assert progress_of(jobs, ["running", "pending"]).left_s == 16.0


def test_without_any_times_the_time_left_is_unknown(make):
    jobs = [make("a", 0), make("a", 1)]
    jobs[0].directory.write_status("running")
    assert progress_of(jobs, ["running", "pending"]).left_s is None


def test_a_finished_sweep_has_no_time_left(make):
    assert progress_of([make("a", 0)], ["done"], took={"a_seed0": 10.0}).left_s == 0.0


CHANGES = st.lists(
    st.tuples(
        st.integers(0, 5),
        st.sampled_from(["pending", "running", "interrupted", "failed", "diverged", "done"]),
        st.floats(0.001, 1e5),
    ),
    max_size=30,
)


@given(CHANGES, st.integers(1, 4))
def test_an_updated_tracker_equals_a_new_one(changes, slots):
    jobs = [Job(RunDir(Path(f"/nowhere/{n}")), str(n), {"model": "ab"[n % 2], "seed": n}) for n in range(6)]
    states, took = {job.name: Status(state="pending") for job in jobs}, {}
    kept = ProgressTracker(((job, states[job.name]) for job in jobs), slots)
    for number, state, seconds in changes:
        name = jobs[number].name
        if states[name].state == "done":  # it has ended
            continue
        states[name] = Status(state=state)
        if state == "done":
            took[name] = seconds
        kept.update(jobs[number], states[name], took.get(name))
    new_tracker = ProgressTracker(((job, states[job.name]) for job in jobs), slots, took)
    assert {state: count for state, count in kept.counts.items() if count} == dict(new_tracker.counts)
    assert (kept.total, kept.finished) == (new_tracker.total, new_tracker.finished)
    assert sorted(job.name for job, _ in kept.failures) == sorted(job.name for job, _ in new_tracker.failures)
    assert kept.seconds_left() == (
        None if new_tracker.seconds_left() is None else pytest.approx(new_tracker.seconds_left(), abs=1e-6)
    )


@given(st.lists(st.floats(0.001, 100), min_size=9, max_size=9))
def test_after_the_last_job_the_time_left_is_exactly_zero(seconds):
    jobs = [Job(RunDir(Path(f"/nowhere/{n}")), str(n), {"model": "abc"[n % 3], "seed": n}) for n in range(9)]
    kept = ProgressTracker([(job, Status(state="pending")) for job in jobs], slots=2)
    for job, took in zip(jobs, seconds, strict=True):
        kept.update(job, Status(state="done"), took)
    assert duration(kept.seconds_left()) == "0.0 s"


# ---- on a terminal ---------------------------------------------------------------------------------------------------------------


def test_the_first_line_has_the_counts(make):
    shown = text_of(
        status_view(progress_of([make("a", seed) for seed in range(3)], ["pending", "done", "failed"]), "runs/mine")
    )
    assert shown.startswith("runs/mine  1 done, 1 pending, 1 failed of 3\n")


def test_the_time_left_and_the_launcher_are_shown_while_it_runs(make):
    now = progress_of([make("a", 0), make("a", 1)], ["done", "pending"], took={"a_seed0": 70.0})
    assert "1 min 10 s left   (pid 7 on host)" in text_of(status_view(now, "runs/mine", "pid 7 on host"))
    assert "left" not in text_of(status_view(now, "runs/mine"))


def test_a_running_job_has_a_row_with_its_progress(make):
    job = make("a", 0)
    job.directory.write_status("running", epoch=3, epochs=10, loss=0.12345, val_acc=0.9, left_s=75.0)
    shown = text_of(status_view(progress_of([job], ["running"]), "runs/mine")).splitlines()
    assert shown[1].split() == ["job", "epoch", "loss", "val", "acc", "left"]
    assert shown[2].split() == ["a_seed0", "3/10", "0.1235", "0.9000", "1", "min", "15", "s"]


def test_a_job_without_progress_is_starting():
    assert progress_columns(Status(state="running")) == ("starting", "", "", "")


def test_the_last_five_failures_are_shown_and_the_others_counted(make):
    jobs = [make("a", seed) for seed in range(7)]
    states = [(job, Status(state="failed", reason=f"why {job.name}")) for job in jobs]
    shown = text_of(status_view(ProgressTracker(states, 1), "runs/mine"))
    assert "failed: a_seed6: why a_seed6" in shown
    assert "a_seed1:" not in shown
    assert "and 2 earlier failures" in shown


def test_brackets_in_a_reason_are_shown_as_they_are(make):
    job = make("a", 0)
    states = [(job, Status(state="diverged", reason="[red]nan[/red]"))]
    assert "diverged: a_seed0: [red]nan[/red]" in text_of(status_view(ProgressTracker(states, 1), "runs/mine"))


def test_a_console_that_is_no_terminal_is_160_columns_wide():
    assert make_console().width == 160


# ---- a line per job ----------------------------------------------------------------------------------------------------------------


def test_the_line_of_a_finished_job_has_its_accuracies_its_time_and_the_time_left(make):
    shown = job_line(make("a", 0, 0.5), Status(state="done"), 65.0, 3, 12, 130.0)
    assert shown == "[ 3/12] done        a_seed0  val acc 0.5100  test acc 0.5000  1 min 5 s  2 min 10 s left"


def test_the_line_of_a_failed_job_has_its_reason(make):
    shown = job_line(make("a", 0), Status(state="failed", reason="no memory"), 1.0, 1, 2, None)
    assert shown == "[1/2] failed      a_seed0: no memory  1.0 s"


def test_the_line_of_a_started_job_is_short(make):
    assert job_line(make("a", 0), Status(state="running"), None, 0, 2, 5.0) == "[0/2] running     a_seed0"


# ---- a row per cell ------------------------------------------------------------------------------------------------------------------


def columns(table):
    return {column.header + str(number): list(column.cells) for number, column in enumerate(table.columns)}


def test_a_cell_has_the_mean_and_the_standard_deviation_of_its_seeds(make):
    accuracies = [0.5, 0.6, 0.8]
    jobs = [make("a", seed, accuracy, 10.0 * seed) for seed, accuracy in enumerate(accuracies)]
    (shown,) = zip(*columns(cell_table(jobs, ["model", "seed"])).values(), strict=True)
    mean, sd = statistics.mean(accuracies), statistics.stdev(accuracies)
    assert shown == ("a", "3", f"{mean:.4f}", f"{sd:.4f}", f"{mean + 0.01:.4f}", f"{sd:.4f}", "61,706", "10.0 s")


def test_a_cell_with_missing_seeds_shows_how_many_it_has(make):
    found = columns(cell_table([make("a", 0, 0.5), make("a", 1)], ["model", "seed"]))
    assert found["n1"] == ["1/2"]
    assert found["test acc2"] == ["0.5000"]


def test_one_seed_has_no_standard_deviation(make):
    found = columns(cell_table([make("a", 0, 0.5)], ["model", "seed"]))
    assert (found["n1"], found["sd3"]) == (["1"], [""])


def test_cells_stand_in_the_order_of_their_jobs(make):
    jobs = [make("b", 0, 0.5), make("a", 0, 0.5), make("b", 1, 0.5)]
    assert columns(cell_table(jobs, ["model", "seed"]))["model0"] == ["b", "a"]


def test_there_is_no_table_if_no_job_is_done(make):
    assert cell_table([make("a", 0)], ["model", "seed"]) is None


@pytest.mark.parametrize(
    ("command", "counts", "expected"),
    [
        ("cnnbench -m seed=0,1", {"done": 2}, "cnnbench -m seed=0,1"),
        ("cnnbench -m seed=0,1", {"failed": 1}, "cnnbench -m seed=0,1 sweep.retry=failed"),
        ("cnnbench -m seed=0,1 sweep.retry=failed", {"failed": 1}, "cnnbench -m seed=0,1 sweep.retry=failed"),
        (
            "cnnbench -m sweep.retry=failed seed=0,1",
            {"failed": 1, "diverged": 2},
            "cnnbench -m seed=0,1 sweep.retry=all",
        ),
        ("cnnbench -m 'name=a b' sweep.retry=all", {"diverged": 1}, "cnnbench -m 'name=a b' sweep.retry=diverged"),
    ],
)
def test_the_command_that_runs_failed_jobs_again_has_the_key_once(command, counts, expected):
    assert retry_command(command, counts) == expected
