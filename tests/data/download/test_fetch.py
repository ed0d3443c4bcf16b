"""Requests and output of a download, killed downloads, and several at once."""

from __future__ import annotations

import gzip
import hashlib
import itertools
import os
import pty
import signal
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from cnnbench.data.download import mirrors
from cnnbench.file_lock import exclusive_lock
from fetching import PACKED, PART, PLAIN, bring, failed, mirror, names, published, started, tarred, wait_until
from webserver import good, slow


def test_nothing_is_requested_if_all_files_exist(tmp_path, server):
    (tmp_path / "digits").write_bytes(b"other content")
    bring(tmp_path, published(mirror(server, "a", good(PACKED))))
    assert server.requests == []


def test_only_absent_files_are_requested(tmp_path, server):
    remotes = [
        published(mirror(server, "a", good(PACKED), f"{name}.gz"), name=f"{name}.gz", members=(name,))
        for name in ("one", "two", "three")
    ]
    (tmp_path / "two").write_bytes(b"there")
    bring(tmp_path, *remotes)
    assert [request.path for request in server.requests] == ["/a/one.gz", "/a/three.gz"]
    assert (tmp_path / "two").read_bytes() == b"there"


def test_a_published_md5_sum_is_verified(tmp_path, server):
    remote = published(mirror(server, "a", [good(PACKED[::-1]), good(PACKED)]))
    bring(tmp_path, replace(remote, checksum=f"md5:{hashlib.md5(PACKED).hexdigest()}"))
    assert len(server.requests) == 2
    assert (tmp_path / "digits").read_bytes() == PLAIN


def test_a_file_gets_its_name_after_it_is_complete(tmp_path, server, monkeypatch):
    seen = []
    rename = os.replace

    def noted(one, other):
        seen.append((names(tmp_path), Path(one).read_bytes()))
        rename(one, other)

    monkeypatch.setattr(os, "replace", noted)
    bring(tmp_path, published(mirror(server, "a", good(PACKED))))
    before, content = seen[-1]
    assert "digits" not in before
    assert content == PLAIN


def test_without_a_terminal_a_line_names_the_file_and_its_size(tmp_path, server, capfd):
    bring(tmp_path, published(mirror(server, "a", good(PACKED))))
    assert capfd.readouterr() == ("", "made: downloading digits.gz, 0.2 MB\n")


def test_without_a_terminal_a_long_download_prints_its_progress(tmp_path, server, monkeypatch, capfd):
    minutes = itertools.count(step=11)
    monkeypatch.setattr(mirrors, "time", SimpleNamespace(monotonic=lambda: next(minutes), sleep=None))
    monkeypatch.setattr(mirrors, "STALLED", 0)
    bring(tmp_path, published(mirror(server, "a", slow(PACKED, 400_000))))
    lines = capfd.readouterr().err.splitlines()
    shares = [int(line.removeprefix("made: digits.gz ").removesuffix("%")) for line in lines[1:]]
    assert lines[0].startswith("made: downloading digits.gz")
    assert shares == sorted(shares)
    assert shares[-1] == 100


def test_a_terminal_shows_a_progress_bar(tmp_path, server):
    ours, theirs = pty.openpty()
    remote = published(mirror(server, "a", slow(PACKED, 300_000)))
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    process = started(tmp_path, remote, stderr=theirs, env=environment)
    os.close(theirs)
    shown = b""
    while True:
        try:
            shown += os.read(ours, 4096)
        except OSError:
            break
    os.close(ours)
    assert process.wait(20) == 0
    text = shown.decode(errors="replace")
    for part in ("made: digits.gz", "━", "/s"):
        assert part in text


