"""Starts processes on this machine from a fork server that has imported torch and Lightning: in 0.02 s instead of 8 s.

The ranks of a run are started here, not by Lightning, which would start them with the command line of this process.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import psutil

from cnnbench.distributed import signals
from cnnbench.errors import CnnbenchError, ConfigError, Interrupted, RunFailed

GRACE_S = 15.0  # for the other ranks to exit after one has failed, and for a rank to save after its launcher has died
T = TypeVar("T")


# ---- the fork server and its watchdog --------------------------------------------------------------------------------------


def start_fork_server() -> None:
    """Starts the fork server and the watchdog, unless they are running.

    The fork server blocks signals, as they may be sent to all processes of a job; it exits when this process has.
    """
    forkserver.set_forkserver_preload(["cnnbench.training.preload"])
    resource_tracker.ensure_running()  # its start would unblock the signals again
    with signals_blocked():  # inherited by the fork server
        forkserver.ensure_running()
    WATCHDOG.start()


def stop_fork_server() -> None:
    """Kills the fork server when no further process is needed; it would take a second to exit by itself."""
    WATCHDOG.stop()
    server: Any = forkserver._forkserver
    if server._forkserver_pid is not None:
        with suppress(ProcessLookupError):
            os.kill(server._forkserver_pid, signal.SIGKILL)
        server._stop()


@contextmanager
def signals_blocked() -> Iterator[None]:
    """Delays signals until the end of the context, so that what is inside is not interrupted half-way."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals.STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Watchdog:
    """Ends the child process groups when the launcher dies, even while the launcher or a child holds the GIL.

    A separate process reads a pipe to which each child writes its process id. The pipe ends when the launcher has died: then
    the watchdog sends SIGTERM to the children, so that they save, and kills their process groups `GRACE_S` later.
    """

    def __init__(self) -> None:
        self.pipe: Connection | None = None  # where children register

    def start(self) -> None:
        """Starts the process, unless it is running."""
        if self.pipe is None:
            read_end, self.pipe = multiprocessing.Pipe(duplex=False)
            watcher = multiprocessing.get_context("forkserver").Process(
                target=_end_children_with_launcher, args=(read_end, GRACE_S)
            )
            watcher.daemon = True  # is not waited for
            with signals_blocked():
                watcher.start()
            read_end.close()

    def stop(self) -> None:
        """Ends the process; no child may be alive."""
        if self.pipe is not None:
            self.pipe.close()
            self.pipe = None


WATCHDOG = Watchdog()


def _end_children_with_launcher(pipe: Connection, grace_s: float) -> None:
    """Waits until the pipe ends, which means that the launcher has died; then ends the registered children."""
    os.setsid()
    _unblock_signals()
    children: list[psutil.Process] = []
    with suppress(EOFError):
        while True:
            with suppress(psutil.NoSuchProcess):
                children.append(psutil.Process(pipe.recv()))  # recognised by its start time, too
            children = [child for child in children if child.is_running()]
    for child in children:
        with suppress(psutil.Error):
            child.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while time.monotonic() < deadline and (children := [child for child in children if child.is_running()]):
        time.sleep(0.1)
    for child in children:
        with suppress(ProcessLookupError, psutil.NoSuchProcess):
            os.killpg(child.pid, signal.SIGKILL)


def _new_process(target: Callable[..., None], *arguments: Any) -> ForkServerProcess:
    """A process from the fork server, not yet started, that registers with the watchdog; signals are blocked in it at first."""
    context = multiprocessing.get_context("forkserver")
    return context.Process(target=_run_watched, args=(WATCHDOG.pipe, target, arguments))


def _run_watched(watchdog: Connection, target: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    os.setsid()  # the watchdog kills the process group of this session
    with suppress(OSError):  # the watchdog was killed
        watchdog.send(os.getpid())
    watchdog.close()  # the launcher alone keeps the pipe open
    target(*arguments)


def _unblock_signals() -> None:
    """Lets a signal end this process silently: the launcher reports why."""
    for number in signals.STOP_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals.STOP_SIGNALS)


# ---- the ranks of a run ------------------------------------------------------------------------------------------------------


