"""The directory of a sweep: states of its jobs, sweep.json, its lock, and summary.csv."""

from __future__ import annotations

import csv
import errno
import json
import os
import socket
import subprocess
import sys
import time

import pytest

from cnnbench.errors import ConfigError
from cnnbench.runs.liveness import STALE_S, this_process
from cnnbench.runs.run_dir import RunDir, hashed_runs
from cnnbench.runs.schema import Status, SweepRecord
from cnnbench.runs.sweep_dir import METRICS, Job, Summary, SweepDir, summary_row
from owners import DEAD, ME, OTHER_HOST, make_older, no_locks, read_only, record

METRIC_VALUES = {"best/val/acc": 0.75, "best/val/loss": 0.5, "last/val/acc": 0.7, "test/acc": 0.625, "test/loss": 0.6}
RESULT = {"metrics": METRIC_VALUES, "best_epoch": 2, "time": {"fit_s": 3.5}, "samples_per_s": 200.0}
RECORD = SweepRecord(schema=1, name="mine", keys=["model", "seed"], fixed={}, jobs=[])
LOCK = """
import sys, time
from pathlib import Path
from cnnbench.runs.sweep_dir import SweepDir
with SweepDir(Path(sys.argv[1])).lock():
    print("locked", flush=True)
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


def job_of_seed_1(sweep):
    return Job(RunDir(sweep.path / "other_seed1_ffffffff"), "f" * 64, {"model": "lenet5", "seed": 1})


def write_status(job, state, result=None, **more):
    values = {**this_process().model_dump(), "state": state, **more}
    (job.directory.path / "status.json").write_text(json.dumps(values))
    if result is not None:
        job.directory.result.write_text(json.dumps(result))


# ---- the state of a job ------------------------------------------------------------------------------------------------------


def test_a_job_without_files_is_pending(job):
    assert job.status() == Status(state="pending")


def test_a_job_with_a_result_is_done_with_any_status(job):
    write_status(job, "running", RESULT)
    assert job.status().state == "done"


def test_a_job_with_a_living_owner_is_running(job):
    write_status(job, "running")
    assert job.status().state == "running"


def test_a_running_job_with_a_dead_owner_is_interrupted(job):
    write_status(job, "running", **DEAD)
    assert (job.status().state, job.status().reason) == ("interrupted", "its process is gone")


def test_a_job_on_another_machine_is_running_until_its_heartbeat_is_old(job):
    write_status(job, "running", **OTHER_HOST)
    assert job.status().state == "running"
    make_older(job.directory.status_file, STALE_S + 1)
    assert job.status().state == "interrupted"


def test_a_done_job_without_a_result_is_interrupted(job):
    write_status(job, "done")
    assert job.status().state == "interrupted"


@pytest.mark.parametrize("state", ["failed", "diverged", "interrupted", "pending"])
def test_other_states_are_kept_when_the_owner_is_dead(job, state):
    write_status(job, state, reason="because", **DEAD)
    assert (job.status().state, job.status().reason) == (state, "because")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"state": "sleeping"}'])
def test_a_job_whose_status_cannot_be_read_is_pending(job, content):
    (job.directory.path / "status.json").write_text(content)
    assert job.status() == Status(state="pending")


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"metrics": []}'])
def test_a_result_that_cannot_be_read_is_none(job, content):
    job.directory.result.write_text(content)
    assert job.result() is None


def test_the_cell_of_a_job_is_its_setting_without_the_seed(job):
    assert job.cell == {"model": "lenet5"}


# ---- sweep.json --------------------------------------------------------------------------------------------------------------


def test_jobs_are_read_as_they_were_written(sweep, job):
    sweep.write(RECORD, [job])
    assert sweep.jobs() == [job]
    assert sweep.read().keys == ["model", "seed"]


def test_without_a_sweep_json_there_are_no_jobs(sweep):
    assert (sweep.read(), sweep.jobs(), sweep.launcher()) == (None, [], None)
    assert hashed_runs(sweep.path) == {}


@pytest.mark.parametrize("content", ["", "{", "\x00\x00", "schema: 1", "[]", "null"])
def test_a_sweep_json_that_is_no_json_is_refused_with_what_to_do(sweep, job, content):
    sweep.record.write_text(content)
    with pytest.raises(ConfigError) as raised:
        sweep.read()
    assert str(raised.value).startswith(f"{sweep.record}: cannot be read (")
    assert str(raised.value).endswith("); delete it, and type the sweep again")
    assert "\n" not in str(raised.value)


def test_a_sweep_json_without_permission_may_be_intact_and_is_not_to_be_deleted(sweep, job, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("cnnbench.runs.sweep_dir.read_bytes", refuse)
    with pytest.raises(ConfigError) as raised:
        sweep.read()
    assert str(raised.value) == f"{sweep.record}: cannot be read (Permission denied)"


@pytest.mark.parametrize("content", ["{}", '{"schema": 2}'])
def test_a_sweep_json_of_another_version_is_refused(sweep, job, content):
    sweep.record.write_text(content)
    with pytest.raises(ConfigError, match=r"sweep\.json: not the sweep\.json of this version of cnnbench$"):
        sweep.jobs()


def test_opening_a_folder_without_a_sweep_names_a_sweep_below_it(sweep, job):
    sweep.write(RECORD, [job])
    with pytest.raises(ConfigError, match=rf"not a sweep, it holds no sweep\.json; did you mean {sweep.path}\?$"):
        SweepDir.open(sweep.path.parent)


def test_opening_an_empty_folder_says_how_a_sweep_is_made(tmp_path):
    with pytest.raises(ConfigError, match=r"a sweep is made by cnnbench -m key=a,b \.\.\.$"):
        SweepDir.open(tmp_path)


def test_run_directories_are_found_by_the_hash_in_their_names_the_oldest_first(sweep):
    names = ["b_seed0_0123abcd", "b_seed0_0123abcd-2", "seed1_ffffffff", "no_hash", "x_0123ABCD", "empty_0123abcd"]
    for name in names:
        (sweep.path / name).mkdir(parents=True)
        if not name.startswith("empty"):
            (sweep.path / name / "config.yaml").touch()
    found = {hash8: [run.path.name for run in runs] for hash8, runs in hashed_runs(sweep.path).items()}
    assert found == {"0123abcd": names[:2], "ffffffff": names[2:3]}


# ---- the lock ----------------------------------------------------------------------------------------------------------------


def write_launcher(sweep, **values):
    """Writes launcher.json of this process with other values."""
    sweep.path.mkdir(parents=True, exist_ok=True)
    sweep.owner.write_text(json.dumps(record(**values)))


@pytest.fixture
def launcher(sweep):
    """Another process that has locked the sweep."""
    process = subprocess.Popen([sys.executable, "-c", LOCK, str(sweep.path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "locked\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_sweep_that_another_process_has_locked_is_refused_with_its_pid_and_host(sweep, launcher):
    with pytest.raises(ConfigError) as raised, sweep.lock():
        pass
    assert str(raised.value) == (
        f"{sweep.path}: this sweep is live (pid {launcher.pid} on {socket.gethostname()}); "
        f"cnnbench status {sweep.path} shows it"
    )
    assert sweep.launcher() == f"pid {launcher.pid} on {socket.gethostname()}"


def test_a_sweep_whose_launcher_was_killed_can_be_locked(sweep, launcher):
    launcher.kill()
    launcher.wait()
    assert sweep.launcher() is None
    with sweep.lock():
        assert sweep.launcher() == f"pid {os.getpid()} on {socket.gethostname()}"


def test_a_sweep_of_a_launcher_on_another_machine_is_refused_and_stays_its_own(sweep):
    write_launcher(sweep, **OTHER_HOST)
    with pytest.raises(ConfigError, match=r"this sweep is live \(pid \d+ on another\)"), sweep.lock():
        pass
    assert sweep.launcher().endswith("on another")


@pytest.mark.parametrize("age", [STALE_S + 1, -86400])
def test_a_sweep_whose_launcher_on_another_host_has_died_can_be_locked(sweep, monkeypatch, age):
    """Ahead: the host's clock was a day ahead, and gave the file its time."""
    monkeypatch.setattr("cnnbench.runs.liveness.LOOK_S", 0.2)
    write_launcher(sweep, **OTHER_HOST, heartbeat=9e99)
    make_older(sweep.owner, age)
    assert sweep.launcher() is None
    with sweep.lock():
        assert sweep.launcher() == ME


