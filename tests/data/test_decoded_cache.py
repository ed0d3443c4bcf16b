"""Decoded images: made once, shared by processes, made again where they are damaged."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch

from cnnbench.data import decoded_cache as cache
from cnnbench.data.decoded_cache import Decoded
from cnnbench.errors import DataError
from decoding import (  # noqa: F401
    ALL,
    LOG,
    ROW,
    SHAPE,
    Maker,
    change,
    chunks_of_three,
    folder,
    image,
    made,
    root,
)


def test_rows_are_made_once(made):
    assert made() == list(range(10))
    assert made() == []


def test_only_wanted_rows_are_made(made):
    assert made([1, 4, 7]) == [1, 4, 7]
    assert made([0, 1, 4, 5]) == [0, 5]
    assert made() == [2, 3, 6, 8, 9]


def test_rows_are_made_a_chunk_at_a_time(folder, chunks_of_three):
    asked = []

    def make(rows):
        asked.append(rows.tolist())
        return Maker()(rows)

    Decoded(folder, "train", SHAPE).rows(ALL, make, "x")
    assert asked == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]


def test_two_keys_of_a_set_have_rows_of_their_own(made):
    assert made(key="train") == made(key="test") == list(range(10))
    assert made(key="train") == []


def test_a_row_that_is_all_zero_is_made_once_too(folder):
    calls = []

    def black(rows):
        calls.append(len(rows))
        return np.zeros((len(rows), *SHAPE[1:]), np.uint8)

    for _ in range(2):
        assert not Decoded(folder, "train", SHAPE).rows(ALL, black, "x").any()
    assert calls == [10]


def test_a_row_whose_sum_is_zero_is_made_once_too(folder, monkeypatch, made):
    monkeypatch.setattr(zlib, "crc32", lambda content: 0)
    made()
    assert made() == []


def test_rows_that_are_not_contiguous_in_memory_are_kept_as_they_are(folder, made):
    def turned(rows):
        return np.stack([image(row).transpose(1, 2, 0) for row in rows]).transpose(0, 3, 1, 2)

    Decoded(folder, "train", SHAPE).rows(ALL, turned, "x")
    assert made() == []


def test_the_rows_are_a_file_that_is_mapped(folder):
    rows = Decoded(folder, "train", SHAPE).rows(ALL, Maker(), "x")
    assert isinstance(rows, np.memmap)
    assert Path(rows.filename) == folder / "train.u8"
    assert (folder / "train.u8").stat().st_size == rows.nbytes == 10 * ROW


def test_writing_to_the_rows_changes_nothing_on_disk_and_nothing_for_others(folder):
    one, other = (Decoded(folder, "train", SHAPE).rows(ALL, Maker(), "x") for _ in range(2))
    before = (folder / "train.u8").read_bytes()
    torch.from_numpy(one).zero_()
    one.flush()
    assert not one.any()
    assert (folder / "train.u8").read_bytes() == before
    np.testing.assert_array_equal(other[3], image(3))


def test_rows_outlive_their_file(folder):
    rows = Decoded(folder, "train", SHAPE).rows(ALL, Maker(), "x")
    (folder / "train.u8").unlink()
    np.testing.assert_array_equal(rows[9], image(9))


SCRIPT = """
import os, sys, time, zlib
from pathlib import Path
import numpy as np
from cnnbench.data import decoded_cache as cache, parallel

from cnnbench.data import parallel
parallel.CHUNK = 3
log = Path(sys.argv[1])

def make(rows):
    with log.open("a") as file:
        file.write("".join(f"{{row}}\\n" for row in rows.tolist()))
    {during}
    return np.stack([np.random.default_rng(row).integers(0, 256, {image_shape}, dtype=np.uint8) for row in rows])

