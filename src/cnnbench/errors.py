"""What can end a command: each exception carries the exit code and, where one can go on, the command to type.

0 done · 1 a check said no, or a bug · 2 configuration or data are wrong and nothing ran · 3 a run failed or diverged
· 130 / 143 after Ctrl-C / SIGTERM.
"""

from __future__ import annotations

import difflib
import os
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path


class CnnbenchError(Exception):
    """An end that is shown as one line, without a traceback."""

    exit_code = 1


class ConfigError(CnnbenchError):
    """Configuration, files or arguments are wrong; nothing ran. The message says what to type instead."""

    exit_code = 2


class Untrusted(ConfigError):
    """A loaded config names code that is not cnnbench's; the command with `--trust` runs it, from Python `trust=True`."""


class DataError(ConfigError):
    """The files of a data set are absent, corrupt, or do not hold what was asked for."""


class CorruptFile(DataError):
    """A file of a data set is not what it should be."""

    def __init__(self, message: str, path: Path) -> None:
        super().__init__(message)
        self.path = path


class RunFailed(CnnbenchError):
    """A run that had started ended before its result."""

    exit_code = 3


class Diverged(RunFailed):
    """The training loss is no longer a finite number."""


class Interrupted(CnnbenchError):
    """A signal ended the run; what was trained so far is saved."""

    def __init__(self, message: str, signum: int) -> None:
        super().__init__(message)
        self.signum = signum
        self.exit_code = 128 + signum


class SaidElsewhere(CnnbenchError):
    """Another process of the same run has said what is wrong; this one ends likewise, and says nothing."""

    def __init__(self, exit_code: int) -> None:
        super().__init__("")
        self.exit_code = exit_code


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """`'; did you mean lenet5?'`, or nothing when no choice is near."""
    near = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""


def ended(work: Callable[[], int | None], hint: Callable[[CnnbenchError], str] = lambda error: "") -> int:
    """Does the work; its exit code. An error of ours is told in one line, with a hint of the caller's behind it."""
    try:
        return work() or 0
    except SaidElsewhere as error:
        return error.exit_code
    except CnnbenchError as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            traceback.print_exc()
        say(f"{error}{hint(error)}")
        return error.exit_code
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads any more, as in `| head`
        return 141  # 128 + SIGPIPE, as of any command


def say(message: str) -> None:
    """A line on stderr, red on a terminal."""
    text = f"cnnbench: {message}"
    red = sys.stderr.isatty() and "NO_COLOR" not in os.environ
    print(f"\033[31m{text}\033[0m" if red else text, file=sys.stderr)
