"""Resumable HTTP download of one file from one mirror."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

CONNECT_S, SILENCE_S = 10.0, 20.0  # limits for a connection, and for a pause in what a mirror sends
PATIENCE_S = 10.0  # a mirror's speed is measured over this time
PIECE = 1 << 16  # bytes read at once, at most
REASONS = {  # why a mirror does not answer; the first entry whose key is in the name or text of the error
    "Timeout": "no answer in time",
    "TooManyRedirects": "redirects in circles",
    "SSLError": "its certificate is not trusted",
    "NameResolution": "no such host, or no network",
    "Name or service": "no such host, or no network",
    "refused": "connection refused",
    "ConnectionError": "no connection",
}
INVALID = "invalid address, or not an answer of a web server"  # also after a redirect


class MirrorError(Exception):
    """A mirror did not send the file; the message names what it did instead."""


def receive(url: str, part: Path, size: int, slowest: float, progress: Callable[[int], None]) -> bool:
    """Appends to `part` until it has `size` bytes. It never shrinks: what was received before an error stays in it.

    Args:
        url: of the file.
        part: the beginning of the file, if an earlier call has received one.
        size: of the file in bytes.
        slowest: bytes/s; a slower mirror is given up.
        progress: called with the number of bytes received so far.

    Returns:
        Whether `part` had a beginning already.

    Raises:
        MirrorError: the mirror does not answer, sends something else, is too slow, or stops.
        OSError: the disk is full, or `part` cannot be written.
    """
    have = part.stat().st_size if part.is_file() else 0
    with _get(url, have) as response, part.open("ab", buffering=0) as file:  # unbuffered: closing has nothing to write
        position = _first_byte(response, size, have)
        for piece in _pieces(response, size - position, slowest):
            rest = memoryview(piece)[max(0, have - position) :]  # without ranges a mirror sends the beginning again
            position += len(piece)
            while rest:
                rest = rest[file.write(rest) :]
            progress(max(have, position))
        os.fsync(file.fileno())
    if position < size:
        raise MirrorError(f"stopped after {max(have, position):,} of {size:,} bytes")
    return have > 0


def _get(url: str, have: int) -> Any:
    """The answer to a request for all bytes from number `have` on."""
    import requests

    headers = {"Accept-Encoding": "identity", "User-Agent": "cnnbench"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        return requests.get(url, headers=headers, stream=True, timeout=(CONNECT_S, SILENCE_S))
    except (requests.RequestException, OSError, ValueError) as error:
        text = f"{type(error).__name__}: {error}"
        reason = next((reason for word, reason in REASONS.items() if word in text), INVALID)
        raise MirrorError(reason) from error


def _first_byte(response: Any, size: int, have: int) -> int:
    """Position in the file of the first byte that an answer sends.

    Raises:
        MirrorError: the answer cannot be the file.
    """
    status, kind = response.status_code, response.headers.get("Content-Type", "")
    if status == 416:  # its file has no byte number `have`
        raise MirrorError("has a shorter file")
    if status not in (200, 206):
        phrase = HTTPStatus(status).phrase if status in iter(HTTPStatus) else ""
        raise MirrorError(f"HTTP {status} {phrase}".rstrip())
    if kind.startswith("text/html"):
        raise MirrorError("sent a web page in place of the file")
    begin = have if status == 206 else 0
    if status == 206 and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
        raise MirrorError("sent another part of the file than was asked for")
    length = response.headers.get("Content-Length", "")
    if length.isascii() and length.isdigit() and int(length) != size - begin:
        raise MirrorError(f"has a file of {int(length) + begin:,} bytes, expected {size:,}")
    return begin


def _pieces(response: Any, wanted: int, slowest: float) -> Iterator[bytes]:
    """The body as it arrives, `wanted` bytes at most, until it ends or the connection breaks."""
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
            if received / seconds < slowest:
                raise MirrorError(f"too slow, {received / seconds / 1000:.1f} kB/s")
            since, received = time.monotonic(), 0
        yield piece
