"""Records of processes that own runs and sweeps: this one's, changed to be of a dead process, another host or an earlier version."""

from __future__ import annotations

import errno
import os
import socket
import time
from pathlib import Path
from typing import Any

from cnnbench.runs.liveness import this_process

ME = f"pid {os.getpid()} on {socket.gethostname()}"
DEAD = {"start_ticks": 0}  # another process had the same pid before
OTHER_HOST = {"host": "another", "boot_id": "9d2d6c3c-0000-4000-8000-000000000000"}
OTHER_NAMESPACE = {"pid_namespace": 1}


def record(**values: Any) -> dict[str, Any]:
    """The record of this process with other values, as JSON has it."""
    return {**this_process().model_dump(), **values}


def earlier_record(**values: Any) -> dict[str, Any]:
    """The record as earlier versions wrote it."""
    return {key: each for key, each in record().items() if key in EARLIER} | values


EARLIER = ("host", "pid", "pid_started", "heartbeat")


def make_older(file: Path, seconds: float) -> None:
    """Sets the time of a file to some seconds ago; below zero: ahead."""
    os.utime(file, (time.time() - seconds,) * 2)


def no_locks(*_: Any, code: int = errno.ENOLCK) -> None:
    """fcntl.flock on a file system without locks."""
    raise OSError(code, os.strerror(code))


def read_only(*_: Any, **__: Any) -> None:
    """A function that writes, in a read-only folder."""
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))
