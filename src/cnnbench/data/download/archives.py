"""Unpacks archives. All files are unpacked under other names and verified by checksum, then renamed."""

from __future__ import annotations

import gzip
import os
import shutil
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from cnnbench.data.download.mirrors import Remote, file_checksum, has_checksum
from cnnbench.data.ownership import require_no_links
from cnnbench.errors import DataError
from cnnbench.files import open_atomic, write_atomic


def unpack(remote: Remote, archive: Path, folder: Path, sums: Mapping[str, str]) -> None:
    """Unpacks the members of an archive into `folder`: all of them, or none.

    Args:
        remote: the published archive; names its members.
        archive: its file.
        folder: where the members belong.
        sums: published checksums by member; the SHA-256 of any other member is written to a file next to it.

    Raises:
        DataError: the archive is corrupt, lacks a member, or has a member outside the folder.
        OSError: a file cannot be written.
    """
    aside = folder / f".{remote.name}.unpacking"
    for member in remote.members:
        require_no_links(folder, (folder / member).parent)
    if aside.is_dir() and not aside.is_symlink():
        shutil.rmtree(aside, ignore_errors=True)
    else:  # planted by somebody: `rmtree` would wait for the other end of a FIFO
        aside.unlink(missing_ok=True)
    aside.mkdir(mode=0o700)  # not in a folder that another user has made
    try:
        for member, content in _members(remote, archive):
            (aside / member).parent.mkdir(parents=True, exist_ok=True)
            with open_atomic(aside / member) as file:  # which waits until the disk has stored it
                shutil.copyfileobj(content, file, 1 << 20)
        for member in remote.members:
            if not (aside / member).is_file():
                raise DataError(f"{archive}: corrupt, it does not hold {member}; delete it")
            if member in sums and not has_checksum(aside / member, sums[member]):
                raise DataError(
                    f"{archive}: corrupt, {member} in it has another checksum than the published one; delete it"
                )
        for member in remote.members:
            (folder / member).parent.mkdir(parents=True, exist_ok=True)
            if member not in sums:
                write_atomic(checksum_file(folder / member), file_checksum(aside / member) + "\n")
            os.replace(aside / member, folder / member)
    except (EOFError, gzip.BadGzipFile, zlib.error, tarfile.TarError) as error:
        raise DataError(f"{archive}: corrupt ({' '.join(str(error).split())}); delete it") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def checksum_file(path: Path) -> Path:
    """The file that keeps the SHA-256 of `path`, in hex digits; it is in the same folder."""
    return path.with_name(f".{path.name}.sha256")


def _members(remote: Remote, archive: Path) -> Iterator[tuple[str, Any]]:
    """Name and file object of each member in `remote.members`.

    Raises:
        DataError: a member's path leaves the folder.
    """
    if not remote.name.endswith((".tar.gz", ".tgz")):
        with gzip.open(archive) as unpacked:
            yield remote.members[0], unpacked
        return
    with tarfile.open(archive) as packed:
        for entry in packed:
            path = PurePosixPath(entry.name)
            if path.is_absolute() or ".." in path.parts:
                raise DataError(f"{archive}: not unpacked, its member {entry.name} would leave the folder; delete it")
            if entry.isreg() and str(path) in remote.members:
                yield str(path), packed.extractfile(entry)
