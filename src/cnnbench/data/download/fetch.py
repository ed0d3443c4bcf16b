"""Brings published files into a folder: complete and with their published checksums, or not at all.

One process downloads while the others wait. An interrupted download is continued, also from another mirror. A file is
renamed to its final name after its checksum is verified.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from cnnbench.data.download.archives import unpack
from cnnbench.data.download.http import MirrorError
from cnnbench.data.download.mirrors import Remote, download, has_checksum
from cnnbench.errors import DataError


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
    """`$CNNBENCH_DATA`, or a per-user cache folder."""
    import platformdirs

    return expand_home(os.environ.get("CNNBENCH_DATA") or platformdirs.user_cache_dir("cnnbench"))


def fetch(
    name: str,
    remotes: tuple[Remote, ...],
    folder: Path,
    sums: Mapping[str, str],
    corrupt: Callable[[], Path | None] = lambda: None,
) -> None:
    """Downloads and unpacks the members of `remotes` that `folder` lacks; writes nothing if it lacks none.

    An archive that is in `folder` already is used. `$CNNBENCH_MIRROR`, if set, is tried first: its file is
    `$CNNBENCH_MIRROR/<name of the set>/<file>`.

    Args:
        name: of the set.
        remotes: the set's published files.
        folder: where their members belong.
        sums: published checksums of members, where there are any.
        corrupt: returns a member to replace although it is there, or None.

    Raises:
        DataError: a file cannot be downloaded or written; names each missing file, its checksum, and where to put it.
    """

    def wanted() -> list[Remote]:
        bad = corrupt()
        return [remote for remote in remotes if is_absent(remote, folder) or bad in _paths(remote, folder)]

    failed: set[str] = set()
    try:
        if not wanted():
            return
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(name, folder):
            for remote in wanted():  # once more: another process may have downloaded it in the meantime
                archive = folder / remote.name
                size = archive.stat().st_size if archive.is_file() else -1
                if size == remote.size and has_checksum(archive, remote.checksum):
                    unpack(remote, archive, folder, sums)
                else:
                    part = download(name, remote, folder, failed)
                    unpack(remote, part, folder, sums)
                    part.unlink()
    except OSError as error:
        if is_disk_full(error):
            free = f", {shutil.disk_usage(folder).free / 1e6:,.0f} MB are free" if folder.is_dir() else ""
            raise DataError(
                f"{folder}: no room ({error.strerror}{free}); free some, or name another folder with data.root=... or CNNBENCH_DATA"
            ) from error
        reason = " ".join(filter(None, (error.strerror or str(error), str(error.filename or ""))))
        raise DataError(manual_instructions(name, remotes, folder, reason)) from error
    except MirrorError as error:
        raise DataError(manual_instructions(name, remotes, folder, str(error))) from error


def is_disk_full(error: OSError) -> bool:
    """Whether the disk, or a quota on it, is full, or a file may not grow any more."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def is_absent(remote: Remote, folder: Path) -> bool:
    """Whether a member of a published file is not in `folder`."""
    return not all(path.is_file() for path in _paths(remote, folder))


def manual_instructions(name: str, remotes: tuple[Remote, ...], folder: Path, reason: str) -> str:
    """The message if a download fails: each missing file, its size, checksum and address, and where to put it."""
    try:
        remotes = tuple(remote for remote in remotes if is_absent(remote, folder)) or remotes
        others = [folder / remote.name for remote in remotes if (folder / remote.name).is_file()]
    except OSError:
        others = []
    lines = [
        f"data={name}: not in {folder}, and cannot be downloaded ({reason}). Put these files there, as they are, or name the "
        "folder that has the set with data.root=...; data=mnist5k needs no download"
    ]
    for remote in remotes:
        source = f"  from {remote.mirrors[0]}{remote.name}" if remote.mirrors else ""
        lines.append(f"    {remote.name}  {remote.size:,} bytes  {remote.checksum.replace(':', ' ')}{source}")
    if any((folder / f".{remote.name}.part").is_file() for remote in remotes):
        lines.append("the bytes received so far are kept: the same command continues there")
    return "\n".join(lines + [f"{path} is there, but is not the published file" for path in others])


def _paths(remote: Remote, folder: Path) -> list[Path]:
    return [folder / member for member in remote.members]


@contextmanager
def _locked(name: str, folder: Path) -> Iterator[None]:
    """Holds the folder's lock; prints a line if it has to wait for another process."""
    from filelock import FileLock, Timeout

    lock = FileLock(folder / f".{name}.lock")
    try:
        lock.acquire(timeout=1)
    except Timeout:
        print(f"{name}: another process is fetching it; waiting", file=sys.stderr, flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
