"""Decoded images: written once, shared by processes, written again when the file is damaged."""

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
from cnnbench.data.download.archives import checksum_file
from cnnbench.errors import DataError
from decoding import (  # noqa: F401
    ALL,
    LOG,
    ROW,
    SHAPE,
    Decoder,
    change,
    chunks_of_three,
    decoded,
    image,
    load,
    path,
    root,
)


def test_images_are_decoded_once(decoded):
    assert decoded() == list(range(10))
    assert decoded() == []


def test_only_the_selected_rows_are_decoded(decoded):
    assert decoded([1, 4, 7]) == [1, 4, 7]


def test_rows_are_decoded_in_chunks(path, chunks_of_three):
    chunks = []

    def decode(rows):
        chunks.append(rows.tolist())
        return Decoder()(rows)

    load(path, decode)
    assert chunks == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]


def test_two_files_of_a_set_are_independent(decoded, path):
    other = path.with_name("test.npy")
    assert decoded() == decoded(file=other) == list(range(10))
    assert decoded() == decoded(file=other) == []


def test_images_that_are_not_contiguous_in_memory_are_stored_in_order(path, decoded):
    def channels_last(rows):
        return np.stack([image(row).transpose(1, 2, 0) for row in rows]).transpose(0, 3, 1, 2)

    load(path, channels_last)
    assert decoded() == []


def test_the_file_is_a_mapped_npy_file(path):
    images = load(path)
    assert isinstance(images, np.memmap)
    assert Path(images.filename) == path
    np.testing.assert_array_equal(np.load(path), images)


def test_writing_to_the_images_changes_neither_the_file_nor_other_maps(path):
    one, other = load(path), load(path)
    before = path.read_bytes()
    torch.from_numpy(one).zero_()
    one.flush()
    assert not one.any()
    assert path.read_bytes() == before
    np.testing.assert_array_equal(other[3], image(3))


def test_images_stay_readable_after_their_file_was_deleted(path):
    images = load(path)
    path.unlink()
    np.testing.assert_array_equal(images[9], image(9))


def test_a_folder_keeps_a_limited_number_of_files(decoded, path, monkeypatch):
    monkeypatch.setattr(cache, "MOST_FILES", 3)
    files = [path.with_name(f"{number}.npy") for number in range(5)]
    for number, file in enumerate(files):
        decoded(file=file)
        os.utime(file, (number, number))
    assert sorted(path.parent.glob("*.npy")) == files[2:]
    assert sorted(path.parent.glob(".*.sha256")) == [checksum_file(file) for file in files[2:]]


# ---- several processes -----------------------------------------------------------------------------------------------

SCRIPT = """
import os, sys, time, zlib
from pathlib import Path
import numpy as np
from cnnbench.data import parallel
from cnnbench.data.decoded_cache import load_or_decode

parallel.CHUNK = 3
log = Path(sys.argv[1])

def decode(rows):
    with log.open("a") as file:
        file.write("".join(f"{{row}}\\n" for row in rows.tolist()))
    {during}
    return np.stack([np.random.default_rng(row).integers(0, 256, {shape}, dtype=np.uint8) for row in rows])

{before}
images = load_or_decode([Path({path!r})], np.arange(10), {shape}, decode, "decoding")
print(zlib.crc32(images.tobytes()), type(images).__name__)
"""


@pytest.fixture
def start(path, tmp_path):
    """Starts a process that loads all images, three at a time, and writes the rows that it decodes to a file."""

    def start(number=0, during="pass", before="pass") -> tuple[subprocess.Popen, Path]:
        text = SCRIPT.format(path=str(path), shape=SHAPE, during=during, before=before)
        log = tmp_path / f"decoded{number}"
        log.touch()
        command = [sys.executable, "-c", text, str(log)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True), log

    return start


def rows_in(log: Path) -> list[int]:
    return [int(line) for line in log.read_text().split()]


EXPECTED = zlib.crc32(np.stack([image(row) for row in range(10)]).tobytes())


def test_a_second_process_decodes_nothing_and_reads_the_same_pixels(decoded, start):
    decoded()
    process, log = start()
    out, err = process.communicate()
    assert (out, err, rows_in(log)) == (f"{EXPECTED} memmap\n", "", [])


@pytest.mark.slow
def test_of_four_processes_at_once_one_decodes_and_all_agree(start, tmp_path):
    gate = tmp_path / "gate"
    wait = f"while not os.path.exists({str(gate)!r}): time.sleep(0.01)"
    processes = [start(number, "time.sleep(0.05)", wait) for number in range(4)]
    time.sleep(1.5)
    gate.touch()
    answers = [process.communicate() for process, _ in processes]
    assert answers == [(f"{EXPECTED} memmap\n", "")] * 4
    assert sorted(row for _, log in processes for row in rows_in(log)) == list(range(10))


def test_a_killed_process_leaves_no_file_that_is_taken_for_complete(start, decoded, path):
    process, log = start(during=f"if 3 in rows: os.kill(os.getpid(), {int(signal.SIGKILL)})")
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert rows_in(log) == [0, 1, 2, 3, 4, 5]
    assert not path.exists()
    assert decoded() == list(range(10))
    assert not list(path.parent.glob("*.tmp"))


def test_where_no_file_may_grow_the_images_are_in_memory(start):
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({4 * ROW}, {4 * ROW}))"
    process, log = start(before=limit)
    out, err = process.communicate()
    assert out == f"{EXPECTED} ndarray\n"
    assert "Traceback" not in err
    assert set(rows_in(log)) == set(range(10))


