"""Whether the process of a record is alive: in this PID namespace by its id and the tick of its start, elsewhere by its heartbeat."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from cnnbench.file_lock import exclusive_lock
from cnnbench.runs import liveness
from cnnbench.runs.liveness import HEARTBEAT_S, LOOK_S, STALE_S, Owner, find_owner, is_this_process, this_process
from cnnbench.runs.schema import ProcessRecord
from owners import ME, OTHER_HOST, OTHER_NAMESPACE, earlier_record, make_older, no_locks, read_only, record

PRINT_RECORD = (
    "from cnnbench.runs.liveness import this_process; print(this_process().to_json(None), flush=True); input()"
)
PIPES = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
THERE = "pid 12 on another"
FAR = {**OTHER_HOST, "pid": 12}


@pytest.fixture
def file(tmp_path) -> Path:
    """The file with the heartbeat, just written."""
    path = tmp_path / "folder" / "status.json"
    path.parent.mkdir()
    path.touch()
    return path


@pytest.fixture
def living(file):
    """Returns the living process of the record of this process with other values, or None."""
    return lambda **values: find_owner(ProcessRecord(**record(**values)), file).living


# ---- processes of this kernel and PID namespace ------------------------------------------------------------------------------


def test_this_process_is_alive(living):
    own = this_process()
    assert (own.pid, own.host) == (os.getpid(), socket.gethostname())
    assert is_this_process(own)
    assert living() == ME


@pytest.mark.parametrize("without", ["pid", "host", "heartbeat", "pid_started start_ticks"])
def test_an_incomplete_record_is_of_no_living_process(living, without):
    assert living(**dict.fromkeys(without.split())) is None


@pytest.mark.parametrize("pid", [-1, 0, 2**31, 2**80])
@pytest.mark.parametrize("make", [record, earlier_record])
def test_an_impossible_pid_is_of_no_living_process(file, make, pid):
    assert find_owner(ProcessRecord(**make(pid=pid)), file) == Owner(None)


@pytest.mark.parametrize("apart", [-100, -1, 1, 100])
def test_a_process_with_the_same_pid_that_started_at_another_tick_is_another(living, apart):
    assert living(start_ticks=this_process().start_ticks + apart) is None


@pytest.mark.parametrize("seconds", [-86400, -5, 5, 86400])
def test_a_corrected_clock_does_not_matter(living, monkeypatch, seconds):
    before, now, started = record(), time.time, psutil.Process.create_time
    monkeypatch.setattr("time.time", lambda: now() + seconds)
    monkeypatch.setattr("psutil.Process.create_time", lambda self: started(self) + seconds)  # from the boot time
    assert living(**before) == ME


@pytest.mark.parametrize("age", [100 * STALE_S, -1e9])
@pytest.mark.parametrize("heartbeat", [0, 9e99])
def test_here_the_heartbeat_does_not_matter(living, file, age, heartbeat):
    make_older(file, age)
    assert living(heartbeat=heartbeat) == ME


@pytest.mark.skipif(not Path("/proc/self/comm").exists(), reason="needs /proc")
def test_the_name_of_a_program_may_hold_spaces_and_brackets(living):
    name, before = Path("/proc/self/comm"), this_process()
    former = name.read_text()
    name.write_text("a) Z 1 (b")
    try:
        assert living(start_ticks=before.start_ticks) == ME
    finally:
        name.write_text(former)


def test_a_killed_process_is_dead_also_before_its_parent_has_waited_for_it(file):
    with subprocess.Popen([sys.executable, "-c", PRINT_RECORD], text=True, **PIPES) as process:
        own = ProcessRecord.model_validate_json(process.stdout.readline())
        assert find_owner(own, file).living == f"pid {process.pid} on {socket.gethostname()}"
        process.send_signal(signal.SIGKILL)
        deadline = time.monotonic() + 30
        while find_owner(own, file).living is not None:  # a zombie
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.wait(30)
    assert find_owner(own, file).living is None


def test_of_a_process_that_proc_hides_the_heartbeat_decides(living, file, monkeypatch):
    monkeypatch.setattr(liveness, "_proc_stat", lambda pid: None)
    assert living(pid=os.getppid()).startswith(f"pid {os.getppid()} on ")
    make_older(file, STALE_S + 1)
    assert living(pid=os.getppid()) is None


# ---- without /proc, and records of earlier versions --------------------------------------------------------------------------


@pytest.fixture(params=["no /proc", "earlier version"])
def plain(request, tmp_path, monkeypatch):
    """Returns the record of this process without what only /proc tells."""
    if request.param == "no /proc":
        monkeypatch.setattr(liveness, "PROC", tmp_path / "no_proc")
        assert this_process().start_ticks is None
        return record
    return earlier_record


def test_without_ticks_a_process_is_recognised_by_its_start_time(plain, file):
    own = ProcessRecord(**plain(pid_started=psutil.Process().create_time() + 0.02))
    assert is_this_process(own)
    assert find_owner(own, file) == Owner(ME)


@pytest.mark.parametrize("apart", [-3600, -2, 2, 3600])
def test_without_ticks_another_start_time_is_of_another_process(plain, file, apart):
    other = ProcessRecord(**plain(pid_started=psutil.Process().create_time() + apart))
    assert find_owner(other, file) == Owner(None)


def test_without_ticks_the_heartbeat_of_another_host_decides(plain, file):
    there = ProcessRecord(**plain(host="another", pid=12))
    assert find_owner(there, file) == Owner(THERE)
    make_older(file, STALE_S + 1)
    assert find_owner(there, file) == Owner(None)


# ---- processes of another host or namespace ----------------------------------------------------------------------------------


@pytest.mark.parametrize("elsewhere", [OTHER_HOST, OTHER_NAMESPACE, {"boot_id": OTHER_HOST["boot_id"]}])
def test_elsewhere_the_time_of_the_file_decides(living, file, elsewhere):
    assert living(pid=12, **elsewhere).startswith("pid 12 on ")
    make_older(file, STALE_S + 1)
    assert living(pid=12, **elsewhere) is None


@pytest.mark.parametrize("heartbeat", [0.0, 9e99])
def test_the_clock_of_the_other_host_does_not_matter(living, file, heartbeat):
    assert living(**FAR, heartbeat=heartbeat) == THERE
    make_older(file, STALE_S + 1)
    assert living(**FAR, heartbeat=heartbeat) is None


def test_the_clock_of_this_host_does_not_matter(living, file, monkeypatch):
    now = time.time()
    monkeypatch.setattr("time.time", lambda: now + 86400)
    assert living(**FAR) == THERE


def test_a_file_from_the_future_is_of_no_living_process(living, file):
    make_older(file, -86400)
    assert living(**FAR) is None


def test_a_record_whose_file_is_gone_is_of_no_living_process(living, file):
    file.unlink()
    assert living(**FAR) is None


def test_nothing_is_left_in_the_folder(living, file):
    living(**FAR)
    assert list(file.parent.iterdir()) == [file]


def test_a_heartbeat_before_the_boot_of_a_host_of_this_name_is_of_a_dead_process(living, file, monkeypatch):
    before = {"pid": 12, "boot_id": OTHER_HOST["boot_id"]}
    make_older(file, 60)
    assert living(**before)
    monkeypatch.setattr("time.clock_gettime", lambda clock: 30.0)
    assert living(**before) is None
    assert living(**FAR) == THERE  # that host did not boot


def test_many_heartbeats_fit_into_the_time_after_which_a_process_counts_as_dead():
    assert HEARTBEAT_S * 10 < STALE_S
    assert HEARTBEAT_S * 2 < LOOK_S


@pytest.mark.skipif(not shutil.which("unshare"), reason="needs unshare")
def test_a_process_of_another_pid_namespace_is_alive_by_its_heartbeat(file):
    """It is the first of its namespace: in this one its id is of another process."""
    inside = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc"]
    with subprocess.Popen([*inside, sys.executable, "-c", PRINT_RECORD], text=True, **PIPES) as process:
        line = process.stdout.readline()
        if not line:
            pytest.skip("namespaces are not allowed")
        there = ProcessRecord.model_validate_json(line)
        assert (there.pid, there.host) == (1, socket.gethostname())
        assert find_owner(there, file) == Owner(f"pid 1 on {socket.gethostname()}")
        process.kill()
    make_older(file, STALE_S + 1)
    assert find_owner(there, file) == Owner(None)


# ---- where no file can be made -----------------------------------------------------------------------------------------------


@pytest.fixture
def no_new_file(monkeypatch):
    monkeypatch.setattr("tempfile.TemporaryFile", read_only)


def test_in_a_read_only_folder_the_age_by_the_local_clock_is_not_verified(no_new_file, living, file):
    make_older(file, 30.5)
    assert living(**FAR).startswith(f"{THERE}, heartbeat 30.")
    assert living(**FAR).endswith(" s ago by this machine's clock, not verified")


@pytest.mark.parametrize(("age", "shown"), [(7200, "2 h ago"), (-86400, "1 d ahead")])
def test_in_a_read_only_folder_a_death_is_not_verified(no_new_file, file, age, shown):
    make_older(file, age + 0.1)
    owner = find_owner(ProcessRecord(**record(**FAR)), file)
    assert owner == Owner(None, f"{THERE}: heartbeat {shown} by this machine's clock, not verified")


def test_here_a_read_only_folder_does_not_matter(no_new_file, living):
    assert living() == ME


# ---- the lock ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "who"), [({"start_ticks": 0}, "another process"), (FAR, THERE), ({"pid": None}, "another process")]
)
def test_nobody_is_dead_who_holds_the_lock(file, changes, who):
    lock = file.with_name(".lock")
    make_older(file, STALE_S + 1)
    other = ProcessRecord(**record(**changes))
    assert find_owner(other, file, lock) == Owner(None)
    with exclusive_lock(lock):
        assert find_owner(other, file, lock) == Owner(f"{who}, which holds its lock")
    assert find_owner(other, file, lock) == Owner(None)


def test_without_locks_the_record_alone_decides(living, file, monkeypatch):
    monkeypatch.setattr("fcntl.flock", no_locks)
    lock = file.with_name(".lock")
    lock.touch()
    assert find_owner(this_process(), file, lock) == Owner(ME)
    assert find_owner(ProcessRecord(**record(start_ticks=0)), file, lock) == Owner(None)


# ---- before a takeover -------------------------------------------------------------------------------------------------------


@pytest.fixture
def quick_look(monkeypatch):
    monkeypatch.setattr(liveness, "LOOK_S", 0.4)


@pytest.mark.parametrize("age", [86400, -86400])
def test_before_a_takeover_a_file_with_the_time_of_a_wrong_clock_is_watched(quick_look, file, age):
    there = ProcessRecord(**record(**FAR))
    make_older(file, age)
    assert find_owner(there, file, before_takeover=True) == Owner(None)
    renew = f"import os, time; time.sleep(0.15); os.utime({str(file)!r}, (1e9, {time.time() - age + 2}))"
    with subprocess.Popen([sys.executable, "-Sc", renew]):
        assert find_owner(there, file, before_takeover=True) == Owner(THERE)


def test_before_a_takeover_a_file_that_vanishes_is_of_no_living_process(quick_look, file):
    make_older(file, 86400)
    with subprocess.Popen([sys.executable, "-Sc", f"import os, time; time.sleep(0.1); os.unlink({str(file)!r})"]):
        assert find_owner(ProcessRecord(**record(**FAR)), file, before_takeover=True) == Owner(None)


def test_a_dead_process_of_this_host_is_replaced_without_delay(living, file):
    began = time.monotonic()
    assert find_owner(ProcessRecord(**record(start_ticks=0)), file, before_takeover=True) == Owner(None)
    assert time.monotonic() - began < 1
