"""Downloads a published file from one of several mirrors, and verifies its checksum."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from cnnbench.data.download.http import MirrorError, file_size, receive
from cnnbench.data.ownership import who_may_change

SLOW, STALLED = 200_000, 1_000  # bytes/s: below SLOW other mirrors are tried first, below STALLED a mirror is given up
ROUNDS = 2  # attempts per mirror


@dataclass(frozen=True)
class Remote:
    """A published file.

    Attributes:
        name: its file name.
        size: in bytes.
        checksum: `sha256:...` or `md5:...`.
        mirrors: URLs of folders that contain it, the fastest first; each ends in `/`.
        members: the files that it unpacks to (`.tar.gz`: several, `.gz`: one), relative to the folder that it is put in.
    """

    name: str
    size: int
    checksum: str
    mirrors: tuple[str, ...]
    members: tuple[str, ...]

    def part(self, folder: Path) -> Path:
        """The file in `folder` that holds the bytes received so far."""
        return folder / f".{self.name}.part"

    def is_at(self, path: Path) -> bool:
        """Whether there is a file at `path`, and it is this one, by its checksum."""
        return path.is_file() and has_checksum(path, self.checksum)


def has_checksum(path: Path, checksum: str) -> bool:
    """Whether a file has a checksum, `sha256:...` or `md5:...`."""
    kind, _, expected = checksum.partition(":")
    return file_checksum(path, kind) == expected


def file_checksum(path: Path, kind: str = "sha256") -> str:
    """A file's checksum in hex digits.

    Raises:
        OSError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return content_checksum(file, kind)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def content_checksum(file: BinaryIO, kind: str = "sha256") -> str:
    """The checksum, in hex digits, of what is left to read in an open file."""
    digest = hashlib.new(kind, usedforsecurity=False)
    while piece := file.read(1 << 16):
        digest.update(piece)
    return digest.hexdigest()


def download(name: str, remote: Remote, folder: Path, failed: dict[str, str]) -> Path:
    """Downloads a file under a temporary name, and verifies it; continues what an earlier attempt has left there.

    Bytes under this name that are neither the file nor a beginning of it are deleted.

    Args:
        name: of the set.
        remote: the file.
        folder: of the temporary file.
        failed: why mirrors failed, also for earlier files of the set: these are tried last. Those that fail here are added.

    Raises:
        MirrorError: no mirror sends the file; names each host and what it did.
        OSError: the file cannot be written.
    """
    part = remote.part(folder)
    _remove_if_not_own(part)
    if remote.is_at(part):
        return part
    if file_size(part) >= remote.size:
        part.unlink(missing_ok=True)
    missing = remote.size - file_size(part)
    if shutil.disk_usage(folder).free < missing:
        raise OSError(errno.ENOSPC, f"{remote.name} needs {missing / 1e6:,.1f} MB")
    own = os.environ.get("CNNBENCH_MIRROR")
    mirrors = [f"{own.rstrip('/')}/{name}/", *remote.mirrors] if own else list(remote.mirrors)
    mirrors.sort(key=lambda mirror: mirror in failed)
    with _progress(name, remote) as progress:
        for turn, mirror in enumerate(mirrors * ROUNDS):
            if turn == len(mirrors):
                time.sleep(1)
            slowest = SLOW if turn < len(mirrors) and len(mirrors) > 1 else STALLED
            try:
                for _ in range(2 if file_size(part) else 1):  # again if it continues another file
                    receive(f"{mirror}{remote.name}", part, remote.size, slowest, progress)
                    if remote.is_at(part):
                        return part
                    part.unlink()
                raise MirrorError("sent another file: its checksum is wrong")
            except MirrorError as error:
                failed[mirror] = str(error)
    raise MirrorError("; ".join(f"{_host(mirror)}: {reason}" for mirror, reason in failed.items()))


def _remove_if_not_own(part: Path) -> None:
    """Removes what is in the place of a temporary file and is a link, a FIFO, or a file that another user may change.

    Raises:
        OSError: it cannot be removed.
    """
    with suppress(FileNotFoundError):
        found = part.lstat()
        if not stat.S_ISREG(found.st_mode) or who_may_change(found):
            part.unlink()


def _host(url: str) -> str:
    """Host and port of an address, without a password."""
    return url.partition("://")[2].partition("/")[0].rpartition("@")[2] or url


@contextmanager
def _progress(name: str, remote: Remote) -> Iterator[Callable[[int], None]]:
    """Yields a function to call with the bytes received: it shows a bar on a terminal, else a line every ten seconds."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    from cnnbench.console import Console

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    console, shown = Console(stderr=True), time.monotonic()
    with Progress(*columns, console=console, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(f"{name}: {remote.name}", total=remote.size)

        def show(received: int) -> None:
            nonlocal shown
            bar.update(task, completed=received)
            if bar.disable and time.monotonic() - shown > 10:
                shown = time.monotonic()
                print(f"{name}: {remote.name} {received / remote.size:.0%}", file=sys.stderr, flush=True)

        if bar.disable:
            print(f"{name}: downloading {remote.name}, {remote.size / 1e6:,.1f} MB", file=sys.stderr, flush=True)
        yield show