{before}
rows = cache.Decoded(Path({folder!r}), "train", {shape}).rows(np.arange(10), make, "x")
print(zlib.crc32(rows.tobytes()), type(rows).__name__)
"""


@pytest.fixture
def start(folder, tmp_path):
    """Starts a process that asks for all rows, three at a time, and notes those that it makes in a file."""

    def start(number=0, during="pass", before="pass") -> tuple[subprocess.Popen, Path]:
        text = SCRIPT.format(folder=str(folder), shape=SHAPE, image_shape=SHAPE[1:], during=during, before=before)
        log = tmp_path / f"made{number}"
        log.touch()
        command = [sys.executable, "-c", text, str(log)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True), log

    return start


def noted(log: Path) -> list[int]:
    return [int(line) for line in log.read_text().split()]


EXPECTED = zlib.crc32(np.stack([image(row) for row in range(10)]).tobytes())


def test_a_second_process_makes_nothing_and_reads_the_same(made, start):
    made()
    process, log = start()
    out, err = process.communicate()
    assert (out, err, noted(log)) == (f"{EXPECTED} memmap\n", "", [])


@pytest.mark.slow
def test_four_processes_at_once_make_every_row_once_and_agree(start, tmp_path):
    gate = tmp_path / "gate"
    wait = f"while not os.path.exists({str(gate)!r}): time.sleep(0.01)"
    processes = [start(number, "time.sleep(0.05)", wait) for number in range(4)]
    time.sleep(1.5)
    gate.touch()
    answers = [process.communicate() for process, _ in processes]
    assert answers == [(f"{EXPECTED} memmap\n", "")] * 4
    assert sorted(row for _, log in processes for row in noted(log)) == list(range(10))


def test_a_process_that_is_killed_leaves_what_was_done_and_the_next_goes_on(start, made):
    process, log = start(during=f"if 3 in rows: os.kill(os.getpid(), {int(signal.SIGKILL)})")
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert noted(log) == [0, 1, 2, 3, 4, 5]
    assert made() == [3, 4, 5, 6, 7, 8, 9]


def test_where_no_file_may_grow_the_rows_live_in_memory(start):
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({4 * ROW}, {4 * ROW}))"
    process, log = start(before=limit)
    out, err = process.communicate()
    assert out == f"{EXPECTED} ndarray\n"
    assert "Traceback" not in err
    assert set(noted(log)) == set(range(10))


@pytest.mark.parametrize("row", [0, 4, 9])
@pytest.mark.parametrize("at", [0, 77, ROW - 1])
def test_a_row_with_a_damaged_byte_is_made_again_and_no_other(made, folder, row, at):
    made()
    change(folder / "train.u8", row * ROW + at, bytes([image(row).tobytes()[at] ^ 1]))
    assert made() == [row]
    assert made() == []


def test_a_damaged_row_that_nobody_wants_is_left_alone_until_somebody_does(made, folder):
    made()
    change(folder / "train.u8", 5 * ROW, b"\0" * ROW)
    assert made([0, 1, 6]) == []
    assert made([4, 5]) == [5]


@pytest.mark.parametrize("row", [0, 9])
def test_a_row_with_a_damaged_sum_is_made_again_and_no_other(made, folder, row):
    made()
    change(folder / "train.crc", 4 * row, b"\1\2\3\4")
    assert made() == [row]


def test_rows_of_a_page_of_zeros_are_made_again_and_no_other(made, folder):
    made()
    change(folder / "train.u8", 2 * ROW, b"\0" * 3 * ROW)
    assert made() == [2, 3, 4]


def test_rows_whose_sums_were_lost_are_made_again(made, folder):
    made()
    (folder / "train.crc").unlink()
    assert made() == list(range(10))
    assert made() == []


@pytest.mark.parametrize("name", ["train.u8", "train.crc"])
@pytest.mark.parametrize("left", [0, 3, 20])
def test_after_a_file_was_cut_short_the_rows_are_right(made, folder, name, left):
    made()
    os.truncate(folder / name, left)
    assert made() != []
    assert made() == []


def test_of_a_file_that_was_cut_short_the_rows_that_are_left_are_not_made_again(made, folder):
    made()
    os.truncate(folder / "train.u8", 7 * ROW)
    assert made() == [7, 8, 9]


@pytest.mark.parametrize("name", ["train.u8", "train.crc"])
def test_a_file_that_is_too_long_does_no_harm(made, folder, name):
    made()
    with (folder / name).open("ab") as file:
        file.write(b"x" * 1000)
    made()
    assert made() == []


@pytest.mark.parametrize("lost", ["train.u8", "both"])
def test_of_a_set_that_is_too_large_to_be_checked_no_row_is_taken_for_made_that_is_not(made, folder, monkeypatch, lost):
    monkeypatch.setattr(cache, "CHECKED_BYTES", 0)
    made()
    (folder / "train.u8").unlink()
    if lost == "both":
        (folder / "train.crc").unlink()
    made([0, 1, 2])
    assert made([5, 6]) == [5, 6]


def test_of_a_set_that_is_too_large_to_be_checked_no_row_is_taken_for_made_after_a_full_disk(made, monkeypatch):
    monkeypatch.setattr(cache, "CHECKED_BYTES", 0)
    made([0, 1, 2])
    with monkeypatch.context() as full:
        full.setattr(os, "pwrite", no_room)
        made([5, 6])
    made([8])
    made([0, 1, 2])


def test_of_a_set_that_is_too_large_to_be_checked_only_what_was_never_made_is_made(made, monkeypatch):
    monkeypatch.setattr(cache, "CHECKED_BYTES", 0)
    assert made([0, 1, 2]) == [0, 1, 2]
    assert made([1, 2, 3]) == [3]


def test_a_maker_that_fails_leaves_what_was_done(folder, made, chunks_of_three):
    def failing(rows):
        if 6 in rows:
            raise DataError("row 6")
        return Maker()(rows)

    with pytest.raises(DataError, match="row 6"):
        Decoded(folder, "train", SHAPE).rows(ALL, failing, "x")
    assert made() == [6, 7, 8, 9]


def test_a_row_that_was_half_written_when_its_process_died_is_made_again(folder, made, monkeypatch):
    whole = os.pwrite

    def dying(descriptor, content, at):
        if at == 5 * ROW:
            whole(descriptor, content[: ROW // 2], at)
            raise KeyboardInterrupt
        return whole(descriptor, content, at)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", dying)
        with pytest.raises(KeyboardInterrupt):
            Decoded(folder, "train", SHAPE).rows(ALL, Maker(), "x")
    assert made() == [5, 6, 7, 8, 9]


def test_a_lock_that_a_dead_process_left_does_not_matter(folder, made):
    folder.mkdir(parents=True)
    (folder / "train.lock").touch()
    assert made() == list(range(10))


def test_the_whole_folder_may_be_deleted_at_any_time(made, root):
    made()
    shutil.rmtree(root)
    assert made() == list(range(10))


def no_room(descriptor, content, at):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def warned(caplog):
    """What the log says."""
    caplog.set_level(logging.WARNING, LOG)
    logging.getLogger(LOG).propagate = True
    return lambda: [record.getMessage() for record in caplog.records]


def assert_in_memory(folder, warned) -> None:
    rows = Decoded(folder, "train", SHAPE).rows(ALL, Maker(), "x")
    assert not isinstance(rows, np.memmap)
    for row in ALL:
        np.testing.assert_array_equal(rows[row], image(row))
    assert len(warned()) == 1
    assert warned()[0].startswith("decoded images are not shared with other processes: ")


def test_where_the_folder_cannot_be_made_the_rows_live_in_memory(root, warned):
    root.mkdir()
    (root / "decoded").write_text("a file is in the way")
    assert_in_memory(root / "decoded" / "set-0123", warned)


def test_where_the_folder_may_not_be_written_the_rows_live_in_memory(folder, warned):
    folder.mkdir(parents=True)
    folder.chmod(0o555)
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)  # root may write everywhere, nobody may not
    try:
        assert_in_memory(folder, warned)
    finally:
        os.seteuid(before)


def test_where_the_disk_is_full_the_rows_live_in_memory(folder, warned, monkeypatch):
    monkeypatch.setattr(os, "pwrite", no_room)
    assert_in_memory(folder, warned)


def test_where_the_disk_fills_up_midway_the_rows_live_in_memory(folder, warned, monkeypatch):
    whole = os.pwrite
    monkeypatch.setattr(
        os, "pwrite", lambda descriptor, content, at: (no_room if at >= 6 * ROW else whole)(descriptor, content, at)
    )
    assert_in_memory(folder, warned)


def test_a_disk_that_takes_only_part_of_a_row_gives_no_row_that_is_cut_short(folder, made, monkeypatch):
    whole = os.pwrite

    def part(descriptor, content, at):
        return whole(descriptor, content[: ROW // 2] if at == 9 * ROW else content, at)

    monkeypatch.setattr(os, "pwrite", part)
    made()


def test_once_there_is_room_again_the_rows_are_shared(folder, made, monkeypatch):
    with monkeypatch.context() as full:
        full.setattr(os, "pwrite", no_room)
        made()
    made()
    assert made() == []


def test_without_room_on_the_disk_and_in_memory_it_is_told_where_to_look_for_some(folder, monkeypatch):
    monkeypatch.setattr(os, "pwrite", no_room)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=10))
    with pytest.raises(DataError, match="CNNBENCH_DATA") as caught:
        Decoded(folder, "train", SHAPE).rows(ALL, Maker(), "x")
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)
