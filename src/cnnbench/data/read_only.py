"""The read-only mode of `plan`: nothing is downloaded, decoded to a file, or kept about the files of a data set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_READ_ONLY = ContextVar("read_only", default=False)


@contextmanager
def read_only() -> Iterator[None]:
    """Makes data sets write nothing inside the context.

    A published set whose files are absent is described by its published facts. The images of a split have their shape alone: they
    are on the meta device, unless an earlier command has decoded them to a file.
    """
    before = _READ_ONLY.set(True)
    try:
        yield
    finally:
        _READ_ONLY.reset(before)


def is_read_only() -> bool:
    """Whether the caller is inside `read_only`."""
    return _READ_ONLY.get()
