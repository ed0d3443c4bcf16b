"""One file from one mirror: gone on with where it was cut off; whatever the mirror does, a piece of the file or a reason."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

CONNECT_S, SILENCE_S = 10.0, 20.0  # how long a server may take to answer, and to send nothing
PATIENCE_S = 10.0  # over so long a mirror's speed is judged
PIECE = 1 << 16


class Refused(Exception):
    """A mirror did not give what was asked for; says what it did."""


class CannotWrite(Exception):
    """This machine's disk, not the mirror, is at fault; both raise OSErrors."""

    def __init__(self, reason: OSError) -> None:
        super().__init__(str(reason))
        self.reason = reason


def receive(url: str, part: Path, size: int, least: float, show: Callable[[int], None]) -> bool:
    """Lets `part` grow to the `size` bytes of a file; whether that went on from an earlier piece.

    Args:
        url: of the file.
        part: what there is of the file, perhaps nothing.
        size: of the file.
        least: bytes/s; a slower mirror is given up.
        show: is told how many bytes there are.

    Raises:
        Refused: the mirror is dead, lies, is slow, or stopped. What came of the file stays in `part`, which never shrinks.
        CannotWrite: the disk is full, or `part` cannot be written.
    """
    with _writing():
        have = part.stat().st_size if part.is_file() else 0
    with _answer(url, have) as response:
        begin = _where_it_begins(response, size, have)
        if begin or not have:
            received = _append(response, part, begin, size, least, show)
        else:  # a mirror that begins anew is not trusted with the piece that we have
            beside = part.with_name(f"{part.name}.new")
            try:
                received = _append(response, beside, 0, size, least, show)
            finally:
                _keep_longer(part, beside)
    if received < size:
        raise Refused(f"stopped after {received:,} of {size:,} bytes")
    return begin > 0


@contextmanager
def _answer(url: str, have: int) -> Iterator[Any]:
    import requests

    headers = {"Accept-Encoding": "identity", "User-Agent": "cnnbench"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        with requests.get(url, headers=headers, stream=True, timeout=(CONNECT_S, SILENCE_S)) as response:
            yield response
    except requests.Timeout as error:
        raise Refused("no answer in time") from error
    except requests.TooManyRedirects as error:
        raise Refused("redirects in circles") from error
    except requests.exceptions.SSLError as error:
        raise Refused("its certificate is not trusted") from error
    except requests.ConnectionError as error:
        raise Refused(_no_connection(str(error))) from error
    except (requests.RequestException, OSError, ValueError) as error:  # also of redirects to what is no address
        raise Refused("no address, or no answer as a web server gives it") from error


def _no_connection(text: str) -> str:
    if "NameResolution" in text or "Name or service" in text:
        return "no such host, or no network"
    return "connection refused" if "refused" in text else "no connection"


def _where_it_begins(response: Any, size: int, have: int) -> int:
    """The byte of the file with which an answer begins, once the answer is one that can be the file."""
    status, kind = response.status_code, response.headers.get("Content-Type", "")
    if status == 416:  # nothing is there beyond what we have, and what we have is not the file
        raise Refused("has a shorter file")
    if status not in (200, 206):
        known = HTTPStatus(status).phrase if status in iter(HTTPStatus) else ""
        raise Refused(f"HTTP {status} {known}".rstrip())
    if kind.startswith("text/html"):
        raise Refused("sent a web page in place of the file")
    begin = have if status == 206 else 0
    if status == 206 and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
        raise Refused("sent another part of the file than was asked for")
    length = response.headers.get("Content-Length", "")
    if length.isascii() and length.isdigit() and int(length) != size - begin:
        raise Refused(f"has a file of {int(length) + begin:,} bytes, expected {size:,}")
    return begin


def _append(response: Any, path: Path, begin: int, size: int, least: float, show: Callable[[int], None]) -> int:
    """Writes an answer's body to a file from `begin` on; how long the file is then, at most `size`."""
    with _writing():
        file = path.open(
            "r+b" if begin else "wb", buffering=0
        )  # without a buffer nothing is left to be written on closing
    with file:
        file.seek(begin)
        for piece in _pieces(response, size - begin, least):
            with _writing():
                rest = memoryview(piece)
                while rest:
                    rest = rest[file.write(rest) :]
            show(file.tell())
        with _writing():
            os.fsync(file.fileno())
        return file.tell()


def _pieces(response: Any, wanted: int, least: float) -> Iterator[bytes]:
    """What comes over the line, as it comes, at most `wanted` bytes, until it ends or breaks."""
    import urllib3

    since, received = time.monotonic(), 0
    while wanted:
        try:
            piece = response.raw.read1(min(PIECE, wanted))
        except (urllib3.exceptions.HTTPError, OSError, ValueError):
            return
        if not piece:
            return
        wanted -= len(piece)
        received += len(piece)
        seconds = time.monotonic() - since
        if seconds > PATIENCE_S:
            if received / seconds < least:
                raise Refused(f"too slow, {received / seconds / 1000:.1f} kB/s")
            since, received = time.monotonic(), 0
        yield piece


def _keep_longer(part: Path, beside: Path) -> None:
    if not beside.is_file():
        return
    if beside.stat().st_size > part.stat().st_size:
        os.replace(beside, part)
    else:
        beside.unlink()


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CannotWrite(error) from error
