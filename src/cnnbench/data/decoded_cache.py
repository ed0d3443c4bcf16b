"""Decoded images in files that all processes map, and what is known of a set's files without reading them again.

Both lie in `<default root>/decoded/`, which may be deleted at any time: it is made again.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from cnnbench.data.download.fetch import NO_ROOM, default_root
from cnnbench.data.parallel import chunks
from cnnbench.errors import DataError
from cnnbench.files import write_atomic

log = logging.getLogger("cnnbench.run")
CHECKED_BYTES = 2 << 30  # a larger map is trusted: to read all of it at each start would take longer than it is worth
SETTLED_NS = 2_000_000_000  # a file that changed since then may change again within a tick of its clock

Make = Callable[[np.ndarray], np.ndarray]  # (n,) rows -> (n, C, H, W) uint8


class Decoded:
    """Rows (C, H, W) uint8, each made when it is first needed, in a file that all processes map.

    Every row has its CRC-32 beside it, so that one which a crash cut short, or which was damaged since, is made again.

    Args:
        folder: of the set, `decoded_folder(...)`.
        key: which split of the set, and how it is decoded; a file name.
        shape: (N, C, H, W).
    """

    def __init__(self, folder: Path, key: str, shape: tuple[int, int, int, int]) -> None:
        self.folder, self.shape = folder, shape
        self.pixels, self.sums = folder / f"{key}.u8", folder / f"{key}.crc"
        self.row_bytes = int(np.prod(shape[1:], dtype=np.int64))

    def rows(self, wanted: np.ndarray, make: Make, title: str) -> np.ndarray:
        """(N, C, H, W) uint8, of which the rows `wanted`, ascending, are there.

        Where the folder cannot be written they live in this process's memory alone.
        """
        try:
            self._fill(wanted, make, title)
            return np.memmap(self.pixels, np.uint8, "c", shape=self.shape)
        except OSError as error:
            if error.errno in NO_ROOM:
                self.sums.unlink(missing_ok=True)
                self.pixels.unlink(missing_ok=True)
            if (needed := len(wanted) * self.row_bytes) > psutil.virtual_memory().available:
                raise DataError(
                    f"{self.folder}: {error.strerror}, and {needed / 1e9:,.1f} GB of decoded images do not fit in memory either; "
                    "name a folder with room for them with CNNBENCH_DATA"
                ) from error
            log.warning("decoded images are not shared with other processes: %s", error)
            own = np.zeros(self.shape, np.uint8)
            for at in chunks(wanted, title):
                own[at] = make(at)
            return own

    def _fill(self, wanted: np.ndarray, make: Make, title: str) -> None:
        from filelock import FileLock

        self.folder.mkdir(parents=True, exist_ok=True)
        if not len(self._missing(wanted)):
            return
        with FileLock(self.pixels.with_suffix(".lock")), _opened(self.pixels) as pixels, _opened(self.sums) as sums:
            self._size(pixels, sums)
            missing = self._missing(wanted)  # another process may have been at it meanwhile
            if shutil.disk_usage(self.folder).free < len(missing) * self.row_bytes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.folder))
            for at in chunks(missing, title):  # written, not mapped: a full disk is then an error and no bus error
                for row, image in zip(at.tolist(), make(at), strict=True):
                    content = image.tobytes()
                    _write_at(pixels, content, row * self.row_bytes)
                    _write_at(sums, _sum(content).to_bytes(4, "little"), row * 4)

    def _size(self, pixels: int, sums: int) -> None:
        """Gives both files their length; rows that a shorter file had lost are no longer there."""
        rows, kept = self.shape[0], os.fstat(pixels).st_size // self.row_bytes
        os.truncate(sums, min(os.fstat(sums).st_size, 4 * min(kept, rows)))
        os.truncate(sums, 4 * rows)
        os.truncate(pixels, rows * self.row_bytes)

    def _missing(self, wanted: np.ndarray) -> np.ndarray:
        """Those of `wanted` that are not there, or not as they were written."""
        try:
            sums = np.fromfile(self.sums, "<u4")
            pixels = np.memmap(self.pixels, np.uint8, "r", shape=(self.shape[0], self.row_bytes))
        except (OSError, ValueError):  # absent, or not of this size yet
            return wanted
        if len(sums) != len(pixels):
            return wanted
        if pixels.nbytes > CHECKED_BYTES:
            return wanted[sums[wanted] == 0]
        found = np.fromiter((_sum(pixels[row]) for row in wanted), np.uint32, len(wanted))
        return wanted[found != sums[wanted]]


def decoded_folder(name: str, fingerprint: str, source: Path) -> Path:
    """Where the decoded images of a set lie; those of other files that lay in `source` are removed."""
    parent = default_root() / "decoded"
    folder = parent / f"{name}-{fingerprint}"
    try:
        if not folder.is_dir():
            for earlier in parent.glob(f"{name}-*/source"):
                if earlier.read_bytes() == os.fsencode(source):
                    shutil.rmtree(earlier.parent, ignore_errors=True)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "source").write_bytes(os.fsencode(source))
    except OSError:
        pass  # `Decoded` says so, and does without
    return folder


class Remembered:
    """Facts of files that take long to find out, kept for as long as no file's size or time of change is another.

    Args:
        name: of the set; a file name.
        files: in a fixed order.
    """

    def __init__(self, name: str, files: Sequence[Path]) -> None:
        place = hashlib.sha256(os.fsencode(files[0].resolve().parent if files else "")).hexdigest()[:16]
        self.path = default_root() / "decoded" / f"{name}-{place}.json"
        self.marks = {path: mark_of(path) for path in files if path.is_file()}
        listed = [[str(path), *mark] for path, mark in self.marks.items()]
        self.signature = hashlib.sha256(json.dumps(listed).encode()).hexdigest()
        self.newest_ns = max((changed for _, changed, _, _ in self.marks.values()), default=0)
        self.complete = 0 < len(self.marks) == len(files)

    def recall(self) -> dict[str, Any]:
        """The facts; empty where there are none of these files as they are now."""
        if not self.complete:
            return {}
        try:
            kept = json.loads(self.path.read_text(encoding="utf-8"))
            whole = kept["sum"] == zlib.crc32(json.dumps(kept["facts"]).encode())
            return dict(kept["facts"]) if whole and kept["signature"] == self.signature else {}
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def keep(self, **facts: Any) -> None:
        """Adds facts, unless the files are so new that they may still be changing."""
        if not self.complete or time.time_ns() - self.newest_ns < SETTLED_NS:
            return
        facts = {**self.recall(), **facts}
        checksum = zlib.crc32(json.dumps(facts).encode())
        text = json.dumps({"signature": self.signature, "sum": checksum, "facts": facts})
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(self.path, text)
        except OSError:
            return  # it is found out again the next time

    def require_unchanged(self, paths: Sequence[Path]) -> None:
        """Raises `DataError` where a file is not what it was when this was made: what it holds is not the set's any more."""
        for path in paths:
            if not path.is_file() or mark_of(path) != self.marks.get(path):
                raise DataError(f"{path}: has changed since this command began; type it again")


def mark_of(path: Path) -> tuple[int, int, int, int]:
    """What changes when a file does: its size, its times of change (ns; the second cannot be set), its inode."""
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino


def _sum(row: Any) -> int:
    return zlib.crc32(row) or 1  # 0 stands for a row that is not there


def _write_at(descriptor: int, content: bytes, offset: int) -> None:
    """All of the content; a disk that is nearly full takes a part before it says so."""
    done = 0
    while done < len(content):
        done += os.pwrite(descriptor, content[done:], offset + done)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
