"""Inputs of a stranger: values that a field does not expect, texts that are no JSON and no YAML, and files that are no files."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from cnnbench.__main__ import main

LIMIT_S = 5.0  # of processor time, for a command
HANG_S = 60.0  # of time, also while it waits; a busy machine takes longer than LIMIT_S
Place = tuple[str | int, ...]  # keys and indices, from the top of a document to a value in it

DEEP = 100_000
VALUES = {  # each as JSON text: some of them cannot be written by `json.dumps`
    "a text": '"x"',
    "an empty text": '""',
    "null": "null",
    "true": "true",
    "a list": "[1]",
    "an empty list": "[]",
    "nested lists": "[[[]], {}]",
    "an object": '{"a": {"b": [1]}}',
    "an empty object": "{}",
    "zero": "0",
    "minus one": "-1",
    "a fraction": "0.5",
    "2**31": str(2**31),
    "2**70": str(2**70),
    "-2**70": str(-(2**70)),
    "9e99": "9e99",
    "-9e99": "-9e99",
    "a float beyond all": "1e400",
    "NaN": "NaN",
    "Infinity": "Infinity",
    "an integer of 400 digits": "9" * 400,
    "an integer of 5,000 digits": "9" * 5_000,
    "a lone surrogate": '"\\ud800"',
    "a NUL": '"a\\u0000b"',
    "an escape sequence": '"\\u001b]0;gotcha\\u0007\\u001b[31mred"',
    "lines": '"one\\ntwo\\r\\nthree"',
    "a path": '"../../elsewhere"',
    "markup": '"[/bold] [link=x]<script>"',
}
LARGE_VALUES = {
    "deep lists": "[" * DEEP + "]" * DEEP,
    "deep objects": '{"a":' * DEEP + "1" + "}" * DEEP,
    "a text of 10 MB": '"' + "x" * 10_000_000 + '"',
    "a list of 100,000": "[" + "1," * 99_999 + "1]",
}
TEXTS = {  # contents of a whole file
    "nothing": b"",
    "spaces": b" \n\t ",
    "NUL bytes": b"\0" * 1000,
    "no UTF-8": b"\xff\xfe\x80abc",
    "UTF-16": '{"state": "done", "schema": 1}'.encode("utf-16"),
    "a mark of the byte order": b'\xef\xbb\xbf{"state": "done"}',
    "a number": b"1",
    "a list": b"[]",
    "a text": b'"x"',
    "null": b"null",
    "an empty object": b"{}",
    "deep lists": b"[" * DEEP,
    "deep objects": b'{"a":' * DEEP,
    "another kind of file": b"PK\x03\x04" + bytes(range(256)),
}


def places_of(kind: type[BaseModel]) -> Iterator[Place]:
    """Yields the place of every field of a record, and of those of the records in it; of a list its first item."""
    for name, info in kind.model_fields.items():
        place = (info.alias or name,)
        yield place
        for inner in _records_in(info.annotation):
            yield from ((*place, 0, *below) for below in places_of(inner))


def _records_in(kind: Any) -> Iterator[type[BaseModel]]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield kind
    for inner in get_args(kind):
        yield from _records_in(inner)


def places_in(document: Any, before: Place = ()) -> Iterator[Place]:
    """Yields the place of every value below the top of a document; of a list its first item."""
    pairs = document.items() if isinstance(document, dict) else list(enumerate(document))[:1]
    for key, value in pairs:
        yield (*before, key)
        if isinstance(value, dict | list):
            yield from places_in(value, (*before, key))


def with_value(document: Any, place: Place, text: str) -> str:
    """The JSON of a document with the JSON text of another value at a place, which need not exist."""
    mark = "the other value"
    copied = json.loads(json.dumps(document))
    inner = copied
    for key, following in zip(place, (*place[1:], None), strict=True):
        if isinstance(inner, list) and not inner:
            inner.append({})
        if following is None:
            inner[key] = mark
        elif isinstance(inner, dict) and not isinstance(inner.get(key), dict | list):
            inner[key] = [] if isinstance(following, int) else {}
        inner = inner[key]
    return json.dumps(copied).replace(json.dumps(mark), text)


def tried(*arguments: object) -> tuple[int, str]:
    """Calls a command in this process; returns its exit code and all that it printed.

    Checks what holds for any input: it ends in time with a known code, without a traceback and with one line of error, and nothing
    that a terminal obeys is printed.
    """
    printed, errors = io.StringIO(), io.StringIO()
    begun = time.process_time()
    with redirect_stdout(printed), redirect_stderr(errors), _alarm(HANG_S):
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as exit_:
            code = int(exit_.code or 0)
    text, error = printed.getvalue(), errors.getvalue()
    assert time.process_time() - begun < LIMIT_S
    assert code in (0, 1, 2, 3)
    assert "Traceback" not in text + error
    assert len(error.splitlines()) <= 1, error
    assert bool(error) == (code != 0), (code, error)
    assert all(character.isprintable() or character == "\n" for character in text + error)
    return code, text + error


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Raises TimeoutError in a block that takes longer, also while it waits for a file."""

    def late(*_: object) -> None:
        raise TimeoutError(f"took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _socket(path: Path) -> None:
    before = Path.cwd()
    os.chdir(path.parent)  # the path of a socket has 107 characters at most
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)
    os.chdir(before)


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(300 << 20)


ODD_FILES: dict[str, Callable[[Path], object]] = {  # what is put in the place of a file
    "a FIFO": os.mkfifo,
    "a link to /dev/zero": lambda path: path.symlink_to("/dev/zero"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a broken link": lambda path: path.symlink_to("nowhere"),
    "a socket": _socket,
    "a folder": Path.mkdir,
    "a sparse file of 300 MB": _sparse,
    "an empty file": Path.touch,
    "half of the file": lambda path: None,  # see `replace_file`
    "no file": lambda path: None,
}


def replace_file(path: Path, kind: str) -> None:
    """Puts an odd file in the place of another one."""
    content = path.read_bytes() if path.is_file() else b""
    path.unlink(missing_ok=True)
    path.parent.mkdir(exist_ok=True)
    ODD_FILES[kind](path)
    if kind == "half of the file":
        path.write_bytes(content[: len(content) // 2])
