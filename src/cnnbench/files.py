"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import threading
from pathlib import Path


def write_atomic(path: Path, content: str | bytes, lasting: bool = True) -> None:
    """Writes a file so that a reader, or a crash, meets the old content or the new, never a part.

    Args:
        path: of the file.
        content: all of it.
        lasting: it must survive a power cut from now on.
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


def write_over(path: Path, content: bytes) -> None:
    """Writes over what a file has, in the room that it has: on a full disk there is no other."""
    with path.open("r+b") as file:
        file.write(content)
        file.truncate()
        file.flush()
        os.fsync(file.fileno())
