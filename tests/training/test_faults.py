"""Damaged checkpoints, full disks, too little memory: what was saved stays good, and one line says what to try."""

from __future__ import annotations

import errno
import io
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rich.console import Console

from cnnbench.__main__ import main
from cnnbench.runs.run_dir import RunDir
from cnnbench.runs.status_and_log import explain
from cnnbench.training.resume import resumable
from processes import (
    Forked,
    assert_same_content,
    assert_same_run,
    copy_of,
    forked,
    own_environment,
    run_of,
    saved_in,
    touching,
    until,
)

# 5 steps an epoch, 3 epochs; dropout draws random numbers
NET = ["trainer=cpu", "threads=1", "data=synthetic", "data.image_size=32", "data.train_size=320", "data.val_size=50"]
NET += ["data.test_size=50", "epochs=3", "optimizer=momentum", "ema=0.9", "trainer.checkpoint_every_s=0.0001"]
NET += ["model=custom", "model._target_=nets.Slow"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> RunDir:
    """The run that nothing happened to."""
    return forked(tmp_path_factory.mktemp("whole"), *NET)


# ---- damaged checkpoints ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> RunDir:
    """The same run, killed in its eighth step: last.ckpt is from the seventh, previous.ckpt from the sixth."""
    folder = tmp_path_factory.mktemp("killed")
    assert Forked(folder, *NET, NETS_STEP="8", NETS_SIGNAL="SIGKILL").wait() == -signal.SIGKILL
    directory = RunDir(run_of(folder))
    steps = [torch.load(path, weights_only=True)["global_step"] for path in (directory.last, directory.previous)]
    assert steps == [7, 6]
    return directory


def cut(path: Path, draw: random.Random) -> None:
    os.truncate(path, draw.randrange(1, path.stat().st_size))


def empty(path: Path, draw: random.Random) -> None:
    os.truncate(path, 0)


def flip(path: Path, draw: random.Random) -> None:
    """One bit of a tensor."""
    with zipfile.ZipFile(path) as archive:
        tensor = max(archive.infolist(), key=lambda member: member.file_size)
    spoil(path, tensor.header_offset + 200 + draw.randrange(tensor.file_size - 200), draw)


def forget(path: Path, draw: random.Random) -> None:
    """Its last blocks never reached the disk."""
    size = path.stat().st_size
    kept = draw.randrange(size // 2, size - 1)
    os.truncate(path, kept)
    os.truncate(path, size)


def spoil(path: Path, at: int, draw: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


DAMAGES: list[Callable[[Path, random.Random], None]] = [cut, empty, flip, forget]


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage", [pytest.param(damage, marks=() if damage is flip else pytest.mark.soak) for damage in DAMAGES]
)
def test_a_damaged_last_checkpoint_is_told_of_and_the_one_before_leads_to_the_same_bits(
    damage, killed, whole, tmp_path
):
    directory = copy_of(killed, tmp_path)
    damage(directory.last, random.Random(damage.__name__))
    resumed = Forked(tmp_path, *NET, "resume=auto")
    assert resumed.wait() == 0, resumed.err
    said = f"{directory.last.relative_to(tmp_path)}: damaged, and left aside"
    assert resumed.out.count(said) == 1
    assert directory.log.read_text().count(said) == 1
    assert_same_run(directory, whole)


@pytest.mark.slow
def test_a_run_killed_between_its_two_renames_goes_on_from_the_one_before_and_says_nothing(killed, whole, tmp_path):
    directory = copy_of(killed, tmp_path)
    directory.last.unlink()
    resumed = Forked(tmp_path, *NET, "resume=auto")
    assert resumed.wait() == 0, resumed.err
    assert "damaged" not in resumed.out + resumed.err + directory.log.read_text()
    assert_same_run(directory, whole)


@pytest.mark.slow
def test_where_both_checkpoints_are_damaged_the_run_begins_anew_says_so_and_ends_with_the_same_bits(
    killed, whole, tmp_path
):
    directory = copy_of(killed, tmp_path)
    cut(directory.last, random.Random(1))
    flip(directory.previous, random.Random(2))
    resumed = Forked(tmp_path, *NET, "resume=auto")
    assert resumed.wait() == 0, resumed.err
    for path in (directory.last, directory.previous):
        said = f"{path.relative_to(tmp_path)}: damaged, and left aside"
        assert resumed.out.count(said) == 1
        assert directory.log.read_text().count(said) == 1
    assert "epoch 1/3" in resumed.out
    assert_same_run(directory, whole)


def assert_never_taken_for_another(checkpoint: Path, folder: Path, seed: int, times: int) -> None:
    """Whatever bit is flipped, the checkpoint is left aside, or what is read from it is what was written."""
    (folder / "checkpoints").mkdir()
    damaged = RunDir(folder)
    shutil.copy(checkpoint, damaged.previous)
    content, intact = checkpoint.read_bytes(), torch.load(checkpoint, weights_only=True)
    with zipfile.ZipFile(checkpoint) as archive:
        heads = [member.header_offset for member in archive.infolist()]
        contents = archive.start_dir
    draw, left_aside = random.Random(seed), 0
    for _ in range(times):
        at = draw.choice(
            [draw.randrange(len(content)), draw.randrange(contents, len(content)), draw.choice(heads) + draw.randrange(60)]
        )  # fmt: skip
        damaged.last.write_bytes(content)
        spoil(damaged.last, at, draw)
        found = resumable(damaged, Console(file=io.StringIO()))
        assert found in (damaged.last, damaged.previous), f"byte {at}"
        if found == damaged.last:
            assert_same_content(torch.load(damaged.last, weights_only=True), intact, f"byte {at}")
        left_aside += found == damaged.previous
    assert left_aside > times / 4


@pytest.mark.slow
def test_no_flipped_bit_is_taken_for_another_checkpoint(killed, tmp_path):
    assert_never_taken_for_another(killed.last, tmp_path, seed=1, times=100)


@pytest.mark.soak
def test_no_flipped_bit_of_many_is_taken_for_another_checkpoint(killed, tmp_path):
    assert_never_taken_for_another(killed.last, tmp_path, seed=2, times=5000)


def test_a_checkpoint_that_may_not_be_read_is_not_taken_for_damaged(killed, tmp_path, monkeypatch):
    """It may be good: nothing is begun anew in its place."""

    def forbidden(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    directory = copy_of(killed, tmp_path)
    monkeypatch.setattr(zipfile, "ZipFile", forbidden)
    with pytest.raises(PermissionError):
        resumable(directory, Console(file=io.StringIO()))


# ---- full disks ------------------------------------------------------------------------------------------------------


def without_room(name: str, after: int) -> None:
    """From now on there is no room for files of a name, once they were touched so many times."""
    touched = 0

    def refuse(event: str, path: str) -> None:
        nonlocal touched
        if name in Path(path).name and event != "os.remove":
            touched += 1
            if touched > after:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    touching(refuse)


def small_files(most: int) -> None:
    """No file may be larger: the system says that it is too large where it would say that the disk is full."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))


def assert_told(run: Forked, directory: RunDir, folder: Path) -> None:
    """One line on the screen: what happened, what to try."""
    assert run.wait() == 3, run.err
    assert run.err.startswith(f"cnnbench: {directory.path.relative_to(folder)}: failed, no room on the disk (")
    assert run.err.endswith("; make room, and resume the run: what was saved before is good\n")
    assert run.err.count("\n") == 1


def assert_checkpoints_load(directory: RunDir) -> list[str]:
    loaded = []
    for path in directory.path.glob("checkpoints/*"):
        torch.load(path, weights_only=True)
        loaded.append(path.name)
    return sorted(loaded)


FILES = {  # name: (after how many times that it was touched, checkpoints that are there then)
    "metrics.csv": (2, ["best.ckpt", "best_ema.ckpt", "last.ckpt", "previous.ckpt"]),
    "last.ckpt": (12, ["best.ckpt", "best_ema.ckpt", "last.ckpt", "previous.ckpt"]),
    "best.ckpt": (0, ["last.ckpt", "previous.ckpt"]),
    "events.out": (12, ["best.ckpt", "best_ema.ckpt", "last.ckpt", "previous.ckpt"]),
    "curves.png": (0, ["best.ckpt", "best_ema.ckpt", "last.ckpt", "previous.ckpt"]),
    "predictions.npz": (0, ["best.ckpt", "best_ema.ckpt", "last.ckpt", "previous.ckpt"]),
    "mistakes.npz": (0, ["best.ckpt", "best_ema.ckpt", "last.ckpt", "previous.ckpt"]),
    "result.json": (1, ["best.ckpt", "best_ema.ckpt", "last.ckpt"]),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in ("last.ckpt", "events.out") else pytest.mark.slow) for name in FILES],
)
def test_without_room_for_a_file_the_run_fails_in_one_line_and_goes_on_once_there_is(name, whole, tmp_path):
    after, there = FILES[name]
    run = Forked(tmp_path, *NET, fault=without_room, about=(name, after))
    run.wait()
    directory = RunDir(run_of(tmp_path))
    assert_told(run, directory, tmp_path)
    status = directory.status()
    assert status["state"] == "failed"
    assert status["reason"].startswith("no room on the disk (")
    assert assert_checkpoints_load(directory) == there
    assert not list(directory.path.rglob(".*.tmp"))
    assert "Traceback" in directory.log.read_text()
    assert_same_run(forked(tmp_path, *NET, "resume=auto"), whole)


@pytest.mark.slow
def test_without_room_for_its_status_a_run_ends_all_the_same_and_says_so_once_there_is(whole, tmp_path):
    forked(tmp_path, *NET, fault=without_room, about=("status.json", 2))
    directory = RunDir(run_of(tmp_path))
    assert directory.status()["state"] == "running"  # it could not be told
    assert directory.owner() is None
    assert_same_run(forked(tmp_path, *NET, "resume=auto"), whole)


@pytest.mark.slow
def test_a_run_that_could_not_even_begin_is_begun_anew(whole, tmp_path):
    run = Forked(tmp_path, *NET, fault=without_room, about=("config.yaml", 0))
    run.wait()
    directory = RunDir(run_of(tmp_path))
    assert_told(run, directory, tmp_path)
    again = Forked(tmp_path, *NET, "resume=auto")
    assert again.wait() == 0, again.err
    (result,) = (tmp_path / "runs").glob("*/*/result.json")
    assert_same_run(RunDir(result.parent), whole)


@pytest.mark.slow
def test_files_that_may_not_be_as_large_as_a_checkpoint_are_told_of_as_a_full_disk(whole, tmp_path):
    run = Forked(tmp_path, *NET, fault=small_files, about=(100_000,))
    run.wait()
    directory = RunDir(run_of(tmp_path))
    assert_told(run, directory, tmp_path)
    assert directory.status()["state"] == "failed"
    assert assert_checkpoints_load(directory) == []
    assert_same_run(forked(tmp_path, *NET, "resume=auto"), whole)


def test_pytorchs_own_words_for_a_full_disk_are_understood():
    """It says so where its writer is closed, whatever stopped that."""

    class Full(io.RawIOBase):
        room = 20_000

        def writable(self) -> bool:
            return True

        def write(self, content) -> int:
            self.room -= len(content)
            if self.room < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return len(content)

    with pytest.raises(RuntimeError, match="inline_container") as raised:
        torch.save({"weights": torch.zeros(100_000)}, Full())
    said, advice = explain(raised.value)
    assert said == "no room on the disk (OSError: [Errno 28] No space left on device)"
    assert advice.startswith("make room")
    of_a_path = RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 14400 vs 14288")
    assert explain(of_a_path)[0].startswith("no room on the disk (RuntimeError: [enforce fail")


def test_how_a_run_ended_is_told_in_its_status_where_there_is_room_for_no_second_file(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    directory = RunDir.claim(tmp_path, "job")
    directory.write_status("running", "a longer reason " * 50)
    monkeypatch.setattr("cnnbench.runs.run_dir.write_atomic", refuse)
    with pytest.raises(OSError, match="No space"):
        directory.write_status("running", epoch=1)
    directory.write_status("failed", "no room on the disk")
    assert (directory.status()["state"], directory.status()["reason"]) == ("failed", "no room on the disk")


def fill(disk: Path, room: int) -> None:
    """Leaves so many bytes of a disk."""
    with (disk / "filler").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            file.truncate(max(0, file.tell() - room))


def on_a_small_disk(disk: str, screens: str, room: str) -> None:
    """Called in a name space where `disk` is one of some megabytes: fills it while a run is on it, resumes, makes room, resumes."""
    folder = Path(disk)
    begun = Forked(folder, *NET, screens=Path(screens), NETS_WAIT="0.2")
    until(lambda: saved_in(folder) or not begun.living, "it saves")
    time.sleep(0.3)
    fill(folder, int(room))
    begun.wait()
    directory = RunDir(run_of(folder))
    assert_told(begun, directory, folder)
    assert directory.status()["state"] == "failed"
    assert {"last.ckpt"} <= set(assert_checkpoints_load(directory)) <= {"last.ckpt", "previous.ckpt"}
    fill(folder, 0)
    still_full = Forked(folder, *NET, "resume=auto", screens=Path(screens))
    still_full.wait()
    assert_told(still_full, directory, folder)
    (folder / "filler").unlink()
    forked(folder, *NET, "resume=auto", screens=Path(screens))
    shutil.copytree(folder / "runs", Path(screens) / "runs")


@pytest.mark.slow
@pytest.mark.parametrize(
    "room",
    [pytest.param(0, id="nothing left"), pytest.param(150_000, id="room for small files", marks=pytest.mark.soak)],
)
def test_a_disk_that_fills_up_while_a_run_is_on_it(room, whole, tmp_path):
    trial = subprocess.run(["unshare", "-rm", "sh", "-c", "mount -t tmpfs tmpfs /mnt"], capture_output=True, text=True)
    if trial.returncode:
        pytest.skip(f"nothing can be mounted here: {trial.stderr.strip()}")
    disk, screens = tmp_path / "disk", tmp_path / "screens"
    disk.mkdir()
    screens.mkdir()
    script = 'set -e; mount -t tmpfs -o size=8m tmpfs "$0"; exec "$@"'
    code = f"from test_faults import *; on_a_small_disk({str(disk)!r}, {str(screens)!r}, '{room}')"
    command = ["unshare", "-rm", "sh", "-c", script, str(disk), sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=own_environment("small disk", {}))
    assert done.returncode == 0, done.stderr
    assert_same_run(RunDir(run_of(screens)), whole)


# ---- memory ----------------------------------------------------------------------------------------------------------

GREEDY = ["trainer=cpu", "threads=1", "epochs=1", "data=synthetic", "data.train_size=256", "data.val_size=32"]
GREEDY += ["data.test_size=32", "model=custom", "model._target_=nets.Greedy"]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("cuda", "OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total"),
        ("host", "MemoryError: "),
    ],
)
def test_too_little_memory_fails_in_one_line_that_says_what_to_make_smaller(kind, said, tmp_path, capsys):
    assert main([*GREEDY, f"+model.kind={kind}", f"runs_dir={tmp_path}"]) == 3
    directory = RunDir(next(tmp_path.glob("*/*")))
    error = capsys.readouterr().err
    assert error.startswith(f"cnnbench: {directory.path}: failed, out of memory ({said}")
    assert error.count("\n") == 1
    for smaller in ("accumulate=2", "a smaller batch_size"):
        assert smaller in error
    assert directory.status()["state"] == "failed"
    assert directory.status()["reason"] == f"out of memory ({said})"
    assert "Traceback" in directory.log.read_text()