def test_the_lock_of_a_dead_process_does_not_block(path, decoded):
    path.parent.mkdir(parents=True)
    path.with_suffix(".lock").touch()
    assert decoded() == list(range(10))


# ---- damaged files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [20, 128, 128 + 4 * ROW + 77, -1])
def test_after_one_wrong_byte_the_images_are_decoded_again(decoded, path, at):
    decoded()
    position = at if at >= 0 else path.stat().st_size - 1
    change(path, position, bytes([path.read_bytes()[position] ^ 1]))
    assert decoded() == list(range(10))
    assert decoded() == []


@pytest.mark.parametrize("damage", ["absent", "empty", "of another file"])
def test_without_the_right_digest_the_images_are_decoded_again(decoded, path, damage):
    decoded()
    if damage == "absent":
        checksum_file(path).unlink()
    else:
        checksum_file(path).write_text("" if damage == "empty" else "0" * 64)
    assert decoded() == list(range(10))
    assert decoded() == []


@pytest.mark.parametrize("left", [0, 3, 100, 128 + 7 * ROW])
@pytest.mark.parametrize("checked", [True, False])
def test_a_file_that_was_cut_short_is_written_again(decoded, path, monkeypatch, left, checked):
    if not checked:
        monkeypatch.setattr(cache, "CHECKED_BYTES", -1)
    decoded()
    os.truncate(path, left)
    assert decoded() == list(range(10))
    assert decoded() == []


def test_a_file_of_another_shape_is_written_again(decoded):
    decoded([0, 1, 2])
    assert decoded() == list(range(10))


def test_a_file_that_is_too_long_is_written_again(decoded, path):
    decoded()
    with path.open("ab") as file:
        file.write(b"x" * 1000)
    assert decoded() == list(range(10))


def test_the_digest_of_a_large_file_is_not_verified(decoded, path, monkeypatch):
    monkeypatch.setattr(cache, "CHECKED_BYTES", 0)
    decoded()
    monkeypatch.setattr(cache, "content_checksum", None)
    assert decoded() == []


def test_the_whole_folder_may_be_deleted_at_any_time(decoded, root):
    decoded()
    shutil.rmtree(root)
    assert decoded() == list(range(10))


@pytest.mark.parametrize("error", [DataError("row 6"), KeyboardInterrupt()], ids=["an error", "Ctrl-C"])
def test_a_decoder_that_stops_leaves_nothing_behind(path, decoded, chunks_of_three, error):
    def failing(rows):
        if 6 in rows:
            raise error
        return Decoder()(rows)

    with pytest.raises(type(error)):
        load(path, failing)
    assert not list(path.parent.iterdir())
    assert decoded() == list(range(10))


# ---- full disks ------------------------------------------------------------------------------------------------------


@pytest.fixture
def full_disk(monkeypatch):
    """A function that lets the disk be full once so many bytes of images were written."""

    def fill(after: int = 0) -> None:
        written = [0]
        flush = os.fsync

        def fsync(descriptor):
            written[0] += os.fstat(descriptor).st_size
            if written[0] > after:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            flush(descriptor)

        monkeypatch.setattr(os, "fsync", fsync)

    return fill


@pytest.fixture
def warnings_in_log(caplog):
    caplog.set_level(logging.WARNING, LOG)
    logging.getLogger(LOG).propagate = True
    return lambda: [record.getMessage() for record in caplog.records]


def assert_in_memory(path, warnings_in_log) -> None:
    images = load(path)
    assert not isinstance(images, np.memmap)
    for row in ALL:
        np.testing.assert_array_equal(images[row], image(row))
    assert len(warnings_in_log()) == 1
    assert warnings_in_log()[0].startswith("decoded images are not shared with other processes: ")


def test_where_the_folder_cannot_be_made_the_images_are_in_memory(root, warnings_in_log):
    root.mkdir()
    (root / "decoded").write_text("a file is in the way")
    assert_in_memory(root / "decoded" / "set-0123" / "train.npy", warnings_in_log)


def test_where_the_folder_may_not_be_written_the_images_are_in_memory(path, warnings_in_log):
    path.parent.mkdir(parents=True)
    path.parent.chmod(0o555)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # root may write everywhere, nobody may not
    try:
        assert_in_memory(path, warnings_in_log)
    finally:
        os.seteuid(user)


def test_where_the_disk_has_no_space_for_them_the_images_are_in_memory(path, warnings_in_log, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=10 * ROW - 1))
    assert_in_memory(path, warnings_in_log)
    assert not list(path.parent.glob("*.npy"))


def test_where_the_disk_fills_up_meanwhile_the_images_are_in_memory(path, warnings_in_log, full_disk):
    full_disk(after=6 * ROW)
    assert_in_memory(path, warnings_in_log)
    assert not list(path.parent.iterdir())


def test_once_there_is_space_again_the_images_are_shared(decoded, path, full_disk, monkeypatch):
    with monkeypatch.context():
        full_disk()
        decoded()
        monkeypatch.undo()
    monkeypatch.setenv("CNNBENCH_DATA", str(path.parents[2]))
    decoded()
    assert decoded() == []


def test_without_space_on_the_disk_and_in_memory_the_error_names_the_variable_to_set(path, full_disk, monkeypatch):
    full_disk()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=10))
    with pytest.raises(DataError, match="CNNBENCH_DATA") as caught:
        load(path)
    assert str(path.parent) in str(caught.value)
    assert "\n" not in str(caught.value)
