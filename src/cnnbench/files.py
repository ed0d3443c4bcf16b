"""Writes files completely or not at all."""

from __future__ import annotations

import os
import threading
from pathlib import Path


def write_atomic(path: Path, content: str | bytes, lasting: bool = True) -> None:
    """Writes a file so that a reader, also after a crash, finds the old content or the new, never a part.

    Args:
        path: of the file.
        content: of the whole file; text is encoded as UTF-8.
        lasting: wait until the disk has stored it, so that it survives a power failure.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content if isinstance(content, bytes) else content.encode())
            file.flush()
            if lasting:
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def overwrite_in_place(path: Path, content: bytes) -> None:
    """Overwrites an existing file in the disk blocks that it has: a full disk has no space for a second file."""
    with path.open("r+b") as file:
        file.write(content)
        file.truncate()
        file.flush()
        os.fsync(file.fileno())
