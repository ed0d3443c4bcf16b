"""Decoded images in files that all processes map, and facts about a set's files that take long to compute.

Both are kept in `<default root>/decoded/`, or in `decoded` in the user's own cache folder where another user may change the first or
this one may not write to it. These folders may be deleted at any time: their contents are made again.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import logging
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from operator import attrgetter
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import psutil

from cnnbench.data.download.archives import checksum_file
from cnnbench.data.download.fetch import default_root, user_root
from cnnbench.data.download.mirrors import content_checksum
from cnnbench.data.ownership import (
    can_be_written,
    keep_others_from_writing,
    make_private_folder,
    open_private,
    who_may_change,
    why_not_private,
)
from cnnbench.data.parallel import chunks
from cnnbench.data.read_only import is_read_only
from cnnbench.errors import DataError
from cnnbench.file_lock import exclusive_lock
from cnnbench.files import open_atomic, read_bytes, read_text

log = logging.getLogger("cnnbench.run")
CHECKED_BYTES = 2 << 30  # the digest of a larger file is not verified: reading it at each start would take too long
MOST_FILES = 32  # per set; each size, and each selection of images, has its own file
MOST_PATH_BYTES = 1 << 16  # of the file `source`
# One of these differs when a file changes; ctime cannot be set.
STAMP = attrgetter("st_size", "st_mtime_ns", "st_ctime_ns", "st_ino")
SETTLED_NS = 2_000_000_000  # facts that were saved sooner than this after a file's change are not trusted

Decode = Callable[[np.ndarray], np.ndarray]  # (n,) rows of an official split -> (n, C, H, W) uint8


def cache_folders(*below: str) -> list[Path]:
    """The folders `<default root>/decoded/<below>` and the same in the user's own cache folder, in the order of use.

    A folder that another user may change is left out, and the log names it. The user's own is in the list only where the first is
    left out, or this user may not write to it. None of them need exist.
    """
    folders = []
    top = default_root()
    folder = top.joinpath("decoded", *below)
    fault = why_not_private(top, folder)
    if not fault:
        folders.append(folder)
        if can_be_written(folder):
            return folders
    instead = "memory"
    with suppress(DataError):  # no home folder, and no folder for temporary files
        own = user_root()
        own_folder = own.joinpath("decoded", *below)
        if own_folder != folder and not why_not_private(own, own_folder):
            folders.append(own_folder)
            instead = str(own / "decoded")
    if fault:
        _warn_once(
            f"{fault}; no decoded images are read from there, expected a folder of yours or root's that nobody else may write to. They "
            f"are kept in {instead}; CNNBENCH_DATA=... names another folder"
        )
    return folders


@cache
def _warn_once(message: str) -> None:
    log.warning("%s", message)


def load_or_decode(
    paths: Sequence[Path],
    rows: np.ndarray,
    shape: tuple[int, int, int],
    decode: Decode,
    title: str,
    source: Path | None = None,
) -> np.ndarray:
    """(n, C, H, W) uint8, the images `rows`, mapped from the first intact file of `paths`; decodes them if there is none.

    The file is mapped copy-on-write: processes share its memory, and writing to the array never changes the file. Where no
    file can be written, the images are in the memory of this process only, and the log has a warning.

    Args:
        paths: of the `.npy` file, in the order of use, as in `cache_folders`; its SHA-256 is in a file next to it.
        rows: (n,) int64, ascending.
        shape: (C, H, W).
        decode: makes images; called with some hundred rows at a time.
        title: of the progress bar.
        source: the folder of the set's files; decoded images of earlier files that were there are removed.

    Raises:
        DataError: the images fit neither on the disk nor in memory.
    """
    whole = (len(rows), *shape)
    if (images := map_if_intact(paths, whole)) is not None:
        return images
    failure = OSError(errno.EACCES, "there is no folder for them that only you may change")
    for path in paths:
        try:
            return _decode_to_file(path, whole, lambda: map(decode, chunks(rows, title)), source)
        except OSError as error:
            failure = error
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                break
    if (needed := int(np.prod(whole, dtype=np.int64))) > psutil.virtual_memory().available:
        place = f"{paths[0].parent}: " if paths else ""
        raise DataError(
            f"{place}{failure.strerror}, and {needed / 1e9:,.1f} GB of decoded images do not fit in memory either; "
            "name a folder with enough space with CNNBENCH_DATA"
        ) from failure
    if paths:  # else `cache_folders` has said so
        log.warning("decoded images are not shared with other processes: %s", failure)
    images = np.empty(whole, np.uint8)
    for at in chunks(np.arange(len(rows)), title):
        images[at] = decode(rows[at])
    return images


def map_if_intact(paths: Sequence[Path], shape: tuple[int, ...]) -> np.ndarray | None:
    """The first of some files that is intact, mapped.

    None if each is absent, has another shape, differs from its digest, or may be changed by another user.
    """
    return next((images for path in paths if (images := _map(path, shape)) is not None), None)


def _map(path: Path, shape: tuple[int, ...], verify: bool = True) -> np.ndarray | None:
    try:
        with open_private(path) as file:
            if verify and os.fstat(file.fileno()).st_size <= CHECKED_BYTES:
                if read_text(checksum_file(path), most=1000) != content_checksum(file):
                    return None
                file.seek(0)
            if np.lib.format.read_magic(file) != (1, 0):
                return None
            if np.lib.format.read_array_header_1_0(file) != (shape, False, np.dtype(np.uint8)):
                return None
            return np.memmap(file, np.uint8, "c", file.tell(), shape)
    except (FileNotFoundError, NotADirectoryError, ValueError, EOFError):
        return None
    except OSError as error:
        if error.errno != errno.EACCES:
            _warn_once(f"{path}: {error.strerror}; not read, the images are decoded again")
        return None


def _decode_to_file(
    path: Path, shape: tuple[int, ...], parts: Callable[[], Iterator[np.ndarray]], source: Path | None
) -> np.ndarray:
    """Writes the file, unless another process has done so in the meantime, and maps it.

    Raises:
        OSError: it cannot be written.
    """
    make_private_folder(path.parent)
    with exclusive_lock(
        path.with_suffix(".lock"), lambda: log.info("%s: another process is writing it; waiting", path)
    ):
        if (images := _map(path, shape)) is not None:
            return images
        if source:
            _remove_earlier(path.parent, source)
        _write(path, shape, parts())
        images = _map(path, shape, verify=False)
    if images is None:
        raise OSError(errno.EIO, "was removed or changed while it was written", str(path))
    return images


def _write(path: Path, shape: tuple[int, ...], parts: Iterator[np.ndarray]) -> None:
    """Writes an `.npy` file from parts, then its digest; the caller holds its lock.

    Another process that finds the file between the two does not take it for intact, and waits for the lock. It is written, not
    mapped: on a full disk a write raises OSError, while a map would end the process with SIGBUS.
    """
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):  # by a process that was killed
        left.unlink()
    if shutil.disk_usage(path.parent).free < np.prod(shape, dtype=np.int64):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path.parent))
    with _open_private_atomic(path) as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for images in parts:
            file.write(images.tobytes())
    with _open_private_atomic(checksum_file(path)) as file, path.open("rb") as written:
        file.write(content_checksum(written).encode())
    with suppress(OSError):  # another process may be removing the same files
        for old in sorted(path.parent.glob("*.npy"), key=lambda file: file.stat().st_mtime_ns)[:-MOST_FILES]:
            old.unlink()
            checksum_file(old).unlink()


@contextmanager
def _open_private_atomic(path: Path) -> Iterator[BinaryIO]:
    """Opens a file with `open_atomic` that no other user may write to, also where the umask would allow it."""
    with open_atomic(path) as file:
        keep_others_from_writing(file)
        yield file


def _remove_earlier(folder: Path, source: Path) -> None:
    """Removes this user's folders of images of earlier files that were in `source`, once: when the folder is new."""
    mark = folder / "source"
    if mark.exists():
        return
    name = folder.name.rpartition("-")[0]
    for earlier in folder.parent.glob(f"{glob.escape(name)}-*/source"):
        with suppress(OSError):
            is_own = not who_may_change(earlier.parent.lstat())
            if is_own and read_bytes(earlier, most=MOST_PATH_BYTES) == os.fsencode(source):
                shutil.rmtree(earlier.parent, ignore_errors=True)  # refuses a link
    with suppress(OSError), _open_private_atomic(mark) as file:
        file.write(os.fsencode(source))


