"""The directory of a run: created for one process, locked by one at a time, with a status that others can read."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cnnbench.config.compose import compose
from cnnbench.config.schema import Config
from cnnbench.errors import ConfigError
from cnnbench.runs.liveness import STALE_S
from cnnbench.runs.run_dir import RunDir, hashed_runs, runs_of_identity
from cnnbench.runs.schema import ProcessRecord, Result, Status
from owners import DEAD, ME, OTHER_HOST, OTHER_NAMESPACE, make_older, no_locks, record

CREATE = """
import sys, time
from pathlib import Path
from cnnbench.runs.run_dir import RunDir
folder, number = Path(sys.argv[1]), int(sys.argv[2])
(folder / f"ready{number}").touch()
deadline = time.monotonic() + 30
while len(list(folder.glob("ready*"))) < 3 and time.monotonic() < deadline:
    time.sleep(0.001)
for _ in range(40):
    print(RunDir.create(folder / "runs", "job").path.name)
"""
LOCK = """
import sys, time
from pathlib import Path
from cnnbench.runs.run_dir import RunDir
with RunDir(Path(sys.argv[1])).lock():
    print("locked", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def directory(tmp_path) -> RunDir:
    return RunDir.create(tmp_path / "runs", "job")


def write_record(directory: RunDir, **values) -> ProcessRecord:
    """Writes the status of a running run, of this process with other values; returns the process."""
    values = record(**values)
    directory.status_file.write_text(json.dumps({"state": "running", **values}))
    return ProcessRecord(**values)


def refuse(*_, **__) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


# ---- creating -------------------------------------------------------------------------------------------------------


def test_directories_of_one_name_are_numbered_from_the_second_on(tmp_path):
    names = [RunDir.create(tmp_path / "runs" / "name", "job").path.name for _ in range(3)]
    assert names == ["job", "job-2", "job-3"]


def test_a_new_directory_has_a_folder_for_checkpoints(tmp_path):
    directory = RunDir.create(tmp_path / "not" / "yet" / "there", "job")
    assert directory.path == tmp_path / "not" / "yet" / "there" / "job"
    assert directory.best.parent.is_dir()


def test_a_new_directory_takes_the_first_free_number(tmp_path):
    for name in ("job", "job-2", "job-4"):
        (tmp_path / name).mkdir()
    assert RunDir.create(tmp_path, "job").path.name == "job-3"


def test_threads_never_create_the_same_directory(tmp_path):
    barrier, names = threading.Barrier(8), []

    def create() -> None:
        barrier.wait()
        for _ in range(10):
            names.append(RunDir.create(tmp_path / "runs", "job").path.name)

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(names) == sorted(["job", *(f"job-{number}" for number in range(2, 81))])


@pytest.mark.slow
def test_processes_never_create_the_same_directory(tmp_path):
    command = [sys.executable, "-c", CREATE, str(tmp_path)]
    processes = [subprocess.Popen([*command, str(n)], stdout=subprocess.PIPE, text=True) for n in range(3)]
    names = [name for process in processes for name in process.communicate(timeout=60)[0].split()]
    assert sorted(names) == sorted(["job", *(f"job-{number}" for number in range(2, 121))])


def test_a_runs_dir_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(ConfigError, match=r"^runs_dir: .*runs is not a folder; choose another with runs_dir=\.\.\.$"):
        RunDir.create(tmp_path / "runs", "job")


def test_a_runs_dir_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"^runs_dir: cannot write to .*choose another with runs_dir=\.\.\.$"):
        RunDir.create(tmp_path / "file" / "runs", "job")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_runs_dir_without_permission_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigError, match="cannot write to"):
        RunDir.create(tmp_path / "runs", "job")


def test_a_full_disk_is_reported_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(ConfigError, match=r"cannot write to .* \(No space left on device\)"):
        RunDir.create(tmp_path / "runs", "job")


# ---- opening --------------------------------------------------------------------------------------------------------


def test_a_directory_with_a_config_is_opened(directory):
    directory.config.write_text("seed: 0\n")
    assert RunDir.open(directory.path) == directory


def test_a_folder_without_a_config_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"not a run directory, it holds no config\.yaml$"):
        RunDir.open(tmp_path)


