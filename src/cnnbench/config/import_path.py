"""Where a user's own modules are found: a command of cnnbench also searches the current folder, last, once a part needs it.

The current folder may be a stranger's, and hold a numpy.py. So no command has it on `sys.path` from the start.
"""

from __future__ import annotations

import sys
from pathlib import Path

_allowed: str | None = None  # None in other programs, as a script that imports cnnbench: they choose their `sys.path`


def allow(folder: str | None) -> None:
    """Allows a part of the user's own to be imported from a folder, in this process."""
    global _allowed
    _allowed = folder


def allowed_folder() -> str | None:
    """The allowed folder, for the processes that this one starts."""
    return _allowed


def append_allowed_folder() -> bool:
    """Appends the allowed folder to `sys.path`; returns whether it was missing there."""
    if _allowed is None or _allowed in sys.path:
        return False
    sys.path.append(_allowed)
    return True


def hiding_module(name: str) -> str | None:
    """The file of the installed module that was imported in place of the module `name` of the allowed folder, if there is one."""
    file = getattr(sys.modules.get(name), "__file__", None)
    if _allowed is None or file is None or Path(file).is_relative_to(_allowed):
        return None
    return file if any(Path(_allowed, own).exists() for own in (name, f"{name}.py")) else None
