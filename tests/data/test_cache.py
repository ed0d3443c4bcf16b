"""Decoded images that processes share, and facts of files: against damage, crashes, full disks and each other."""

from __future__ import annotations

import errno
import hashlib
import json
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
from torchvision import datasets

from cnnbench.data import cache, parallel
from cnnbench.data.cache import Decoded, Remembered, decoded_folder
from cnnbench.data.mnist import MNIST
from cnnbench.errors import DataError
from datafiles import idx, ready, write_idx

SHAPE = (10, 2, 8, 8)
ALL = np.arange(10)
ROW = 2 * 8 * 8
LOG = "cnnbench.run"


def image(row: int, shape: tuple[int, ...] = SHAPE[1:]) -> np.ndarray:
    return np.random.default_rng(row).integers(0, 256, shape, dtype=np.uint8)


class Maker:
    """Makes rows, and notes which."""

    def __init__(self) -> None:
        self.made: list[int] = []

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        self.made += rows.tolist()
        return np.stack([image(row) for row in rows])


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """An empty folder for all that is kept."""
    monkeypatch.setenv("CNNBENCH_DATA", str(tmp_path / "root"))
    return tmp_path / "root"


@pytest.fixture
def folder(root) -> Path:
    return root / "decoded" / "set-0123"


@pytest.fixture
def made(folder):
    """Asks a new instance for rows; which of them it had to make. They must be right."""

    def ask(wanted=ALL, key="train", maker=None) -> list[int]:
        make = maker or Maker()
        rows = Decoded(folder, key, SHAPE).rows(np.asarray(wanted), make, "x")
        assert (rows.shape, rows.dtype) == (SHAPE, np.uint8)
        for row in wanted:
            np.testing.assert_array_equal(rows[row], image(row))
        return make.made

    return ask


@pytest.fixture
def chunks_of_three(monkeypatch):
    monkeypatch.setattr(parallel, "CHUNK", 3)