@pytest.mark.parametrize("left", ["nothing", "a dead process", "a heartbeat of long ago"])
def test_a_launcher_that_holds_the_lock_is_alive(sweep, launcher, left):
    sweep.owner.unlink()
    if left != "nothing":
        write_launcher(sweep, **(DEAD if "dead" in left else OTHER_HOST))
        make_older(sweep.owner, STALE_S + 1)
    assert sweep.launcher().endswith(", which holds its lock")
    launcher.kill()
    launcher.wait()
    assert sweep.launcher() is None


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_on_a_file_system_without_locks_launcher_json_shows_the_owner(sweep, monkeypatch, code):
    monkeypatch.setattr("fcntl.flock", lambda *_: no_locks(code=code))
    with sweep.lock():
        assert sweep.launcher() == ME
        with pytest.raises(ConfigError, match=rf"this sweep is live \({ME}\)"), sweep.lock():
            pass
        assert sweep.launcher() == ME
    assert (sweep.launcher(), sweep.owner.exists()) == (None, False)


def test_a_sweep_in_a_read_only_folder_is_refused_in_one_line(sweep, monkeypatch):
    monkeypatch.setattr("cnnbench.runs.sweep_dir.write_atomic", read_only)
    with pytest.raises(ConfigError) as raised, sweep.lock():
        pass
    assert str(raised.value) == (
        f"runs_dir: cannot write to {sweep.path} (Read-only file system); choose another with runs_dir=..."
    )


