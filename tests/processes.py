"""Runs commands in child processes: a new interpreter, a shell that imports torch once, or forks that have torch already.

`python processes.py` is the shell: it reads the arguments of a command as a line of JSON, runs it, and prints its exit code.
"""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cnnbench.distributed.signals import STOP_SIGNALS
from cnnbench.runs.run_dir import RunDir

MARK = "CNNBENCH_TESTED"  # an environment variable of every process that a test starts
# keys that differ between an interrupted and an uninterrupted run
NOT_COMPARED = {"epoch_s", "samples_per_s", "times", "in_epoch", "resume"}


# ---- a new interpreter --------------------------------------------------------------------------------------------------


class CommandProcess:
    """A program, by default `cnnbench`, in a child process; its output goes to files."""

    def __init__(self, folder: Path, *arguments: str, program: tuple[str, ...] = (), **environment: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.mark = folder, uuid.uuid4().hex
        self._out, self._err = (folder / f"{self.mark}.{name}" for name in ("out", "err"))
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [*(program or (sys.executable, "-m", "cnnbench")), *arguments],
                cwd=folder, stdout=out, stderr=err, stdin=subprocess.DEVNULL, env=child_environment(self.mark, environment),
                start_new_session=True,
            )  # fmt: skip

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._err.read_text()

    def family(self) -> list[psutil.Process]:
        """Returns all its living descendants and itself, orphans included."""
        return processes_with_mark(self.mark)

    def ranks(self) -> list[psutil.Process]:
        """Returns the processes of the ranks, rank 0 first: children of torchrun, or of the fork server without its watchdog."""
        family = self.family()
        servers = [p for p in family if "forkserver" in " ".join(p.cmdline())]
        parents = [*servers, *(p for p in family if p.pid == self.process.pid)]
        ranks = [c for c in family if any(c.ppid() == p.pid and c.cmdline() == p.cmdline() for p in parents)]
        ranks = sorted(ranks, key=lambda rank: rank.pid)[1 if servers else 0 :]
        first = RunDir(only_run_in(self.folder)).status().pid
        return sorted(ranks, key=lambda rank: rank.pid != first)

    def wait(self, seconds: float = 120) -> int:
        """Waits for its end; returns its exit code."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.end()
            raise AssertionError(f"still runs after {seconds} s\n{self.out}\n{self.err}") from None

    def end(self) -> None:
        """Kills it and its descendants."""
        for process in self.family():
            process.kill()
        self.process.wait(10)


def child_environment(mark: str, more: dict[str, str]) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1", MARK: mark, **more}


def processes_with_mark(mark: str) -> list[psutil.Process]:
    """Returns the living processes that have a mark in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def wait_until(happened: Callable[[], Any], what: str, seconds: float = 90, every: float = 0.02) -> Any:
    """Calls `happened` until it returns something true, and returns that."""
    deadline = time.monotonic() + seconds
    while not (found := happened()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(every)
    return found


def only_run_in(folder: Path) -> Path:
    """Returns the only run directory in `folder/runs`."""
    (found,) = (folder / "runs").glob("*/*")
    return found


def has_saved(folder: Path) -> bool:
    """Returns whether a run in the folder has saved a checkpoint."""
    return any((folder / "runs").glob("*/*/checkpoints/last.ckpt"))


# ---- one process, many commands -----------------------------------------------------------------------------------------------


class Shell:
    """A child process that runs commands one after another; it and its fork server import torch once."""

    def __init__(self, folder: Path) -> None:
        self.mark = uuid.uuid4().hex
        self.err = folder / "shell.err"
        with self.err.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, __file__],
                cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=err, text=True,
                env=child_environment(self.mark, {}), start_new_session=True,
            )  # fmt: skip

    def __call__(self, *arguments: str) -> tuple[int, str]:
        """Runs a command; returns its exit code and its output."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(arguments) + "\n")
        self.process.stdin.flush()
        shown = []
        for line in self.process.stdout:
            if line.startswith(MARK):
                return int(line.split()[1]), "".join(shown)
            shown.append(line)
        raise AssertionError(f"the shell ended\n{self.err.read_text()}")

    def train(self, folder: Path, *arguments: str) -> RunDir:
        """Trains with the arguments, and returns the run directory."""
        code, shown = self(*arguments, f"runs_dir={folder / 'runs'}")
        assert code == 0, f"{arguments}\n{shown}\n{self.err.read_text()}"
        return RunDir(only_run_in(folder))

    def close(self) -> None:
        for process in processes_with_mark(self.mark):
            process.kill()
        self.process.wait(10)


def run_shell() -> None:
    from cnnbench.__main__ import main

    for line in sys.stdin:
        code = main(json.loads(line))
        print(f"\n{MARK} {code}", flush=True)


# ---- forks -----------------------------------------------------------------------------------------------------------


class ForkedCommand:
    """A command in a fork that has torch and Lightning already, or in one fork for each rank, with the environment of torchrun.

    Args:
        folder: the current folder of the command.
        arguments: of the command.
        ranks: number of processes.
        fault: called with `about` in each process before the command, to inject a fault.
        about: arguments of `fault`.
        screens: folder for the output files; None: `folder`.
        environment: additional environment variables.
    """

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        ranks: int = 1,
        fault: Callable[..., None] | None = None,
        about: tuple[Any, ...] = (),
        screens: Path | None = None,
        **environment: str,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["cnnbench.training.run", "cnnbench.sweep.run", "hydra"])
        self.screens, port = screens or folder, str(free_port())
        self.name = uuid.uuid4().hex
        self.processes = []
        for rank in range(ranks):
            places = {"RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0", "WORLD_SIZE": str(ranks)}
            places |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            every = {**environment, **(places if ranks > 1 else {})}
            screen = [str(self.screens / f"{self.name}.{rank}.{stream}") for stream in ("out", "err")]
            process = context.Process(target=run_in_fork, args=(str(folder), arguments, every, screen, fault, about))
            process.start()
            self.processes.append(process)

    @property
    def err(self) -> str:
        return "".join(path.read_text() for path in sorted(self.screens.glob(f"{self.name}.*.err")))

    @property
    def out(self) -> str:
        return "".join(path.read_text() for path in sorted(self.screens.glob(f"{self.name}.*.out")))

    @property
    def living(self) -> bool:
        return any(process.is_alive() for process in self.processes)

    def kill(self) -> None:
        """Sends SIGKILL to all its processes."""
        for process in self.processes:
            process.kill()

    def wait(self, seconds: float = 120) -> int:
        """Waits for the end; returns the exit code, the largest of several ranks; minus a signal's number if one ended it."""
        deadline = time.monotonic() + seconds
        for process in self.processes:
            process.join(max(0, deadline - time.monotonic()))
        if self.living:
            self.kill()
            raise AssertionError(f"still runs after {seconds} s\n{self.out}\n{self.err}")
        codes = [process.exitcode for process in self.processes]
        return min(codes) if min(codes) < 0 else max(codes)


