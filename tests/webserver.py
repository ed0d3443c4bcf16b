"""A local web server with a programmable behaviour per path; it records all requests."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

PAGE = b"<!DOCTYPE html><html><body>Please sign in to the network.</body></html>"


class Exchange(BaseHTTPRequestHandler):
    """One request and its answer."""

    server: Server

    def do_GET(self):
        self.noted = self.server.note(unquote(self.path), self.headers.get("Range"))
        self.server.behaviour_of(self.noted.path)(self)
        self.close_connection = True

    def log_message(self, *args):
        pass

    def head(self, status: int, **headers: str | int) -> None:
        """Sends the status line and the headers; `_` in a header's name stands for `-`."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.send_header("Connection", "close")
        self.end_headers()

    def body(self, content: bytes) -> None:
        self.wfile.write(content)
        self.wfile.flush()
        self.noted.sent += len(content)

    def trickle(self, content: bytes, per_second: float) -> None:
        """Sends `per_second` bytes a second, in twenty pieces."""
        step = max(1, round(per_second / 20))
        for begin in range(0, len(content), step):
            self.body(content[begin : begin + step])
            if self.server.stopping.wait(step / per_second):
                return


Behaviour = Callable[[Exchange], None]


@dataclass
class Request:
    """A requested path and range, and the number of bytes that were sent."""

    path: str
    range: str | None
    sent: int = 0


class Server(ThreadingHTTPServer):
    """Answers each path with its behaviour in `paths`; of a list the first is used once, ..., the last from then on.

    Other paths get 404.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Exchange)
        self.url = f"http://127.0.0.1:{self.server_port}/"
        self.paths: dict[str, Behaviour | Sequence[Behaviour]] = {}
        self.requests: list[Request] = []
        self.stopping = threading.Event()
        self._lock = threading.Lock()

    def note(self, path: str, wanted: str | None) -> Request:
        request = Request(path, wanted)
        with self._lock:
            self.requests.append(request)
        return request

    def behaviour_of(self, path: str) -> Behaviour:
        chosen = self.paths.get(path, not_found())
        if not isinstance(chosen, Sequence):
            return chosen
        with self._lock:
            earlier = sum(request.path == path for request in self.requests) - 1
        return chosen[min(earlier, len(chosen) - 1)]

    def asked(self, path: str) -> list[Request]:
        """The requests for a path, in their order."""
        return [request for request in self.requests if request.path == path]

    def handle_error(self, request, client_address):
        pass  # the client has closed the connection


@contextmanager
def serving() -> Iterator[Server]:
    """A server that runs until the block ends."""
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.stopping.set()
            server.shutdown()
            thread.join()


def good(content: bytes, ranges: bool = True) -> Behaviour:
    """Sends the file, or the requested range of it if `ranges`."""

    def answer(exchange: Exchange) -> None:
        begin = _begin(exchange) if ranges else 0
        if begin and begin >= len(content):
            exchange.head(416, Content_Range=f"bytes */{len(content)}", Content_Length=0)
        else:
            _head_of(exchange, content, begin)
            exchange.body(content[begin:])

    return answer


def slow(content: bytes, per_second: float, at_once: int = 0) -> Behaviour:
    """Sends the file or a range: `at_once` bytes immediately, then `per_second` bytes a second."""

    def answer(exchange: Exchange) -> None:
        begin = _begin(exchange)
        _head_of(exchange, content, begin)
        exchange.body(content[begin : begin + at_once])
        exchange.trickle(content[begin + at_once :], per_second)

    return answer


def truncated(content: bytes, after: int, ranges: bool = True) -> Behaviour:
    """Announces the whole file, and closes the connection after `after` bytes of it."""

    def answer(exchange: Exchange) -> None:
        begin = _begin(exchange) if ranges else 0
        _head_of(exchange, content, begin)
        exchange.body(content[begin : begin + after])

    return answer


def unannounced(content: bytes, **headers: str) -> Behaviour:
    """Sends the file with status 200 and without Content-Length; ignores ranges."""

    def answer(exchange: Exchange) -> None:
        exchange.head(200, **headers)
        exchange.body(content)

    return answer


def chunked(content: bytes, **headers: str) -> Behaviour:
    """Sends the file with status 200 in HTTP/1.1 chunks; ignores ranges."""

    def answer(exchange: Exchange) -> None:
        exchange.protocol_version = "HTTP/1.1"
        exchange.head(200, Transfer_Encoding="chunked", **headers)
        for begin in range(0, len(content), 1000):
            chunk = content[begin : begin + 1000]
            exchange.wfile.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
            exchange.noted.sent += len(chunk)
        exchange.wfile.write(b"0\r\n\r\n")

    return answer


def page(content: bytes = PAGE, kind: str = "text/html; charset=utf-8") -> Behaviour:
    """Sends a web page with status 200."""

    def answer(exchange: Exchange) -> None:
        exchange.head(200, Content_Type=kind, Content_Length=len(content))
        exchange.body(content)

    return answer


def status(code: int, **headers: str) -> Behaviour:
    """Sends a status without a body."""
    return lambda exchange: exchange.head(code, **headers, Content_Length=0)


def not_found() -> Behaviour:
    """Sends status 404."""
    return status(404)


def redirect(to: str) -> Behaviour:
    """Redirects to another address."""
    return status(302, Location=to)


def answered(raw: bytes) -> Behaviour:
    """Sends these bytes, which need not be HTTP."""
    return lambda exchange: exchange.body(raw)


def endless(begin: bytes, repeated: bytes, pause_s: float = 0.0) -> Behaviour:
    """Sends some bytes, then others again and again, until the connection is closed."""

    def answer(exchange: Exchange) -> None:
        exchange.body(begin)
        while not exchange.server.stopping.wait(pause_s):
            exchange.body(repeated)

    return answer


def late(behaviour: Behaviour, pause_s: float) -> Behaviour:
    """Behaves so after a pause."""
    return lambda exchange: exchange.server.stopping.wait(pause_s) or behaviour(exchange)


def another_range(content: bytes, shift: int) -> Behaviour:
    """Sends a range that begins `shift` bytes after the requested one."""

    def answer(exchange: Exchange) -> None:
        begin = _begin(exchange) + shift
        part = content[begin:]
        exchange.head(206, Content_Range=f"bytes {begin}-{len(content) - 1}/{len(content)}", Content_Length=len(part))
        exchange.body(part)

    return answer


def silent() -> Behaviour:
    """Accepts the request and never answers."""
    return lambda exchange: exchange.server.stopping.wait() and None


def silent_after(content: bytes, after: int) -> Behaviour:
    """Sends `after` bytes, then nothing, and keeps the connection open."""

    def answer(exchange: Exchange) -> None:
        begin = _begin(exchange)
        _head_of(exchange, content, begin)
        exchange.body(content[begin : begin + after])
        exchange.server.stopping.wait()

    return answer


def closing() -> Behaviour:
    """Closes the connection without an answer."""
    return lambda exchange: None


def _begin(exchange: Exchange) -> int:
    found = re.fullmatch(r"bytes=(\d+)-", exchange.noted.range or "")
    return int(found[1]) if found else 0


def _head_of(exchange: Exchange, content: bytes, begin: int) -> None:
    kind = {"Content_Type": "application/octet-stream", "Content_Length": len(content) - begin}
    if begin:
        exchange.head(206, Content_Range=f"bytes {begin}-{len(content) - 1}/{len(content)}", **kind)
    else:
        exchange.head(200, Accept_Ranges="bytes", **kind)
