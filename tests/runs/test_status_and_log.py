"""The heartbeat in the status of a run, and what record_run writes when a run ends."""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
import time
import warnings
from contextlib import nullcontext

import pytest

from cnnbench.config.compose import compose
from cnnbench.distributed.ranks import Ranks
from cnnbench.errors import Diverged, Interrupted, ReportedByOtherRank, RunFailed
from cnnbench.runs.run_dir import RunDir
from cnnbench.runs.status_and_log import Heartbeat, log, log_to_file, record_run
from cnnbench.training.callbacks.curves import Curves
from cnnbench.training.classifier import Classifier
from cnnbench.training.run import run
from owners import OTHER_HOST, make_older, record
from processes import only_run_in, wait_until


@pytest.fixture(autouse=True)
def short_interval(monkeypatch):
    monkeypatch.setattr("cnnbench.runs.status_and_log.HEARTBEAT_S", 0.02)


@pytest.fixture
def directory(tmp_path) -> RunDir:
    claimed = RunDir.create(tmp_path, "job")
    claimed.write_status("running")
    return claimed


@pytest.fixture
def heartbeat(directory):
    heartbeat = Heartbeat(directory)
    heartbeat.start()
    yield heartbeat
    heartbeat.stop()


def writes_again(directory: RunDir) -> bool:
    before = directory.status().heartbeat
    return wait_until(lambda: directory.status().heartbeat > before, "a heartbeat is written", 10)


def test_the_heartbeat_writes_the_latest_progress(directory, heartbeat):
    assert writes_again(directory)
    heartbeat.progress = {"epoch": 3}
    wait_until(lambda: directory.status().epoch == 3, "the progress is written", 10)
    assert directory.status().state == "running"


@pytest.mark.parametrize("content", ["{", None])
def test_a_status_that_is_damaged_or_deleted_is_written_again(content, directory, heartbeat):
    if content is None:
        directory.status_file.unlink()
    else:
        directory.status_file.write_text(content)
    wait_until(lambda: directory.status().state == "running", "the status is written again", 10)


def test_nothing_is_written_after_the_stop(directory, heartbeat):
    assert writes_again(directory)
    heartbeat.stop()
    directory.write_status("done")
    time.sleep(0.1)
    assert directory.status().state == "done"


def test_the_failure_of_another_rank_is_not_overwritten(directory, heartbeat):
    directory.write_status("failed", "rank 1: out of luck")
    time.sleep(0.1)
    assert directory.status().state == "failed"


def test_a_heartbeat_on_a_full_disk_is_skipped(directory, heartbeat, monkeypatch):
    def refuse(*_, **__):
        refused.append(1)
        raise OSError(28, "No space left on device")

    refused: list[int] = []
    with monkeypatch.context() as patched:
        patched.setattr("cnnbench.runs.run_dir.write_atomic", refuse)
        make_older(directory.status_file, 1000)
        wait_until(lambda: refused, "writing fails", 10)
        wait_until(lambda: time.time() - directory.status_file.stat().st_mtime < 100, "its time is renewed", 10)
    assert writes_again(directory)


def test_a_run_that_was_taken_for_dead_leaves_the_status_of_its_successor(directory, request):
    """As after a laptop's sleep, on a file system whose locks another host does not see."""
    taken = json.dumps(record(**OTHER_HOST, state="running"))
    directory.status_file.write_text(taken)
    request.getfixturevalue("heartbeat")
    time.sleep(0.1)
    assert directory.status_file.read_text() == taken


@pytest.mark.slow
@pytest.mark.parametrize("step", ["training_step", "validation_step", "test_step"])
def test_heartbeats_are_written_during_a_single_long_step(step, tiny, tmp_path, monkeypatch):
    def long(self, batch, number):
        if not seen:
            seen.append(writes_again(RunDir(only_run_in(tmp_path))))
        return whole(self, batch, number)

    seen, whole = [], getattr(Classifier, step)
    monkeypatch.setattr(Classifier, step, long)
    monkeypatch.setattr(Curves, "draw", lambda self: None)
    outcome = run(compose([*tiny, f"runs_dir={tmp_path / 'runs'}"]))
    assert seen == [True]
    assert outcome.directory.status().state == "done"


# ---- how a run ended ---------------------------------------------------------------------------------------------------------


def end_with(error: BaseException | None, directory: RunDir) -> None:
    assert directory.status().state == "running"
    if error:
        raise error


def fail_after_rank_1(directory: RunDir) -> None:
    directory.write_status("failed", "rank 1: ValueError: no luck")
    raise RuntimeError("Connection closed by peer")