class FileFacts:
    """Facts about files that take long to compute, kept until the size, a time of change or the inode of a file differs.

    Args:
        name: of the set; part of a file name.
        files: in a fixed order.

    Attributes:
        paths: of the file that keeps them, in the order of use, as in `cache_folders`.
    """

    def __init__(self, name: str, files: Sequence[Path]) -> None:
        folder = hashlib.sha256(os.fsencode(files[0].resolve().parent if files else "")).hexdigest()[:16]
        self.paths = [place / f"{name}-{folder}.json" for place in cache_folders()]
        self.stamps: dict[Path, tuple[int, ...]] = {path: STAMP(path.stat()) for path in files if path.is_file()}
        listed = [[str(path), *self.stamps.get(path, ())] for path in files]
        self.signature = hashlib.sha256(json.dumps(listed).encode()).hexdigest()
        self.can_be_kept = 0 < len(self.stamps) == len(files) and not is_read_only()

    def load(self) -> dict[str, Any]:
        """The kept facts; empty if there are none, or none about the files as they are now.

        Facts that another user may have changed are ignored, and those that were written within two seconds of the newest file's
        change: that file may have changed again without a new time of change.
        """
        kept: dict[str, Any] = {}
        for path in reversed(self.paths):
            kept |= self._read(path)
        return kept

    def _read(self, path: Path) -> dict[str, Any]:
        try:
            with open_private(path) as file:
                written = os.fstat(file.fileno()).st_mtime_ns
                kept = json.loads(file.read())
            intact = kept["sum"] == zlib.crc32(json.dumps(kept["facts"]).encode())
            settled = written - max(stamp[1] for stamp in self.stamps.values()) >= SETTLED_NS
            return dict(kept["facts"]) if intact and settled and kept["signature"] == self.signature else {}
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return {}

    def save(self, **facts: Any) -> None:
        """Adds facts; does nothing in the read-only mode, where a file is absent, or where no folder can be written."""
        if not self.can_be_kept:
            return
        facts = {**self.load(), **facts}
        checksum = zlib.crc32(json.dumps(facts).encode())
        text = json.dumps({"signature": self.signature, "sum": checksum, "facts": facts})
        for path in self.paths:
            with suppress(OSError):  # the next command computes them again
                make_private_folder(path.parent)
                with _open_private_atomic(path) as file:
                    file.write(text.encode())
                return

    def require_unchanged(self, paths: Sequence[Path]) -> None:
        """Raises `DataError` if a file has changed since this object was made."""
        for path in paths:
            if not path.is_file() or STAMP(path.stat()) != self.stamps.get(path):
                raise DataError(f"{path}: has changed since this command began; type it again")
