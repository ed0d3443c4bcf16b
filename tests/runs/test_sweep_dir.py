"""The files of a sweep, made by hand: how its jobs stand, its table, and that one process at a time runs it."""

from __future__ import annotations

import csv
import json
import os
import socket
import subprocess
import sys
import time

import pytest

from cnnbench.errors import ConfigError
from cnnbench.runs.liveness import STALE_S, living, this_process
from cnnbench.runs.run_dir import RunDir
from cnnbench.runs.sweep_dir import METRICS, Job, Summary, SweepDir, row

ACCURACIES = {"best/val/acc": 0.75, "best/val/loss": 0.5, "last/val/acc": 0.7, "test/acc": 0.625, "test/loss": 0.6}
RESULT = {"metrics": ACCURACIES, "best_epoch": 2, "time": {"fit_s": 3.5}, "samples_per_s": 200.0}
HOLDER = """
import sys, time
from pathlib import Path
from cnnbench.runs.sweep_dir import SweepDir
with SweepDir(Path(sys.argv[1])).held():
    print("holds", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def sweep(tmp_path):
    return SweepDir(tmp_path / "runs" / "mine")


@pytest.fixture
def job(sweep):
    directory = RunDir(sweep.path / "lenet5_seed0_0123abcd")
    directory.path.mkdir(parents=True)
    return Job(directory, "0123abcd" * 8, {"model": "lenet5", "seed": 0}, {"params": 61_706, "macs": 416_520})


def says(job, state, result=None, **more):
    (job.directory.path / "status.json").write_text(json.dumps({**this_process(), "state": state, **more}))
    if result is not None:
        job.directory.result.write_text(json.dumps(result))


GONE = {"pid_started": 0.0}  # of a process that had the same number
ELSEWHERE = {"host": "another"}

# ---- how a job stands --------------------------------------------------------------------------------------------------------


def test_a_job_that_has_written_nothing_is_pending(job):
    assert job.status() == {"state": "pending"}


def test_a_job_with_a_result_is_done_whatever_its_status_says(job):
    says(job, "running", RESULT)
    assert job.status()["state"] == "done"


def test_a_job_whose_owner_lives_is_running(job):
    says(job, "running")
    assert job.status()["state"] == "running"


def test_a_job_whose_owner_is_gone_is_interrupted(job):
    says(job, "running", **GONE)
    assert (job.status()["state"], job.status()["reason"]) == ("interrupted", "its process is gone")


def test_a_job_on_another_machine_is_running_while_it_beats(job):
    says(job, "running", **ELSEWHERE)
    assert job.status()["state"] == "running"
    says(job, "running", **ELSEWHERE, heartbeat=time.time() - STALE_S - 1)
    assert job.status()["state"] == "interrupted"


def test_done_without_a_result_is_interrupted(job):
    says(job, "done")
    assert job.status()["state"] == "interrupted"


@pytest.mark.parametrize("state", ["failed", "diverged", "interrupted", "pending"])
def test_other_states_are_as_they_say(job, state):
    says(job, state, reason="because", **GONE)
    assert (job.status()["state"], job.status()["reason"]) == (state, "because")


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "null"])
def test_a_status_that_cannot_be_read_is_pending(job, content):
    (job.directory.path / "status.json").write_text(content)
    assert job.status() == {"state": "pending"}


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"metrics": []}'])
def test_a_result_that_cannot_be_read_is_none(job, content):
    job.directory.result.write_text(content)
    assert job.result() is None


def test_the_cell_of_a_job_is_its_setting_without_the_seed(job):
    assert job.cell == {"model": "lenet5"}


# ---- sweep.json --------------------------------------------------------------------------------------------------------------


def test_jobs_are_read_as_they_were_written(sweep, job):
    sweep.write({"name": "mine", "keys": ["model", "seed"], "fixed": {}}, [job])
    assert sweep.jobs() == [job]
    assert sweep.read()["keys"] == ["model", "seed"]


def test_where_there_is_no_sweep_there_are_no_jobs(sweep):
    assert (sweep.read(), sweep.jobs(), sweep.runs(), sweep.launcher()) == ({}, [], {}, None)


@pytest.mark.parametrize("content", ["", "{", "\x00\x00", "schema: 1"])
def test_a_broken_sweep_json_is_named_with_what_to_do(sweep, job, content):
    sweep.record.write_text(content)
    with pytest.raises(ConfigError) as raised:
        sweep.read()
    assert str(raised.value).startswith(f"{sweep.record}: cannot be read (")
    assert str(raised.value).endswith("); delete it, and type the sweep again")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("content", ["[]", "{}", '{"schema": 2}', "null"])
def test_a_sweep_json_of_another_version_is_named(sweep, job, content):
    sweep.record.write_text(content)
    with pytest.raises(ConfigError, match=r"sweep\.json: not the sweep\.json of this version of cnnbench$"):
        sweep.jobs()


def test_a_folder_that_holds_no_sweep_names_one_that_is_near(sweep, job):
    sweep.write({}, [job])
    with pytest.raises(ConfigError, match=rf"not a sweep, it holds no sweep\.json; did you mean {sweep.path}\?$"):
        SweepDir.open(sweep.path.parent)


def test_a_folder_without_any_sweep_says_how_one_is_made(tmp_path):
    with pytest.raises(ConfigError, match=r"a sweep is made by python -m cnnbench -m key=a,b \.\.\.$"):
        SweepDir.open(tmp_path)


def test_runs_are_found_by_the_hash_in_their_names_the_oldest_first(sweep):
    names = ["b_seed0_0123abcd", "b_seed0_0123abcd-2", "seed1_ffffffff", "no_hash", "x_0123ABCD", "empty_0123abcd"]
    for name in names:
        (sweep.path / name).mkdir(parents=True)
        if not name.startswith("empty"):
            (sweep.path / name / "config.yaml").touch()
    found = {hash8: [run.path.name for run in runs] for hash8, runs in sweep.runs().items()}
    assert found == {"0123abcd": names[:2], "ffffffff": names[2:3]}


# ---- one process at a time -----------------------------------------------------------------------------------------------------


@pytest.fixture
def holder(sweep):
    """Another process that runs the sweep."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(sweep.path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "holds\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_sweep_that_another_process_runs_is_refused_with_its_pid_and_host(sweep, holder):
    with pytest.raises(ConfigError) as raised, sweep.held():
        pass
    assert str(raised.value) == (
        f"{sweep.path}: this sweep is live (pid {holder.pid} on {socket.gethostname()}); "
        f"python -m cnnbench status {sweep.path} shows it"
    )
    assert sweep.launcher() == f"pid {holder.pid} on {socket.gethostname()}"


