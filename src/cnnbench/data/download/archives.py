"""Archives to files: each gets its own name by a rename, once all are unpacked and have their published sums."""

from __future__ import annotations

import gzip
import os
import shutil
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from cnnbench.data.download.mirrors import Remote, has_sum, sum_of
from cnnbench.errors import DataError
from cnnbench.files import write_atomic


def unpack_what_lies_there(remote: Remote, folder: Path, sums: Mapping[str, str]) -> bool:
    """Unpacks an archive that somebody has put into the folder."""
    archive = folder / remote.name
    if not archive.is_file() or archive.stat().st_size != remote.size or not has_sum(archive, remote.checksum):
        return False
    unpack(remote, archive, folder, sums)
    return True


def unpack(remote: Remote, archive: Path, folder: Path, sums: Mapping[str, str]) -> None:
    """Puts the members into `folder`, each by rename, once all are unpacked and have their sums."""
    aside = folder / f".{remote.name}.unpacking"
    shutil.rmtree(aside, ignore_errors=True)
    try:
        for member, content in _members(remote, archive):
            target = aside / member
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as file:
                shutil.copyfileobj(content, file, 1 << 20)
                file.flush()
                os.fsync(file.fileno())
        for member in remote.members:
            if not (aside / member).is_file():
                raise DataError(f"{archive}: corrupt, it does not hold {member}; delete it")
            if member in sums and not has_sum(aside / member, sums[member]):
                raise DataError(
                    f"{archive}: corrupt, {member} in it has another checksum than the published one; delete it"
                )
        for member in remote.members:
            (folder / member).parent.mkdir(parents=True, exist_ok=True)
            if member not in sums:
                write_atomic(sum_beside(folder / member), sum_of(aside / member) + "\n")
            os.replace(aside / member, folder / member)
    except (EOFError, gzip.BadGzipFile, zlib.error, tarfile.TarError) as error:
        raise DataError(f"{archive}: corrupt ({' '.join(str(error).split())}); delete it") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def sum_beside(path: Path) -> Path:
    """Where the SHA-256 of an unpacked file is kept for which none is published."""
    return path.with_name(f".{path.name}.sha256")


def _members(remote: Remote, archive: Path) -> Iterator[tuple[str, Any]]:
    """The wanted members, each with a file object of its content. An archive that names a place outside its folder is refused."""
    if not remote.name.endswith((".tar.gz", ".tgz")):
        with gzip.open(archive) as unpacked:
            yield remote.members[0], unpacked
        return
    with tarfile.open(archive) as packed:
        for entry in packed:
            path = PurePosixPath(entry.name)
            if path.is_absolute() or ".." in path.parts:
                raise DataError(f"{archive}: not unpacked, its member {entry.name} would leave the folder; delete it")
            content = packed.extractfile(entry) if entry.isreg() and str(path) in remote.members else None
            if content is not None:
                yield str(path), content
