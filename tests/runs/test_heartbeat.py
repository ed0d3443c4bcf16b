"""A run's status says every few seconds that its process lives, whatever that is at."""

from __future__ import annotations

import time

import pytest

from cnnbench.config.compose import compose
from cnnbench.runs.run_dir import RunDir
from cnnbench.runs.status_and_log import Pulse
from cnnbench.training.callbacks.curves import Curves
from cnnbench.training.classifier import Classifier
from cnnbench.training.run import run
from processes import run_of, until


@pytest.fixture(autouse=True)
def often(monkeypatch):
    monkeypatch.setattr("cnnbench.runs.status_and_log.HEARTBEAT_S", 0.02)


@pytest.fixture
def directory(tmp_path) -> RunDir:
    claimed = RunDir.claim(tmp_path, "job")
    claimed.write_status("running")
    return claimed


@pytest.fixture
def pulse(directory):
    pulse = Pulse(directory)
    pulse.start()
    yield pulse
    pulse.stop()


def beats_again(directory: RunDir) -> bool:
    before = directory.status()["heartbeat"]
    return until(lambda: directory.status()["heartbeat"] > before, "it beats", 10)


def test_it_beats_with_what_it_was_told_last(directory, pulse):
    assert beats_again(directory)
    pulse.progress = {"epoch": 3}
    until(lambda: directory.status().get("epoch") == 3, "it tells", 10)
    assert directory.status()["state"] == "running"


def test_it_says_nothing_more_once_it_is_stopped(directory, pulse):
    assert beats_again(directory)
    pulse.stop()
    directory.write_status("done")
    time.sleep(0.1)
    assert directory.status()["state"] == "done"


def test_that_another_rank_has_failed_is_not_written_over(directory, pulse):
    directory.write_status("failed", "rank 1: out of luck")
    time.sleep(0.1)
    assert directory.status()["state"] == "failed"


def test_a_beat_for_which_there_is_no_room_is_left_out(directory, pulse, monkeypatch):
    def refuse(*_, **__):
        refused.append(1)
        raise OSError(28, "No space left on device")

    refused: list[int] = []
    with monkeypatch.context() as patched:
        patched.setattr("cnnbench.runs.run_dir.write_atomic", refuse)
        until(lambda: refused, "it is refused", 10)
    assert beats_again(directory)


@pytest.mark.slow
@pytest.mark.parametrize("step", ["training_step", "validation_step", "test_step"])
def test_a_run_shows_that_it_lives_within_a_single_long_step(step, tiny, tmp_path, monkeypatch):
    def long(self, batch, number):
        if not seen:
            seen.append(beats_again(RunDir(run_of(tmp_path))))
        return whole(self, batch, number)

    seen, whole = [], getattr(Classifier, step)
    monkeypatch.setattr(Classifier, step, long)
    monkeypatch.setattr(Curves, "draw", lambda self: None)
    outcome = run(compose([*tiny, f"runs_dir={tmp_path / 'runs'}"]))
    assert seen == [True]
    assert outcome.directory.status()["state"] == "done"