@pytest.mark.parametrize(
    ("error", "raised", "state", "reason"),
    [
        (None, None, "done", None),
        (Interrupted("stopped by SIGTERM", 15), Interrupted, "interrupted", "stopped by SIGTERM"),
        (KeyboardInterrupt(), Interrupted, "interrupted", "stopped by SIGINT"),
        (SystemExit(7), RunFailed, "failed", "something in it called sys.exit(7)"),
        (Diverged("the loss is nan"), Diverged, "diverged", "the loss is nan"),
        (RunFailed("no luck"), RunFailed, "failed", "no luck"),
        (ValueError("two\nlines"), RunFailed, "failed", "ValueError: two lines"),
        (MemoryError("9 GB"), RunFailed, "failed", "out of memory (MemoryError: 9 GB)"),
        (OSError(28, "No space left"), RunFailed, "failed", "no room on the disk (OSError: [Errno 28] No space left)"),
    ],
)
def test_the_status_has_the_state_and_the_reason_of_the_end(directory, error, raised, state, reason):
    with nullcontext() if raised is None else pytest.raises(raised, match=r"."), record_run(directory, Ranks()):
        end_with(error, directory)
    assert (directory.status().state, directory.status().reason) == (state, reason)
    assert bool(directory.status().peak_mb) == (state == "done")


@pytest.mark.parametrize("kind", [ValueError, SystemExit])
def test_a_signal_that_a_library_turns_into_another_exception_interrupts_the_run(kind, directory):
    def work() -> None:
        with record_run(directory, Ranks()):
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            except KeyboardInterrupt as error:
                raise kind("in a library") from error

    with pytest.raises(Interrupted, match=r"^stopped by SIGTERM"):
        work()
    assert (directory.status().state, directory.status().reason) == ("interrupted", "stopped by SIGTERM")


def test_the_error_of_a_failed_run_names_the_log_which_has_the_traceback(directory):
    with pytest.raises(RunFailed) as raised, record_run(directory, Ranks()):
        raise ValueError("no luck")
    assert str(raised.value) == (f"{directory.path}: failed, ValueError: no luck; the traceback is in {directory.log}")
    assert "Traceback (most recent call last)" in directory.log.read_text()


@pytest.mark.parametrize(
    ("removed", "is_said"), [("checkpoints/.last.ckpt.1.2.tmp", True), ("status.json", True), ("../other.json", False)]
)
def test_a_run_that_finds_no_place_for_its_files_says_that_its_directory_is_removed(directory, removed, is_said):
    """The folder itself may still be there, as the last that is removed."""
    absent = os.path.normpath(directory.path / removed)
    with pytest.raises(RunFailed) as raised, record_run(directory, Ranks()):
        end_with(FileNotFoundError(2, "No such file or directory", absent), directory)
    assert (
        "its directory has been removed while it ran; the same command starts it anew" in str(raised.value)
    ) == is_said


def test_another_rank_writes_its_own_log_and_only_its_failure_into_the_status(directory):
    with record_run(directory, Ranks(1, 2)):
        pass
    assert directory.status().state == "running"
    failed = pytest.raises(
        RunFailed, match=r"rank 1: failed, ValueError: no luck; the traceback is in .*log_rank1\.txt$"
    )
    with failed, record_run(directory, Ranks(1, 2)):
        raise ValueError("no luck")
    assert (directory.status().state, directory.status().reason) == ("failed", "rank 1: ValueError: no luck")
    with pytest.raises(ReportedByOtherRank), record_run(directory, Ranks(0, 2)):
        fail_after_rank_1(directory)


def test_messages_and_warnings_go_to_the_log_and_handlers_are_restored(tmp_path):
    lightning = logging.getLogger("pytorch_lightning")
    before = (logging.getLogger().handlers[:], lightning.handlers[:], lightning.level, threading.excepthook)
    with log_to_file(tmp_path / "log.txt"):
        log.info("a message")
        lightning.warning("from Lightning")
        warnings.warn("beware", stacklevel=1)
    text = (tmp_path / "log.txt").read_text()
    assert all(words in text for words in ("INFO a message", "WARNING from Lightning", "UserWarning: beware"))
    assert (logging.getLogger().handlers, lightning.handlers, lightning.level, threading.excepthook) == before


def test_a_log_that_cannot_be_opened_is_refused_in_one_line(tmp_path):
    refused = pytest.raises(RunFailed, match=r"log\.txt: cannot be written \(No such file or directory\)$")
    with refused, log_to_file(tmp_path / "absent" / "log.txt"):
        pass


def test_a_message_is_one_printable_line_of_the_log_and_its_traceback_is_printable(tmp_path):
    with log_to_file(tmp_path / "log.txt"):
        log.info("left out: %s", "a\n2026-01-01 INFO b\x1b[8m\u202e.png")
        warnings.warn("c\x9b", stacklevel=1)
        try:
            raise ValueError("d\x1b]0;x\x07")
        except ValueError:
            log.exception("failed")
    text = (tmp_path / "log.txt").read_text()
    assert r"INFO left out: a\n2026-01-01 INFO b\x1b[8m\u202e.png" in text.splitlines()[0]
    assert r"UserWarning: c\x9b" in text
    assert text.splitlines()[-1] == r"ValueError: d\x1b]0;x\x07"
    assert text.replace("\n", "").isprintable()
