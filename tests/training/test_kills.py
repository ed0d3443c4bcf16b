"""Runs that are killed, wherever they are, and resumed: they end as if nothing had been, to the bit."""

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

import pytest

from cnnbench.runs.run_dir import RunDir
from processes import Forked, assert_same_run, forked, run_of, saved_in, touching, until

SMALL = ["trainer=cpu", "threads=1", "data=synthetic", "data.train_size=640", "data.val_size=100", "data.test_size=101"]
SMALL += ["epochs=4", "data.image_size=32"]
NORMED = ["model=custom", "model._target_=nets.Normed"]
DROPPING = ["model=custom", "model._target_=nets.Slow"]
CONFIGURATIONS = {  # the last number: how many processes
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
PATIENCE = 240  # seconds for one sitting, on a machine with much else to do


@dataclass
class Whole:
    """A run that was never killed: where it lies, and how many seconds it took."""

    directory: RunDir
    before: float  # it saved for the first time
    training: float  # from then to the last time
    after: float  # from then to the end


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run of a configuration that was never killed; made once for all tests."""
    made: dict[str, Whole] = {}
    assert (
        Forked(tmp_path_factory.mktemp("first"), "--version").wait(PATIENCE) == 0
    )  # imports what the others are forked with

    def of(name: str) -> Whole:
        if name not in made:
            folder = tmp_path_factory.mktemp("whole")
            arguments, ranks = CONFIGURATIONS[name]
            begun = time.time()
            run = Forked(folder, *arguments, ranks=ranks)
            until(lambda: saved_in(folder) or not run.living, "it saves", every=0.005)
            first = time.time()
            assert run.wait(PATIENCE) == 0, run.err
            directory = RunDir(run_of(folder))
            last = directory.last.stat().st_mtime
            made[name] = Whole(directory, first - begun, last - first, time.time() - last)
        return made[name]

    return of


def killed_at_random(name: str, seed: int, whole: Whole, folder: Path) -> int:
    """Kills a run of a configuration once or several times, then lets it end; how often it was killed in its midst."""
    arguments, ranks = CONFIGURATIONS[name]
    draw = random.Random(seed)
    hits = 0
    for sitting in range(draw.choice([1, 1, 2, 3])):
        run = Forked(folder, *arguments, *(["resume=auto"] if sitting else []), ranks=ranks)
        until(lambda run=run: saved_in(folder) or not run.living, "it saves", every=0.005)
        wait = whole.training if draw.random() < 0.8 else (whole.training + whole.after) * 0.95
        time.sleep(draw.uniform(0, wait + (whole.before if sitting else 0)))  # a later one has its start before it
        hits += run.living
        run.kill()
        run.wait(PATIENCE)
    return hits


def assert_kills_do_not_show(name: str, seed: int, whole: Whole, folder: Path) -> None:
    for attempt in range(5):  # on a machine that runs in fits and starts it may have been done before the kill
        if killed_at_random(name, seed + 1000 * attempt, whole, folder):
            break
        shutil.rmtree(folder / "runs")
    else:
        pytest.fail("every run was done before it was killed")
    arguments, ranks = CONFIGURATIONS[name]
    resumed = forked(folder, *arguments, "resume=auto", ranks=ranks)
    assert_same_run(resumed, whole.directory)
    assert not list(resumed.path.rglob(".*.tmp"))


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_run_killed_at_a_random_moment_ends_with_the_same_bits(name, whole, tmp_path):
    assert_kills_do_not_show(name, len(name), whole(name), tmp_path)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(1, 5))
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_run_killed_at_other_random_moments_ends_with_the_same_bits(name, seed, whole, tmp_path):
    assert_kills_do_not_show(name, seed, whole(name), tmp_path)


# ---- wherever it writes ----------------------------------------------------------------------------------------------

TINY = ["trainer=cpu", "threads=1", "data=synthetic", "data.image_size=16", "data.train_size=192", *NORMED]
TINY += ["data.val_size=50", "data.test_size=50", "epochs=2", "ema=0.9", "trainer.checkpoint_every_s=0.0001"]


def of_the_run(path: str) -> bool:
    """Not its lock, and not of the thread that says that it lives, which does so as time goes by."""
    return threading.current_thread() is threading.main_thread() and Path(path).name != ".lock"


def list_touched(path: str) -> None:
    def note(event: str, touched: str) -> None:
        if not of_the_run(touched):
            return
        with Path(path).open("a") as file:
            file.write(f"{event} {Path(touched).name}\n")

    touching(note)


def signal_at(number: int, name: str) -> None:
    """Has the process send itself a signal before it touches a file for the so many-th time."""
    touched = 0

    def count(event: str, path: str) -> None:
        nonlocal touched
        touched += of_the_run(path)
        if touched == number and of_the_run(path):
            os.kill(os.getpid(), getattr(signal, name))

    touching(count)


@pytest.fixture(scope="module")
def tiny_whole(tmp_path_factory) -> tuple[RunDir, list[str]]:
    """A finished run, and what it did to its files, in order."""
    folder = tmp_path_factory.mktemp("tiny")
    directory = forked(folder, *TINY, fault=list_touched, about=(str(folder / "touched"),))
    return directory, (folder / "touched").read_text().splitlines()


def assert_killed_there_it_ends_the_same(number: int, tiny_whole, folder: Path) -> None:
    directory, touched = tiny_whole
    run = Forked(folder, *TINY, fault=signal_at, about=(number, "SIGKILL"))
    assert run.wait(PATIENCE) == -signal.SIGKILL, touched[number - 1]
    resumed = Forked(folder, *TINY, "resume=auto")
    assert resumed.wait(PATIENCE) == 0, f"killed before {touched[number - 1]}: {resumed.err}"
    (path,) = (path.parent for path in (folder / "runs").glob("*/*/result.json"))
    assert_same_run(RunDir(path), directory)
    assert not list(path.rglob(".*.tmp"))


STOPS = {"SIGINT": 130, "SIGTERM": 143, "SIGUSR1": 128 + signal.SIGUSR1}


def assert_stopped_there_it_ends_the_same(number: int, name: str, tiny_whole, folder: Path) -> None:
    directory, touched = tiny_whole
    run = Forked(folder, *TINY, fault=signal_at, about=(number, name))
    code = run.wait(PATIENCE)
    path = run_of(folder)
    state, where = RunDir(path).status()["state"], f"{name} before {touched[number - 1]}: {run.err}"
    if number > touched.index("os.rename result.json") + 1:  # the result is there already
        assert (code, state, run.err) == (0, "done", ""), where
    else:
        assert (code, state) == (STOPS[name], "interrupted"), where
        assert run.err.count("\n") == 1, where
        typed = run.err.strip().rpartition("To go on: python -m cnnbench ")[2]
        assert typed == f"resume={path.relative_to(folder)} --trust" if begun_in(path) else "To go on" not in typed, (
            where
        )
    assert not list(path.rglob(".*.tmp")), where
    assert_same_run(forked(folder, *TINY, "resume=auto") if begun_in(path) else begun_anew(folder), directory)


def begun_in(path: Path) -> bool:
    return (path / "config.yaml").is_file()


def begun_anew(folder: Path) -> RunDir:
    shutil.rmtree(folder / "runs")
    return forked(folder, *TINY, "resume=auto")


def places(touched: list[str]) -> list[int]:
    """Of what a run does to its files: the first and the last of each kind."""
    kinds: dict[str, list[int]] = {}
    for number, line in enumerate(touched, 1):
        event, name = line.split()
        kinds.setdefault(event + ".".join(part for part in name.split(".") if not part.isdigit()), []).append(number)
    return sorted({number for numbers in kinds.values() for number in (numbers[0], numbers[-1])})


@pytest.mark.soak
def test_a_run_killed_before_it_touches_a_file_ends_with_the_same_bits(tiny_whole, tmp_path):
    for number in places(tiny_whole[1]):
        assert_killed_there_it_ends_the_same(number, tiny_whole, tmp_path / str(number))


@pytest.mark.soak
def test_a_signal_before_a_run_touches_a_file_stops_it_in_good_order(tiny_whole, tmp_path):
    chosen = [number for number in places(tiny_whole[1]) if number > 1]  # the first one is its log
    for number, name in zip(chosen, itertools.cycle(STOPS)):
        assert_stopped_there_it_ends_the_same(number, name, tiny_whole, tmp_path / str(number))


@pytest.mark.soak
def test_a_signal_before_anything_that_a_run_does_to_its_files_stops_it_in_good_order(tiny_whole, tmp_path):
    for number, name in zip(range(2, len(tiny_whole[1]) + 1), itertools.cycle(STOPS)):
        assert_stopped_there_it_ends_the_same(number, name, tiny_whole, tmp_path / str(number))


@pytest.mark.soak
def test_a_run_killed_before_anything_that_it_does_to_its_files_ends_with_the_same_bits(tiny_whole, tmp_path):
    for number in range(1, len(tiny_whole[1]) + 1):
        assert_killed_there_it_ends_the_same(number, tiny_whole, tmp_path / str(number))
