"""Which files and folders other users of this machine may change: a cache that they may change is not used."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from cnnbench.files import open_unlinked

HAS_USERS = hasattr(os, "geteuid")  # on Windows each user has folders of their own
GROUP_OR_ALL = stat.S_IWGRP | stat.S_IWOTH


def who_may_change(found: os.stat_result) -> str:
    """Which other user may change a file, or what is in a folder, in words; empty if only this user and root may.

    In a folder with the sticky bit, as `/tmp`, nobody may replace what belongs to somebody else.
    """
    if not HAS_USERS:
        return ""
    if found.st_uid not in (0, os.geteuid()):
        return f"belongs to {user_name(found.st_uid)}"
    if stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX:
        return ""
    if found.st_mode & stat.S_IWOTH:
        return "may be changed by all users"
    if found.st_mode & stat.S_IWGRP and not _is_private_group(found):
        return f"may be changed by the group {group_name(found.st_gid)}"
    return ""


def why_not_private(top: Path, folder: Path) -> str:
    """The first folder that other users may change, from `top` down to `folder`, and why, in words; empty if there is none.

    Folders that are absent are left out. `top` may be a link; a folder below it may not.
    """
    for path in _from_top(top, folder):
        try:
            found = path.stat() if path == top else path.lstat()
        except FileNotFoundError:
            return ""
        except OSError as error:
            return f"{path}: {error.strerror}"
        if stat.S_ISLNK(found.st_mode):
            return f"{path}: is a link"
        if not stat.S_ISDIR(found.st_mode):
            return f"{path}: is no folder"
        if who := who_may_change(found):
            return f"{path}: {who}"
    return ""


def require_no_links(top: Path, path: Path) -> None:
    """Checks that a path below `top` leads to no other place: what is written there stays there.

    Raises:
        OSError: a folder between the two is a link.
    """
    for part in _from_top(top, path):
        if part != top and part.is_symlink():
            raise OSError(errno.ELOOP, "is a link to another folder", str(part))


def make_private_folder(folder: Path) -> None:
    """Makes a folder and those above it, which other users may not change, also where the umask would allow it.

    Raises:
        OSError: it cannot be made, or another user has just made it.
    """
    for path in reversed([folder, *folder.parents]):
        if path.is_dir():
            continue
        try:
            path.mkdir(mode=0o755)
        except FileExistsError:  # by another process, in this moment
            if who := who_may_change(path.lstat()):
                raise PermissionError(errno.EPERM, who, str(path)) from None


def can_be_written(folder: Path) -> bool:
    """Whether this user can make files in a folder, or make the folder where it is absent."""
    nearest = next((path for path in (folder, *folder.parents) if os.path.lexists(path)), folder)
    return os.access(nearest, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids)


@contextmanager
def open_private(path: Path) -> Iterator[BinaryIO]:
    """Opens a regular file, no link, that no other user may change.

    Raises:
        OSError: it is another kind of file, or may be changed; or it cannot be opened.
    """
    with open(path, "rb", opener=open_unlinked) as file:
        if who := who_may_change(os.fstat(file.fileno())):
            raise PermissionError(errno.EPERM, who, str(path))
        yield file


def keep_others_from_writing(file: BinaryIO) -> None:
    """Removes the permission of others to write to an open file of this user, which a umask may have given."""
    if hasattr(os, "fchmod"):
        with suppress(OSError):  # a file system without permissions
            os.fchmod(file.fileno(), stat.S_IMODE(os.fstat(file.fileno()).st_mode) & ~GROUP_OR_ALL)


def advice_for(error: OSError) -> str:
    """The owner of what this user may not open, and what to type, as the end of a message; empty for any other error."""
    if error.errno not in (errno.EACCES, errno.EPERM) or not HAS_USERS or not error.filename:
        return ""
    path = Path(os.fsdecode(error.filename)).absolute()
    for nearest in (path, *path.parents):
        with suppress(OSError):
            found = nearest.lstat()
            if found.st_uid == os.geteuid():
                return ""
            mode = stat.S_IMODE(found.st_mode)
            return (
                f"; {nearest} belongs to {user_name(found.st_uid)}, mode {mode:04o}: ask for chmod -R a+rX there, or name another "
                "folder with data.root=... or CNNBENCH_DATA"
            )
    return ""


def user_name(number: int) -> str:
    """A user's name; the number of one whom the system does not know."""
    try:
        import pwd

        return pwd.getpwuid(number).pw_name
    except (ImportError, KeyError):  # on Windows the number is 0
        return f"the user {number}"


def group_name(number: int) -> str:
    """A group's name; the number of one that the system does not know."""
    import grp

    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def _is_private_group(found: os.stat_result) -> bool:
    """Whether a file's group has its owner as the only member: many systems give each user a group of the same name."""
    import grp

    owner = user_name(found.st_uid)
    try:
        group = grp.getgrgid(found.st_gid)
    except KeyError:
        return False
    return group.gr_name == owner and set(group.gr_mem) <= {owner}


def _from_top(top: Path, path: Path) -> Iterator[Path]:
    """Yields `top`, then each part of the path below it, the path last."""
    yield top
    parts = path.relative_to(top).parts
    for number in range(len(parts)):
        yield top.joinpath(*parts[: number + 1])
