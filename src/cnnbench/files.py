"""Writes files completely or not at all, and never through a link; reads regular files of a sane size only."""

from __future__ import annotations

import errno
import io
import os
import re
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

MOST_BYTES = 256 << 20  # of a file that is read whole; the sweep.json of 100,000 jobs has some 60 MB
NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)  # absent on Windows, as the next
NO_WAIT = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)  # opening a FIFO would wait for its other end
BINARY = getattr(os, "O_BINARY", 0)
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
    temporary.unlink(missing_ok=True)  # of an earlier process with this id
    try:
        with temporary.open("xb") as file:
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
    with open(path, "r+b", opener=open_unlinked) as file:
        file.write(content)
        file.truncate()
        file.flush()
        os.fsync(file.fileno())


def open_append(path: Path) -> io.TextIOWrapper:
    """Opens a UTF-8 text file to append to it; makes it where it is absent.

    Raises:
        OSError: it is a link or no regular file, or it cannot be opened.
    """
    return open(path, "a", encoding="utf-8", opener=open_unlinked)


def open_unlinked(path: str, flags: int) -> int:
    """For `open(..., opener=open_unlinked)`: opens a regular file that is no link, so that nothing elsewhere is written.

    Raises:
        OSError: it is a link or no regular file, or it cannot be opened.
    """
    if os.path.islink(path):  # O_NOFOLLOW is for a link that is made in this moment
        raise OSError(errno.ELOOP, "is a link to another file", path)
    return _open_regular(path, flags | NO_FOLLOW)


def open_read(path: Path) -> BinaryIO:
    """Opens a regular file to read its bytes; the file may be from somebody else.

    Raises:
        OSError: it is no regular file (opening a FIFO would wait for ever), or it cannot be opened.
    """
    return open(path, "rb", opener=_open_regular)


def read_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """The content of a file, which may be from somebody else: of a regular file of at most `most` bytes.

    Raises:
        OSError: it is no regular file (a FIFO or a device would be read for ever), is too large, or cannot be opened.
    """
    with open_read(path) as file:
        size = os.fstat(file.fileno()).st_size
        content = file.read(most + 1) if size <= most else b""
    if max(size, len(content)) > most:
        raise OSError(errno.EFBIG, f"has {max(size, len(content)):,} bytes, expected at most {most:,}", str(path))
    return content


def read_text(path: Path, most: int = MOST_BYTES) -> str:
    """The text of a UTF-8 file, as `read_bytes` reads it; line ends are those of Unix.

    Raises:
        OSError: as `read_bytes`.
        UnicodeDecodeError: it holds another encoding.
    """
    return io.TextIOWrapper(io.BytesIO(read_bytes(path, most)), encoding="utf-8").read()


def _open_regular(path: str, flags: int) -> int:
    number = os.open(path, flags | NO_WAIT | BINARY, 0o666)
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise OSError(errno.EINVAL, "is no regular file", path)
    return number
