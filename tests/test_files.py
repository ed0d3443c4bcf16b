"""Files are written completely or not at all."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from cnnbench.files import overwrite_in_place, write_atomic


def refuse(*_) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(("content", "expected"), [("né\n", "né\n".encode()), (b"\x00\xff", b"\x00\xff"), ("", b"")])
def test_text_is_written_as_utf8_and_bytes_as_they_are(tmp_path, content, expected):
    write_atomic(tmp_path / "file", content)
    assert (tmp_path / "file").read_bytes() == expected


def test_the_old_content_is_replaced_and_no_other_file_is_left(tmp_path):
    (tmp_path / "file").write_text("a long old content")
    write_atomic(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("step", ["fsync", "encode", "replace"])
def test_the_old_content_remains_when_writing_fails(tmp_path, monkeypatch, step):
    (tmp_path / "file").write_text("old")
    if step == "fsync":
        monkeypatch.setattr(os, "fsync", refuse)
    elif step == "replace":
        monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises((OSError, UnicodeEncodeError)):
        write_atomic(tmp_path / "file", "new" + ("\ud800" if step == "encode" else ""))
    assert (tmp_path / "file").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(("lasting", "syncs"), [(True, 1), (False, 0)])
def test_only_a_lasting_file_waits_for_the_disk(tmp_path, monkeypatch, lasting, syncs):
    synced = []
    monkeypatch.setattr(os, "fsync", synced.append)
    write_atomic(tmp_path / "file", "new", lasting)
    assert len(synced) == syncs


def test_a_reader_never_reads_a_part_of_a_file(tmp_path):
    contents = ["a" * 100_000, "b" * 200_000]
    write_atomic(tmp_path / "file", contents[0])
    done = threading.Event()

    def write() -> None:
        for number in range(60):
            write_atomic(tmp_path / "file", contents[number % 2])
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    whole = []
    while not done.is_set():
        whole.append((tmp_path / "file").read_text() in contents)
    writer.join()
    assert whole
    assert all(whole)


@pytest.mark.parametrize("content", [b"new", b"a content longer than the old one", b""])
def test_overwriting_in_place_keeps_the_file_and_replaces_all_of_its_content(tmp_path, content):
    path = tmp_path / "file"
    path.write_bytes(b"old content")
    inode = path.stat().st_ino
    overwrite_in_place(path, content)
    assert (path.read_bytes(), path.stat().st_ino) == (content, inode)


def test_overwriting_in_place_makes_no_new_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        overwrite_in_place(tmp_path / "absent", b"content")
