"""The process that owns a run or a sweep: how it is recorded, and whether it is alive.

A process of this kernel and PID namespace is recognised by its id and the clock tick of its start, which no correction of the
clock changes. Of any other process only the heartbeat is seen: the time at which the file with its record was last written,
compared with that of a file just made in the same folder, so that one clock gave both.
"""

from __future__ import annotations

import os
import socket
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from cnnbench.file_lock import is_locked
from cnnbench.runs.schema import ProcessRecord, Status
from cnnbench.text import duration

HEARTBEAT_S = 2.0  # seconds between heartbeats
STALE_S = 120.0  # a process of another host or namespace counts as dead after so long without a heartbeat
LOOK_S = 3 * HEARTBEAT_S  # so long a file must stay as it is before its run or sweep is taken over

NOT_VERIFIED = "by this machine's clock, not verified"  # the end of a sentence on a heartbeat
PROC = Path("/proc")


@dataclass(frozen=True)
class Owner:
    """What is known of the process in a record.

    Attributes:
        living: the process, as `'pid 12 on host'`; None where it is dead.
        doubt: what could not be verified of a dead one, in words; else empty.
    """

    living: str | None
    doubt: str = ""


def this_process() -> ProcessRecord:
    """The record by which other processes recognise this one, with a heartbeat of now."""
    boot_id, pid_namespace = _kernel_and_namespace()
    stat = _proc_stat("self")
    try:
        started = psutil.Process().create_time()
    except psutil.Error:  # /proc shows another PID namespace
        started = None
    return ProcessRecord(
        host=socket.gethostname(),
        pid=os.getpid(),
        pid_started=started,
        heartbeat=time.time(),
        boot_id=boot_id,
        pid_namespace=pid_namespace,
        start_ticks=stat and stat[1],
    )


def is_this_process(record: ProcessRecord | Status) -> bool:
    """Whether the record is of the calling process."""
    return record.pid == os.getpid() and _runs_here(record) is True


def write_heartbeat(file: Path, write: Callable[[], None]) -> None:
    """Writes a file anew with `write`; on a full disk only renews its time, which other hosts compare."""
    with suppress(OSError):
        try:
            write()
        except OSError:
            os.utime(file)


def find_owner(
    record: ProcessRecord | Status, file: Path, lock: Path | None = None, before_takeover: bool = False
) -> Owner:
    """Finds whether the process of a record is alive.

    Args:
        record: the process.
        file: written anew with each heartbeat.
        lock: a file that the process has locked while it lives; None: the caller has locked it.
        before_takeover: the caller will take over the run or sweep. Then a file with an old heartbeat is watched for `LOOK_S`: if
            it changes, the process is alive, even if a clock is wrong.
    """
    start_unknown = record.start_ticks is None and record.pid_started is None
    if None in (record.host, record.pid, record.heartbeat) or start_unknown:
        return _holder_of(lock, "another process")
    name = f"pid {record.pid} on {record.host}"
    alive = _runs_here(record)
    if alive is not None:
        return Owner(name) if alive else _holder_of(lock, "another process")
    try:
        age, verified = _age(file)
    except OSError:  # the process has just removed it
        return _holder_of(lock, name)
    doubt = "" if verified else f"{_described(age)} {NOT_VERIFIED}"
    if abs(age) < _stale_after(record) or (before_takeover and _changes(file)):
        return Owner(f"{name}, {doubt}" if doubt else name)
    return _holder_of(lock, name, doubt and f"{name}: {doubt}")


def _holder_of(lock: Path | None, name: str, doubt: str = "") -> Owner:
    return Owner(f"{name}, which holds its lock") if lock and is_locked(lock) else Owner(None, doubt)


# ---- processes of this kernel and PID namespace ------------------------------------------------------------------------------


def _kernel_and_namespace() -> tuple[str | None, int | None]:
    """The id that the kernel drew when it booted, and the PID namespace of this process; None where there is no /proc."""
    try:
        return (PROC / "sys/kernel/random/boot_id").read_text().strip(), (PROC / "self/ns/pid").stat().st_ino
    except OSError:
        return None, None


def _runs_here(record: ProcessRecord | Status) -> bool | None:
    """Whether the process runs; None where its id does not tell: it is of another host or PID namespace, or hidden."""
    assert record.pid is not None
    # written by an earlier version, or by a system without /proc, whose start times are fixed
    if record.boot_id is None:
        return _started_at(record.pid, record.pid_started) if record.host == socket.gethostname() else None
    if (record.boot_id, record.pid_namespace) != _kernel_and_namespace():
        return None
    if stat := _proc_stat("self" if record.pid == os.getpid() else record.pid):
        state, start_ticks = stat
        return start_ticks == record.start_ticks and state not in "ZX"  # a zombie has ended
    return None if _exists(record.pid) else False


def _proc_stat(pid: int | str) -> tuple[str, int] | None:
    """State and start, in clock ticks since the boot, of a process in this PID namespace; None where /proc does not show it."""
    try:
        if pid != "self" and os.readlink(PROC / "self") != str(os.getpid()):
            return None  # a container that mounts the /proc of another namespace
        text = (PROC / str(pid) / "stat").read_text(errors="replace")
        fields = text.rpartition(")")[2].split()  # the name of the program, in brackets, may hold spaces and brackets
        return fields[0], int(fields[19])  # the fields 3 and 22
    except (OSError, ValueError, IndexError):
        return None


def _exists(pid: int) -> bool:
    """Whether there is a process of this id, which /proc may hide from other users."""
    try:
        if pid > 0:
            os.kill(pid, 0)
        return pid > 0
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False


def _started_at(pid: int, pid_started: float | None) -> bool:
    """Whether the process of this id started at this time, in seconds since the epoch."""
    try:
        process = psutil.Process(pid)
        same = pid_started is not None and abs(process.create_time() - pid_started) < 1
        return same and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, ValueError, OverflowError):  # no process can have such an id
        return False


# ---- processes of another host or namespace ----------------------------------------------------------------------------------


def _age(file: Path) -> tuple[float, bool]:
    """Seconds since a file was written, and whether they are verified: both times are of the clock of its file system.

    Raises:
        OSError: there is no such file.
    """
    try:
        with tempfile.TemporaryFile(dir=file.parent) as new:
            now, verified = os.fstat(new.fileno()).st_mtime, True
    except OSError:  # read-only, or full
        now, verified = time.time(), False
    return now - file.stat().st_mtime, verified


def _described(age: float) -> str:
    return f"heartbeat {duration(abs(age))} {'ago' if age >= 0 else 'ahead'}"


def _stale_after(record: ProcessRecord | Status) -> float:
    """Seconds without a heartbeat after which a process of another host or namespace counts as dead.

    A host of the same name and with another boot id is this one before it booted, or another host: a heartbeat from before this
    machine booted is of a dead process in the first case, and is old in the second.
    """
    boot_id, _ = _kernel_and_namespace()
    if boot_id and record.boot_id not in (None, boot_id) and record.host == socket.gethostname():
        return min(STALE_S, time.clock_gettime(time.CLOCK_BOOTTIME))
    return STALE_S


def _changes(file: Path) -> bool:
    """Whether a file is written anew within `LOOK_S`."""

    def content() -> tuple[bytes, int] | None:
        try:
            return file.read_bytes(), file.stat().st_mtime_ns
        except OSError:
            return None

    before, end = content(), time.monotonic() + LOOK_S
    while time.monotonic() < end:
        time.sleep(0.1)
        if (now := content()) != before:
            return now is not None
    return False
