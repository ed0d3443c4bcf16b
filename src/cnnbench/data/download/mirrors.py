"""Downloads a published file from one of several mirrors, and verifies its checksum."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from cnnbench.data.download.http import MirrorError, receive

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


def has_checksum(path: Path, checksum: str) -> bool:
    """Whether a file has a checksum, `sha256:...` or `md5:...`."""
    kind, _, expected = checksum.partition(":")
    return file_checksum(path, kind) == expected


def file_checksum(path: Path, kind: str = "sha256") -> str:
    """A file's checksum in hex digits.

    Raises:
        OSError: the file cannot be read.
    """
    digest = hashlib.new(kind, usedforsecurity=False)
    try:
        with path.open("rb") as file:
            while piece := file.read(1 << 16):
                digest.update(piece)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    return digest.hexdigest()


def download(name: str, remote: Remote, folder: Path, failed: set[str]) -> Path:
    """Downloads a file under a temporary name, and verifies it; continues what an earlier attempt has left there.

    Args:
        name: of the set.
        remote: the file.
        folder: of the temporary file.
        failed: hosts that failed for another file of the set, to be tried last; those that fail here are added.

    Raises:
        MirrorError: no mirror sends the file; names each host and what it did.
        OSError: the file cannot be written.
    """
    part = folder / f".{remote.name}.part"
    if _is_whole(remote, part):
        return part
    missing = remote.size - (part.stat().st_size if part.is_file() else 0)
    if shutil.disk_usage(folder).free < missing:
        raise OSError(errno.ENOSPC, f"{remote.name} needs {missing / 1e6:,.1f} MB")
    folders = list(remote.mirrors)
    if mirror := os.environ.get("CNNBENCH_MIRROR"):
        folders.insert(0, f"{mirror.rstrip('/')}/{name}/")
    urls = sorted((f"{url}{remote.name}" for url in folders), key=lambda url: _host(url) in failed)
    reasons: dict[str, str] = {}
    with _progress(name, remote) as progress:
        for turn, url in enumerate(urls * ROUNDS):
            if turn == len(urls):
                time.sleep(1)
            slowest = SLOW if turn < len(urls) and len(urls) > 1 else STALLED
            try:
                resumed = receive(url, part, remote.size, slowest, progress)
                if resumed and not _is_whole(remote, part):  # parts from two mirrors did not fit, and are deleted now
                    receive(url, part, remote.size, STALLED, progress)
                if _is_whole(remote, part):
                    return part
                raise MirrorError("sent another file: its checksum is wrong")
            except MirrorError as error:
                reasons[_host(url)] = str(error)
                failed.add(_host(url))
    raise MirrorError("; ".join(f"{host}: {reason}" for host, reason in reasons.items()))


def _host(url: str) -> str:
    """Host and port of an address, without a password."""
    try:
        return urlsplit(url).netloc.rpartition("@")[2] or url
    except ValueError:
        return url


def _is_whole(remote: Remote, part: Path) -> bool:
    """Whether `part` is the complete file; deletes it if it has as many bytes and another checksum, or more bytes."""
    if not part.is_file() or part.stat().st_size < remote.size:
        return False
    if part.stat().st_size == remote.size and has_checksum(part, remote.checksum):
        return True
    part.unlink()
    return False


@contextmanager
def _progress(name: str, remote: Remote) -> Iterator[Callable[[int], None]]:
    """Yields a function to call with the bytes received: it shows a bar on a terminal, else a line every ten seconds."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    console = Console(stderr=True)
    if sys.stderr.isatty():
        columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        with Progress("{task.description}", *columns, console=console) as bar:
            task = bar.add_task(f"{name}: {remote.name}", total=remote.size)
            yield lambda received: bar.update(task, completed=received)
        return
    console.print(f"{name}: downloading {remote.name}, {remote.size / 1e6:,.1f} MB", soft_wrap=True, highlight=False)
    shown = time.monotonic()

    def show_received(received: int) -> None:
        nonlocal shown
        if time.monotonic() - shown > 10:
            shown = time.monotonic()
            console.print(f"{name}: {remote.name} {received / remote.size:.0%}", soft_wrap=True, highlight=False)

    yield show_received
