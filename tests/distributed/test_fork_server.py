"""Processes from the fork server: results and errors of a function, exit codes of ranks, and the watchdog."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from child_functions import add, exit_with, fail, print_environment, sleep

from cnnbench.distributed import fork_server
from cnnbench.distributed.fork_server import RankProcesses, run_in_subprocess, stop_fork_server
from cnnbench.distributed.signals import handled_by
from cnnbench.errors import ConfigError, Interrupted, RunFailed
from processes import wait_until

LAUNCH = """
import sys
sys.path[:0] = sys.argv[2:]
from child_functions import launch
launch(sys.argv[1])
"""


@pytest.fixture(scope="module", autouse=True)
def without_torch():
    """Starts a fork server that imports nothing: a second instead of eight."""
    stop_fork_server()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(fork_server.forkserver, "set_forkserver_preload", lambda modules: None)
        patched.setattr(fork_server.forkserver._forkserver, "_preload_modules", [])
        yield
        stop_fork_server()


# ---- a function call ---------------------------------------------------------------------------------------------------------


def test_the_result_and_the_progress_of_a_function_come_from_another_process_and_session():
    reports = []
    total, pid, session = run_in_subprocess(add, 2, 3, progress=lambda *report: reports.append(report))
    assert (total, reports) == (5, [("adding", 2), ("adding", 3)])
    assert pid == session != os.getpid()


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        ("config", ConfigError, "^this is wrong$"),
        ("data", ConfigError, "^this is wrong$"),
        ("bug", RunFailed, "^unexpected error, ZeroDivisionError: this is wrong$"),
        ("killed", RunFailed, "has ended with exit code -9$"),
    ],
)
def test_an_error_of_the_function_is_raised_here(kind, error, message):
    with pytest.raises(error, match=message):
        run_in_subprocess(fail, kind)


# ---- ranks -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("codes", "expected"), [([0], 0), ([3], 3), ([0, 0], 0), ([0, 2], 2)])
def test_the_exit_code_of_a_run_is_that_of_the_first_rank_that_failed(codes, expected):
    ranks = RankProcesses(exit_with, (codes,), len(codes))
    ranks.start()
    assert ranks.wait() == expected
    assert ranks.living() == []


def test_ranks_that_do_not_exit_after_another_has_failed_are_killed(monkeypatch):
    monkeypatch.setattr(fork_server, "GRACE_S", 0.2)
    ranks = RankProcesses(exit_with, ([3, None],), 2)
    ranks.start()
    assert ranks.exit_code() is None
    assert ranks.wait() == 3
    assert [rank.exitcode for rank in ranks.processes] == [3, -signal.SIGKILL]


def test_each_rank_has_its_environment_and_appends_its_output_to_the_file(tmp_path):
    path = tmp_path / "log.txt"
    path.write_text("before\n")
    ranks = RankProcesses(print_environment, (), 2, {"COLOUR": "red"}, path)
    ranks.start()
    assert ranks.wait() == 0
    first, *lines = path.read_text().splitlines()
    of_rank = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "COLOUR": "red"}
    assert (first, sorted(map(eval, lines), key=str)) == ("before", [{"RANK": str(n), **of_rank} for n in range(2)])


def test_signals_are_forwarded_to_the_ranks(tmp_path):
    ranks = RankProcesses(sleep, (str(tmp_path),), 1)
    with handled_by(ranks.forward):
        ranks.start()
        wait_until((tmp_path / "pids").exists, "it starts")
        os.kill(os.getpid(), signal.SIGTERM)
        assert ranks.wait() == 0
    assert (tmp_path / "saved").exists()
    ranks.kill()  # the child process that it has left


def test_a_signal_before_the_ranks_start_interrupts():
    with (
        pytest.raises(Interrupted, match="stopped by SIGTERM"),
        handled_by(RankProcesses(exit_with, ([0],), 1).forward),
    ):
        os.kill(os.getpid(), signal.SIGTERM)


def test_killing_a_rank_kills_the_processes_that_it_has_started(tmp_path):
    ranks = RankProcesses(sleep, (str(tmp_path),), 1)
    ranks.start()
    wait_until((tmp_path / "pids").exists, "it starts")
    ranks.kill()
    assert ranks.wait() == -signal.SIGKILL
    wait_until(lambda: not any(map(alive, pids_in(tmp_path))), "all end", 10)


# ---- the watchdog ------------------------------------------------------------------------------------------------------------


def pids_in(folder: Path) -> list[int]:
    return [int(pid) for pid in (folder / "pids").read_text().split()]


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("kind", ["saves", "deaf"])
def test_when_the_launcher_is_killed_its_ranks_save_or_are_killed_with_their_children(kind, tmp_path):
    folder = tmp_path / kind
    folder.mkdir()
    command = [sys.executable, "-c", LAUNCH, str(folder), *map(str, Path(__file__).parents[:2])]
    with subprocess.Popen(command) as launcher:
        wait_until(lambda: (folder / "pids").exists() or launcher.poll() is not None, "it starts")
        launcher.kill()
    rank, child = pids_in(folder)
    wait_until(lambda: not alive(rank), "the rank ends", 10)
    assert (folder / "saved").exists() == (kind == "saves")
    if kind == "deaf":
        wait_until(lambda: not alive(child), "its child ends", 10)
    elif alive(child):
        os.kill(child, signal.SIGKILL)


# ---- the fork server is killed -----------------------------------------------------------------------------------------------


def test_when_the_fork_server_is_killed_its_ranks_save_and_the_next_ones_start(tmp_path):
    ranks = RankProcesses(sleep, (str(tmp_path),), 1)
    ranks.start()
    wait_until((tmp_path / "pids").exists, "it starts")
    os.kill(fork_server.forkserver._forkserver._forkserver_pid, signal.SIGKILL)
    assert ranks.wait() == -signal.SIGTERM
    assert (tmp_path / "saved").exists()
    assert ranks.living() == []
    ranks.kill()  # the child process that it has left
    after = RankProcesses(exit_with, ([0],), 1)
    after.start()
    assert after.wait() == 0


@pytest.mark.parametrize("start", ["ranks", "function"])
def test_a_fork_server_that_is_killed_before_its_first_process_is_replaced(start, monkeypatch):
    stop_fork_server()
    whole, kills = fork_server.forkserver.ensure_running, []

    def ensure_running() -> None:
        whole()
        if not kills:
            kills.append(fork_server.forkserver._forkserver._forkserver_pid)
            os.kill(kills[0], signal.SIGKILL)
            os.waitid(os.P_PID, kills[0], os.WEXITED | os.WNOWAIT)

    monkeypatch.setattr(fork_server.forkserver, "ensure_running", ensure_running)
    if start == "ranks":
        ranks = RankProcesses(exit_with, ([0],), 1)
        ranks.start()
        assert ranks.wait() == 0
    else:
        assert run_in_subprocess(add, 2, 3)[0] == 5
    assert kills
