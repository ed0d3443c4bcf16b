"""Brings published files into a folder: complete and with their published checksums, or not at all.

One process downloads while the others wait. An interrupted download is continued, also from another mirror. A file is
renamed to its final name after its checksum is verified.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from cnnbench.data.download.archives import unpack
from cnnbench.data.download.mirrors import Remote, download
from cnnbench.data.ownership import advice_for, require_no_links
from cnnbench.errors import DataError, SeveralLines
from cnnbench.file_lock import exclusive_lock


def expand_home(path: str | Path) -> Path:
    """A path with `~` replaced by the home folder.

    Raises:
        DataError: the home folder is unknown.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise DataError(f"{path}: {error}; type the whole path") from error


def default_root() -> Path:
    """`$CNNBENCH_DATA`, or a per-user cache folder.

    A user without a home folder, or with one that cannot be written, as in a container, gets a folder in `$TMPDIR`.

    Raises:
        DataError: there is no such folder either.
    """
    if named := os.environ.get("CNNBENCH_DATA"):
        return expand_home(named)
    return user_root()


def user_root() -> Path:
    """The user's own cache folder, or a private one in `$TMPDIR`, as in `default_root`.

    Raises:
        DataError: there is no such folder either.
    """
    import platformdirs

    try:
        folder = Path(platformdirs.user_cache_dir("cnnbench")).expanduser()
    except RuntimeError:  # no home folder
        return _temporary_root()
    nearest = next(path for path in (folder, *folder.parents) if os.path.exists(path))
    return folder if nearest == folder or os.access(nearest, os.W_OK) else _temporary_root()


def _temporary_root() -> Path:
    """This user's private folder in `$TMPDIR`; makes it.

    Raises:
        DataError: it cannot be made, or another user may write to it.
    """
    advice = "name a folder for data with CNNBENCH_DATA"
    has_users = hasattr(os, "getuid")  # on Windows each user has another folder for temporary files
    user = os.getuid() if has_users else "user"
    try:
        folder = Path(tempfile.gettempdir()) / f"cnnbench-{user}"
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise DataError(f"no home folder, and none in $TMPDIR ({error.strerror}); {advice}") from error
    if not stat.S_ISDIR(found.st_mode) or (has_users and (found.st_uid, found.st_mode & 0o77) != (user, 0)):
        raise DataError(f"{folder}: expected a folder of your own that no other user may open; {advice}")
    return folder


def fetch(
    name: str,
    remotes: tuple[Remote, ...],
    folder: Path,
    sums: Mapping[str, str],
    corrupt: Path | None = None,
    top: Path | None = None,
) -> None:
    """Downloads and unpacks the members of `remotes` that `folder` lacks; writes nothing if it lacks none.

    An archive that is in `folder` already is used. `$CNNBENCH_MIRROR`, if set, is tried first: its file is
    `$CNNBENCH_MIRROR/<name of the set>/<file>`.

    Args:
        name: of the set.
        remotes: the set's published files.
        folder: where their members belong.
        sums: published checksums of members, where there are any.
        corrupt: a member to replace although it is there.
        top: the data root: nothing is written where a link between it and `folder` leads. None: `folder`.

    Raises:
        DataError: a file cannot be downloaded or written; names each missing file, its checksum, and where to put it.
    """

    def is_needed(remote: Remote) -> bool:
        return corrupt in [folder / member for member in remote.members] or is_missing(remote, folder)

    failed: dict[str, str] = {}
    try:
        if not any(map(is_needed, remotes)):
            return
        require_no_links(top or folder, folder)
        folder.mkdir(parents=True, exist_ok=True)
        _require_writable(folder)
        with exclusive_lock(folder / f".{name}.lock", lambda: _print_waiting(name, folder)):
            for remote in filter(is_needed, remotes):  # again: another process may have downloaded it meanwhile
                archive = folder / remote.name
                if not remote.is_at(archive):
                    archive = download(name, remote, folder, failed)
                unpack(remote, archive, folder, sums)
                remote.part(folder).unlink(missing_ok=True)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise
        raise SeveralLines(*_instructions(name, list(filter(is_needed, remotes)), folder, error)) from error


def is_missing(remote: Remote, folder: Path) -> bool:
    """Whether some member of a published file is not in the folder."""
    return not all(os.path.isfile(folder / member) for member in remote.members)


def _instructions(name: str, missing: list[Remote], folder: Path, error: OSError) -> list[str]:
    """The lines of the message if a download fails.

    If the disk, or a quota on it, is full, or a file may not grow any more: what to do about it. Else each missing file, its
    size, checksum and address, and where to put it.
    """
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        free = f", {shutil.disk_usage(folder).free / 1e6:,.0f} MB are free" if folder.is_dir() else ""
        advice = "free some, or name another folder with data.root=... or CNNBENCH_DATA"
        return [f"{folder}: no room ({error.strerror}{free}); {advice}"]
    reason = f"{error.strerror or error} {error.filename or ''}".rstrip()
    if error.errno == errno.ELOOP:
        return [
            f"data={name}: {error.filename} {error.strerror}; put a folder in its place, or name another root with data.root=..."
        ]
    if advice := advice_for(error):
        return [f"data={name}: cannot be downloaded ({reason}){advice}"]
    lines = [
        f"data={name}: not in {folder}, and cannot be downloaded ({reason}). Put these files there, as they are, or name the "
        "folder that has the set with data.root=...; data=mnist5k needs no download"
    ]
    for remote in missing:
        source = f"  from {remote.mirrors[0]}{remote.name}" if remote.mirrors else ""
        lines.append(f"    {remote.name}  {remote.size:,} bytes  {remote.checksum.replace(':', ' ')}{source}")
    if any(os.path.isfile(remote.part(folder)) for remote in missing):
        lines.append("the bytes received so far are kept: the same command continues there")
    archives = [folder / remote.name for remote in missing]
    lines += [f"{path} is there, but is not the published file" for path in archives if os.path.isfile(path)]
    return lines


def _require_writable(folder: Path) -> None:
    """Raises `OSError` if no file can be made in a folder."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from error


def _print_waiting(name: str, folder: Path) -> None:
    print(f"{name}: another process is fetching it; waiting", file=sys.stderr, flush=True)
