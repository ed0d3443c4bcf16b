"""What one sees of a sweep: counts, the time left, a line a job, a row a cell; of jobs that are made up."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from cnnbench.console import make_console
from cnnbench.runs.liveness import this_process
from cnnbench.runs.run_dir import RunDir
from cnnbench.runs.sweep_dir import Job
from cnnbench.sweep.progress import Tally
from cnnbench.sweep.status_table import cells, line, progress_of, rendered
from cnnbench.text import duration


@pytest.fixture
def make(tmp_path):
    """Makes a job of a cell and a seed, with a result of some accuracy if it is done."""

    def make(cell, seed, accuracy=None, seconds=10.0):
        directory = RunDir(tmp_path / f"{cell}_seed{seed}")
        directory.path.mkdir()
        if accuracy is not None:
            metrics = {"test/acc": accuracy, "best/val/acc": accuracy + 0.01}
            directory.result.write_text(json.dumps({"metrics": metrics, "time": {"fit_s": seconds}}))
        return Job(directory, f"{cell}{seed}", {"model": cell, "seed": seed}, {"params": 61_706})

    return make


def runs(job, **progress):
    """A job that is on says so."""
    job.directory.path.joinpath("status.json").write_text(
        json.dumps({**this_process(), "state": "running", **progress})
    )


def stand(jobs, states, slots=1, took=None):
    states = {job.name: {"state": state} for job, state in zip(jobs, states, strict=True)}
    return Tally(jobs, states, slots, took).standing()


def text(shown):
    console = Console(width=160, record=True, quiet=False, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(shown)
    return console.export_text()


# ---- counts and time ---------------------------------------------------------------------------------------------------------


def test_jobs_are_counted_by_state(make):
    now = stand([make("a", seed) for seed in range(4)], ["done", "failed", "done", "pending"])
    assert now.counts == {"done": 2, "failed": 1, "pending": 1}
    assert now.total == 4


def test_waiting_jobs_take_as_long_as_others_of_their_cell(make):
    jobs = [make("a", 0), make("a", 1), make("b", 0), make("b", 1)]
    now = stand(jobs, ["done", "pending", "done", "interrupted"], took={"a_seed0": 10.0, "b_seed0": 100.0})
    assert now.left_s == 110.0


def test_a_cell_of_which_nothing_is_done_takes_as_long_as_the_others_do(make):
    jobs = [make("a", 0), make("b", 0), make("c", 0)]
    now = stand(jobs, ["done", "done", "pending"], took={"a_seed0": 10.0, "b_seed0": 30.0})
    assert now.left_s == 20.0


def test_slots_share_the_time_that_is_left(make):
    jobs = [make("a", seed) for seed in range(5)]
    now = stand(jobs, ["done", *["pending"] * 4], slots=2, took={"a_seed0": 10.0})
    assert now.left_s == 20.0


def test_a_running_job_says_itself_how_long_it_will_take(make):
    jobs = [make("a", 0), make("a", 1)]
    runs(jobs[1], left_s=4.0)
    assert stand(jobs, ["done", "running"], took={"a_seed0": 10.0}).left_s == 4.0


def test_no_sweep_ends_before_its_longest_running_job(make):
    jobs = [make("a", 0), make("a", 1), make("a", 2)]
    runs(jobs[1], left_s=1000.0)
    runs(jobs[2], left_s=1.0)
    assert stand(jobs, ["done", "running", "running"], slots=2, took={"a_seed0": 10.0}).left_s == 1000.0


def test_before_anything_is_done_the_running_jobs_stand_for_the_others(make):
    jobs = [make("a", 0), make("a", 1)]
    runs(jobs[0], left_s=8.0)
    assert stand(jobs, ["running", "pending"]).left_s == 16.0


def test_where_nothing_is_known_no_time_is_told(make):
    jobs = [make("a", 0), make("a", 1)]
    runs(jobs[0])
    assert stand(jobs, ["running", "pending"]).left_s is None


def test_a_sweep_that_is_done_has_no_time_left(make):
    assert stand([make("a", 0)], ["done"], took={"a_seed0": 10.0}).left_s == 0.0


CHANGES = st.lists(
    st.tuples(
        st.integers(0, 5),
        st.sampled_from(["pending", "running", "interrupted", "failed", "diverged", "done"]),
        st.floats(0.001, 1e5),
    ),
    max_size=30,
)


@given(CHANGES, st.integers(1, 4))
def test_a_tally_that_is_kept_is_the_one_that_is_made_anew(changes, slots):
    jobs = [Job(RunDir(Path(f"/nowhere/{n}")), str(n), {"model": "ab"[n % 2], "seed": n}) for n in range(6)]
    states, took = {job.name: {"state": "pending"} for job in jobs}, {}
    kept = Tally(jobs, states, slots)
    for number, state, seconds in changes:
        name = jobs[number].name
        if states[name]["state"] == "done":  # it has ended
            continue
        states[name] = {"state": state}
        if state == "done":
            took[name] = seconds
        kept.set(jobs[number], states[name], took.get(name))
    anew = Tally(jobs, states, slots, took)
    assert {state: count for state, count in kept.counts.items() if count} == dict(anew.counts)
    assert (kept.total, kept.ended) == (anew.total, anew.ended)
    assert sorted(job.name for job, _ in kept.standing().bad) == sorted(job.name for job, _ in anew.standing().bad)
    assert kept.left() == (None if anew.left() is None else pytest.approx(anew.left(), abs=1e-6))


@given(st.lists(st.floats(0.001, 100), min_size=9, max_size=9))
def test_when_the_last_job_has_ended_there_is_exactly_no_time_left(seconds):
    jobs = [Job(RunDir(Path(f"/nowhere/{n}")), str(n), {"model": "abc"[n % 3], "seed": n}) for n in range(9)]
    kept = Tally(jobs, {job.name: {"state": "pending"} for job in jobs}, slots=2)
    for job, took in zip(jobs, seconds, strict=True):
        kept.set(job, {"state": "done"}, took)
    assert duration(kept.left()) == "0.0 s"


# ---- on a screen ---------------------------------------------------------------------------------------------------------------


def test_the_head_says_how_many_of_how_many(make):
    shown = text(rendered(stand([make("a", seed) for seed in range(3)], ["pending", "done", "failed"]), "runs/mine"))
    assert shown.startswith("runs/mine  1 done, 1 pending, 1 failed of 3\n")


def test_the_time_left_is_told_while_it_runs_and_by_whom(make):
    now = stand([make("a", 0), make("a", 1)], ["done", "pending"], took={"a_seed0": 70.0})
    assert "1 min 10 s left   (pid 7 on host)" in text(rendered(now, "runs/mine", "pid 7 on host"))
    assert "left" not in text(rendered(now, "runs/mine"))


def test_a_running_job_has_a_row_with_its_progress(make):
    job = make("a", 0)
    runs(job, epoch=3, epochs=10, loss=0.12345, val_acc=0.9, left_s=75.0)
    shown = text(rendered(stand([job], ["running"]), "runs/mine")).splitlines()
    assert shown[1].split() == ["job", "epoch", "loss", "val", "acc", "left"]
    assert shown[2].split() == ["a_seed0", "3/10", "0.1235", "0.9000", "1", "min", "15", "s"]


def test_a_job_that_has_told_nothing_yet_begins():
    assert progress_of({"state": "running"}) == ("begins", "", "", "")


def test_the_last_five_failures_are_shown_and_the_others_counted(make):
    jobs = [make("a", seed) for seed in range(7)]
    states = {job.name: {"state": "failed", "reason": f"why {job.name}"} for job in jobs}
    shown = text(rendered(Tally(jobs, states, 1).standing(), "runs/mine"))
    assert "failed: a_seed6: why a_seed6" in shown
    assert "a_seed1:" not in shown
    assert "and 2 before" in shown


def test_brackets_in_a_reason_are_shown_as_they_are(make):
    job = make("a", 0)
    states = {job.name: {"state": "diverged", "reason": "[red]nan[/red]"}}
    assert "diverged: a_seed0: [red]nan[/red]" in text(rendered(Tally([job], states, 1).standing(), "runs/mine"))


def test_a_file_has_room_for_wide_tables():
    assert make_console().width == 160


# ---- a line a job ----------------------------------------------------------------------------------------------------------------


def test_a_finished_jobs_line_has_its_accuracies_its_time_and_what_is_left(make):
    shown = line(make("a", 0, 0.5), {"state": "done"}, 65.0, 3, 12, 130.0)
    assert shown == "[ 3/12] done        a_seed0  val acc 0.5100  test acc 0.5000  1 min 5 s  2 min 10 s left"


def test_a_failed_jobs_line_has_its_reason(make):
    shown = line(make("a", 0), {"state": "failed", "reason": "no memory"}, 1.0, 1, 2, None)
    assert shown == "[1/2] failed      a_seed0: no memory  1.0 s"


def test_a_job_that_begins_has_a_short_line(make):
    assert line(make("a", 0), {"state": "running"}, None, 0, 2, 5.0) == "[0/2] running     a_seed0"


# ---- a row a cell ------------------------------------------------------------------------------------------------------------------


def columns(table):
    return {column.header + str(number): list(column.cells) for number, column in enumerate(table.columns)}


def test_a_cell_has_the_mean_and_the_deviation_of_its_seeds(make):
    accuracies = [0.5, 0.6, 0.8]
    jobs = [make("a", seed, accuracy, 10.0 * seed) for seed, accuracy in enumerate(accuracies)]
    (shown,) = zip(*columns(cells(jobs, ["model", "seed"])).values(), strict=True)
    mean, sd = statistics.mean(accuracies), statistics.stdev(accuracies)
    assert shown == ("a", "3", f"{mean:.4f}", f"{sd:.4f}", f"{mean + 0.01:.4f}", f"{sd:.4f}", "61,706", "10.0 s")


def test_a_cell_that_lacks_seeds_says_how_many_it_has(make):
    found = columns(cells([make("a", 0, 0.5), make("a", 1)], ["model", "seed"]))
    assert found["n1"] == ["1/2"]
    assert found["test acc2"] == ["0.5000"]


def test_one_seed_has_no_deviation(make):
    found = columns(cells([make("a", 0, 0.5)], ["model", "seed"]))
    assert (found["n1"], found["sd3"]) == (["1"], [""])


def test_cells_stand_in_the_order_of_their_jobs(make):
    jobs = [make("b", 0, 0.5), make("a", 0, 0.5), make("b", 1, 0.5)]
    assert columns(cells(jobs, ["model", "seed"]))["model0"] == ["b", "a"]


def test_where_nothing_is_done_there_is_no_table(make):
    assert cells([make("a", 0)], ["model", "seed"]) is None
