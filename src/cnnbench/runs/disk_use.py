"""What the files of runs take on the disk, and which of them nothing reads once a run is finished. Loads no torch.

A run resumes from last.ckpt, or from previous.ckpt if that is damaged; a finished one is evaluated, repeated and reported from its
other files. A kill may leave partly written temporary files. Links are neither followed nor removed.
"""

from __future__ import annotations

import os
import re
import stat
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from cnnbench.errors import ConfigError
from cnnbench.file_lock import is_locked
from cnnbench.files import TEMPORARY_NAME
from cnnbench.runs.run_dir import RunDir
from cnnbench.runs.sweep_dir import MERGING, SweepDir

LAST, TEMPORARY = "last checkpoints of finished runs", "temporary files that a kill left"  # kinds that nothing reads
NEEDED = {  # other kinds, and what their names match; the first that fits
    "best weights": r"best(_ema)?\.ckpt",
    "last checkpoints of other runs": r"(last|previous)\.ckpt",
    "TensorBoard events": r"events\.out\.tfevents.*",
    "predictions, misclassified images": r"(predictions|mistakes)\.npz",
    "results, logs, reports": r"[^\0]*",
}


@dataclass(frozen=True)
class FoundFile:
    """A regular file.

    Attributes:
        path: of the file.
        kind: what it is, in words.
        run: the finished run that it belongs to; None: another run, or the folder that holds them.
        size: in bytes.
        links: number of names that the file has on the disk.
        inode: device and number, equal for all its names.
    """

    path: Path
    kind: str
    run: RunDir | None
    size: int
    links: int
    inode: tuple[int, int]


@dataclass(frozen=True)
class DiskUse:
    """The files of some runs.

    Attributes:
        files: all of them.
        finished: number of finished runs.
        kept: runs that need all their files, each with the reason.
    """

    files: list[FoundFile]
    finished: int
    kept: dict[RunDir, str]

    @property
    def unused(self) -> list[FoundFile]:
        """The files that nothing reads any more."""
        return [file for file in self.files if file.kind in (LAST, TEMPORARY)]


def find_runs(path: Path) -> list[RunDir]:
    """The run that a path is, or the runs in a folder and in its folders, in the order of their names."""
    if _is_run(path):
        return [RunDir(path)]
    found: list[RunDir] = []
    for folder in _folders(path):
        found += [RunDir(each) for each in ([folder] if _is_run(folder) else _folders(folder)) if _is_run(each)]
    return found


def disk_use(path: Path, runs: Iterable[RunDir]) -> DiskUse:
    """Finds the files of runs, and of the folders that hold them.

    Args:
        path: a run, a sweep, or a folder of them.
        runs: those that `find_runs` found there.
    """
    reasons = {run: why_kept(run) for run in runs}
    finished = {run.path: run for run, reason in reasons.items() if not reason}
    files = []
    for root in {run.path if run.path == path else run.path.parent: None for run in reasons}:
        live = SweepDir(root).launcher() is not None
        for file, found in _regular_files(root):
            run = finished.get(file.parent.parent if file.parent.name == "checkpoints" else file.parent)
            if run and file in (run.last, run.previous):
                kind = LAST
            elif _is_left_over(file, root, run) and (run or not live):
                kind = TEMPORARY
            else:
                kind = next(kind for kind, name in NEEDED.items() if re.fullmatch(name, file.name))
            files.append(FoundFile(file, kind, run, found.st_size, found.st_nlink, (found.st_dev, found.st_ino)))
    return DiskUse(files, len(finished), {run: reason for run, reason in reasons.items() if reason})


def why_kept(run: RunDir) -> str:
    """Why a run needs all its files, in words; empty for a finished one."""
    return "running" if is_locked(run.lock_file) else _why_unfinished(run)


def _why_unfinished(run: RunDir) -> str:
    status, owner = run.inspect()
    if owner.living:
        return "running"
    if status.state != "done":
        return status.state
    try:
        run.load_result()
    except ConfigError:
        return "with a damaged result.json"
    return "" if run.best.is_file() and zipfile.is_zipfile(run.best) else "without best.ckpt"


def delete_unused(use: DiskUse) -> tuple[list[FoundFile], list[str]]:
    """Deletes the files that nothing reads any more, except of a run that is live now.

    Returns:
        the deleted files, and what went wrong with the others, one line each.
    """
    deleted: list[FoundFile] = []
    problems: list[str] = []
    for run in dict.fromkeys(file.run for file in use.unused):
        try:
            with run.lock() if run else nullcontext():
                if run and _why_unfinished(run):
                    continue
                for file in use.unused:
                    if file.run == run:
                        _delete(file, deleted, problems)
        except ConfigError as error:  # it has become live
            problems.append(str(error))
    return deleted, problems


def _delete(file: FoundFile, deleted: list[FoundFile], problems: list[str]) -> None:
    """Deletes a file, and the folders of an interrupted merge that are empty without it."""
    try:
        file.path.unlink()
        deleted.append(file)
    except FileNotFoundError:  # another process was faster
        return
    except OSError as error:
        problems.append(f"{file.path}: cannot be deleted ({error.strerror})")
    with suppress(OSError):  # it is not empty
        for folder in file.path.parents if MERGING in file.path.parts else ():
            folder.rmdir()


def total_size(files: Iterable[FoundFile]) -> int:
    """Bytes of files; a file with several names counts once."""
    return sum({file.inode: file.size for file in files}.values())


def freed_size(files: Iterable[FoundFile]) -> int:
    """Bytes that deleting these files frees; a file that has other names, too, stays on the disk."""
    known = list(files)
    names = Counter(file.inode for file in known)
    return total_size(file for file in known if names[file.inode] >= file.links)


def _is_run(folder: Path) -> bool:
    return (folder / "config.yaml").is_file() or (folder / "result.json").is_file()


def _folders(path: Path) -> list[Path]:
    """The folders in a folder, in the order of their names, without links and hidden ones."""
    with suppress(OSError):
        return sorted(
            each for each in path.iterdir() if each.is_dir() and not each.is_symlink() and each.name[0] != "."
        )
    return []


def _regular_files(root: Path) -> Iterator[tuple[Path, os.stat_result]]:
    for folder, _, names in os.walk(root):  # does not follow links
        for path in (Path(folder, name) for name in sorted(names)):
            with suppress(FileNotFoundError):  # it may vanish meanwhile
                found = path.lstat()
                if stat.S_ISREG(found.st_mode):
                    yield path, found


def _is_left_over(file: Path, root: Path, run: RunDir | None) -> bool:
    """Whether a file was being written by a process that has ended: of a finished run, of the folder of runs, or of a merge."""
    if file.parent.is_relative_to(root / MERGING):
        return True
    name = TEMPORARY_NAME.fullmatch(file.name)
    return bool(name and (run or (file.parent == root and not psutil.pid_exists(int(name[1])))))
