"""How a command ends: an exit code, and one line for what is no bug."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable

from cnnbench.errors import CnnbenchError, SaidElsewhere


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
