"""Locks held on a file: one process has it, the operating system releases it when that process ends, however it ends.

Not filelock's, which on a file system without locks leaves a file that a killed process would hold for ever, and which empties
a file that a link in the lock's place leads to.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cnnbench.files import NO_FOLLOW, NO_WAIT

WAIT_S = 0.5  # `is_locked` of another process holds the lock for a moment
POLL_S = 0.02
HELD_BY_ANOTHER = (errno.EAGAIN, errno.EACCES, errno.EDEADLK)

_open: set[int] = set()  # file descriptors of the locks of this process


class Locked(Exception):
    """Another process holds the lock."""


@contextmanager
def exclusive_lock(path: Path, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Holds the lock on a file, which is made, until the end of the context; then the file is removed.

    Where there are no locks, as on some network file systems, or no file can be made or opened, the context holds none.

    Args:
        path: of the file.
        on_wait: called once if another process holds the lock; then this one waits for it. None: it does not wait.

    Raises:
        Locked: another process holds it.
    """
    try:
        file = _acquire(path, on_wait)
    except (OSError, ImportError):
        yield
        return
    _open.add(file)
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        _open.discard(file)
        os.close(file)


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock on a file; False also where that cannot be told. Makes and removes no file."""
    try:
        file = os.open(path, os.O_RDONLY | NO_FOLLOW | NO_WAIT)
    except OSError:
        return False
    try:
        return not _try_lock(file, shared=True)
    except (OSError, ImportError):
        return False
    finally:
        os.close(file)


def _acquire(path: Path, on_wait: Callable[[], None] | None) -> int:
    """The descriptor of the file, locked.

    Raises:
        Locked: another process holds the lock.
        OSError, ImportError: the file cannot be opened, or there are no locks.
    """
    deadline = time.monotonic() + WAIT_S
    while True:
        file = _open_or_make(path)
        try:
            if _try_lock(file) and os.fstat(file).st_nlink:  # else the last owner has removed the file meanwhile
                return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)
        if time.monotonic() > deadline:
            if on_wait is None:
                raise Locked
            on_wait()
            deadline = float("inf")
        time.sleep(POLL_S)


def _open_or_make(path: Path) -> int:
    """The descriptor of the file; one that is made can be opened by all users, as another may wait for it.

    Raises:
        OSError: it is a link, or can be neither opened nor made.
    """
    flags = NO_FOLLOW | NO_WAIT
    with suppress(FileExistsError):
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | flags, 0o644)
        if hasattr(os, "fchmod"):
            with suppress(OSError):
                os.fchmod(file, 0o644)
        return file
    try:
        return os.open(path, os.O_RDWR | flags)
    except PermissionError:  # it is another user's
        return os.open(path, os.O_RDONLY | flags)
    except FileNotFoundError:  # its owner has just removed it
        return _open_or_make(path)


def _try_lock(file: int, shared: bool = False) -> bool:
    """Locks an open file without waiting; returns False where another process holds the lock.

    Raises:
        OSError, ImportError: the file system or the operating system has no locks.
    """
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in HELD_BY_ANOTHER:
            return False
        raise
    return True


def _close_in_child() -> None:
    """Closes what a forked child has inherited: a worker that outlives a killed run must not hold its lock."""
    for file in _open:
        with suppress(OSError):
            os.close(file)
    _open.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)
