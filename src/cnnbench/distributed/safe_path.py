"""Lets the Python processes that multiprocessing starts import nothing from the current folder, which may be a stranger's.

They are started with `python -c`, which searches the current folder first: the fork server would import a torch.py that is there.
Each gets the `sys.path` of the process that starts it afterwards. PYTHONSAFEPATH would do the same, but also to the scripts that a
user's code starts.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from multiprocessing import spawn, util
from typing import Any

_start, _get_command_line = util.spawnv_passfds, spawn.get_command_line


def leave_out_current_folder() -> None:
    """Changes how multiprocessing starts Python, in this process and in those that it forks."""
    util.spawnv_passfds = _start_with_safe_path
    spawn.get_command_line = _command_line_with_safe_path  # on Windows


def with_safe_path(command: Sequence[Any]) -> list[Any]:
    """A command `python -c CODE` that does not search the current folder; another command as it is."""
    if "-c" not in command:
        return list(command)
    at = command.index("-c")
    if sys.version_info >= (3, 11):
        return [*command[:at], "-P", *command[at:]]
    return [
        *command[:at],
        "-c",
        f"import sys; sys.path[:] = filter(None, sys.path); {command[at + 1]}",
        *command[at + 2 :],
    ]


def _start_with_safe_path(path: Any, args: Sequence[Any], passfds: Sequence[int]) -> int:
    return _start(path, with_safe_path(args), passfds)


def _command_line_with_safe_path(**data: Any) -> list[Any]:
    return with_safe_path(_get_command_line(**data))