@pytest.mark.parametrize("above", [1, 2])
def test_opening_a_folder_above_a_run_names_the_run(tmp_path, above):
    directory = RunDir.create(tmp_path / "runs" / "name", "job")
    directory.config.write_text("seed: 0\n")
    with pytest.raises(ConfigError) as caught:
        RunDir.open(directory.path.parents[above - 1])
    assert str(caught.value).endswith(f"; did you mean {directory.path}?")


def test_a_finished_run_has_every_file_of_the_layout(finished):
    expected = ["config", "result", "log", "metrics", "curves", "predictions", "best", "last"]
    assert [name for name in expected if getattr(finished, name).is_file()] == expected


# ---- status and owner -----------------------------------------------------------------------------------------------


def test_a_new_directory_is_pending_and_has_no_owner(directory):
    assert (directory.status(), directory.owner()) == (Status(state="pending"), None)


@pytest.mark.parametrize("content", [b"", b'{"state": "runn', b"\xff\xfe", b"[]", b"null", b'{"state": 5}', b"{}"])
def test_a_status_that_cannot_be_read_is_pending_and_has_no_owner(directory, content):
    (directory.path / "status.json").write_bytes(content)
    assert (directory.status(), directory.owner()) == (Status(state="pending"), None)


def test_a_status_without_a_process_has_no_owner(directory):
    (directory.path / "status.json").write_text('{"state": "running"}')
    assert (directory.status().state, directory.owner()) == ("running", None)


def test_the_status_has_state_reason_process_and_time(directory):
    before = time.time()
    directory.write_status("failed", "out of luck", epoch=3)
    status = directory.status()
    assert (status.state, status.reason, status.epoch) == ("failed", "out of luck", 3)
    assert (status.pid, status.host) == (os.getpid(), socket.gethostname())
    assert before <= status.heartbeat <= time.time()


def test_the_process_that_runs_it_owns_a_run(directory):
    directory.write_status("running")
    assert directory.owner() == ME


@pytest.mark.parametrize("state", ["pending", "done", "failed", "diverged", "interrupted"])
def test_a_run_that_is_not_running_has_no_owner(directory, state):
    directory.write_status(state)
    assert directory.owner() is None


def test_on_a_full_disk_the_last_state_overwrites_the_old_one_in_place(directory, monkeypatch):
    directory.write_status("running", epoch=3)
    monkeypatch.setattr("cnnbench.runs.run_dir.write_atomic", refuse)
    with pytest.raises(OSError, match="No space left"):
        directory.write_status("running", epoch=4)
    directory.write_status("failed", "no room on the disk")
    assert (directory.status().state, directory.status().epoch) == ("failed", None)


# ---- the lock -------------------------------------------------------------------------------------------------------


def test_a_run_is_locked_by_one_process_at_a_time(directory):
    with directory.lock():
        directory.write_status("running")
        with pytest.raises(
            ConfigError, match=rf"job: this run is live \({ME}\); wait for it, or type resume=never for a second one"
        ):
            directory.lock().__enter__()
    with directory.lock():
        pass
    assert not (directory.path / ".lock").exists()


def test_a_locked_run_without_a_status_is_live(directory):
    with (
        directory.lock(),
        pytest.raises(ConfigError, match=r"this run is live \(another process, which holds its lock\)"),
    ):
        directory.lock().__enter__()


