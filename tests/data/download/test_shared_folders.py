"""Downloads to a folder in which others have planted something, or which two users share."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from cnnbench.data.download.fetch import fetch
from cnnbench.data.sets.mnist import MNIST
from cnnbench.errors import DataError
from cnnbench.file_lock import exclusive_lock
from datafiles import ready, write_idx
from fetching import (  # noqa: F401
    PACKED,
    PART,
    PIECE,
    PLAIN,
    bring,
    dead,
    failed,
    impatient,
    mirror,
    names,
    published,
    server,
    tarred,
)
from owners import no_locks
from users import ALICE, AS_ROOT, BOB, FOREIGN, GROUP, acting_as, plant, public  # noqa: F401
from webserver import good

pytestmark = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="this system has no users")


@pytest.fixture
def outside(tmp_path) -> Path:
    """A folder outside the data with a file of the user's, whose content is a part of the published file."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_bytes(PIECE)
    return tmp_path / "outside"


@pytest.mark.parametrize("kind", ["link", "link to nothing", "FIFO"])
@pytest.mark.parametrize("name", [PART, ".made.lock", ".digits.gz.unpacking", "digits", ".digits.sha256"])
def test_what_is_planted_in_place_of_a_file_is_not_followed(tmp_path, server, outside, name, kind):
    target = outside / ("file" if kind == "link" else "absent")
    plant(tmp_path / "data" / name, kind.split()[0], target)
    remote = published(mirror(server, "a", good(PACKED)))
    if name == "digits" and kind == "link":
        bring(tmp_path / "data", remote)  # a user's link to a file that is there already: nothing is written
    else:
        bring(tmp_path / "data", remote)
        assert (tmp_path / "data" / "digits").read_bytes() == PLAIN
    assert [path.read_bytes() for path in outside.iterdir()] == [PIECE]


@pytest.mark.parametrize("name", [".set.tar.gz.unpacking", "set"])
def test_what_is_planted_in_place_of_a_folder_is_not_followed(tmp_path, server, outside, name):
    content = tarred({"set/a": PLAIN, "set/file": b"evil"})
    address = mirror(server, "a", good(content), "set.tar.gz")
    remote = published(address, content=content, name="set.tar.gz", members=("set/a", "set/file"))
    (outside / "set").mkdir()
    (outside / "set" / "file").write_bytes(b"a user's")
    plant(tmp_path / "data" / name, "link", outside / "set" if name == "set" else outside)
    if name == "set":
        with pytest.raises(DataError) as caught:
            bring(tmp_path / "data", remote)
        assert f"{tmp_path / 'data' / 'set'} is a link to another folder; put a folder in its place" in str(
            caught.value
        )
        assert "\n" not in str(caught.value)
    else:
        bring(tmp_path / "data", remote)
    assert names(outside) == {"file", "set"}
    assert names(outside / "set") == {"file"}
    assert (outside / "set" / "file").read_bytes() == b"a user's"


@pytest.mark.parametrize("part", ["MNIST", "MNIST/raw"])
def test_a_linked_folder_of_a_set_is_used_if_it_is_complete_and_else_refused(tmp_path, part):
    write_idx(tmp_path / "real")
    (tmp_path / "root" / part).parent.mkdir(parents=True)
    (tmp_path / "root" / part).symlink_to(tmp_path / "real" / part)
    assert len(ready(MNIST(root=tmp_path / "root")).images["test"]) == 20
    next((tmp_path / "real").rglob("t10k-labels*")).unlink()
    before = sorted((tmp_path / "real").rglob("*"))
    with pytest.raises(DataError, match="is a link to another folder; put a folder in its place, or name another root"):
        ready(MNIST(root=tmp_path / "root"))
    assert sorted((tmp_path / "real").rglob("*")) == before


@AS_ROOT
@pytest.mark.parametrize("how", FOREIGN)
def test_the_beginning_of_a_download_that_others_may_change_is_not_continued(tmp_path, server, how):
    (tmp_path / PART).write_bytes(PIECE)
    FOREIGN[how](tmp_path / PART)
    bring(tmp_path, published(mirror(server, "a", good(PACKED))))
    assert server.requests[-1].range is None
    assert (tmp_path / "digits").read_bytes() == PLAIN


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_without_locks_a_set_is_fetched_all_the_same(tmp_path, server, monkeypatch, code):
    monkeypatch.setattr("fcntl.flock", lambda *_: no_locks(code=code))
    bring(tmp_path, published(mirror(server, "a", good(PACKED))))
    assert (tmp_path / "digits").read_bytes() == PLAIN


