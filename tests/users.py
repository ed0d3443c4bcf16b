"""Other users of the machine: files of theirs, and what they may do."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ALICE, BOB, GROUP = 50_001, 50_002, 50_010  # numbers that the system does not know

AS_ROOT = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can act as other users")
FOREIGN = {  # changes a file or folder so that another user may change it
    "of another user": lambda path: os.chown(path, ALICE, -1),
    "writable by all": lambda path: path.chmod(0o777 if path.is_dir() else 0o666),
    "writable by a group": lambda path: (os.chown(path, -1, GROUP), path.chmod(0o775 if path.is_dir() else 0o664)),
}


@contextmanager
def acting_as(user: int, umask: int = 0o022) -> Iterator[None]:
    """Lets this process, which is root's, read and write files as another user, a member of `GROUP`."""
    before, groups = os.umask(umask), os.getgroups()
    os.setgroups([GROUP])
    os.setegid(user)
    os.seteuid(user)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)
        os.umask(before)


@pytest.fixture
def public() -> Iterator[Path]:
    """An empty folder below folders that all users may open."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def plant(path: Path, kind: str, outside: Path) -> None:
    """Puts something in the place of a file: a link to `outside`, which may be absent, a FIFO or a folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    if kind == "link":
        path.symlink_to(outside)
    elif kind == "FIFO":
        os.mkfifo(path)
    else:
        path.mkdir()
