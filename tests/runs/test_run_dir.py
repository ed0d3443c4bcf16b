"""A run's directory: one owner each, files whole or untouched, a state that others can read."""

from __future__ import annotations

import errno
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from cnnbench.config.compose import compose
from cnnbench.config.schema import Config
from cnnbench.errors import ConfigError
from cnnbench.files import write_atomic
from cnnbench.runs.commands import resume_command
from cnnbench.runs.liveness import HEARTBEAT_S, STALE_S
from cnnbench.runs.run_dir import RunDir, runs_of

CLAIMS = """
import sys, time
from pathlib import Path
from cnnbench.runs.run_dir import RunDir
folder, number = Path(sys.argv[1]), int(sys.argv[2])
(folder / f"ready{number}").touch()
deadline = time.monotonic() + 30
while len(list(folder.glob("ready*"))) < 3 and time.monotonic() < deadline:
    time.sleep(0.001)
for _ in range(40):
    print(RunDir.claim(folder / "runs", "job").path.name)
"""
RUNNING = """
import sys, time
from pathlib import Path
from cnnbench.runs.run_dir import RunDir
RunDir(Path(sys.argv[1])).write_status("running")
print("written", flush=True)
time.sleep(60)
"""


@pytest.fixture
def claimed(tmp_path) -> RunDir:
    return RunDir.claim(tmp_path / "runs", "job")


def edit_status(directory: RunDir, **changes) -> None:
    """A running status, changed in some of its values."""
    directory.write_status("running")
    (directory.path / "status.json").write_text(json.dumps({**directory.status(), **changes}))


# ---- claiming ---------------------------------------------------------------------------------------------------


def test_claims_of_one_name_are_numbered_from_the_second_on(tmp_path):
    names = [RunDir.claim(tmp_path / "runs" / "name", "job").path.name for _ in range(3)]
    assert names == ["job", "job-2", "job-3"]


def test_a_claim_makes_its_folder_with_one_for_checkpoints(tmp_path):
    directory = RunDir.claim(tmp_path / "not" / "yet" / "there", "job")
    assert directory.path == tmp_path / "not" / "yet" / "there" / "job"
    assert directory.best.parent.is_dir()


def test_a_claim_takes_the_first_free_number(tmp_path):
    for name in ("job", "job-2", "job-4"):
        (tmp_path / name).mkdir()
    assert RunDir.claim(tmp_path, "job").path.name == "job-3"


def test_threads_that_claim_at_once_never_share(tmp_path):
    barrier, names = threading.Barrier(8), []

    def claim() -> None:
        barrier.wait()
        for _ in range(10):
            names.append(RunDir.claim(tmp_path / "runs", "job").path.name)

    threads = [threading.Thread(target=claim) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(names) == sorted(["job", *(f"job-{number}" for number in range(2, 81))])


@pytest.mark.slow
def test_processes_that_claim_at_once_never_share(tmp_path):
    command = [sys.executable, "-c", CLAIMS, str(tmp_path)]
    processes = [subprocess.Popen([*command, str(n)], stdout=subprocess.PIPE, text=True) for n in range(3)]
    names = [name for process in processes for name in process.communicate(timeout=60)[0].split()]
    assert sorted(names) == sorted(["job", *(f"job-{number}" for number in range(2, 121))])


def test_a_runs_dir_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(ConfigError, match=r"^runs_dir: .*runs is not a folder; choose another with runs_dir=\.\.\.$"):
        RunDir.claim(tmp_path / "runs", "job")


def test_a_runs_dir_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"^runs_dir: cannot write to .*choose another with runs_dir=\.\.\.$"):
        RunDir.claim(tmp_path / "file" / "runs", "job")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_runs_dir_without_permission_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigError, match="cannot write to"):
        RunDir.claim(tmp_path / "runs", "job")


