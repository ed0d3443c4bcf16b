"""Writes files completely or not at all."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

TEMPORARY_NAME = re.compile(r"\..+\.(\d{1,9})\.\d+\.tmp")  # of a file that is being written: with the id of the process


@contextmanager
def open_atomic(path: Path, lasting: bool = True, keep: Path | None = None) -> Iterator[BinaryIO]:
    """Opens a file so that a reader, also after a crash, finds the old content or the new, never a part.

    What the context writes goes to a temporary file, which replaces `path` at the end; after an error it is removed.

    Args:
        path: of the file.
        lasting: wait until the disk has stored it, so that it survives a power failure.
        keep: an earlier file is renamed to this; after a crash between the two renames there is only `keep`.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            if lasting:
                os.fsync(file.fileno())
        if keep is not None and path.is_file():
            path.replace(keep)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_atomic(path: Path, content: str | bytes, lasting: bool = True) -> None:
    """Writes the whole content of a file with `open_atomic`; text is encoded as UTF-8."""
    with open_atomic(path, lasting) as file:
        file.write(content if isinstance(content, bytes) else content.encode())


def overwrite_in_place(path: Path, content: bytes) -> None:
    """Overwrites an existing file in the disk blocks that it has: a full disk has no space for a second file."""
    with path.open("r+b") as file:
        file.write(content)
        file.truncate()
        file.flush()
        os.fsync(file.fileno())
