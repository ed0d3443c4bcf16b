"""Whether the process of a record is alive: on this machine by its pid and start time, on another by its heartbeat."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time

import psutil
import pytest

from cnnbench.runs.liveness import HEARTBEAT_S, STALE_S, living_process, this_process
from cnnbench.runs.schema import ProcessRecord

ME = f"pid {os.getpid()} on {socket.gethostname()}"
PRINT_RECORD = (
    "from cnnbench.runs.liveness import this_process; print(this_process().to_json(None), flush=True); input()"
)


def changed(**values) -> ProcessRecord:
    """The record of this process with other values."""
    return this_process().model_copy(update=values)


def test_this_process_is_alive():
    record = this_process()
    assert (record.pid, record.host) == (os.getpid(), socket.gethostname())
    assert record.pid_started == psutil.Process().create_time()
    assert living_process(record) == ME


@pytest.mark.parametrize("field", ["pid", "host", "pid_started", "heartbeat"])
def test_an_incomplete_record_is_of_no_living_process(field):
    assert living_process(changed(**{field: None})) is None


@pytest.mark.parametrize("pid", [-1, 2**31, 2**80])
def test_an_impossible_pid_is_of_no_living_process(pid):
    assert living_process(changed(pid=pid)) is None


@pytest.mark.parametrize("apart", [-3600, -2, 2, 3600])
def test_a_process_with_the_same_pid_and_another_start_time_is_another(apart):
    assert living_process(changed(pid_started=psutil.Process().create_time() + apart)) is None


def test_start_times_a_few_clock_ticks_apart_are_of_the_same_process():
    assert living_process(changed(pid_started=psutil.Process().create_time() + 0.02)) == ME


def test_on_this_machine_the_age_of_the_heartbeat_does_not_matter():
    assert living_process(changed(heartbeat=time.time() - 100 * STALE_S)) == ME


def test_on_another_machine_the_heartbeat_decides():
    fresh = changed(host="another", pid=12, heartbeat=time.time() - STALE_S / 2)
    assert living_process(fresh) == "pid 12 on another"
    assert living_process(fresh.model_copy(update={"heartbeat": time.time() - STALE_S - 1})) is None


def test_many_heartbeats_fit_into_the_time_after_which_a_process_counts_as_dead():
    assert HEARTBEAT_S * 10 < STALE_S


def test_a_killed_process_is_dead_also_before_its_parent_has_waited_for_it():
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", PRINT_RECORD], text=True, **pipes) as process:
        record = ProcessRecord.model_validate_json(process.stdout.readline())
        assert living_process(record) == f"pid {process.pid} on {socket.gethostname()}"
        process.send_signal(signal.SIGKILL)
        deadline = time.monotonic() + 30
        while living_process(record) is not None:  # a zombie
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.wait(30)
    assert living_process(record) is None