def test_a_sweep_whose_process_was_killed_can_be_taken_up(sweep, holder):
    holder.kill()
    holder.wait()
    assert sweep.launcher() is None
    with sweep.held():
        assert sweep.launcher() == f"pid {os.getpid()} on {socket.gethostname()}"


def test_a_sweep_that_runs_on_another_machine_is_refused(sweep):
    sweep.path.mkdir(parents=True)
    (sweep.path / "launcher.json").write_text(json.dumps({**this_process(), **ELSEWHERE}))
    with pytest.raises(ConfigError, match=r"this sweep is live \(pid \d+ on another\)"), sweep.held():
        pass


def test_refusing_leaves_the_others_claim(sweep):
    sweep.path.mkdir(parents=True)
    (sweep.path / "launcher.json").write_text(json.dumps({**this_process(), **ELSEWHERE}))
    with pytest.raises(ConfigError), sweep.held():
        pass
    assert sweep.launcher().endswith("on another")


def test_a_sweep_that_has_ended_is_held_by_nobody(sweep):
    with sweep.held():
        sweep.beat()
        assert sweep.launcher()
    assert sweep.launcher() is None
    with sweep.held():
        pass


@pytest.mark.parametrize("missing", ["pid", "host", "pid_started", "heartbeat"])
def test_a_record_that_lacks_something_is_of_no_living_process(missing):
    assert living({key: value for key, value in this_process().items() if key != missing}) is None


# ---- summary.csv -----------------------------------------------------------------------------------------------------------------


def read(sweep):
    with sweep.summary.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_finished_jobs_row_has_its_numbers(sweep, job):
    says(job, "done", RESULT)
    Summary(sweep, [job], ["model", "seed"]).write()
    (found,) = read(sweep)
    assert found == {
        "job": "lenet5_seed0_0123abcd", "state": "done", "model": "lenet5", "seed": "0",
        "best/val/acc": "0.75", "best/val/loss": "0.5", "last/val/acc": "0.7", "test/acc": "0.625", "test/loss": "0.6",
        "best/val/ema_acc": "", "best/val/ema_loss": "", "test/ema_acc": "", "test/ema_loss": "",
        "best_epoch": "2", "params": "61706", "macs": "416520", "fit_s": "3.5", "samples_per_s": "200.0", "reason": "",
    }  # fmt: skip


def test_a_failed_jobs_row_has_its_reason_and_no_number(job):
    found = row(job, {"state": "failed", "reason": "no, never"}, ["model", "seed"])
    assert (found["state"], found["reason"], found["params"]) == ("failed", "no, never", 61_706)
    assert not set(METRICS) & found.keys()


def test_a_job_that_lacks_a_key_has_an_empty_cell(sweep, job):
    Summary(sweep, [job], ["model", "epochs", "seed"]).write()
    assert read(sweep)[0]["epochs"] == ""


def test_values_that_are_no_words_or_numbers_are_json(job):
    setting = {"augment": ["crop", "flip"], "early_stopping": None, "compile": True, "seed": 1}
    found = row(Job(job.directory, job.identity, setting), {"state": "pending"}, setting)
    assert [found[key] for key in setting] == ['["crop", "flip"]', "null", True, 1]


def test_a_job_that_ends_changes_its_row_alone(sweep, job):
    other = Job(RunDir(sweep.path / "other_seed1_ffffffff"), "f" * 64, {"model": "lenet5", "seed": 1})
    summary = Summary(sweep, [job, other], ["model", "seed"])
    summary.write()
    says(job, "done", RESULT)
    summary.update(job, {"state": "done"})
    summary.close()
    assert [(found["job"], found["state"]) for found in read(sweep)] == [(job.name, "done"), (other.name, "pending")]


def test_a_table_that_takes_long_to_write_is_put_off_and_written_at_the_end(sweep, job):
    summary = Summary(sweep, [job], ["seed"])
    summary.write()
    summary._next = time.monotonic() + 3600  # as after a table that took minutes
    says(job, "done", RESULT)
    summary.update(job, {"state": "done"})
    assert read(sweep)[0]["state"] == "pending"
    summary.close()
    assert read(sweep)[0]["state"] == "done"