# ---- two users of one folder -----------------------------------------------------------------------------------------


def fetch_as(user: int, folder: Path, remote, umask: int = 0o022) -> str:
    """Fetches a set as a user; returns the error's message, or an empty string."""
    with acting_as(user, umask):
        try:
            fetch("made", (remote,), folder, {})
        except DataError as error:
            return str(error)
        assert (folder / "digits").read_bytes() == PLAIN
        return ""


def shared(public: Path, mode: int) -> Path:
    """A folder that both users may open, of the group of both."""
    folder = public / "shared"
    folder.mkdir()
    os.chown(folder, 0, GROUP)
    folder.chmod(mode)
    return folder


@AS_ROOT
@pytest.mark.parametrize("umask", [0o002, 0o022])
@pytest.mark.parametrize("mode", [0o2775, 0o1777, 0o777])
def test_what_one_user_has_fetched_the_other_uses(public, server, mode, umask):
    folder = shared(public, mode)
    remote = published(mirror(server, "a", good(PACKED)))
    assert fetch_as(ALICE, folder, remote, umask) == fetch_as(BOB, folder, remote, umask) == ""
    assert len(server.requests) == 1


def one_line(text: str, folder: Path) -> None:
    assert "\n" not in text
    for words in (f"{folder} belongs to the user {ALICE}, mode ", "data.root=... or CNNBENCH_DATA"):
        assert words in text


@AS_ROOT
@pytest.mark.parametrize("mode", [0o2775, 0o1777])
def test_a_folder_that_one_user_closes_with_a_umask_is_named_to_the_other(public, server, mode):
    folder = shared(public, mode) / "MNIST" / "raw"
    remote = published(mirror(server, "a", good(PACKED)))
    assert fetch_as(ALICE, folder, remote, umask=0o077) == ""
    one_line(fetch_as(BOB, folder, remote), folder.parent)


@AS_ROOT
def test_a_file_that_one_user_closes_is_named_to_the_other(public, monkeypatch):
    write_idx(public / "set")
    (file,) = public.rglob("t10k-labels*")
    os.chown(file, ALICE, ALICE)
    file.chmod(0o600)
    monkeypatch.setenv("CNNBENCH_DATA", str(public))
    with acting_as(BOB), pytest.raises(DataError) as caught:
        ready(MNIST(root=public / "set"))
    assert f"{file}: cannot be read (Permission denied)" in str(caught.value)
    one_line(str(caught.value), file)


@AS_ROOT
@pytest.mark.parametrize("umask", [0o022, 0o077])
@pytest.mark.parametrize(("mode", "works"), [(0o2775, True), (0o777, True), (0o1777, False)])
def test_a_download_that_one_user_has_left_is_begun_again_by_the_other_or_named(public, server, mode, works, umask):
    folder = shared(public, mode)
    with acting_as(ALICE, umask):
        (folder / PART).write_bytes(PIECE)
    text = fetch_as(BOB, folder, published(mirror(server, "a", good(PACKED))))
    if works:
        assert text == ""
    else:
        one_line(text, folder / PART)


@AS_ROOT
@pytest.mark.parametrize("lock_mode", [0o644, 0o600])
@pytest.mark.parametrize("mode", [0o2775, 0o1777])
def test_a_lock_that_one_user_has_left_does_not_stop_the_other(public, server, mode, lock_mode):
    folder = shared(public, mode)
    with acting_as(ALICE):
        (folder / ".made.lock").touch()
        (folder / ".made.lock").chmod(lock_mode)
    assert fetch_as(BOB, folder, published(mirror(server, "a", good(PACKED)))) == ""


@AS_ROOT
@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_one_user_waits_for_the_lock_of_the_other(public, umask):
    waited, lock, held = [], shared(public, 0o1777) / ".lock", ExitStack()
    with acting_as(ALICE, umask):
        held.enter_context(exclusive_lock(lock))

    def release() -> None:
        waited.append(lock.stat().st_uid)
        held.close()

    with acting_as(BOB), exclusive_lock(lock, release):
        pass
    assert waited == [ALICE]


@AS_ROOT
def test_a_folder_that_a_user_may_not_write_to_is_named_before_anything_is_requested(public, server):
    folder = shared(public, 0o755)
    os.chown(folder, ALICE, ALICE)
    one_line(fetch_as(BOB, folder, published(mirror(server, "a", good(PACKED)))), folder)
    assert server.requests == []


@AS_ROOT
def test_a_process_of_another_user_is_alive():
    from cnnbench.runs.liveness import _exists

    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        with acting_as(BOB):
            assert _exists(process.pid)
        process.communicate(b"\n")