def change(path: Path, at: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(content)


# ---- made once ---------------------------------------------------------------------------------------------------


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


# ---- shared ----------------------------------------------------------------------------------------------------------


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
from cnnbench.data import cache, parallel

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


# ---- damage and crashes ----------------------------------------------------------------------------------------------


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


# ---- where nothing can be written ------------------------------------------------------------------------------------


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


# ---- the folder of a set ---------------------------------------------------------------------------------------------


def filled(name: str, fingerprint: str, source: Path) -> Path:
    folder = decoded_folder(name, fingerprint, source)
    (folder / "train.u8").write_bytes(b"x")
    return folder


def test_decoded_images_of_earlier_files_in_the_same_place_are_removed(root):
    earlier = filled("mnist", "aaaa", Path("/data/one"))
    later = filled("mnist", "bbbb", Path("/data/one"))
    assert not earlier.exists()
    assert later.is_dir()


@pytest.mark.parametrize(("name", "source"), [("mnist", "/data/two"), ("mnist5k", "/data/one")])
def test_decoded_images_of_other_places_and_of_other_sets_stay(root, name, source):
    other = filled(name, "aaaa", Path(source))
    filled("mnist", "bbbb", Path("/data/one"))
    assert (other / "train.u8").read_bytes() == b"x"


def test_a_folder_that_is_there_is_taken_as_it_is(root):
    folder = filled("mnist", "aaaa", Path("/data/one"))
    assert decoded_folder("mnist", "aaaa", Path("/data/two")) == folder
    assert (folder / "train.u8").is_file()


@pytest.mark.parametrize("source", [os.fsdecode(b"/data/caf\xe9"), "/data/ünïcødé 猫", "/data/new\nline"])
def test_a_place_may_have_any_name(root, source):
    earlier = filled("mnist", "aaaa", Path(source))
    filled("mnist", "bbbb", Path(source))
    assert not earlier.exists()


def test_a_damaged_note_of_the_place_does_no_harm(root):
    earlier = filled("mnist", "aaaa", Path("/data/one"))
    (earlier / "source").write_bytes(b"\xff\xfe")
    assert filled("mnist", "bbbb", Path("/data/one")).is_dir()


# ---- facts -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def files(root, tmp_path) -> list[Path]:
    """Two files that were last changed an hour ago."""
    found = []
    for name in ("a", "b"):
        path = tmp_path / "files" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
        an_hour_ago(path)
        found.append(path)
    return found


def an_hour_ago(path: Path, seconds: float = 3600) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_what_is_kept_is_recalled(files):
    Remembered("x", files).keep(fingerprint="abc", native=32)
    assert Remembered("x", files).recall() == {"fingerprint": "abc", "native": 32}


def test_nothing_is_recalled_where_nothing_was_kept(files):
    assert Remembered("x", files).recall() == {}


def test_facts_are_added_to_earlier_ones(files):
    Remembered("x", files).keep(one=1, two=2)
    Remembered("x", files).keep(two=3)
    assert Remembered("x", files).recall() == {"one": 1, "two": 3}


@pytest.mark.parametrize("change", ["size", "time", "gone", "content with the old time"])
@pytest.mark.parametrize("which", [0, 1])
def test_facts_are_forgotten_when_a_file_changes(files, change, which):
    Remembered("x", files).keep(one=1)
    path = files[which]
    before = path.stat()
    if change == "size":
        path.write_text("longer")
    elif change == "time":
        an_hour_ago(path, 1800)
    elif change == "gone":
        path.unlink()
    else:
        path.write_text("c")
    if "time" not in change.split()[0] and change != "gone":
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert Remembered("x", files).recall() == {}


def test_facts_are_forgotten_when_there_is_one_file_more_or_less(files):
    Remembered("x", files).keep(one=1)
    assert Remembered("x", files[:1]).recall() == {}
    assert Remembered("x", files + files[:1]).recall() == {}


def test_facts_of_new_files_take_the_place_of_those_of_earlier_ones(files):
    Remembered("x", files).keep(one=1)
    an_hour_ago(files[0], 1800)
    Remembered("x", files).keep(two=2)
    assert Remembered("x", files).recall() == {"two": 2}


@pytest.mark.parametrize(("age", "kept"), [(0, {}), (1.5, {}), (2.5, {"one": 1}), (-100, {})])
def test_nothing_is_kept_of_a_file_that_changed_in_the_last_two_seconds(files, age, kept):
    an_hour_ago(files[1], age)
    Remembered("x", files).keep(one=1)
    assert Remembered("x", files).recall() == kept


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"null", b"[]", b"{}", b"\xff\xfe", b'"facts"', b"3", b'{"facts": {"one": 2}}', b'{"signature": "x"}'],
)
def test_a_damaged_file_of_facts_is_as_none(files, text):
    facts = Remembered("x", files)
    facts.keep(one=1)
    facts.path.write_bytes(text)
    assert Remembered("x", files).recall() == {}
    Remembered("x", files).keep(three=3)
    assert Remembered("x", files).recall() == {"three": 3}


@pytest.mark.parametrize("facts", [None, []])
def test_facts_that_are_none_are_as_none(files, facts):
    remembered = Remembered("x", files)
    remembered.keep(one=1)
    remembered.path.write_text(json.dumps({"signature": remembered.signature, "facts": facts}))
    assert Remembered("x", files).recall() == {}


def test_sets_of_other_names_and_of_other_places_have_facts_of_their_own(files, tmp_path):
    Remembered("x", files).keep(one=1)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    copies = [path.rename(elsewhere / path.name) for path in files]
    for path in copies:
        (files[0].parent / path.name).write_bytes(path.read_bytes())
        an_hour_ago(files[0].parent / path.name)
    assert Remembered("y", files).recall() == {}
    Remembered("x", copies).keep(two=2)
    assert Remembered("x", copies).recall() == {"two": 2}