def test_a_killed_process_holds_no_lock(directory):
    command = [sys.executable, "-c", LOCK, str(directory.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "locked\n"
        with pytest.raises(ConfigError, match="live"):
            directory.lock().__enter__()
        process.kill()
        process.wait(30)
    with directory.lock():
        pass


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_tolerated(directory, monkeypatch, code):
    monkeypatch.setattr("fcntl.flock", lambda *_: no_locks(code=code))
    with directory.lock():
        directory.write_status("running")
        assert directory.owner() == ME


def test_a_run_whose_lock_is_held_is_running(directory):
    write_record(directory, **DEAD)
    assert directory.effective_status().state == "interrupted"
    with directory.lock():
        assert directory.effective_status().state == "running"
        assert directory.owner() == "another process, which holds its lock"
    assert directory.owner() is None


@pytest.mark.parametrize("content", ["", "{", None, '{"state": "interrupted", "reason": "stopped by SIGTERM"}'])
def test_a_run_whose_lock_is_held_is_running_also_without_a_readable_status(directory, content):
    if content is not None:
        directory.status_file.write_text(content)
    with directory.lock():
        status, owner = directory.inspect()
        assert (status.state, status.reason) == ("running", None)
        assert owner.living == "another process, which holds its lock"
    assert directory.effective_status().state in ("pending", "interrupted")


def test_looking_for_the_owner_leaves_no_file(directory):
    write_record(directory, **OTHER_HOST)
    before = sorted(directory.path.iterdir())
    assert directory.owner()
    make_older(directory.status_file, STALE_S + 1)
    assert directory.owner() is None
    assert sorted(directory.path.iterdir()) == before


def test_a_run_of_a_living_process_is_not_taken_over(directory):
    for owner in ({}, OTHER_HOST, OTHER_NAMESPACE):
        write_record(directory, **owner)
        with directory.lock(), pytest.raises(ConfigError, match=r"this run is live \(pid \d+ on .*\); wait for it"):
            directory.require_no_owner()


@pytest.mark.parametrize("age", [STALE_S + 1, -86400])
def test_a_run_whose_process_on_another_host_has_died_is_taken_over(directory, monkeypatch, age):
    monkeypatch.setattr("cnnbench.runs.liveness.LOOK_S", 0.2)
    write_record(directory, **OTHER_HOST, heartbeat=9e99)
    make_older(directory.status_file, age)
    with directory.lock():
        directory.require_no_owner()


# ---- states of runs of other processes ------------------------------------------------------------------------------


@pytest.mark.parametrize("owner", [DEAD, {**OTHER_HOST, "pid": 12}, OTHER_NAMESPACE], ids=["dead", "host", "namespace"])
@pytest.mark.parametrize("state", ["pending", "failed"])
def test_the_outcome_of_a_dead_process_is_written_and_keeps_that_process(directory, owner, state):
    before = write_record(directory, **owner)
    make_older(directory.status_file, STALE_S + 1)
    directory.write_outcome(state, "because")
    status = directory.status()
    assert (status.state, status.reason) == (state, "because")
    assert ProcessRecord.model_validate(status.model_dump()) == before


@pytest.mark.parametrize("owner", [OTHER_HOST, OTHER_NAMESPACE], ids=["host", "namespace"])
@pytest.mark.parametrize("locks", [True, False])
def test_a_run_of_another_living_process_keeps_its_status(directory, monkeypatch, owner, locks):
    write_record(directory, **owner)
    before = directory.status_file.read_bytes()
    if not locks:
        monkeypatch.setattr("fcntl.flock", no_locks)
    directory.write_outcome("failed", "because")
    assert directory.status_file.read_bytes() == before


def test_a_locked_run_keeps_its_status(directory):
    """Another process has just resumed it, and has not yet written that it runs."""
    directory.write_status("interrupted")
    with directory.lock():
        directory.write_outcome("failed", "because")
    assert directory.status().state == "interrupted"


def test_this_process_writes_the_outcome_of_its_own_run(directory):
    directory.write_status("running", epoch=3)
    directory.write_outcome("failed", "because")
    assert (directory.status().state, directory.status().pid, directory.status().epoch) == ("failed", os.getpid(), None)


def test_a_run_that_has_not_begun_has_no_process(directory):
    directory.write_outcome("failed", "because")
    assert (directory.status().state, directory.status().pid) == ("failed", None)


# ---- results and repair ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", ["", "{", "[]", '{"metrics": {}}', '{"metrics": 3, "n": {"test": 5}}'])
def test_a_damaged_result_is_refused_with_what_to_do(directory, content):
    directory.result.write_text(content)
    with pytest.raises(ConfigError) as raised:
        directory.load_result()
    assert str(raised.value) == (
        f"{directory.result}: damaged, expected the result of a run; "
        f"remove it, and cnnbench resume={directory.path} tests the net again"
    )


def test_a_result_that_cannot_be_read_may_be_intact_and_is_not_to_be_removed(directory, monkeypatch):
    directory.result.write_text(json.dumps({"metrics": {"test/acc": 0.5}, "n": {"test": 5}}))
    monkeypatch.setattr("cnnbench.runs.run_dir.read_bytes", refuse_access)
    with pytest.raises(ConfigError) as raised:
        directory.load_result()
    assert str(raised.value) == f"{directory.result}: cannot be read (Permission denied)"


def refuse_access(path: Path) -> None:
    raise PermissionError(errno.EACCES, "Permission denied", str(path))


def test_a_result_is_loaded_with_its_numbers(directory):
    directory.result.write_text(json.dumps({"metrics": {"test/acc": 0.5}, "n": {"test": 5}}))
    assert directory.load_result() == Result(metrics={"test/acc": 0.5}, n={"test": 5})


def test_repair_removes_partly_written_files_and_sets_a_run_with_a_result_to_done(directory):
    directory.write_status("running", epoch=3)
    directory.result.write_text("{}")
    partial = directory.best.with_name(".best.ckpt.12.34.tmp")
    partial.touch()
    directory.repair()
    assert (directory.status().state, partial.exists()) == ("done", False)


def test_repair_keeps_the_process_that_ran_a_run(directory):
    before = write_record(directory, **DEAD)
    directory.result.write_text("{}")
    directory.repair()
    assert directory.status().state == "done"
    assert ProcessRecord.model_validate(directory.status().model_dump()) == before


def test_repair_leaves_the_status_of_a_run_without_a_result(directory):
    directory.write_status("interrupted", "stopped by SIGTERM")
    directory.repair()
    assert (directory.status().state, directory.status().reason) == ("interrupted", "stopped by SIGTERM")


# ---- runs of an identity --------------------------------------------------------------------------------------------


CONFIG = compose([])
IDENTITY = CONFIG.identity()


def make_run(folder: Path, label: str, age_s: float = 0, config: Config = CONFIG) -> Path:
    directory = RunDir.create(folder, f"{label}_{IDENTITY[:8]}")
    directory.config.write_text(config.dump())
    written = time.time_ns() - int(age_s * 1e9)
    os.utime(directory.config, ns=(written, written))
    return directory.path


def found_in(folder: Path) -> list[Path]:
    return [found.path for found in runs_of_identity(hashed_runs(folder), [IDENTITY])]


def test_the_newest_run_comes_first(tmp_path):
    middle, oldest, newest = (make_run(tmp_path, "seed0", age) for age in (20, 30, 10))
    assert found_in(tmp_path) == [newest, middle, oldest]


def test_a_run_with_any_label_is_found(tmp_path):
    run = make_run(tmp_path, "plain18_lr0.1_seed0")
    assert found_in(tmp_path) == [run]


def test_runs_of_another_identity_are_left_out(tmp_path):
    make_run(tmp_path, "seed0")
    assert runs_of_identity(hashed_runs(tmp_path), ["0123abcd" + 56 * "f"]) == []


def test_a_run_whose_name_has_the_hash_and_whose_config_another_identity_is_left_out(tmp_path):
    make_run(tmp_path, "seed0", config=compose(["seed=1"]))
    assert found_in(tmp_path) == []


@pytest.mark.parametrize("text", ["a: [", "[]", "seed: 0"])
def test_a_run_whose_config_cannot_be_read_is_left_out(tmp_path, text):
    (make_run(tmp_path, "seed0") / "config.yaml").write_text(text)
    assert found_in(tmp_path) == []


@pytest.mark.parametrize("more", ["_backup", "-old", ".bak", "-2-copy", "0"])
def test_a_renamed_copy_of_a_run_is_left_out(tmp_path, more):
    run = make_run(tmp_path, "seed0", 10)
    shutil.copytree(run, run.with_name(run.name + more))
    assert found_in(tmp_path) == [run]


def test_a_directory_without_a_config_is_left_out(tmp_path):
    RunDir.create(tmp_path, f"seed0_{IDENTITY[:8]}")
    assert found_in(tmp_path) == []


def test_an_absent_folder_has_no_runs(tmp_path):
    assert runs_of_identity(hashed_runs(tmp_path / "absent"), ["0123abcd"]) == []