def run_forked(folder: Path, *arguments: str, **more: Any) -> RunDir:
    """Runs a training command in a fork, and returns the run directory."""
    run = ForkedCommand(folder, *arguments, **more)
    assert run.wait() == 0, f"{run.out}\n{run.err}"
    return RunDir(only_run_in(folder))


def run_in_fork(
    folder: str,
    arguments: tuple[str, ...],
    environment: dict[str, str],
    screen: list[str],
    fault: Callable[..., None] | None,
    about: tuple[Any, ...],
) -> None:
    """Runs a command in this fork: in `folder`, with its output in two files."""
    from cnnbench.__main__ import main

    os.environ |= environment
    os.chdir(folder)
    for path, number in zip(screen, (1, 2), strict=True):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), number)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    for number in STOP_SIGNALS:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    if fault is not None:
        fault(*about)
    code = main(list(arguments))
    sys.stdout.flush()
    sys.exit(code)


def free_port() -> int:
    from cnnbench.distributed.fork_server import free_port

    return free_port()


# ---- writes to files -------------------------------------------------------------------------------------------------


def call_before_writes(at: Callable[[str, str], None]) -> None:
    """Calls `at(event, path)` before this process opens a file of a run for writing, renames it, or removes it."""

    def hook(event: str, given: tuple[Any, ...]) -> None:
        if event == "open" and not (isinstance(given[1], str) and set(given[1]) & set("wxa+")):
            return
        if event in ("open", "os.rename", "os.remove"):
            path = os.path.abspath(os.fsdecode(given[1] if event == "os.rename" else given[0]))
            if f"{os.sep}runs{os.sep}" in path:
                at(event, path)

    sys.addaudithook(hook)


# ---- equality to the bit ---------------------------------------------------------------------------------------------------


def assert_same_run(one: RunDir, other: RunDir) -> None:
    """Asserts that two finished runs have equal checkpoints, metrics, results, predictions and TensorBoard points, times excluded."""
    for name in ("best", "best_ema", "last"):
        paths = [getattr(directory, name) for directory in (one, other)]
        assert paths[0].is_file() == paths[1].is_file(), name
        if paths[0].is_file():
            assert_same_content(*(torch.load(path, weights_only=True) for path in paths), where=name)
    rows = [list(csv.DictReader(directory.metrics.open())) for directory in (one, other)]
    assert_same_content(*rows, where="metrics.csv")
    results = [json.loads(directory.result.read_text()) for directory in (one, other)]
    for result in results:
        for key in ("time", "samples_per_s", "command", "git"):
            del result[key]
    assert results[0] == results[1]
    for name in ("predictions", "mistakes"):
        kept = [np.load(getattr(directory, name)) for directory in (one, other)]
        for key in kept[0]:
            np.testing.assert_array_equal(kept[0][key], kept[1][key], strict=True)
    assert scalar_points(one) == scalar_points(other)
    assert RunDir(one.path).status().state == RunDir(other.path).status().state == "done"


def assert_same_content(one: Any, other: Any, where: str) -> None:
    """Asserts that two values of nested plain types and tensors are equal to the bit; keys of `NOT_COMPARED` are skipped."""
    assert type(one) is type(other), where
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one.keys() - NOT_COMPARED:
            assert_same_content(one[key], other[key], f"{where}/{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for number, pair in enumerate(zip(one, other, strict=True)):
            assert_same_content(*pair, where=f"{where}/{number}")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    else:
        assert one == other or (one != one and other != other), f"{where}: {one} and {other}"


def scalar_points(directory: RunDir) -> dict[str, list[tuple[int, float]]]:
    """Returns TensorBoard's scalars by tag as (step, value), and asserts that no step occurs twice.

    Excluded are rates, and norms, which cover only the rest of an epoch that was resumed in the middle.
    """
    events = EventAccumulator(str(directory.path), size_guidance={"scalars": 0})
    events.Reload()
    shown = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    for tag, found in shown.items():
        assert len({step for step, _ in found}) == len(found), f"{tag}: {found}"
    return {
        tag: found
        for tag, found in shown.items()
        if not tag.startswith(("samples_per_s", "gradient_norm/", "activation_rms/"))
    }


def copy_of(directory: RunDir, folder: Path) -> RunDir:
    """Copies a run to `folder/runs`."""
    path = folder / "runs" / directory.path.parent.name / directory.path.name
    shutil.copytree(directory.path, path)
    return RunDir(path)


if __name__ == "__main__":
    run_shell()