def test_nothing_is_kept_of_files_that_are_absent_or_none(root, tmp_path):
    for files in ([], [tmp_path / "absent"]):
        remembered = Remembered("x", files)
        remembered.keep(one=1)
        assert remembered.recall() == {}


def test_facts_that_cannot_be_written_are_done_without(files, root):
    root.write_text("a file is in the way")
    Remembered("x", files).keep(one=1)
    assert Remembered("x", files).recall() == {}


def test_files_in_a_folder_whose_name_is_not_utf8_have_facts(root, tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9") / "a"
    path.parent.mkdir()
    path.write_text("a")
    an_hour_ago(path)
    Remembered("x", [path]).keep(one=1)
    assert Remembered("x", [path]).recall() == {"one": 1}


# ---- data sets -------------------------------------------------------------------------------------------------------


@pytest.fixture
def small(root, tmp_path) -> Path:
    """MNIST's files with 40 and 20 made images, written an hour ago."""
    for path in write_idx(tmp_path / "set").iterdir():
        an_hour_ago(path)
    return tmp_path / "set"


class Counted(MNIST):
    """Notes which splits are read."""

    def __init__(self, **keys):
        super().__init__(**keys)
        self.seen = []

    def read(self, official):
        self.seen.append(official)
        return super().read(official)


def test_the_second_time_a_set_is_not_read(small):
    one, other = (ready(Counted(root=small)) for _ in range(2))
    assert (one.seen, other.seen) == (["train", "test"], [])
    for split in ("train", "val", "test"):
        assert torch.equal(one.images[split].pixels, other.images[split].pixels)
        assert torch.equal(one.images[split].labels, other.images[split].labels)


def test_another_size_is_read_anew_and_both_stay(small):
    ready(Counted(root=small))
    assert ready(Counted(root=small, image_size=32)).seen == ["train", "test"]
    assert ready(Counted(root=small)).seen == []


@pytest.mark.parametrize("seconds", [3600, 1800, 0])
def test_images_that_change_after_they_were_decoded_are_noticed(small, seconds):
    before = ready(MNIST(root=small))
    path = small / "MNIST" / "raw" / "train-images-idx3-ubyte"
    stamp = path.stat().st_mtime_ns
    pixels = np.random.default_rng(1).integers(0, 256, (40, 28, 28))
    path.write_bytes(idx(pixels))
    if seconds == 3600:
        os.utime(path, ns=(stamp, stamp))
    elif seconds:
        an_hour_ago(path, seconds)
    after = ready(MNIST(root=small))
    assert after.fingerprint != before.fingerprint
    expected = pixels[after.indices["train"]]
    np.testing.assert_array_equal(after.images["train"].pixels.squeeze(1).numpy(), expected)


def test_labels_that_change_after_they_were_read_are_noticed(small):
    ready(MNIST(root=small))
    path = small / "MNIST" / "raw" / "train-labels-idx1-ubyte"
    labels = (np.arange(40) + 1) % 10
    path.write_bytes(idx(labels))
    after = ready(MNIST(root=small))
    assert after.images["train"].labels.tolist() == labels[after.indices["train"]].tolist()


def test_files_that_turn_corrupt_after_they_were_decoded_are_refused(small):
    ready(MNIST(root=small))
    path = small / "MNIST" / "raw" / "t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="t10k-images-idx3-ubyte"):
        ready(MNIST(root=small))


def test_a_set_that_changed_leaves_no_decoded_images_behind(small, root):
    ready(MNIST(root=small))
    path = small / "MNIST" / "raw" / "train-images-idx3-ubyte"
    path.write_bytes(idx(np.zeros((40, 28, 28))))
    ready(MNIST(root=small))
    assert len([found for found in (root / "decoded").iterdir() if found.is_dir()]) == 1


def test_a_damaged_decoded_image_is_mended_from_the_files(small, root):
    before = ready(MNIST(root=small)).images["train"].pixels.clone()
    (decoded,) = (root / "decoded").glob("*/train-*.u8")
    content = bytearray(decoded.read_bytes())
    for at in range(0, len(content), 784 * 7):
        content[at] ^= 255
    decoded.write_bytes(content)
    data = ready(Counted(root=small))
    assert data.seen == ["train"]
    assert torch.equal(data.images["train"].pixels, before)


def test_without_a_folder_to_write_to_a_set_is_the_same(small, root):
    shared = ready(MNIST(root=small))
    shutil.rmtree(root)
    root.write_text("a file is in the way")
    own = ready(MNIST(root=small))
    assert not root.is_dir()
    for split in ("train", "val", "test"):
        assert torch.equal(own.images[split].pixels, shared.images[split].pixels)


def test_changing_images_in_memory_does_not_change_those_of_another_set(small):
    one, other = ready(MNIST(root=small)), ready(MNIST(root=small))
    before = other.images["train"].pixels.clone()
    one.images["train"].source.zero_()
    assert torch.equal(other.images["train"].pixels, before)
    assert torch.equal(ready(MNIST(root=small)).images["train"].pixels, before)


TWICE = """
import hashlib, sys, torch
sys.path.insert(0, {tests!r})
from datafiles import ready
from cnnbench.data.mnist import MNIST
data = ready(MNIST(root={root!r}, image_size=20))
for split in ("train", "val", "test"):
    print(hashlib.sha256(data.images[split].pixels.numpy().tobytes()).hexdigest())
"""


@pytest.mark.slow
def test_two_processes_that_decode_for_themselves_get_the_same_bits(small, tmp_path):
    code = TWICE.format(tests=str(Path(__file__).parents[1]), root=str(small))
    answers = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "CNNBENCH_DATA": str(tmp_path / name), "OMP_NUM_THREADS": threads},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for name, threads in (("one", "1"), ("two", "2"))
    }
    assert len(answers) == 1


