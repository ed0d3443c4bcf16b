"""Which process owns a run or a sweep, and whether it still lives."""

from __future__ import annotations

import socket
import time
from typing import Any

import psutil

HEARTBEAT_S = 2.0  # how often a living owner says so
STALE_S = 120.0  # without a heartbeat for so long, a process on another machine counts as dead


def this_process() -> dict[str, Any]:
    """What others need to know this process again."""
    process = psutil.Process()
    return {
        "host": socket.gethostname(),
        "pid": process.pid,
        "pid_started": process.create_time(),
        "heartbeat": time.time(),
    }


def living(record: dict[str, Any]) -> str | None:
    """`'pid 12 on host'` where the process that `this_process` described lives, else None."""
    if not {"pid", "host", "heartbeat", "pid_started"} <= record.keys():
        return None
    who = f"pid {record['pid']} on {record['host']}"
    if record["host"] != socket.gethostname():
        return who if time.time() - record["heartbeat"] < STALE_S else None
    try:
        process = psutil.Process(record["pid"])
        same = abs(process.create_time() - record["pid_started"]) < 1
        return who if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.Error:
        return None
