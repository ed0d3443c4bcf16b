"""Resumable HTTP download of one file from one mirror."""

from __future__ import annotations

import time
from collections.abc import Callable
from http.client import responses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnbench.data.ownership import keep_others_from_writing
from cnnbench.files import open_unlinked

if TYPE_CHECKING:
    from cnnbench.data.download.watchdog import Watchdog

CONNECT_S, SILENCE_S = 10.0, 20.0  # limits for a connection, and for a pause in what a mirror sends
ANSWER_S = 60.0  # limit for all that comes before the file: the connections and headers of every redirect
PATIENCE_S = 10.0  # a mirror's speed is measured over this time
PIECE = 1 << 16  # bytes read at once, at most
REASONS = {  # why a mirror does not answer; the first entry whose key is in the name or text of the error
    "Timeout": "no answer in time",
    "TooManyRedirects": "redirects in circles",
    "SSLError": "its certificate is not trusted",
    "NameResolution": "no such host, or no network",
    "refused": "connection refused",
    "ConnectionError": "no connection",
    "": "invalid address, or not an answer of a web server",  # also after a redirect
}


class MirrorError(OSError):
    """A mirror did not send the file; the message names what it did instead."""


def file_size(path: Path) -> int:
    """Bytes of a file; 0 if there is none."""
    return path.stat().st_size if path.is_file() else 0


def receive(url: str, part: Path, size: int, slowest: float, progress: Callable[[int], None]) -> None:
    """Appends to `part` until it has `size` bytes. It never shrinks: what was received before an error stays in it.

    A mirror without range requests sends the beginning again, which is not written again.

    Args:
        url: of the file.
        part: the beginning of the file, if an earlier call has received one.
        size: of the file in bytes.
        slowest: bytes/s; a slower mirror is given up.
        progress: called with the number of bytes received so far.

    Raises:
        MirrorError: the mirror does not answer, sends something else, is too slow, or stops.
        OSError: the disk is full, or `part` cannot be written.
    """
    import urllib3

    from cnnbench.data.download.watchdog import Watchdog

    have = file_size(part)
    with (
        Watchdog() as watchdog,
        _get(url, have, watchdog) as response,
        open(part, "ab", opener=open_unlinked) as file,
    ):
        keep_others_from_writing(file)
        begin = position = _first_byte(response, size, have)
        since = time.monotonic()
        while position < size:
            try:
                # the headers of a piece count as a pause, however slowly they come
                with watchdog.limit(SILENCE_S):
                    piece = response.raw.read1(min(PIECE, size - position))
            except (urllib3.exceptions.HTTPError, OSError, ValueError):
                piece = b""
            if not piece:
                raise MirrorError(f"stopped after {max(have, position):,} of {size:,} bytes")
            file.write(piece[max(0, have - position) :])
            position += len(piece)
            progress(max(have, position))
            seconds = time.monotonic() - since
            if seconds > PATIENCE_S:
                speed = (position - begin) / seconds
                if speed < slowest:
                    raise MirrorError(f"too slow, {speed / 1000:.1f} kB/s")
                begin, since = position, time.monotonic()


def _get(url: str, have: int, watchdog: Watchdog) -> Any:
    """The answer to a request for all bytes from number `have` on."""
    import requests

    missing = f"bytes={have}-" if have else None  # requests sends no header that is None
    headers = {"Accept-Encoding": "identity", "User-Agent": "cnnbench", "Range": missing}
    with requests.Session() as session:
        session.mount("http://", watchdog)
        session.mount("https://", watchdog)
        try:
            with watchdog.limit(ANSWER_S):
                response = session.get(url, headers=headers, stream=True, timeout=(CONNECT_S, SILENCE_S))
        except (OSError, ValueError) as error:  # errors of requests are OSErrors
            text = "Timeout" if watchdog.late else f"{type(error).__name__}: {error}"
            raise MirrorError(next(reason for word, reason in REASONS.items() if word in text)) from error
    if watchdog.late:  # an answer whose headers it has cut off
        raise MirrorError(REASONS["Timeout"])
    return response


def _first_byte(response: Any, size: int, have: int) -> int:
    """Position in the file of the first byte that an answer sends.

    Raises:
        MirrorError: the answer cannot be the file.
    """
    status, headers = response.status_code, response.headers
    if status == 416:  # its file has no byte number `have`
        raise MirrorError("has a shorter file")
    if status not in (200, 206):
        raise MirrorError(f"HTTP {status} {responses.get(status, '')}".rstrip())
    if headers.get("Content-Type", "").startswith("text/html"):
        raise MirrorError("sent a web page in place of the file")
    begin = have if status == 206 else 0
    if begin and not headers.get("Content-Range", "").startswith(f"bytes {begin}-"):
        raise MirrorError("sent another part of the file than was asked for")
    length = response.raw.length_remaining
    if length not in (None, size - begin):
        raise MirrorError(f"has a file of {length + begin:,} bytes, expected {size:,}")
    return begin