@pytest.mark.slow
def test_mnist_is_mapped_and_is_what_torchvision_reads(root, real_data):
    data = ready(MNIST(root=real_data, train_size=2000, val_size=[50_000, 50_500]))
    for official, split, rows in (("train", "train", range(2000)), ("train", "val", range(50_000, 50_500))):
        expected = datasets.MNIST(real_data, train=official == "train").data[rows.start : rows.stop]
        assert torch.equal(data.images[split].pixels.squeeze(1), expected)
    assert torch.equal(data.images["test"].pixels.squeeze(1), datasets.MNIST(real_data, train=False).data)
    assert {path.name for path in (root / "decoded").glob("*/*.u8")} == {"train-1x28.u8", "test-1x28.u8"}


@pytest.mark.slow
def test_of_mnist_only_the_images_in_use_take_room_on_the_disk(root, real_data):
    ready(MNIST(root=real_data, train_size=100, val_size=100))
    (decoded,) = (root / "decoded").glob("*/train-1x28.u8")
    assert decoded.stat().st_size == 60_000 * 784
    assert decoded.stat().st_blocks * 512 < 1_000_000


def test_the_digest_of_what_is_decoded_is_that_of_the_file(root, small):
    data = ready(MNIST(root=small))
    (decoded,) = (root / "decoded").glob("*/test-1x28.u8")
    content = (small / "MNIST" / "raw" / "t10k-images-idx3-ubyte").read_bytes()[16:]
    assert hashlib.sha256(decoded.read_bytes()).digest() == hashlib.sha256(content).digest()
    assert data.images["test"].pixels.numpy().tobytes() == content


def test_facts_that_were_altered_are_not_recalled(files):
    remembered = Remembered("x", files)
    remembered.keep(labels=[1, 2, 3])
    remembered.path.write_text(remembered.path.read_text().replace("[1, 2, 3]", "[0, 0, 0]"))
    assert Remembered("x", files).recall() == {}
