"""Runs that are killed at any moment and resumed: they end with the same bits as uninterrupted runs."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cnnbench.runs.run_dir import RunDir
from lost_output import ERRORS, lose
from processes import ForkedCommand, assert_same_run, call_before_writes, has_saved, only_run_in, run_forked, wait_until

SMALL = ["trainer=cpu", "threads=1", "data=synthetic", "data.train_size=640", "data.val_size=100", "data.test_size=101"]
SMALL += ["epochs=4", "data.image_size=32"]
NORMED = ["model=custom", "model._target_=nets.Normed"]
DROPPING = ["model=custom", "model._target_=nets.Slow"]
CONFIGURATIONS = {  # arguments, number of processes
    "momentum in one cycle, crops and flips": (
        [*SMALL, "optimizer=momentum", "scheduler=onecycle", "augment=basic", "trainer.checkpoint_every_s=0.1"],
        1,
    ),
    "adamw with a warm-up, averaged weights, mixed images, smooth labels": (
        [*SMALL, "optimizer=adamw", "scheduler=cosine", "scheduler.warmup_epochs=1", "ema=0.9"]
        + ["mixup=0.4", "cutmix=1.0", "label_smoothing=0.1", "trainer.checkpoint_every_s=0.2"],
        1,
    ),
    "rmsprop on a plateau, parts of batches, clipped, validating in mid-epoch": (
        [*SMALL, "optimizer=rmsprop", "scheduler=plateau", "scheduler.patience=0", "scheduler.threshold=0.01"]
        + ["accumulate=2", "clip_grad=0.5", "trainer.val_every_steps=7", "trainer.checkpoint_every_s=0.05"],
        1,
    ),
    "dropout and batch norm, saving after each step": (
        [*SMALL, *NORMED, "optimizer=nesterov", "ema=0.8", "log=full", "trainer.checkpoint_every_s=0.0001"],
        1,
    ),
    "two processes with dropout": (
        [*SMALL, *DROPPING, "optimizer=momentum", "trainer.devices=2", "trainer.checkpoint_every_s=0.05"],
        2,
    ),
}
PATIENCE = 240  # seconds for one process, on a busy machine


@dataclass
class Whole:
    """An uninterrupted run: its directory and its seconds before the first checkpoint, until the last one, and after it."""

    directory: RunDir
    before: float
    training: float
    after: float


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Returns the uninterrupted run of a configuration, made once for all tests."""
    made: dict[str, Whole] = {}
    assert ForkedCommand(tmp_path_factory.mktemp("first"), "--version").wait(PATIENCE) == 0  # starts the fork server

    def of(name: str) -> Whole:
        if name not in made:
            folder = tmp_path_factory.mktemp("whole")
            arguments, ranks = CONFIGURATIONS[name]
            begun = time.time()
            run = ForkedCommand(folder, *arguments, ranks=ranks)
            wait_until(lambda: has_saved(folder) or not run.living, "it saves", every=0.005)
            first = time.time()
            assert run.wait(PATIENCE) == 0, run.err
            directory = RunDir(only_run_in(folder))
            last = directory.last.stat().st_mtime
            made[name] = Whole(directory, first - begun, last - first, time.time() - last)
        return made[name]

    return of


def killed_at_random(name: str, seed: int, whole: Whole, folder: Path) -> int:
    """Kills a run one to three times at random moments; returns how often it was still running. With an odd seed it has lost stdout."""
    arguments, ranks = CONFIGURATIONS[name]
    draw = random.Random(seed)
    screen: dict[str, Any] = {"fault": lose, "about": ("stdout", draw.choice([*ERRORS]))} if seed % 2 else {}
    hits = 0
    for sitting in range(draw.choice([1, 1, 2, 3])):
        run = ForkedCommand(folder, *arguments, *(["resume=auto"] if sitting else []), ranks=ranks, **screen)
        wait_until(lambda run=run: has_saved(folder) or not run.living, "it saves", every=0.005)
        wait = whole.training if draw.random() < 0.8 else (whole.training + whole.after) * 0.95
        start_up = whole.before if sitting else 0  # which a resumed run needs, too
        time.sleep(draw.uniform(0, wait + start_up))
        hits += run.living
        run.kill()
        run.wait(PATIENCE)
    return hits


def assert_same_after_kills(name: str, seed: int, whole: Whole, folder: Path) -> None:
    for attempt in range(5):  # on a busy machine the run may end before the kill
        if killed_at_random(name, seed + 1000 * attempt, whole, folder):
            break
        shutil.rmtree(folder / "runs")
    else:
        pytest.fail("every run ended before it was killed")
    arguments, ranks = CONFIGURATIONS[name]
    resumed = run_forked(folder, *arguments, "resume=auto", ranks=ranks)
    assert_same_run(resumed, whole.directory)
    assert not list(resumed.path.rglob(".*.tmp"))


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_run_killed_at_a_random_moment_ends_with_the_same_bits(name, whole, tmp_path):
    assert_same_after_kills(name, len(name), whole(name), tmp_path)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(1, 5))
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_run_killed_at_other_random_moments_ends_with_the_same_bits(name, seed, whole, tmp_path):
    assert_same_after_kills(name, seed, whole(name), tmp_path)


# ---- before each write ----------------------------------------------------------------------------------------------