class RankProcesses:
    """The processes of one run, one per rank, each in its own session: Ctrl-C at the terminal reaches the launcher alone.

    Args:
        main: called by each rank; returns its exit code.
        arguments: of `main`; can be pickled.
        ranks: number of processes.
        environment: further environment variables.
        output: file to which stdout and stderr are appended; None: those of this process.
    """

    def __init__(
        self,
        main: Callable[..., int],
        arguments: tuple[Any, ...],
        ranks: int,
        environment: Mapping[str, str] | None = None,
        output: Path | None = None,
    ) -> None:
        self.main, self.arguments, self.output = main, arguments, output
        port = free_port() if ranks > 1 else 0
        self.environments = [{**(environment or {}), **_torchrun_variables(rank, ranks, port)} for rank in range(ranks)]
        self.processes: list[ForkServerProcess] = []
        self._exit_code = 0
        self._deadline: float | None = None  # for the ranks that are left after one has failed

    def start(self) -> None:
        """Starts the ranks; those of the first run wait until the fork server has imported torch."""
        start_fork_server()
        for variables in self.environments:
            rank = _new_process(_run_rank, self.main, self.arguments, variables, self.output)
            rank.start()
            self.processes.append(rank)

    def send(self, number: int) -> None:
        """Sends a signal to every rank."""
        for rank in self.living():
            assert rank.pid is not None
            with suppress(ProcessLookupError):
                os.kill(rank.pid, number)

    def kill(self) -> None:
        """Kills every rank and the processes that it has started."""
        for rank in self.processes:
            assert rank.pid is not None
            descendants: list[psutil.Process] = []  # in other sessions
            if rank.exitcode is None:
                with suppress(psutil.Error):
                    descendants = psutil.Process(rank.pid).children(recursive=True)
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(rank.pid, signal.SIGKILL)
            for each in descendants:
                with suppress(psutil.Error):
                    each.kill()
            if rank.exitcode is None:  # it has no session yet
                rank.kill()

    def living(self) -> list[ForkServerProcess]:
        """The ranks that have started and not exited."""
        return [rank for rank in self.processes if rank.exitcode is None]

    @property
    def sentinels(self) -> list[int]:
        """Handles for `multiprocessing.connection.wait`: each becomes ready when a rank exits."""
        return [rank.sentinel for rank in self.living()]

    def exit_code(self) -> int | None:
        """The exit code of the first rank that failed, else 0; negative: the signal that ended it; None while a rank runs.

        After one has failed, the others have `GRACE_S` to exit, then they are killed.
        """
        living = self.living()
        failed = [rank.exitcode for rank in self.processes if rank.exitcode]
        if failed and self._deadline is None:
            self._exit_code, self._deadline = failed[0], time.monotonic() + GRACE_S
        if living and self._deadline is not None and time.monotonic() > self._deadline:
            self.kill()
        return None if living else self._exit_code

    def wait(self) -> int:
        """Waits until all ranks have exited, and returns their `exit_code`."""
        while (code := self.exit_code()) is None:
            wait(self.sentinels, None if self._deadline is None else max(0.05, self._deadline - time.monotonic()))
        return code


def _torchrun_variables(rank: int, ranks: int, port: int) -> dict[str, str]:
    if ranks == 1:
        return {}
    return {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0", "WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip


def _run_rank(
    main: Callable[..., int], arguments: tuple[Any, ...], environment: dict[str, str], output: Path | None
) -> None:
    if output is not None:
        redirect_output(output)
    _unblock_signals()
    os.environ |= environment
    sys.argv = sys.argv[:1]
    sys.exit(main(*arguments))


def redirect_output(path: Path) -> None:
    """Appends stdout, stderr and the traceback of a crash to a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    with path.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    faulthandler.enable()


@contextmanager
def forwarding_signals(processes: RankProcesses) -> Iterator[None]:
    """Forwards stop signals to the ranks; raises Interrupted where no rank is running."""

    def forward(number: int, frame: FrameType | None) -> None:
        if not processes.living():
            raise Interrupted(f"stopped by {signal.Signals(number).name}", number)
        processes.send(number)

    with signals.handled_by(forward):
        yield


def free_port() -> int:
    """A TCP port of this machine on which no process listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# ---- one function call -------------------------------------------------------------------------------------------------------


def run_in_subprocess(work: Callable[..., T], *arguments: Any, progress: Callable[..., None] | None = None) -> T:
    """Calls a function in a subprocess that has imported torch, and returns its result.

    Args:
        work: called with the arguments and a function that reports progress.
        arguments: can be pickled.
        progress: called here with each progress report.

    Raises:
        ConfigError: the function raised an error of cnnbench.
        RunFailed: it raised another error, or its process was killed.
    """
    start_fork_server()
    here, there = multiprocessing.Pipe()
    worker = _new_process(_send_result, there, work, arguments)
    with signals_blocked():
        worker.start()
    there.close()
    try:
        while True:
            kind, content = here.recv()
            if kind == "done":
                return content
            if kind == "wrong":
                raise ConfigError(content)
            if kind == "failed":
                raise RunFailed(f"unexpected error\n{content}")
            if progress:
                progress(*content)
    except EOFError as error:
        worker.join()
        raise RunFailed(f"a process that checks the jobs has ended with exit code {worker.exitcode}") from error
    finally:
        worker.kill()


def _send_result(connection: Connection, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    _unblock_signals()
    sys.argv = sys.argv[:1]
    with suppress(BrokenPipeError):  # the launcher is gone
        try:
            connection.send(("done", work(*arguments, lambda *report: connection.send(("progress", report)))))
        except CnnbenchError as error:
            connection.send(("wrong", str(error)))
        except BrokenPipeError:
            raise
        except Exception:
            connection.send(("failed", traceback.format_exc()))
