"""Makes stdout or stderr of a process fail as a pipe, a terminal or a disk does."""

from __future__ import annotations

import fcntl
import glob
import os
import pty
import select
import signal
import sys
import termios

ERRORS = {  # why a write fails
    "EPIPE": "Broken pipe",  # the reader of a pipe has exited
    "EIO": "Input/output error",  # the terminal was closed
    "ENOSPC": "No space left on device",
}


def lose(name: str, error: str) -> None:
    """Replaces stdout or stderr of this process by one on which each write fails with this error."""
    if error == "EPIPE":
        other, end = os.pipe()
    elif error == "EIO":
        other, end = pty.openpty()
    else:
        other, end = (os.open("/dev/full", os.O_WRONLY) for _ in range(2))
    os.close(other)
    replace_stream(name, end)


def close_terminal_when(pattern: str, ignored: bool) -> None:
    """Gives this process a terminal, which is closed once a file matches the pattern.

    Args:
        pattern: of the file.
        ignored: whether this process ignores SIGHUP, as under nohup.
    """
    signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
    screen, terminal = pty.openpty()
    if os.fork() == 0:
        os.close(terminal)
        while not glob.glob(pattern):
            if select.select([screen], [], [], 0.02)[0]:
                os.read(screen, 1000)
        os._exit(0)
    os.close(screen)
    if os.getsid(0) != os.getpid():
        os.setsid()
    fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
    for name in ("stdout", "stderr"):
        replace_stream(name, os.dup(terminal))
    os.close(terminal)


def replace_stream(name: str, end: int) -> None:
    number = {"stdout": 1, "stderr": 2}[name]
    os.dup2(end, number)
    os.close(end)
    setattr(sys, name, open(number, "w", buffering=1, closefd=False))  # noqa: SIM115
