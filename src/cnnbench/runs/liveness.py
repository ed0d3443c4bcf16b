"""The process that owns a run or a sweep: how it is recorded, and whether it is alive."""

from __future__ import annotations

import socket
import time

import psutil

from cnnbench.runs.schema import ProcessRecord, Status

HEARTBEAT_S = 2.0  # seconds between heartbeats
STALE_S = 120.0  # a process on another machine counts as dead after so long without a heartbeat


def this_process() -> ProcessRecord:
    """The record by which other processes recognise this one, with a heartbeat of now."""
    process = psutil.Process()
    return ProcessRecord(
        host=socket.gethostname(), pid=process.pid, pid_started=process.create_time(), heartbeat=time.time()
    )


def living_process(record: ProcessRecord | Status) -> str | None:
    """`'pid 12 on host'` where the recorded process is alive, else None."""
    if record.host is None or record.pid is None or record.pid_started is None or record.heartbeat is None:
        return None
    name = f"pid {record.pid} on {record.host}"
    if record.host != socket.gethostname():
        return name if time.time() - record.heartbeat < STALE_S else None
    try:
        process = psutil.Process(record.pid)
        same = abs(process.create_time() - record.pid_started) < 1
        return name if same and process.status() != psutil.STATUS_ZOMBIE else None
    except (psutil.Error, ValueError, OverflowError):  # no process can have such a pid
        return None