TINY = ["trainer=cpu", "threads=1", "data=synthetic", "data.image_size=16", "data.train_size=192", *NORMED]
TINY += ["data.val_size=50", "data.test_size=50", "epochs=2", "ema=0.9", "trainer.checkpoint_every_s=0.0001"]


def counts(path: str) -> bool:
    """Returns whether a write counts: not to the lock, and not by the heartbeat thread, whose writes depend on time."""
    return threading.current_thread() is threading.main_thread() and Path(path).name != ".lock"


def list_touched(path: str) -> None:
    def note(event: str, touched: str) -> None:
        if not counts(touched):
            return
        with Path(path).open("a") as file:
            file.write(f"{event} {Path(touched).name}\n")

    call_before_writes(note)


def signal_at(number: int, name: str) -> None:
    """Makes the process send itself a signal before its write number `number`."""
    touched = 0

    def count(event: str, path: str) -> None:
        nonlocal touched
        touched += counts(path)
        if touched == number and counts(path):
            os.kill(os.getpid(), getattr(signal, name))

    call_before_writes(count)


@pytest.fixture(scope="module")
def tiny_whole(tmp_path_factory) -> tuple[RunDir, list[str]]:
    """A finished run, and its writes in order, as `event name`."""
    folder = tmp_path_factory.mktemp("tiny")
    directory = run_forked(folder, *TINY, fault=list_touched, about=(str(folder / "touched"),))
    return directory, (folder / "touched").read_text().splitlines()


def assert_killed_there_it_ends_the_same(number: int, tiny_whole, folder: Path) -> None:
    directory, touched = tiny_whole
    run = ForkedCommand(folder, *TINY, fault=signal_at, about=(number, "SIGKILL"))
    assert run.wait(PATIENCE) == -signal.SIGKILL, touched[number - 1]
    resumed = ForkedCommand(folder, *TINY, "resume=auto")
    assert resumed.wait(PATIENCE) == 0, f"killed before {touched[number - 1]}: {resumed.err}"
    (path,) = (path.parent for path in (folder / "runs").glob("*/*/result.json"))
    assert_same_run(RunDir(path), directory)
    assert not list(path.rglob(".*.tmp"))


STOPS = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129, "SIGUSR1": 138, "SIGUSR2": 140, "SIGXCPU": 152}


def assert_stopped_there_it_ends_the_same(number: int, name: str, tiny_whole, folder: Path) -> None:
    directory, touched = tiny_whole
    run = ForkedCommand(folder, *TINY, fault=signal_at, about=(number, name))
    code = run.wait(PATIENCE)
    path = only_run_in(folder)
    state, where = RunDir(path).status().state, f"{name} before {touched[number - 1]}: {run.err}"
    if number > touched.index("os.rename result.json") + 1:  # the result exists already
        assert (code, state, run.err) == (0, "done", ""), where
    else:
        assert (code, state) == (STOPS[name], "interrupted"), where
        assert run.err.count("\n") == 1, where
        typed = run.err.strip().rpartition("To resume: cnnbench ")[2]
        assert (
            typed == f"resume={path.relative_to(folder)} --trust" if has_config(path) else "To resume" not in typed
        ), where
    assert not list(path.rglob(".*.tmp")), where
    assert_same_run(run_forked(folder, *TINY, "resume=auto") if has_config(path) else started_again(folder), directory)


def has_config(path: Path) -> bool:
    return (path / "config.yaml").is_file()


def started_again(folder: Path) -> RunDir:
    shutil.rmtree(folder / "runs")
    return run_forked(folder, *TINY, "resume=auto")


def places(touched: list[str]) -> list[int]:
    """Returns the numbers of the first and the last write to each file."""
    kinds: dict[str, list[int]] = {}
    for number, line in enumerate(touched, 1):
        event, name = line.split()
        kinds.setdefault(event + ".".join(part for part in name.split(".") if not part.isdigit()), []).append(number)
    return sorted({number for numbers in kinds.values() for number in (numbers[0], numbers[-1])})


@pytest.mark.soak
def test_a_run_killed_before_the_first_or_last_write_to_each_file_ends_with_the_same_bits(tiny_whole, tmp_path):
    for number in places(tiny_whole[1]):
        assert_killed_there_it_ends_the_same(number, tiny_whole, tmp_path / str(number))


@pytest.mark.soak
def test_a_signal_before_the_first_or_last_write_to_each_file_stops_the_run_cleanly(tiny_whole, tmp_path):
    chosen = [number for number in places(tiny_whole[1]) if number > 1]  # the first one is to its log
    for number, name in zip(chosen, itertools.cycle(STOPS)):
        assert_stopped_there_it_ends_the_same(number, name, tiny_whole, tmp_path / str(number))


@pytest.mark.soak
def test_a_signal_before_any_write_stops_the_run_cleanly(tiny_whole, tmp_path):
    for number, name in zip(range(2, len(tiny_whole[1]) + 1), itertools.cycle(STOPS)):
        assert_stopped_there_it_ends_the_same(number, name, tiny_whole, tmp_path / str(number))


@pytest.mark.soak
def test_a_run_killed_before_any_write_ends_with_the_same_bits(tiny_whole, tmp_path):
    for number in range(1, len(tiny_whole[1]) + 1):
        assert_killed_there_it_ends_the_same(number, tiny_whole, tmp_path / str(number))