def test_a_full_disk_is_told_in_one_line(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(ConfigError, match=r"cannot write to .* \(No space left on device\)"):
        RunDir.claim(tmp_path / "runs", "job")


# ---- opening ----------------------------------------------------------------------------------------------------


def test_open_gives_a_directory_that_holds_a_config(claimed):
    claimed.config.write_text("seed: 0\n")
    assert RunDir.open(claimed.path) == claimed


def test_open_refuses_a_folder_without_config(tmp_path):
    with pytest.raises(ConfigError, match=r"not a run directory, it holds no config\.yaml$"):
        RunDir.open(tmp_path)


@pytest.mark.parametrize("above", [1, 2])
def test_open_points_from_a_folder_above_to_the_run_in_it(tmp_path, above):
    directory = RunDir.claim(tmp_path / "runs" / "name", "job")
    directory.config.write_text("seed: 0\n")
    with pytest.raises(ConfigError) as caught:
        RunDir.open(directory.path.parents[above - 1])
    assert str(caught.value).endswith(f"; did you mean {directory.path}?")


# ---- writing ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("content", "expected"), [("né\n", "né\n".encode()), (b"\x00\xff", b"\x00\xff"), ("", b"")])
def test_write_atomic_writes_text_as_utf8_and_bytes_as_they_are(tmp_path, content, expected):
    write_atomic(tmp_path / "file", content)
    assert (tmp_path / "file").read_bytes() == expected


def test_write_atomic_replaces_what_was_there_and_leaves_nothing_beside_it(tmp_path):
    (tmp_path / "file").write_text("a long old content")
    write_atomic(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("step", ["fsync", "encode", "replace"])
def test_write_atomic_leaves_the_old_content_when_writing_fails(tmp_path, monkeypatch, step):
    def refuse(*args):
        raise OSError(28, "No space left on device")

    (tmp_path / "file").write_text("old")
    if step == "fsync":
        monkeypatch.setattr(os, "fsync", refuse)
    elif step == "replace":
        monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises((OSError, UnicodeEncodeError)):
        write_atomic(tmp_path / "file", "new" + ("\ud800" if step == "encode" else ""))
    assert (tmp_path / "file").read_text() == "old"


def test_a_reader_never_meets_a_part_of_a_file(tmp_path):
    contents = ["a" * 100_000, "b" * 200_000]
    write_atomic(tmp_path / "file", contents[0])
    done = threading.Event()

    def write() -> None:
        for number in range(60):
            write_atomic(tmp_path / "file", contents[number % 2])
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    read = []
    while not done.is_set():
        read.append((tmp_path / "file").read_text() in contents)
    writer.join()
    assert read
    assert all(read)


# ---- status and owner -------------------------------------------------------------------------------------------


def test_a_directory_that_was_claimed_and_never_begun_is_pending(claimed):
    assert claimed.status() == {"state": "pending"}
    assert claimed.owner() is None


@pytest.mark.parametrize("content", [b"", b'{"state": "runn', b"\xff\xfe"])
def test_a_status_that_cannot_be_read_is_pending(claimed, content):
    (claimed.path / "status.json").write_bytes(content)
    assert claimed.status() == {"state": "pending"}


def test_the_status_says_how_it_stands_why_who_and_when(claimed):
    before = time.time()
    claimed.write_status("failed", "out of luck", epoch=3)
    status = claimed.status()
    assert (status["state"], status["reason"], status["epoch"]) == ("failed", "out of luck", 3)
    assert (status["pid"], status["host"]) == (os.getpid(), socket.gethostname())
    assert status["pid_started"] == psutil.Process(os.getpid()).create_time()
    assert before <= status["heartbeat"] <= time.time()


def test_a_running_process_owns_its_run(claimed):
    claimed.write_status("running")
    assert claimed.owner() == f"pid {os.getpid()} on {socket.gethostname()}"


@pytest.mark.parametrize("state", ["pending", "done", "failed", "diverged", "interrupted"])
def test_a_run_that_is_not_running_has_no_owner(claimed, state):
    claimed.write_status(state)
    assert claimed.owner() is None


def test_a_process_that_was_killed_owns_its_run_until_it_is_dead(claimed):
    command = [sys.executable, "-c", RUNNING, str(claimed.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "written\n"
        assert claimed.owner() == f"pid {process.pid} on {socket.gethostname()}"
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    assert claimed.status()["state"] == "running"
    assert claimed.owner() is None


@pytest.mark.parametrize("apart", [-3600, -2, 2, 3600])
def test_a_process_that_took_over_a_dead_ones_pid_owns_nothing(claimed, apart):
    edit_status(claimed, pid_started=psutil.Process().create_time() + apart)
    assert claimed.owner() is None


def test_a_start_time_that_reads_a_few_ticks_apart_is_the_same_process(claimed):
    edit_status(claimed, pid_started=psutil.Process().create_time() + 0.02)
    assert claimed.owner() is not None


def test_the_age_of_its_heartbeat_says_nothing_of_a_process_on_this_machine(claimed):
    edit_status(claimed, heartbeat=time.time() - 100 * STALE_S)
    assert claimed.owner() is not None


def test_a_process_on_another_machine_with_a_fresh_heartbeat_owns_its_run(claimed):
    edit_status(claimed, host="elsewhere", pid=12, heartbeat=time.time() - STALE_S / 2)
    assert claimed.owner() == "pid 12 on elsewhere"


def test_a_process_on_another_machine_with_an_old_heartbeat_owns_nothing(claimed):
    edit_status(claimed, host="elsewhere", heartbeat=time.time() - STALE_S - 1)
    assert claimed.owner() is None


def test_a_live_process_renews_its_status_many_times_before_it_counts_as_dead():
    assert HEARTBEAT_S * 10 < STALE_S


def test_a_run_is_taken_by_one_at_a_time(claimed):
    with claimed.taken():
        claimed.write_status("running")
        with pytest.raises(
            ConfigError, match=rf"job: this run is live \(pid {os.getpid()} on .*\); wait for it, or type res"
        ):
            claimed.taken().__enter__()
    with claimed.taken():
        pass
    assert not (claimed.path / ".lock").exists()


def test_a_run_that_is_taken_and_has_not_said_so_yet_is_live(claimed):
    with (
        claimed.taken(),
        pytest.raises(ConfigError, match=r"this run is live \(another process has just gone on with it\)"),
    ):
        claimed.taken().__enter__()


def test_a_process_that_was_killed_has_let_its_run_go(claimed):
    code = (
        "import sys, time; from pathlib import Path; from cnnbench.runs.run_dir import RunDir; "
        "taken = RunDir(Path(sys.argv[1])).taken(); taken.__enter__(); print('taken', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(claimed.path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "taken\n"
        with pytest.raises(ConfigError, match="live"):
            claimed.taken().__enter__()
        process.kill()
        process.wait(30)
    with claimed.taken():
        pass


def test_a_file_system_without_locks_does_without(claimed, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    with claimed.taken():
        pass


# ---- finding and resuming ---------------------------------------------------------------------------------------


CONFIG = compose([])
IDENTITY = CONFIG.identity()


def make_run(folder: Path, label: str, age_s: float = 0, config: Config = CONFIG) -> Path:
    directory = RunDir.claim(folder, f"{label}_{IDENTITY[:8]}")
    directory.config.write_text(config.dump())
    written = time.time_ns() - int(age_s * 1e9)
    os.utime(directory.config, ns=(written, written))
    return directory.path


def found_in(folder: Path) -> list[Path]:
    return [found.path for found in runs_of(folder, [IDENTITY])]


def test_runs_of_an_identity_come_newest_first(tmp_path):
    middle, oldest, newest = (make_run(tmp_path, "seed0", age) for age in (20, 30, 10))
    assert found_in(tmp_path) == [newest, middle, oldest]


def test_a_run_is_found_whatever_its_label(tmp_path):
    run = make_run(tmp_path, "plain18_lr0.1_seed0")
    assert found_in(tmp_path) == [run]


def test_runs_of_another_identity_are_left_out(tmp_path):
    make_run(tmp_path, "seed0")
    assert list(runs_of(tmp_path, ["0123abcd" + 56 * "f"])) == []


def test_a_run_whose_whole_identity_is_another_is_left_out(tmp_path):
    make_run(tmp_path, "seed0", config=compose(["seed=1"]))
    assert found_in(tmp_path) == []


@pytest.mark.parametrize("text", ["a: [", "[]", "seed: 0"])
def test_a_run_whose_config_cannot_be_read_is_left_out(tmp_path, text):
    (make_run(tmp_path, "seed0") / "config.yaml").write_text(text)
    assert found_in(tmp_path) == []


@pytest.mark.parametrize("more", ["_backup", "-old", ".bak", "-2-copy", "0"])
def test_a_copy_of_a_run_is_left_out(tmp_path, more):
    run = make_run(tmp_path, "seed0", 10)
    shutil.copytree(run, run.with_name(run.name + more))
    assert found_in(tmp_path) == [run]


def test_a_directory_that_was_claimed_without_a_config_is_no_run_yet(tmp_path):
    RunDir.claim(tmp_path, f"seed0_{IDENTITY[:8]}")
    assert found_in(tmp_path) == []


def test_a_folder_that_is_absent_has_no_runs(tmp_path):
    assert list(runs_of(tmp_path / "absent", ["0123abcd"])) == []


@pytest.mark.parametrize("name", ["plain", "with space", "it's", "$HOME;ls", "größe"])
def test_the_resume_command_means_this_directory_to_a_shell(tmp_path, name):
    words = shlex.split(resume_command(tmp_path / name))
    assert words == ["python", "-m", "cnnbench", f"resume={tmp_path / name}"]


def test_a_finished_run_holds_every_file_that_the_layout_names(finished):
    expected = ["config", "result", "log", "metrics", "curves", "predictions", "best", "last"]
    assert [name for name in expected if getattr(finished, name).is_file()] == expected


def test_a_killed_process_that_nobody_has_waited_for_owns_nothing(tmp_path):
    directory = RunDir.claim(tmp_path, "job")
    code = (
        "import sys, time; from pathlib import Path; from cnnbench.runs.run_dir import RunDir; "
        "RunDir(Path(sys.argv[1])).write_status('running'); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(directory.path)])
    deadline = time.monotonic() + 30
    while directory.owner() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    while directory.owner() is not None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.wait()


@pytest.mark.parametrize("text", ["[]", "null", "{}", '{"state": "running"}', "{", '"running"'])
def test_an_odd_status_names_no_owner(tmp_path, text):
    directory = RunDir.claim(tmp_path, "job")
    (directory.path / "status.json").write_text(text)
    assert directory.owner() is None
