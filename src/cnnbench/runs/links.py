"""Refuses run and sweep directories in which links would lead what is written to them elsewhere: they may be somebody else's."""

from __future__ import annotations

import os
from pathlib import Path

from cnnbench.errors import ConfigError

SUBFOLDERS = ("checkpoints", "figures")  # of a run, and of a sweep


def find_outside_link(directory: Path) -> Path | None:
    """The first link in a run or sweep directory, or in a folder of it that cnnbench writes to, which leads out of the directory."""
    root = os.path.realpath(directory)
    for folder in (directory, *(directory / name for name in SUBFOLDERS)):
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:  # there is no such folder, or it cannot be read
            continue
        for entry in entries:
            if entry.is_symlink() and not Path(os.path.realpath(entry.path)).is_relative_to(root):
                return Path(entry.path)
    return None


def require_no_outside_links(directory: Path) -> None:
    """Checks, before a directory is written to, that no link in it leads out of it.

    Raises:
        ConfigError: a link does; the message names it.
    """
    if link := find_outside_link(directory):
        raise ConfigError(
            f"{link}: is a link to {os.path.realpath(link)}, outside of this directory, and nothing is written there; "
            "put the file or folder itself in its place, or remove the link"
        )
