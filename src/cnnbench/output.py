"""stdout and stderr that may fail: a pipe loses its reader, a terminal is closed, a disk is full.

A command that only lists ends then; one that computes goes on, and notes it in the log of its run or sweep.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from cnnbench.errors import OutputLost
from cnnbench.files import open_append
from cnnbench.text import printable

_log: Path | None = None  # where a lost stream is noted
_notes: list[tuple[int | None, str]] = []  # error number and line of lost streams, not yet written
READER_GONE = (errno.EPIPE, errno.EIO)  # as in `| head`; the terminal was closed


class GuardedStream:
    """stdout or stderr, which after the first failed write goes to the null device, also for libraries and child processes.

    Characters that a terminal would obey are shown as escapes: a text may be from somebody else's file.

    Args:
        stream: to write to.
        name: of the stream, for messages.
        end: whether a failed write raises `OutputLost`; False: the loss is noted once, in the log that `note_lost_output_in` got.

    Attributes:
        styled: the same stream for a writer that makes texts printable itself, and adds its own colours.
    """

    def __init__(self, stream: TextIO, name: str, end: bool) -> None:
        self._stream, self._name, self._end = stream, name, end
        self._lost = False
        self.styled = StyledStream(self)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes the text in printable characters, lines and tabs, unless the stream is lost; returns its length."""
        self.write_styled(printable(text, keep="\n\t"))
        return len(text)

    def write_styled(self, text: str) -> int:
        """Writes the text as it is, unless the stream is lost; returns its length."""
        self._guard(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Writes what is buffered, unless the stream is lost."""
        self._guard(self._stream.flush)

    def _guard(self, write: Callable[[], Any]) -> None:
        if self._lost:
            return
        try:
            write()
        except OSError as error:
            self._lost = True
            with suppress(OSError):  # a stream of Python's without a file descriptor
                number, null = self._stream.fileno(), os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, number)
                os.close(null)
            reason = error.strerror or str(error)
            if self._end:
                raise OutputLost("" if error.errno in READER_GONE else f"{self._name}: {reason}") from error
            _notes.append((error.errno, f"{self._name}: {reason}; nothing more is shown there"))
            _write_notes()


class StyledStream:
    """A guarded stream that writes every character as it is."""

    def __init__(self, stream: GuardedStream) -> None:
        self._guarded = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._guarded, name)

    def write(self, text: str) -> int:
        """Writes the text as it is; returns its length."""
        return self._guarded.write_styled(text)


@contextmanager
def guarded_output(end: bool = False) -> Iterator[None]:
    """Lets a command survive the loss of stdout and stderr; without a log to note it in, a full disk is named on stderr.

    Args:
        end: raise `OutputLost` when stdout is lost, as all that the command does is to print.
    """
    global _log
    _log = None
    _notes.clear()
    for number in range(3):  # a file that is opened later must not get the number of a stream that is closed
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    before = sys.stdout, sys.stderr
    out, err = (stream or open(os.devnull, "w", encoding="utf-8") for stream in before)  # noqa: SIM115
    guarded = GuardedStream(out, "stdout", end), GuardedStream(err, "stderr", False)
    sys.stdout, sys.stderr = guarded
    try:
        yield
    finally:
        for stream in guarded:
            with suppress(OutputLost):  # the exit code is known already
                stream.flush()
        for code, note in list(_notes):  # of a command without a log
            if code not in READER_GONE:
                guarded[1].write(f"cnnbench: {note}\n")
        sys.stdout, sys.stderr = before


def note_lost_output_in(log: Path) -> None:
    """Appends a line to this log when stdout or stderr is lost, also for a loss before this call; a full disk is ignored."""
    global _log
    _log = log
    _write_notes()


def _write_notes() -> None:
    if _log and _notes:
        with suppress(OSError), open_append(_log) as file:
            file.writelines(f"{note}\n" for _, note in _notes)
        _notes.clear()
