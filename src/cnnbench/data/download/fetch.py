"""Published files come here whole, with their published checksum, or not at all.

One process downloads, the others wait for it. A download goes on where it was cut off, also from another mirror; nothing
gets its own name before its sum is right.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from cnnbench.data.download.archives import unpack, unpack_what_lies_there
from cnnbench.data.download.mirrors import Remote, Unreachable, download
from cnnbench.errors import DataError

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def expanded(path: str | Path) -> Path:
    """A path as one types it, `~` for one's home.

    Raises:
        DataError: the home is not known.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise DataError(f"{path}: {error}; type the whole path") from error


def default_root() -> Path:
    """`$CNNBENCH_DATA`, or a per-user cache folder."""
    import platformdirs

    return expanded(os.environ.get("CNNBENCH_DATA") or platformdirs.user_cache_dir("cnnbench"))


def fetch(
    name: str,
    remotes: tuple[Remote, ...],
    folder: Path,
    sums: Mapping[str, str],
    corrupt: Callable[[], Path | None] = lambda: None,
) -> None:
    """Brings every member of `remotes` that `folder` lacks; where it lacks none, nothing is written.

    An archive that lies in `folder` already is unpacked from there. `$CNNBENCH_MIRROR`, where set, is asked first, at
    `$CNNBENCH_MIRROR/<name of the set>/<file>`.

    Args:
        name: the set's, for messages.
        remotes: the set's published files.
        folder: where their members belong.
        sums: the published checksums of members, of those that have one.
        corrupt: a member that is to be replaced, though it is there.

    Raises:
        DataError: it did not work; names each file, its sum and where to put it, and what was tried.
    """

    def wanted() -> tuple[Remote, ...]:
        bad = corrupt()
        return tuple(r for r in remotes if absent((r,), folder) or bad in [folder / member for member in r.members])

    failed: set[str] = set()
    try:
        if not wanted():
            return
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(name, folder):
            for remote in wanted():  # another process may have brought it meanwhile
                if not unpack_what_lies_there(remote, folder, sums):
                    part = download(name, remote, folder, failed)
                    unpack(remote, part, folder, sums)
                    part.unlink()
    except OSError as error:
        reason = " ".join(filter(None, (error.strerror or str(error), str(error.filename or ""))))
        raise DataError(_no_room(error, folder) or by_hand(name, remotes, folder, reason)) from error
    except Unreachable as error:
        raise DataError(by_hand(name, remotes, folder, str(error))) from error


def absent(remotes: tuple[Remote, ...], folder: Path) -> tuple[Remote, ...]:
    """Those of which a member is not in `folder`."""
    return tuple(remote for remote in remotes if not all((folder / member).is_file() for member in remote.members))


def by_hand(name: str, remotes: tuple[Remote, ...], folder: Path, reason: str) -> str:
    """What to do where a download does not work: each file, its sum, and where to put it."""
    try:
        remotes = absent(remotes, folder) or remotes
        others = [remote.name for remote in remotes if (folder / remote.name).is_file()]
    except OSError:
        others = []
    lines = [
        f"data={name}: not in {folder}, and cannot be downloaded ({reason}). Put these files there, as they are, or name the "
        "folder that has the set with data.root=...; data=mnist5k needs no download"
    ]
    for remote in remotes:
        kind, _, digest = remote.checksum.partition(":")
        source = f"  from {remote.mirrors[0]}{remote.name}" if remote.mirrors else ""
        lines.append(f"    {remote.name}  {remote.size:,} bytes  {kind} {digest}{source}")
    if any((folder / f".{remote.name}.part").is_file() for remote in remotes):
        lines.append("what has come already is kept: the same command goes on from there")
    return "\n".join(lines + [f"{folder / other} lies there, but is not the published file" for other in others])


@contextmanager
def _alone(name: str, folder: Path) -> Iterator[None]:
    """Holds the folder's lock; says so where another process has it."""
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


def _no_room(error: OSError, folder: Path) -> str | None:
    """The message where the disk is full."""
    if error.errno not in NO_ROOM:
        return None
    free = f", {shutil.disk_usage(folder).free / 1e6:,.0f} MB are free" if folder.is_dir() else ""
    return f"{folder}: no room ({error.strerror}{free}); make some, or name another folder with data.root=... or CNNBENCH_DATA"
