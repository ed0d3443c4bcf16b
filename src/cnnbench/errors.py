"""Errors of cnnbench, each with its exit code; a message says what came, what was expected and what to type.

0 done · 1 a check failed, or a bug · 2 configuration or data are wrong and nothing ran · 3 a run failed or diverged
· 128 + signal after a signal: 130 Ctrl-C, 143 SIGTERM · 141 the reader of a listing has exited.
"""

from __future__ import annotations

import difflib
import errno
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cnnbench.text import printable, shorten

PROGRAM = "cnnbench"  # begins the commands that messages and files name


class CnnbenchError(Exception):
    """An error that is shown in one line, without a traceback."""

    exit_code = 1


class ConfigError(CnnbenchError):
    """Configuration, files or arguments are wrong; nothing ran. The message says what to type instead."""

    exit_code = 2


class Untrusted(ConfigError):
    """A loaded config names code from outside cnnbench; `--trust`, from Python `trust=True`, allows it to run."""


class DataError(ConfigError):
    """The files of a data set are absent, damaged, or lack what the config needs."""


class CorruptFile(DataError):
    """A file of a data set has another content than expected."""

    def __init__(self, message: str, path: Path) -> None:
        super().__init__(message)
        self.path = path


class SeveralLines(DataError):
    """A DataError with a message of several lines, as one for each picture that cannot be read.

    Args:
        lines: texts, which are made printable, and errors.
    """

    def __init__(self, *lines: object) -> None:
        texts = (str(line) if isinstance(line, SeveralLines) else printable(str(line)) for line in lines)
        super().__init__("\n".join(texts))

    def __reduce__(self) -> tuple[type[SeveralLines], tuple[str, ...]]:
        """How it is pickled: by its lines."""
        return SeveralLines, tuple(str(self).split("\n"))


class RunFailed(CnnbenchError):
    """A run started, and ended without a result."""

    exit_code = 3


class Diverged(RunFailed):
    """The training loss has become infinite or NaN."""


class Interrupted(CnnbenchError):
    """A signal stopped the run, which has saved a checkpoint; the exit code is 128 + the signal's number."""

    def __init__(self, message: str, signum: int) -> None:
        super().__init__(message)
        self.signum = signum
        self.exit_code = 128 + signum


class OutputLost(CnnbenchError):
    """The output of a command that only prints can no longer be written; the message is empty where its reader has exited."""

    exit_code = 141  # 128 + SIGPIPE, as of any command


class ReportedByOtherRank(CnnbenchError):
    """Another rank reported the error; this process exits with its code and prints nothing."""

    def __init__(self, exit_code: int) -> None:
        super().__init__("")
        self.exit_code = exit_code


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """`'; did you mean lenet5?'`, or an empty string if no choice is similar."""
    near = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""


def shorten_words(text: str) -> str:
    """Cuts the words of a message that have more than 300 characters, as the name of a file may."""
    return re.sub(
        r"(\S{60})\S{240,}?([:;,.)']*(?!\S))", lambda long: f"{long[1]}...({len(long[0]):,} characters){long[2]}", text
    )


@contextmanager
def long_names_refused() -> Iterator[None]:
    """Raises ConfigError in place of the operating system's error about a file name that is too long."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        raise ConfigError(f"{error.filename}: the name is too long for a file or folder; type a shorter one") from error


def exit_code_of(work: Callable[[], int | None], hint: Callable[[CnnbenchError], str] = lambda error: "") -> int:
    """Calls `work` and returns its exit code; prints an error of cnnbench in one line, followed by the caller's hint."""
    try:
        with long_names_refused():
            return work() or 0
    except CnnbenchError as error:
        if str(error):
            if os.environ.get("HYDRA_FULL_ERROR") == "1":
                print_traceback(error)
            text = shorten_words(str(error)) if isinstance(error, ConfigError) else str(error)
            print_error(f"{text}{hint(error)}", keep="\n" if isinstance(error, SeveralLines) else "")
        return error.exit_code
    except KeyboardInterrupt:
        print_error("interrupted")
        return 130


def print_error(message: str, keep: str = "") -> None:
    """Prints a line on stderr, red on a terminal; characters that a terminal would obey are shown as escapes, except `keep`."""
    text = printable(shorten(f"cnnbench: {message}"), keep)
    red = sys.stderr.isatty() and "NO_COLOR" not in os.environ
    # a guarded stream would show the colour as an escape, too
    print(f"\033[31m{text}\033[0m" if red else text, file=getattr(sys.stderr, "styled", sys.stderr))


def print_traceback(error: BaseException) -> None:
    """Prints the traceback of an exception on stderr, in printable characters; its texts may be from a file."""
    print(printable("".join(traceback.format_exception(error)), keep="\n"), end="", file=sys.stderr, flush=True)
