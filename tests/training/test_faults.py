"""Damaged checkpoints, full disks, too little memory: earlier checkpoints stay intact, and one line says what to try."""

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
from cnnbench.runs.status_and_log import explain_failure
from cnnbench.training.resume import find_resumable_checkpoint
from processes import (
    ForkedCommand,
    assert_same_content,
    assert_same_run,
    call_before_writes,
    child_environment,
    copy_of,
    has_saved,
    only_run_in,
    run_forked,
    wait_until,
)

# 5 steps an epoch, 3 epochs; dropout uses random numbers
NET = ["trainer=cpu", "threads=1", "data=synthetic", "data.image_size=32", "data.train_size=320", "data.val_size=50"]
NET += ["data.test_size=50", "epochs=3", "optimizer=momentum", "ema=0.9", "trainer.checkpoint_every_s=0.0001"]
NET += ["model=custom", "model._target_=nets.Slow"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> RunDir:
    """The uninterrupted run."""
    return run_forked(tmp_path_factory.mktemp("whole"), *NET)


# ---- damaged checkpoints ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> RunDir:
    """The same run, killed in its eighth step: last.ckpt is from the seventh, previous.ckpt from the sixth."""
    folder = tmp_path_factory.mktemp("killed")
    assert ForkedCommand(folder, *NET, NETS_STEP="8", NETS_SIGNAL="SIGKILL").wait() == -signal.SIGKILL
    directory = RunDir(only_run_in(folder))
    steps = [torch.load(path, weights_only=True)["global_step"] for path in (directory.last, directory.previous)]
    assert steps == [7, 6]
    return directory


def cut(path: Path, draw: random.Random) -> None:
    os.truncate(path, draw.randrange(1, path.stat().st_size))


def empty(path: Path, draw: random.Random) -> None:
    os.truncate(path, 0)


def flip(path: Path, draw: random.Random) -> None:
    """Flips one bit of the largest tensor."""
    with zipfile.ZipFile(path) as archive:
        tensor = max(archive.infolist(), key=lambda member: member.file_size)
    spoil(path, tensor.header_offset + 200 + draw.randrange(tensor.file_size - 200), draw)


def lose_last_blocks(path: Path, draw: random.Random) -> None:
    """Replaces the file's last blocks by zeros, as if they had not reached the disk."""
    size = path.stat().st_size
    kept = draw.randrange(size // 2, size - 1)
    os.truncate(path, kept)
    os.truncate(path, size)


def spoil(path: Path, at: int, draw: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


DAMAGES: list[Callable[[Path, random.Random], None]] = [cut, empty, flip, lose_last_blocks]


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage", [pytest.param(damage, marks=() if damage is flip else pytest.mark.soak) for damage in DAMAGES]
)
def test_a_damaged_last_checkpoint_is_reported_and_the_previous_one_gives_the_same_bits(
    damage, killed, whole, tmp_path
):
    directory = copy_of(killed, tmp_path)
    damage(directory.last, random.Random(damage.__name__))
    resumed = ForkedCommand(tmp_path, *NET, "resume=auto")
    assert resumed.wait() == 0, resumed.err
    line = f"{directory.last.relative_to(tmp_path)}: damaged, not used"
    assert resumed.out.count(line) == 1
    assert directory.log.read_text().count(line) == 1
    assert_same_run(directory, whole)


@pytest.mark.slow
def test_a_run_killed_between_two_renames_resumes_from_the_previous_checkpoint_silently(killed, whole, tmp_path):
    directory = copy_of(killed, tmp_path)
    directory.last.unlink()
    resumed = ForkedCommand(tmp_path, *NET, "resume=auto")
    assert resumed.wait() == 0, resumed.err
    assert "damaged" not in resumed.out + resumed.err + directory.log.read_text()
    assert_same_run(directory, whole)


@pytest.mark.slow
def test_with_two_damaged_checkpoints_the_run_starts_anew_and_ends_with_the_same_bits(killed, whole, tmp_path):
    directory = copy_of(killed, tmp_path)
    cut(directory.last, random.Random(1))
    flip(directory.previous, random.Random(2))
    resumed = ForkedCommand(tmp_path, *NET, "resume=auto")
    assert resumed.wait() == 0, resumed.err
    for path in (directory.last, directory.previous):
        line = f"{path.relative_to(tmp_path)}: damaged, not used"
        assert resumed.out.count(line) == 1
        assert directory.log.read_text().count(line) == 1
    assert "epoch 1/3" in resumed.out
    assert_same_run(directory, whole)


def assert_refused_or_unchanged(checkpoint: Path, folder: Path, seed: int, times: int) -> None:
    """Flips single bits of a checkpoint: each time it must be refused, or load with its original content."""
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
        found = find_resumable_checkpoint(damaged, Console(file=io.StringIO()), lambda content: "")
        assert found in (damaged.last, damaged.previous), f"byte {at}"
        if found == damaged.last:
            assert_same_content(torch.load(damaged.last, weights_only=True), intact, f"byte {at}")
        left_aside += found == damaged.previous
    assert left_aside > times / 4


@pytest.mark.slow
def test_a_flipped_bit_never_changes_what_is_loaded(killed, tmp_path):
    assert_refused_or_unchanged(killed.last, tmp_path, seed=1, times=100)


@pytest.mark.soak
def test_many_flipped_bits_never_change_what_is_loaded(killed, tmp_path):
    assert_refused_or_unchanged(killed.last, tmp_path, seed=2, times=5000)


def test_a_checkpoint_without_read_permission_is_not_treated_as_damaged(copied, monkeypatch):
    """It may be intact, so that nothing may overwrite it."""

    def forbidden(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(zipfile, "ZipFile", forbidden)
    with pytest.raises(PermissionError):
        find_resumable_checkpoint(copied, Console(file=io.StringIO()), lambda content: "")


# ---- full disks ------------------------------------------------------------------------------------------------------


def without_room(name: str, after: int) -> None:
    """Makes writes to files of a name fail as on a full disk, after the first `after` writes."""
    touched = 0

    def refuse(event: str, path: str) -> None:
        nonlocal touched
        if name in Path(path).name and event != "os.remove":
            touched += 1
            if touched > after:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    call_before_writes(refuse)


def small_files(most: int) -> None:
    """Limits the size of files; the system then reports a file too large in place of a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))


def assert_full_disk_reported(run: ForkedCommand, directory: RunDir, folder: Path) -> None:
    """Asserts that the run failed with one line: what happened, and what to try."""
    assert run.wait() == 3, run.err
    assert run.err.startswith(f"cnnbench: {directory.path.relative_to(folder)}: failed, no room on the disk (")
    assert run.err.endswith("; free some space, and resume the run: its earlier checkpoint is intact\n")
    assert run.err.count("\n") == 1


def assert_checkpoints_load(directory: RunDir) -> list[str]:
    loaded = []
    for path in directory.path.glob("checkpoints/*"):
        torch.load(path, weights_only=True)
        loaded.append(path.name)
    return sorted(loaded)


FILES = {  # name: (writes before the disk is full, checkpoints that exist then)
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
def test_a_full_disk_fails_the_run_in_one_line_and_the_resumed_run_has_the_same_bits(name, whole, tmp_path):
    after, there = FILES[name]
    run = ForkedCommand(tmp_path, *NET, fault=without_room, about=(name, after))
    run.wait()
    directory = RunDir(only_run_in(tmp_path))
    assert_full_disk_reported(run, directory, tmp_path)
    status = directory.status()
    assert status.state == "failed"
    assert status.reason.startswith("no room on the disk (")
    assert assert_checkpoints_load(directory) == there
    assert not list(directory.path.rglob(".*.tmp"))
    assert "Traceback" in directory.log.read_text()
    assert_same_run(run_forked(tmp_path, *NET, "resume=auto"), whole)


@pytest.mark.slow
def test_a_run_that_cannot_write_its_status_trains_on_and_can_be_resumed(whole, tmp_path):
    run_forked(tmp_path, *NET, fault=without_room, about=("status.json", 2))
    directory = RunDir(only_run_in(tmp_path))
    assert directory.status().state == "running"  # it could not be written
    assert directory.owner() is None
    assert_same_run(run_forked(tmp_path, *NET, "resume=auto"), whole)


@pytest.mark.slow
def test_a_run_that_could_not_write_its_config_is_started_anew(whole, tmp_path):
    run = ForkedCommand(tmp_path, *NET, fault=without_room, about=("config.yaml", 0))
    run.wait()
    directory = RunDir(only_run_in(tmp_path))
    assert_full_disk_reported(run, directory, tmp_path)
    again = ForkedCommand(tmp_path, *NET, "resume=auto")
    assert again.wait() == 0, again.err
    (result,) = (tmp_path / "runs").glob("*/*/result.json")
    assert_same_run(RunDir(result.parent), whole)


@pytest.mark.slow
def test_a_file_size_limit_is_reported_as_a_full_disk(whole, tmp_path):
    run = ForkedCommand(tmp_path, *NET, fault=small_files, about=(100_000,))
    run.wait()
    directory = RunDir(only_run_in(tmp_path))
    assert_full_disk_reported(run, directory, tmp_path)
    assert directory.status().state == "failed"
    assert assert_checkpoints_load(directory) == []
    assert_same_run(run_forked(tmp_path, *NET, "resume=auto"), whole)


def test_pytorchs_message_for_a_full_disk_is_recognized():
    """Its writer raises when it is closed, for any cause."""

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
    reason, advice = explain_failure(raised.value)
    assert reason == "no room on the disk (OSError: [Errno 28] No space left on device)"
    assert advice.startswith("free some space")
    of_a_path = RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 14400 vs 14288")
    assert explain_failure(of_a_path)[0].startswith("no room on the disk (RuntimeError: [enforce fail")


def test_the_last_status_is_written_although_the_disk_has_no_space_for_a_second_file(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    directory = RunDir.create(tmp_path, "job")
    directory.write_status("running", "a longer reason " * 50)
    monkeypatch.setattr("cnnbench.runs.run_dir.write_atomic", refuse)
    with pytest.raises(OSError, match="No space"):
        directory.write_status("running", epoch=1)
    directory.write_status("failed", "no room on the disk")
    assert (directory.status().state, directory.status().reason) == ("failed", "no room on the disk")


def fill(disk: Path, room: int) -> None:
    """Fills a disk except for `room` bytes."""
    with (disk / "filler").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            file.truncate(max(0, file.tell() - room))


def on_a_small_disk(disk: str, screens: str, room: str) -> None:
    """Fills a small disk during a run, resumes on the full disk, frees space, and resumes again; called in a mount namespace."""
    folder = Path(disk)
    begun = ForkedCommand(folder, *NET, screens=Path(screens), NETS_WAIT="0.2")
    wait_until(lambda: has_saved(folder) or not begun.living, "it saves")
    time.sleep(0.3)
    fill(folder, int(room))
    begun.wait()
    directory = RunDir(only_run_in(folder))
    assert_full_disk_reported(begun, directory, folder)
    assert directory.status().state == "failed"
    assert {"last.ckpt"} <= set(assert_checkpoints_load(directory)) <= {"last.ckpt", "previous.ckpt"}
    fill(folder, 0)
    still_full = ForkedCommand(folder, *NET, "resume=auto", screens=Path(screens))
    still_full.wait()
    assert_full_disk_reported(still_full, directory, folder)
    (folder / "filler").unlink()
    run_forked(folder, *NET, "resume=auto", screens=Path(screens))
    shutil.copytree(folder / "runs", Path(screens) / "runs")


@pytest.mark.slow
@pytest.mark.parametrize(
    "room",
    [pytest.param(0, id="nothing left"), pytest.param(150_000, id="room for small files", marks=pytest.mark.soak)],
)
def test_a_disk_that_fills_up_during_a_run(room, whole, tmp_path):
    trial = subprocess.run(["unshare", "-rm", "sh", "-c", "mount -t tmpfs tmpfs /mnt"], capture_output=True, text=True)
    if trial.returncode:
        pytest.skip(f"cannot mount here: {trial.stderr.strip()}")
    disk, screens = tmp_path / "disk", tmp_path / "screens"
    disk.mkdir()
    screens.mkdir()
    script = 'set -e; mount -t tmpfs -o size=8m tmpfs "$0"; exec "$@"'
    code = f"from test_faults import *; on_a_small_disk({str(disk)!r}, {str(screens)!r}, '{room}')"
    command = ["unshare", "-rm", "sh", "-c", script, str(disk), sys.executable, "-c", code]
    path = {"PYTHONPATH": os.pathsep.join(str(folder) for folder in Path(__file__).parents[:2])}
    environment = child_environment("small disk", path)
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    assert_same_run(RunDir(only_run_in(screens)), whole)


# ---- memory ----------------------------------------------------------------------------------------------------------

GREEDY = ["trainer=cpu", "threads=1", "epochs=1", "data=synthetic", "data.train_size=256", "data.val_size=32"]
GREEDY += ["data.test_size=32", "model=custom", "model._target_=nets.Greedy"]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("cuda", "OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total"),
        ("host", "MemoryError: "),
    ],
)
def test_out_of_memory_fails_in_one_line_that_says_what_to_reduce(kind, message, tmp_path, capsys):
    assert main([*GREEDY, f"+model.kind={kind}", f"runs_dir={tmp_path}"]) == 3
    directory = RunDir(next(tmp_path.glob("*/*")))
    error = capsys.readouterr().err
    assert error.startswith(f"cnnbench: {directory.path}: failed, out of memory ({message}")
    assert error.count("\n") == 1
    for smaller in ("accumulate=2", "a smaller batch_size"):
        assert smaller in error
    assert directory.status().state == "failed"
    assert directory.status().reason == f"out of memory ({message})"
    assert "Traceback" in directory.log.read_text()
