"""Sweeps in forks of a process that has imported torch: the launcher is a fork, and so is its fork server."""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import os
import signal
import sys
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from multiprocessing import util
from pathlib import Path
from typing import Any

import psutil

from cnnbench.config import import_path
from cnnbench.distributed.signals import STOP_SIGNALS
from cnnbench.runs.run_dir import RunDir
from cnnbench.runs.sweep_dir import SweepDir
from processes import assert_same_run, run_in_fork, wait_until

TINY = ["threads=1", "trainer=cpu", "epochs=1", "data=synthetic", "data.image_size=16", "data.train_size=256"]
TINY += ["data.val_size=32", "data.test_size=32", "name=swept"]
FAULTY = [*TINY, "model=custom", "model._target_=sweep_nets.FaultyNet"]
STOPPABLE = [
    *FAULTY,
    "+model.dropout=0.2",
    "epochs=3",
    "trainer.checkpoint_every_s=0.05",
    "seed=0,1,2,3",
    "sweep.slots=2",
]
STOPPABLE.remove("epochs=1")
LEFT_S = 25  # seconds within which all processes must have ended
BECOMES_INIT = 36  # PR_SET_CHILD_SUBREAPER


def sleeping(processes: Iterable[psutil.Process]) -> int:
    """Number of `sleep` processes: a hanging job starts one."""
    count = 0
    for process in processes:
        with suppress(psutil.Error):  # it may end just now
            count += process.name() == "sleep"
    return count


class Sweep:
    """Runs a command, by default of a sweep, in a fork that has imported torch and Lightning.

    A keeper process above it inherits orphans of any session and environment, and ends when no process is left.

    Args:
        folder: the current folder of the command.
        arguments: of the command, after `first`.
        first: the first argument.
        fault: called with `about` before the command, to inject a fault.
        about: arguments of `fault`.
        environment: additional environment variables.
    """

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        first: str = "-m",
        fault: Callable[..., None] | None = None,
        about: tuple[Any, ...] = (),
        **environment: str,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.arguments, name = folder, (first, *arguments), uuid.uuid4().hex
        self._out, self._err, self._notes = (folder / f"{name}.{what}" for what in ("out", "err", "notes"))
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["cnnbench.training.run", "cnnbench.sweep.run", "hydra"])
        screen = [str(self._out), str(self._err)]
        given = (str(self._notes), str(folder), self.arguments, environment, screen, fault, about)
        self.keeper = context.Process(target=_keep, args=given)
        self.keeper.start()
        self.pid = int(wait_until(lambda: self._lines(1), "it starts")[0])

    def _lines(self, number: int) -> list[str]:
        """The keeper's file: the process id of the launcher, and its exit code; empty while there are fewer lines."""
        lines = self._notes.read_text().splitlines() if self._notes.exists() else []
        return lines if len(lines) >= number else []

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._err.read_text()

    @property
    def code(self) -> int | None:
        """The exit code of the launcher; below 0 a signal; None while it runs."""
        lines = self._lines(2)
        return int(lines[1]) if lines else None

    def wait(self, seconds: float = 180) -> int:
        """Waits for the launcher to end; returns its exit code."""
        try:
            return wait_until(lambda: self._lines(2), "it ends", seconds)[1] and int(self._lines(2)[1])
        except AssertionError as error:
            self.end()
            raise AssertionError(f"{error}\n{self.out}\n{self.err}") from None

    def send(self, number: int) -> None:
        """Sends a signal to the launcher only."""
        os.kill(self.pid, number)

    def family(self) -> list[psutil.Process]:
        """All living descendants, with orphans."""
        with suppress(psutil.Error):
            found = psutil.Process(self.keeper.pid).children(recursive=True)
            return [process for process in found if _lives(process)]
        return []

    def assert_no_process_left(self, seconds: float = LEFT_S) -> None:
        wait_until(lambda: not self.keeper.is_alive(), f"all of {self.family()} end", seconds)

    def end(self) -> None:
        """Kills all processes that are left."""
        while self.keeper.is_alive():
            for process in self.family():
                with suppress(psutil.Error):
                    process.kill()
            self.keeper.join(0.2)

    # ---- its files --------------------------------------------------------------------------------------------

    @property
    def directory(self) -> SweepDir:
        return SweepDir(self.folder / "runs" / "swept")

    def runs(self) -> dict[str, RunDir]:
        """The runs by their names without the hash, in the order of the jobs."""
        return {job.name.rpartition("_")[0]: job.directory for job in self.directory.jobs()}

    def states(self) -> dict[str, str]:
        return {name: run.status().state for name, run in self.runs().items()}


def _lives(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def swept(folder: Path, *arguments: str, **environment: str) -> Sweep:
    """Runs a sweep that must succeed and leave no process."""
    sweep = Sweep(folder, *arguments, **environment)
    assert sweep.wait() == 0, f"{sweep.out}\n{sweep.err}"
    sweep.assert_no_process_left()
    return sweep


def assert_same_sweep(one: Sweep, other: Sweep) -> None:
    """Checks that two finished sweeps have the same jobs with the same bits."""
    assert one.runs().keys() == other.runs().keys()
    for name, run in one.runs().items():
        assert_same_run(run, other.runs()[name])
        assert not list(run.path.rglob(".*.tmp"))


def changed(directory: RunDir) -> dict[str, int]:
    """The time of the last change of each file of a run, in ns."""
    return {str(path): path.stat().st_mtime_ns for path in directory.path.rglob("*") if path.is_file()}


def metrics(directory: RunDir) -> dict[str, Any]:
    return json.loads(directory.result.read_text())["metrics"]


# ---- the fork --------------------------------------------------------------------------------------------------------


def _keep(notes: str, folder: str, *command: Any) -> None:
    """Starts the launcher, and adopts the processes that it leaves; `command` is for `run_in_fork`."""
    ctypes.CDLL(None).prctl(BECOMES_INIT, 1, 0, 0, 0)
    launcher = os.fork()
    if launcher == 0:
        _launch(folder, *command)
    _write_number(notes, launcher)
    while True:
        try:
            ended, status = os.wait()
        except ChildProcessError:
            os._exit(0)
        if ended == launcher:
            _write_number(notes, os.waitstatus_to_exitcode(status))


def _write_number(path: str, number: int) -> None:
    with open(path, "a") as file:
        file.write(f"{number}\n")


def _launch(folder: str, *command: Any) -> None:
    """Acts as the interpreter: runs the command and the exit handlers, and exits with its code."""
    os.setsid()
    import_path.allow(folder)  # as `cnnbench` does: the user's modules are found there
    util.spawnv_passfds = _fork_for(util.spawnv_passfds)
    code = 1
    try:
        run_in_fork(folder, *command)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        util._exit_function()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _fork_for(spawn: Callable[..., int]) -> Callable[..., int]:
    """Replaces the start of processes by multiprocessing: its fork server is a fork of this one, with its imports."""

    def start(path: str, arguments: list[str], passed: list[int]) -> int:
        source = arguments[-1]
        if "forkserver" not in source:
            return spawn(path, arguments, passed)
        pid = os.fork()
        if pid == 0:
            try:
                for number in STOP_SIGNALS:  # as a new program does
                    if callable(signal.getsignal(number)):
                        signal.signal(number, signal.SIG_DFL)
                kept = {0, 1, 2, *map(int, passed)}
                for number in map(int, os.listdir("/proc/self/fd")):
                    if number not in kept:
                        with suppress(OSError):
                            os.close(number)
                exec(source)
            except SystemExit:
                pass
            except BaseException:
                sys.excepthook(*sys.exc_info())
            os._exit(0)
        return pid

    return start
