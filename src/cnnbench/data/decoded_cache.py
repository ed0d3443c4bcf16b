"""Decoded images in files that all processes map, and facts about a set's files that take long to compute.

Both are kept in `<default root>/decoded/`. That folder may be deleted at any time: its contents are made again.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from cnnbench.data.download.archives import checksum_file
from cnnbench.data.download.fetch import default_root
from cnnbench.data.download.mirrors import file_checksum
from cnnbench.data.parallel import chunks
from cnnbench.data.read_only import is_read_only
from cnnbench.errors import DataError
from cnnbench.files import open_atomic, write_atomic

log = logging.getLogger("cnnbench.run")
CHECKED_BYTES = 2 << 30  # the digest of a larger file is not verified: reading it at each start would take too long
MOST_FILES = 32  # per set; each size, and each selection of images, has its own file
# One of these differs when a file changes; ctime cannot be set.
STAMP = attrgetter("st_size", "st_mtime_ns", "st_ctime_ns", "st_ino")
SETTLED_NS = 2_000_000_000  # facts that were saved sooner than this after a file's change are not trusted

Decode = Callable[[np.ndarray], np.ndarray]  # (n,) rows of an official split -> (n, C, H, W) uint8


def load_or_decode(path: Path, rows: np.ndarray, shape: tuple[int, int, int], decode: Decode, title: str) -> np.ndarray:
    """(n, C, H, W) uint8, the images `rows`, mapped from the file `path`; decodes them if it is absent or damaged.

    The file is mapped copy-on-write: processes share its memory, and writing to the array never changes the file. Where the
    file cannot be written, the images are in the memory of this process only, and the log has a warning.

    Args:
        path: the `.npy` file; its SHA-256 is in a file next to it.
        rows: (n,) int64, ascending.
        shape: (C, H, W).
        decode: makes images; called with some hundred rows at a time.
        title: of the progress bar.

    Raises:
        DataError: the images fit neither on the disk nor in memory.
    """
    from filelock import FileLock

    whole = (len(rows), *shape)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        images = map_if_intact(path, whole)
        if images is None:
            with FileLock(path.with_suffix(".lock")):
                if map_if_intact(path, whole) is None:  # another process may have written it in the meantime
                    _write(path, whole, map(decode, chunks(rows, title)))
                images = np.load(path, mmap_mode="c")
        return images
    except OSError as error:
        if (needed := int(np.prod(whole, dtype=np.int64))) > psutil.virtual_memory().available:
            raise DataError(
                f"{path.parent}: {error.strerror}, and {needed / 1e9:,.1f} GB of decoded images do not fit in memory either; "
                "name a folder with enough space with CNNBENCH_DATA"
            ) from error
        log.warning("decoded images are not shared with other processes: %s", error)
        images = np.empty(whole, np.uint8)
        for at in chunks(np.arange(len(rows)), title):
            images[at] = decode(rows[at])
        return images


def map_if_intact(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """The mapped file; None if it is absent, has another shape, or differs from its digest."""
    try:
        if path.stat().st_size <= CHECKED_BYTES and checksum_file(path).read_text() != file_checksum(path):
            return None
        images = np.load(path, mmap_mode="c")
    except (OSError, ValueError, EOFError):
        return None
    return images if images.shape == shape and images.dtype == np.uint8 else None


def _write(path: Path, shape: tuple[int, ...], parts: Any) -> None:
    """Writes an `.npy` file from parts, then its digest; the caller holds its lock.

    Another process that finds the file between the two does not take it for intact, and waits for the lock. It is written, not
    mapped: on a full disk a write raises OSError, while a map would end the process with SIGBUS.
    """
    for left in path.parent.glob(f".{path.name}.*.tmp"):  # by a process that was killed
        left.unlink()
    if shutil.disk_usage(path.parent).free < np.prod(shape, dtype=np.int64):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path.parent))
    with open_atomic(path) as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for images in parts:
            file.write(images.tobytes())
    write_atomic(checksum_file(path), file_checksum(path))
    with suppress(OSError):  # another process may be removing the same files
        for old in sorted(path.parent.glob("*.npy"), key=lambda file: file.stat().st_mtime_ns)[:-MOST_FILES]:
            old.unlink()
            checksum_file(old).unlink()


def decoded_folder(name: str, fingerprint: str, source: Path) -> Path:
    """The folder for a set's decoded images; makes it, and removes the folder of earlier files that were in `source`."""
    parent = default_root() / "decoded"
    folder = parent / f"{name}-{fingerprint}"
    if is_read_only():
        return folder
    with suppress(OSError):  # `load_or_decode` then warns, and keeps the images in memory
        if not folder.is_dir():
            for earlier in parent.glob(f"{name}-*/source"):
                if earlier.read_bytes() == os.fsencode(source):
                    shutil.rmtree(earlier.parent, ignore_errors=True)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "source").write_bytes(os.fsencode(source))
    return folder


class FileFacts:
    """Facts about files that take long to compute, kept until the size, a time of change or the inode of a file differs.

    Args:
        name: of the set; part of a file name.
        files: in a fixed order.
    """

    def __init__(self, name: str, files: Sequence[Path]) -> None:
        folder = hashlib.sha256(os.fsencode(files[0].resolve().parent if files else "")).hexdigest()[:16]
        self.path = default_root() / "decoded" / f"{name}-{folder}.json"
        self.stamps: dict[Path, tuple[int, ...]] = {path: STAMP(path.stat()) for path in files if path.is_file()}
        listed = [[str(path), *self.stamps.get(path, ())] for path in files]
        self.signature = hashlib.sha256(json.dumps(listed).encode()).hexdigest()
        self.can_be_kept = 0 < len(self.stamps) == len(files) and not is_read_only()

    def load(self) -> dict[str, Any]:
        """The kept facts; empty if there are none, or none about the files as they are now.

        Facts that were written within two seconds of the newest file's change are ignored: that file may have changed again
        without a new time of change.
        """
        try:
            kept = json.loads(self.path.read_text(encoding="utf-8"))
            intact = kept["sum"] == zlib.crc32(json.dumps(kept["facts"]).encode())
            newest = max(stamp[1] for stamp in self.stamps.values())
            settled = self.path.stat().st_mtime_ns - newest >= SETTLED_NS
            return dict(kept["facts"]) if intact and settled and kept["signature"] == self.signature else {}
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def save(self, **facts: Any) -> None:
        """Adds facts; does nothing in the read-only mode, where a file is absent, or where the folder cannot be written."""
        if not self.can_be_kept:
            return
        facts = {**self.load(), **facts}
        checksum = zlib.crc32(json.dumps(facts).encode())
        text = json.dumps({"signature": self.signature, "sum": checksum, "facts": facts})
        with suppress(OSError):  # the next command computes them again
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(self.path, text)

    def require_unchanged(self, paths: Sequence[Path]) -> None:
        """Raises `DataError` if a file has changed since this object was made."""
        for path in paths:
            if not path.is_file() or STAMP(path.stat()) != self.stamps.get(path):
                raise DataError(f"{path}: has changed since this command began; type it again")
