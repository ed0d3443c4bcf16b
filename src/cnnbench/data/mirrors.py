"""A published file from the mirrors that have it: gone on with where it was cut off, and checked when it is whole."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

CONNECT_S, SILENCE_S = 10.0, 20.0  # how long a server may take to answer, and to send nothing
PATIENCE_S = 10.0  # after so long a mirror is judged by its speed
SLOW, STALLED = (
    200_000,
    1_000,
)  # bytes/s: below the one another mirror is tried first, below the other a mirror is given up
ROUNDS = 2  # how often every mirror is asked
PIECE = 1 << 16


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


def has_sum(path: Path, checksum: str) -> bool:
    """Whether a file has a checksum, `sha256:...` or `md5:...`."""
    kind, _, expected = checksum.partition(":")
    digest = hashlib.new(kind, usedforsecurity=False)
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest() == expected


class Unreachable(Exception):
    """No mirror gave the file."""


class Refused(Exception):
    """A mirror did not give what was asked for; says what it did."""


def download(name: str, remote: Remote, folder: Path) -> Path:
    """The file with the right sum, under a temporary name; what an earlier attempt left there is gone on with."""
    part = folder / f".{remote.name}.part"
    urls = [f"{mirror}{remote.name}" for mirror in remote.mirrors]
    if own := os.environ.get("CNNBENCH_MIRROR"):
        urls.insert(0, f"{own.rstrip('/')}/{name}/{remote.name}")
    if _is_whole(remote, part):
        return part
    missing = remote.size - (part.stat().st_size if part.is_file() else 0)
    if shutil.disk_usage(folder).free < missing:
        raise OSError(errno.ENOSPC, f"{remote.name} needs {missing / 1e6:,.1f} MB")
    reasons: dict[str, str] = {}
    with _progress(name, remote) as show:
        for turn in range(ROUNDS * len(urls)):
            url, first_round = urls[turn % len(urls)], turn < len(urls)
            if turn == len(urls):
                time.sleep(1)
            try:
                resumed = _receive(remote, url, part, SLOW if first_round and len(urls) > 1 else STALLED, show)
                if not _is_whole(remote, part) and resumed:  # pieces of two mirrors that do not fit each other
                    _receive(remote, url, part, STALLED, show)
                if _is_whole(remote, part):
                    return part
                raise Refused("sent another file: its checksum is wrong")
            except Refused as refusal:
                reasons[urlsplit(url).netloc] = str(refusal)
    raise Unreachable("; ".join(f"{host}: {reason}" for host, reason in reasons.items()))


def _is_whole(remote: Remote, part: Path) -> bool:
    """Whether `part` is the file; one that is as long and has another sum is deleted."""
    if not part.is_file() or part.stat().st_size < remote.size:
        return False
    if part.stat().st_size == remote.size and has_sum(part, remote.checksum):
        return True
    part.unlink()
    return False


def _receive(remote: Remote, url: str, part: Path, least: float, show: Callable[[int], None]) -> bool:
    """Appends to `part` what a mirror sends, until the file is whole; whether that went on from an earlier piece.

    Raises:
        Refused: the mirror is dead, lies, is slower than `least` bytes/s, or stopped; what came of the file stays in `part`.
        OSError: it cannot be written.
    """
    import requests
    import urllib3

    have = part.stat().st_size if part.is_file() else 0
    headers = {"Accept-Encoding": "identity", "User-Agent": "cnnbench"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        with requests.get(url, headers=headers, stream=True, timeout=(CONNECT_S, SILENCE_S)) as response:
            begin = _where_it_begins(response, remote, have)
            with part.open("r+b" if begin else "wb") as file:
                file.seek(begin)
                for piece in _pieces(response, remote.size - begin, least):
                    with _writing():
                        file.write(piece)
                    show(file.tell())
                with _writing():
                    file.flush()
                    os.fsync(file.fileno())
                received = file.tell()
    except CannotWrite as error:
        raise error.reason from error
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        raise Refused(_in_short(error)) from error
    if received < remote.size:
        raise Refused(f"stopped after {received:,} of {remote.size:,} bytes")
    return begin > 0


def _where_it_begins(response: Any, remote: Remote, have: int) -> int:
    """The byte of the file with which an answer begins, once the answer is one that can be the file."""
    status, kind = response.status_code, response.headers.get("Content-Type", "")
    if status == 416:  # nothing is there beyond what we have, and what we have is not the file
        raise Refused("has a shorter file")
    if status not in (200, 206):
        raise Refused(f"HTTP {status} {response.reason or ''}".strip())
    if kind.startswith("text/html"):
        raise Refused("sent a web page in place of the file")
    begin = have if status == 206 else 0
    if status == 206 and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
        raise Refused("sent another part of the file than was asked for")
    length = response.headers.get("Content-Length")
    if length is not None and length.isdigit() and int(length) != remote.size - begin:
        raise Refused(f"has a file of {int(length) + begin:,} bytes, expected {remote.size:,}")
    return begin


def _pieces(response: Any, wanted: int, least: float) -> Iterator[bytes]:
    """What comes over the line, as it comes, at most `wanted` bytes."""
    begun, received = time.monotonic(), 0
    while received < wanted and (piece := response.raw.read1(PIECE)):
        received += len(piece)
        seconds = time.monotonic() - begun
        if seconds > PATIENCE_S and received / seconds < least:
            raise Refused(f"too slow, {received / seconds / 1000:.1f} kB/s")
        yield piece[: wanted - received or None] if received > wanted else piece


class CannotWrite(Exception):
    """Tells an error of this machine's disk from one of the line; both are OSErrors."""

    def __init__(self, reason: OSError) -> None:
        super().__init__(str(reason))
        self.reason = reason


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CannotWrite(error) from error


def _in_short(error: Exception) -> str:
    text = str(error)
    if "NameResolution" in text or "Name or service" in text:
        return "no such host, or no network"
    if "timed out" in text:
        return "no answer in time"
    if "refused" in text:
        return "connection refused"
    return " ".join(text.split())[:120] or type(error).__name__


@contextmanager
def _progress(name: str, remote: Remote) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, else a line now and then: calls of the yielded function say how many bytes there are."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    if console.is_terminal:
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
