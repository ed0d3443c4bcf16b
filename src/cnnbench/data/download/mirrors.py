"""A published file from the mirrors that have it, checked when it is whole."""

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

from cnnbench.data.download.http import CannotWrite, Refused, receive

SLOW, STALLED = (
    200_000,
    1_000,
)  # bytes/s: below the one another mirror is tried first, below the other a mirror is given up
ROUNDS = 2  # how often every mirror is asked


@dataclass(frozen=True)
class Remote:
    """A published file, as its mirrors have it.

    Attributes:
        name: its file name.
        size: its bytes.
        checksum: `sha256:...` or `md5:...`.
        mirrors: the folders on the web that have it, the fastest first.
        members: the files that it unpacks to (`.tar.gz`: several, `.gz`: one), relative to the folder that it is put in.
    """

    name: str
    size: int
    checksum: str
    mirrors: tuple[str, ...]
    members: tuple[str, ...]


class Unreachable(Exception):
    """No mirror gave the file."""


def has_sum(path: Path, checksum: str) -> bool:
    """Whether a file has a checksum, `sha256:...` or `md5:...`."""
    kind, _, expected = checksum.partition(":")
    return sum_of(path, kind) == expected


def sum_of(path: Path, kind: str = "sha256") -> str:
    """A file's checksum, in hex digits."""
    digest = hashlib.new(kind, usedforsecurity=False)
    try:
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    return digest.hexdigest()


def download(name: str, remote: Remote, folder: Path, failed: set[str]) -> Path:
    """The file with the right sum, under a temporary name; what an earlier attempt left there is gone on with.

    Args:
        name: of the set.
        remote: the file.
        folder: where the temporary file lies.
        failed: hosts that failed for another file of the set, to be asked last; those that fail here are added.

    Raises:
        Unreachable: no mirror has it, or gives it whole.
        OSError: it cannot be written.
    """
    part = folder / f".{remote.name}.part"
    if _is_whole(remote, part):
        return part
    missing = remote.size - (part.stat().st_size if part.is_file() else 0)
    if shutil.disk_usage(folder).free < missing:
        raise OSError(errno.ENOSPC, f"{remote.name} needs {missing / 1e6:,.1f} MB")
    urls = sorted(_addresses(name, remote), key=lambda url: _host(url) in failed)
    reasons: dict[str, str] = {}
    with _progress(name, remote) as show:
        for turn in range(ROUNDS * len(urls)):
            url, first_round = urls[turn % len(urls)], turn < len(urls)
            if turn == len(urls):
                time.sleep(1)
            try:
                _ask(remote, url, part, SLOW if first_round and len(urls) > 1 else STALLED, show)
                return part
            except Refused as refusal:
                reasons[_host(url)] = str(refusal)
                failed.add(_host(url))
            except CannotWrite as error:
                raise error.reason from error
    raise Unreachable("; ".join(f"{host}: {reason}" for host, reason in reasons.items()))


def _addresses(name: str, remote: Remote) -> list[str]:
    own = os.environ.get("CNNBENCH_MIRROR")
    first = [f"{own.rstrip('/')}/{name}/{remote.name}"] if own else []
    return first + [f"{mirror}{remote.name}" for mirror in remote.mirrors]


def _host(url: str) -> str:
    """Where an address leads, to be shown: without a password."""
    try:
        return urlsplit(url).netloc.rpartition("@")[2] or url
    except ValueError:
        return url


def _ask(remote: Remote, url: str, part: Path, least: float, show: Callable[[int], None]) -> None:
    """Has a mirror complete `part`."""
    resumed = receive(url, part, remote.size, least, show)
    if not _is_whole(remote, part) and resumed:  # pieces of two mirrors that do not fit each other
        receive(url, part, remote.size, STALLED, show)
    if not _is_whole(remote, part):
        raise Refused("sent another file: its checksum is wrong")


def _is_whole(remote: Remote, part: Path) -> bool:
    """Whether `part` is the file; one that is as long and has another sum is deleted."""
    if not part.is_file() or part.stat().st_size < remote.size:
        return False
    if part.stat().st_size == remote.size and has_sum(part, remote.checksum):
        return True
    part.unlink()
    return False


@contextmanager
def _progress(name: str, remote: Remote) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, else a line now and then: calls of the yielded function say how many bytes there are."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    console = Console(stderr=True)
    if sys.stderr.isatty():
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(f"{name}: {remote.name}", total=remote.size)
            yield lambda received: bar.update(task, completed=received)
        return
    console.print(f"{name}: downloading {remote.name}, {remote.size / 1e6:,.1f} MB", soft_wrap=True, highlight=False)
    shown = [time.monotonic()]

    def show(received: int) -> None:
        if time.monotonic() - shown[0] > 10:
            shown[0] = time.monotonic()
            console.print(f"{name}: {remote.name} {received / remote.size:.0%}", soft_wrap=True, highlight=False)

    yield show
