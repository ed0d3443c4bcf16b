"""Locks on files: held by one process, seen by others without a trace, released when the process ends."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time

import pytest

from cnnbench import file_lock
from cnnbench.file_lock import Locked, exclusive_lock, is_locked
from owners import no_locks

HOLD = """
import sys
from pathlib import Path
from cnnbench.file_lock import exclusive_lock
with exclusive_lock(Path(sys.argv[1])):
    print("locked", flush=True)
    input()
"""
NO_LOCKS = [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP]


@pytest.fixture
def lock(tmp_path):
    return tmp_path / ".lock"


@pytest.fixture
def holder(lock):
    """Another process that holds the lock until it is killed."""
    command = [sys.executable, "-c", HOLD, str(lock)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "locked\n"
        yield process
        process.kill()


def test_a_lock_of_another_process_is_refused_and_seen_until_that_is_killed(lock, holder):
    assert is_locked(lock)
    with pytest.raises(Locked), exclusive_lock(lock):
        pass
    assert lock.exists()
    holder.kill()
    holder.wait()
    assert not is_locked(lock)
    with exclusive_lock(lock):
        assert is_locked(lock)
    assert not lock.exists()


def test_looking_makes_and_removes_no_file(lock):
    assert not is_locked(lock)
    assert not lock.exists()
    lock.write_text("a user's")
    lock.chmod(0o444)
    assert not is_locked(lock)
    assert lock.read_text() == "a user's"


def test_looking_refuses_nobody_the_lock(lock):
    """The one who looks holds the lock for a moment."""

    def look():
        while not done.is_set():
            is_locked(lock)

    done = threading.Event()
    lookers = [threading.Thread(target=look) for _ in range(3)]
    for thread in lookers:
        thread.start()
    try:
        for _ in range(50):
            with exclusive_lock(lock):
                pass
    finally:
        done.set()
        for thread in lookers:
            thread.join()


def test_who_waits_while_the_file_is_removed_locks_the_next_one(lock, monkeypatch):
    """Of two processes that waited for the removed file both would hold a lock otherwise."""
    opened, removed = os.open, []

    def remove_once(path, *more):
        file = opened(path, *more)
        if not removed:
            removed.append(os.unlink(path))
        return file

    monkeypatch.setattr(os, "open", remove_once)
    with exclusive_lock(lock):
        assert is_locked(lock)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_forked_child_holds_no_lock(lock):
    """As a worker that loads data does: it outlives a killed run for some seconds."""
    with exclusive_lock(lock):
        child = os.fork()
        if not child:
            time.sleep(30)
            os._exit(0)
    try:
        with exclusive_lock(lock):
            pass
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


@pytest.mark.parametrize("code", NO_LOCKS)
def test_on_a_file_system_without_locks_none_is_held(lock, monkeypatch, code):
    monkeypatch.setattr("fcntl.flock", lambda *_: no_locks(code=code))
    with exclusive_lock(lock), exclusive_lock(lock):
        assert not is_locked(lock)


def test_on_a_system_without_locks_none_is_held(lock, monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with exclusive_lock(lock), exclusive_lock(lock):
        assert not is_locked(lock)


def test_where_no_file_can_be_made_none_is_held(lock, monkeypatch):
    with exclusive_lock(lock / "below a file that is not there"):
        pass
    assert file_lock._open == set()


def test_a_lock_is_released_after_an_error(lock):
    with pytest.raises(ZeroDivisionError), exclusive_lock(lock):
        raise ZeroDivisionError
    assert not lock.exists()
    with exclusive_lock(lock):
        pass
