"""Full disks, read-only disks and files that cannot be written."""

from __future__ import annotations

import errno
import gzip
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from cnnbench.data.download import http as transfer
from cnnbench.data.download import mirrors
from cnnbench.data.sets.mnist import MNIST
from cnnbench.errors import DataError
from datafiles import refused
from fetching import (  # noqa: F401
    PACKED,
    PART,
    PIECE,
    PLAIN,
    bring,
    code_of,
    dead,
    digits,
    failed,
    impatient,
    mirror,
    piece,
    published,
    server,
    started,
)
from webserver import good, slow


def disk_with(free: int):
    return lambda folder: SimpleNamespace(total=10**12, used=10**12 - free, free=free)


def test_nothing_is_requested_if_the_disk_has_too_little_space(tmp_path, server, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", disk_with(free=len(PACKED) - 1))
    text = failed(tmp_path, published(mirror(server, "a", good(PACKED))))
    assert text.startswith(
        f"{tmp_path}: no room (digits.gz needs 0.2 MB, 0 MB are free); free some, or name another folder"
    )
    assert "\n" not in text
    assert server.requests == []


def test_space_for_the_missing_bytes_is_enough(tmp_path, server, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", disk_with(free=len(PACKED) - len(PIECE)))
    bring(piece(tmp_path), published(mirror(server, "a", good(PACKED))))
    assert (tmp_path / "digits").read_bytes() == PLAIN


DEV_FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")


@DEV_FULL
@pytest.mark.parametrize("rate", [None, 20_000], ids=["in large pieces", "in small pieces"])
def test_a_disk_that_fills_up_during_a_download_is_reported_and_no_other_mirror_is_tried(
    tmp_path, server, rate, monkeypatch
):
    monkeypatch.setattr(mirrors, "STALLED", 0)
    monkeypatch.setattr(transfer, "open_unlinked", lambda path, flags: os.open("/dev/full", flags))
    first = mirror(server, "a", slow(PACKED, rate) if rate else good(PACKED))
    text = failed(tmp_path, published(first, mirror(server, "b", good(PACKED))))
    assert text.startswith(f"{tmp_path}: no room (No space left on device, ")
    assert [request.path for request in server.requests] == ["/a/digits.gz"]


@DEV_FULL
def test_a_full_disk_is_reported_for_a_small_file_too(tmp_path, server, monkeypatch):
    monkeypatch.setattr(transfer, "open_unlinked", lambda path, flags: os.open("/dev/full", flags))
    content = gzip.compress(b"few bytes")
    assert "no room" in failed(tmp_path, published(mirror(server, "a", good(content)), content=content))


def test_a_disk_that_fills_up_during_unpacking_leaves_no_partial_file(tmp_path, server, monkeypatch):
    def full(source, target, length):
        target.write(source.read(10))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    remote = published(mirror(server, "a", good(PACKED)))
    with monkeypatch.context() as patched:
        patched.setattr("shutil.copyfileobj", full)
        assert "no room (No space left on device" in failed(tmp_path, remote)
    bring(tmp_path, remote)
    assert len(server.requests) == 1
    assert (tmp_path / "digits").read_bytes() == PLAIN


@pytest.mark.parametrize("rate", [10**9, 40_000], ids=["in large pieces", "in small pieces"])
def test_a_limit_to_file_sizes_is_reported_and_the_download_continues_later(tmp_path, server, rate):
    remote = published(mirror(server, "a", slow(PACKED, rate)), mirror(server, "b", good(PACKED)))
    limited = started(
        tmp_path, remote, before="import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))"
    )
    _, errors = limited.communicate(timeout=30)
    assert limited.returncode == 2, errors
    assert f"{tmp_path}: no room (File too large" in errors
    assert "Traceback" not in errors
    have, asked = (tmp_path / PART).stat().st_size, len(server.requests)
    assert 0 < have <= 20_000
    assert asked == 1
    bring(tmp_path, remote)
    assert server.requests[asked].range == f"bytes={have}-"
    assert (tmp_path / "digits").read_bytes() == PLAIN


def mounted(script: str, folder: Path, code: str) -> subprocess.CompletedProcess:
    """Runs a program in a new mount namespace after a shell script that mounts `$0`; skips the test if that is not permitted."""
    trial = subprocess.run(["unshare", "-rm", "sh", "-c", "mount -t tmpfs tmpfs /mnt"], capture_output=True, text=True)
    if trial.returncode:
        pytest.skip(f"nothing can be mounted here: {trial.stderr.strip()}")
    command = ["unshare", "-rm", "sh", "-c", f'set -e; {script}; exec "$@"', str(folder), sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


LISTED = "print(sorted(path.name for path in folder.iterdir() if path.suffix not in ('.lock', '.sha256')))"


def test_a_disk_without_space_for_the_archive_is_one_clear_line(tmp_path, server):
    remote = published(mirror(server, "a", good(PACKED)))
    done = mounted('mount -t tmpfs -o size=64k tmpfs "$0"', tmp_path, code_of(tmp_path, remote, after=LISTED))
    assert (done.returncode, done.stdout) == (2, "[]\n")
    assert done.stderr.startswith(f"{tmp_path}: no room (digits.gz needs 0.2 MB, 0 MB are free)")
    assert done.stderr.count("\n") == 1


def test_a_disk_without_space_for_the_members_is_reported_and_fetching_continues_later(tmp_path, server):
    content = gzip.compress(bytes(1_000_000))
    remote = published(mirror(server, "a", good(content)), content=content)
    again = f"""
{LISTED}
import subprocess
subprocess.run(["mount", "-o", "remount,size=4m", str(folder)], check=True)
fetch("made", remotes, folder, {{}})
{LISTED}
print((folder / "digits").read_bytes() == bytes(1_000_000))
"""
    done = mounted('mount -t tmpfs -o size=256k tmpfs "$0"', tmp_path, code_of(tmp_path, remote, after=again))
    assert done.stdout == f"['{PART}']\n['digits']\nTrue\n", done.stderr
    assert f"{tmp_path}: no room (No space left on device, " in done.stderr
    assert len(server.requests) == 1


READ_ONLY = 'mount --bind "$0" "$0"; mount -o remount,bind,ro "$0"'


def test_the_error_for_a_read_only_folder_says_what_to_do(tmp_path, server):
    remote = published(mirror(server, "a", good(PACKED)))
    done = mounted(READ_ONLY, tmp_path, code_of(tmp_path, remote))
    assert done.returncode == 2
    assert f"data=made: not in {tmp_path}, and cannot be downloaded" in done.stderr
    assert "Read-only file system" in done.stderr
    assert "Traceback" not in done.stderr
    assert server.requests == []


def test_a_part_file_that_cannot_be_written_is_not_a_mirrors_fault(tmp_path, server):
    (tmp_path / PART).mkdir()
    with pytest.raises(DataError) as caught:
        bring(tmp_path, published(mirror(server, "a", good(PACKED)), mirror(server, "b", good(PACKED))))
    assert "127.0.0.1" not in str(caught.value).splitlines()[0]
    assert len(server.requests) <= 1


def test_a_complete_set_on_a_read_only_disk_is_used(tmp_path, server):
    (tmp_path / "digits").write_bytes(PLAIN)
    done = mounted(READ_ONLY, tmp_path, code_of(tmp_path, published(mirror(server, "a", good(PACKED)))))
    assert (done.returncode, done.stderr) == (0, "")


def test_the_error_for_a_root_that_is_a_file_says_what_to_do(tmp_path, dead):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"Not a directory.*data=mnist5k needs no download"):
        bring(tmp_path / "file" / "data", published(dead))


def test_a_root_whose_name_is_too_long_is_refused(tmp_path):
    assert "File name too long" in refused(MNIST(root=tmp_path / ("x" * 300)))