def test_a_heartbeat_on_a_full_disk_renews_the_time_of_the_file(sweep, monkeypatch):
    with sweep.lock():
        make_older(sweep.owner, 1000)
        monkeypatch.setattr("cnnbench.runs.sweep_dir.write_atomic", read_only)  # any error
        sweep.renew_launcher()
        assert time.time() - sweep.owner.stat().st_mtime < 100


def test_a_launcher_that_was_taken_for_dead_leaves_the_record_of_its_successor(sweep):
    """As after a laptop's sleep, on a file system whose locks another host does not see."""
    with sweep.lock():
        write_launcher(sweep, **OTHER_HOST)
        before = sweep.owner.read_bytes()
        sweep.renew_launcher()
        assert sweep.owner.read_bytes() == before
    assert sweep.owner.read_bytes() == before


def test_a_launcher_writes_its_record_again_once_its_successor_is_dead(sweep):
    with sweep.lock():
        write_launcher(sweep, **DEAD)
        sweep.renew_launcher()
        assert sweep.launcher() == ME


def test_a_sweep_has_no_launcher_once_it_is_unlocked(sweep):
    with sweep.lock():
        sweep.write_launcher()
        assert sweep.launcher()
    assert sweep.launcher() is None
    with sweep.lock():
        pass


def test_a_sweep_in_a_runs_dir_that_is_a_file_is_refused_before_it_is_locked(sweep):
    sweep.path.parent.write_text("")
    with (
        pytest.raises(ConfigError, match=r"^runs_dir: cannot write to .*; choose another with runs_dir=\.\.\.$"),
        sweep.lock(),
    ):
        pass


# ---- summary.csv -------------------------------------------------------------------------------------------------------------


def rows_of(sweep):
    with sweep.summary.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_row_of_a_finished_job_has_its_numbers(sweep, job):
    write_status(job, "done", RESULT)
    Summary(sweep, [job], ["model", "seed"]).write()
    assert rows_of(sweep) == [{
        "job": "lenet5_seed0_0123abcd", "state": "done", "model": "lenet5", "seed": "0",
        "best/val/acc": "0.75", "best/val/loss": "0.5", "last/val/acc": "0.7", "test/acc": "0.625", "test/loss": "0.6",
        "best/val/ema_acc": "", "best/val/ema_loss": "", "test/ema_acc": "", "test/ema_loss": "",
        "best_epoch": "2", "params": "61706", "macs": "416520", "fit_s": "3.5", "samples_per_s": "200.0", "reason": "",
    }]  # fmt: skip


def test_the_row_of_a_failed_job_has_its_reason_and_no_metric(job):
    row = summary_row(job, Status(state="failed", reason="no, never"), ["model", "seed"])
    assert (row["state"], row["reason"], row["params"]) == ("failed", "no, never", 61_706)
    assert not set(METRICS) & row.keys()


def test_a_job_without_a_key_has_an_empty_field(sweep, job):
    Summary(sweep, [job], ["model", "epochs", "seed"]).write()
    assert rows_of(sweep)[0]["epochs"] == ""


def test_lists_dicts_and_none_are_written_as_json(job):
    setting = {"augment": ["crop", "flip"], "model": {"width": 2}, "early_stopping": None, "compile": True, "seed": 1}
    row = summary_row(Job(job.directory, job.identity, setting), Status(state="pending"), setting)
    assert [row[key] for key in setting] == ['["crop", "flip"]', '{"width": 2}', "null", True, 1]


def test_every_row_has_the_keys_that_are_iterated_over_once(sweep, job):
    Summary(sweep, [job, job_of_seed_1(sweep)], iter(["model", "seed"])).write()
    assert [(row["model"], row["seed"]) for row in rows_of(sweep)] == [("lenet5", "0"), ("lenet5", "1")]


def test_an_update_changes_the_row_of_its_job_alone(sweep, job):
    other = job_of_seed_1(sweep)
    summary = Summary(sweep, [job, other], ["model", "seed"])
    summary.write()
    write_status(job, "done", RESULT)
    summary.update(job, Status(state="done"))
    summary.close()
    assert [(row["job"], row["state"]) for row in rows_of(sweep)] == [(job.name, "done"), (other.name, "pending")]


def test_a_table_that_takes_long_to_write_is_written_later_and_at_the_end(sweep, job):
    summary = Summary(sweep, [job], ["seed"])
    summary.write()
    summary._next = time.monotonic() + 3600  # as after a table that took minutes
    write_status(job, "done", RESULT)
    summary.update(job, Status(state="done"))
    assert rows_of(sweep)[0]["state"] == "pending"
    summary.close()
    assert rows_of(sweep)[0]["state"] == "done"


def test_a_full_disk_is_kept_as_trouble_until_a_write_succeeds(sweep, job, monkeypatch):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    summary = Summary(sweep, [job], ["seed"])
    with monkeypatch.context() as patched:
        patched.setattr("cnnbench.runs.sweep_dir.write_atomic", refuse)
        summary.write()
    assert summary.trouble == f"{sweep.summary}: cannot be written (No space left on device)"
    summary.close()
    assert (summary.trouble, len(rows_of(sweep))) == ("", 1)