def test_the_next_process_continues_a_killed_download(tmp_path, server):
    remote = published(mirror(server, "a", slow(PACKED, 200_000)))
    process = started(tmp_path, remote)
    wait_until(lambda: (tmp_path / PART).is_file() and (tmp_path / PART).stat().st_size > 20_000)
    process.kill()
    process.communicate(timeout=20)
    have = (tmp_path / PART).stat().st_size
    assert names(tmp_path) <= {".made.lock", PART}
    assert (tmp_path / PART).read_bytes() == PACKED[:have]
    mirror(server, "a", good(PACKED))
    second = started(tmp_path, remote)
    _, errors = second.communicate(timeout=20)
    assert second.returncode == 0, errors
    assert "waiting" not in errors
    assert server.requests[-1].range == f"bytes={have}-"
    assert server.requests[-1].sent == len(PACKED) - have
    assert (tmp_path / "digits").read_bytes() == PLAIN
    assert names(tmp_path) == {"digits"}


@pytest.mark.parametrize("moment", ["unpacking", "renaming", "tidying"])
def test_the_next_process_completes_what_a_killed_one_began(tmp_path, server, moment):
    content = tarred({"set/a": PLAIN, "set/b": PLAIN[::-1]})
    remote = published(
        mirror(server, "a", good(content), "set.tar.gz"), content=content, name="set.tar.gz", members=("set/a", "set/b")
    )
    function = {"unpacking": "shutil.copyfileobj", "renaming": "os.replace", "tidying": "Path.unlink"}[moment]
    second_call = moment != "tidying"
    before = f"""
import shutil
original, calls = {function}, []
def dying(*args, **keys):
    if calls or not {second_call}:
        os.kill(os.getpid(), 9)
    calls.append(1)
    return original(*args, **keys)
{function} = dying
"""
    process = started(tmp_path, remote, before=before)
    process.communicate(timeout=20)
    assert process.returncode == -signal.SIGKILL
    bring(tmp_path, remote)
    assert len(server.requests) == 1
    assert (tmp_path / "set" / "a").read_bytes() == PLAIN
    assert (tmp_path / "set" / "b").read_bytes() == PLAIN[::-1]
    assert not list(tmp_path.rglob("*.unpacking"))


@pytest.mark.slow
def test_four_processes_at_once_download_each_file_once(tmp_path, server):
    contents = {name: gzip.compress(PLAIN[n:], mtime=0) for n, name in enumerate(("one", "two", "three", "four"))}
    remotes = [
        published(
            mirror(server, "a", slow(content, 300_000), f"{name}.gz"),
            content=content,
            name=f"{name}.gz",
            members=(name,),
        )
        for name, content in contents.items()
    ]
    gate = tmp_path / "gate"
    before = f"print('here', flush=True)\nwhile not Path({str(gate)!r}).exists(): time.sleep(0.01)"
    folder = tmp_path / "data"
    processes = [started(folder, *remotes, before=before) for _ in range(4)]
    for process in processes:
        assert process.stdout.readline() == "here\n"
    gate.touch()
    errors = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, errors
    assert sorted(request.path for request in server.requests) == sorted(f"/a/{name}.gz" for name in contents)
    assert sum("another process is fetching it; waiting" in text for text in errors) == 3
    for n, name in enumerate(contents):
        assert (folder / name).read_bytes() == PLAIN[n:]
    assert names(folder) == set(contents)


def test_a_waiting_process_prints_a_line_and_uses_the_files_of_the_other(tmp_path, dead, capfd):
    waiting = threading.Thread(target=bring, args=(tmp_path, published(dead)))
    with exclusive_lock(tmp_path / ".made.lock"):
        waiting.start()
        waiting.join(1.3)
        assert waiting.is_alive()
        assert capfd.readouterr() == ("", "made: another process is fetching it; waiting\n")
        (tmp_path / "digits").write_bytes(PLAIN)
    waiting.join(10)
    assert not waiting.is_alive()
    assert (tmp_path / "digits").read_bytes() == PLAIN


def test_the_lock_is_released_after_a_failure(tmp_path, dead):
    failed(tmp_path, published(dead))
    with exclusive_lock(tmp_path / ".made.lock"):
        pass
