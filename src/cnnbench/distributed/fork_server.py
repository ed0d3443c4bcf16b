"""Starts processes on this machine from a fork server that has imported torch and Lightning: in 0.02 s instead of 8 s.

The ranks of a run are started here, not by Lightning, which would start them with the command line of this process. A system
without a fork server, as Windows, starts a new interpreter for each process.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.sharedctypes import RawArray
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import psutil

from cnnbench.config import import_path
from cnnbench.distributed import signals
from cnnbench.distributed.ranks import share_killed_rank
from cnnbench.distributed.safe_path import leave_out_current_folder
from cnnbench.errors import CnnbenchError, ConfigError, Interrupted, RunFailed, long_names_refused, print_traceback
from cnnbench.files import open_unlinked
from cnnbench.output import guarded_output
from cnnbench.text import one_line

GRACE_S = 15.0  # for the other ranks to exit after one has failed, and for a rank to save after its launcher has died
LOST = 255  # multiprocessing's exit code of a process whose fork server was killed; the process itself may be alive
KILL = getattr(signal, "SIGKILL", 9)  # on Windows any number ends a process
HAS_FORK_SERVER = all(
    hasattr(module, name) for module, name in ((os, "setsid"), (os, "killpg"), (signal, "pthread_sigmask"))
)
context: Any = multiprocessing.get_context("forkserver" if HAS_FORK_SERVER else "spawn")
T = TypeVar("T")

leave_out_current_folder()


# ---- the fork server and its watchdog --------------------------------------------------------------------------------------


_watchdog: Connection | None = None  # the pipe to it, where children register


def start_fork_server() -> None:
    """Starts the fork server and the watchdog, unless they are running, or the system has no fork server.

    The fork server blocks signals, as they may be sent to all processes of a job; it exits when this process has.

    The watchdog ends the child process groups when the launcher dies, even while the launcher or a child holds the GIL. It is
    a separate process that reads a pipe, to which each child writes its process id. The pipe ends when the launcher has died:
    then the watchdog sends SIGTERM to the children, so that they save, and kills their process groups `GRACE_S` later.
    """
    global _watchdog
    if not HAS_FORK_SERVER:
        return
    forkserver.set_forkserver_preload(["cnnbench.training.preload"])
    resource_tracker.ensure_running()  # its start would unblock the signals again
    with signals_blocked():  # inherited by the fork server
        forkserver.ensure_running()
        if _watchdog is None:
            read_end, _watchdog = multiprocessing.Pipe(duplex=False)
            # a daemon is not waited for
            _start(context.Process(target=_end_children_with_launcher, args=(read_end, GRACE_S), daemon=True))
            read_end.close()


def stop_fork_server() -> None:
    """Kills the fork server when no further process is needed; it would take a second to exit by itself.

    Ends the watchdog as well: no child may be alive.
    """
    global _watchdog
    if _watchdog is not None:
        _watchdog.close()
        _watchdog = None
    server: Any = forkserver._forkserver
    if server._forkserver_pid is not None:
        with suppress(ProcessLookupError):
            os.kill(server._forkserver_pid, KILL)
        server._stop()


@contextmanager
def signals_blocked() -> Iterator[None]:
    """Delays signals until the end of the context, so that what is inside is not interrupted half-way; on Windows it cannot."""
    if not HAS_FORK_SERVER:
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals.STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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
    for child in psutil.wait_procs(children, timeout=grace_s)[1]:  # those that are alive
        with suppress(ProcessLookupError, psutil.NoSuchProcess):
            os.killpg(child.pid, KILL)


def _new_process(target: Callable[..., None], *arguments: Any) -> BaseProcess:
    """A process from the fork server, not yet started, that registers with the watchdog; signals are blocked in it at first."""
    return context.Process(target=_run_watched, args=(_watchdog, import_path.allowed_folder(), target, arguments))


def _start(process: BaseProcess) -> None:
    """Starts a process; where the fork server was killed meanwhile, as for lack of memory, with a second one.

    Raises:
        RunFailed: that was killed as well.
    """
    try:
        process.start()
    except (EOFError, OSError):
        try:
            forkserver.ensure_running()
            process.start()
        except (EOFError, OSError) as error:
            raise RunFailed(
                "the fork server, which starts the processes, was killed twice; was there enough memory?"
            ) from error


def _run_watched(
    watchdog: Connection | None, folder: str | None, target: Callable[..., None], arguments: tuple[Any, ...]
) -> None:
    """Calls the target in a new process, which may import the user's modules from the folder."""
    import_path.allow(folder)
    if watchdog is None:  # without a fork server
        threading.Thread(target=_stop_with_launcher, daemon=True).start()
    else:
        os.setsid()  # the watchdog kills the process group of this session
        with suppress(OSError):  # the watchdog was killed
            watchdog.send(os.getpid())
        watchdog.close()  # the launcher alone keeps the pipe open
    _unblock_signals()
    sys.argv = sys.argv[:1]
    with guarded_output():
        target(*arguments)


def _stop_with_launcher() -> None:
    """Waits until the launcher has died, and then has this process save and exit."""
    launcher = multiprocessing.parent_process()
    if launcher is not None:
        launcher.join()
        signal.raise_signal(signal.SIGTERM)


def _unblock_signals() -> None:
    """Lets a signal end this process silently: the launcher reports why."""
    for number in signals.STOP_SIGNALS:
        if not signals.is_ignored_hangup(number):
            signal.signal(number, signal.SIG_DFL)
    if HAS_FORK_SERVER:
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
        environment: Mapping[str, str] = {},
        output: Path | None = None,
    ) -> None:
        self._killed = RawArray("i", 2)  # the rank that was killed first, and the signal
        self._arguments = [
            (main, arguments, {**environment, **variables}, output, self._killed)
            for variables in _torchrun_variables(ranks)
        ]
        self.processes: list[BaseProcess] = []
        self._exit_code = 0
        self._deadline: float | None = None  # for the ranks that are left after one has failed

    def start(self) -> None:
        """Starts the ranks; those of the first run wait until the fork server has imported torch."""
        start_fork_server()
        for arguments in self._arguments:
            rank = _new_process(_run_rank, *arguments)
            _start(rank)
            self.processes.append(rank)

    def send(self, number: int) -> None:
        """Sends a signal to every rank; on Windows the console has done so, and `os.kill` would end a rank at once."""
        for rank in self.living() if os.name != "nt" else ():
            assert rank.pid is not None
            with suppress(ProcessLookupError):
                os.kill(rank.pid, number)

    def forward(self, number: int, frame: FrameType | None) -> None:
        """Handles a signal: sends it to every rank; raises Interrupted where no rank is running."""
        if not self.living():
            raise Interrupted(f"stopped by {signal.Signals(number).name}", number)
        self.send(number)

    def kill(self) -> None:
        """Kills every rank and the processes that it has started."""
        for rank in self.processes:
            assert rank.pid is not None
            descendants: list[psutil.Process] = []  # in other sessions
            if rank.exitcode is None:
                with suppress(psutil.Error):
                    descendants = psutil.Process(rank.pid).children(recursive=True)
            if HAS_FORK_SERVER:
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(rank.pid, KILL)
            for each in descendants:
                _kill(each.pid)
            if rank.exitcode is None:  # it may have no session yet
                _kill(rank.pid)

    def living(self) -> list[BaseProcess]:
        """The ranks that have started and not exited."""
        return [rank for rank in self.processes if rank.exitcode is None or (rank.exitcode == LOST and _is_alive(rank))]

    def sentinels(self) -> list[int]:
        """What `multiprocessing.connection.wait` waits for: the end of a rank, or of its fork server."""
        return [rank.sentinel for rank in self.processes if rank.exitcode is None]

    @property
    def reported(self) -> bool:
        """Whether a rank has reported an error, and exited by itself."""
        return any(0 < (rank.exitcode or 0) < LOST for rank in self.processes)

    def exit_code(self) -> int | None:
        """The exit code of the first rank that failed, else 0; negative: the signal that ended it; None while a rank runs.

        After one has failed, the others have `GRACE_S` to exit, then they are killed. Where the fork server was killed, its
        ranks are asked to save: they count as ended by SIGTERM.
        """
        living = self.living()
        failed = [(number, rank.exitcode) for number, rank in enumerate(self.processes) if rank.exitcode]
        if failed and self._deadline is None:
            number, code = failed[0]
            if code == LOST:
                self.send(signal.SIGTERM)
                code = -signal.SIGTERM
            elif code < 0:
                self._killed[:] = number, -code
            self._exit_code, self._deadline = code, time.monotonic() + GRACE_S
        if living and self._deadline is not None and time.monotonic() > self._deadline:
            self.kill()
        return None if living else self._exit_code

    def wait(self) -> int:
        """Waits until all ranks have exited, and returns their `exit_code`."""
        while (code := self.exit_code()) is None:
            timeout = None if self._deadline is None else 0.1
            wait(self.sentinels(), timeout)
        return code


def _torchrun_variables(ranks: int) -> list[dict[str, str]]:
    """The environment variables of torchrun for each rank; none for a single one."""
    if ranks == 1:
        return [{}]
    shared = {"GROUP_RANK": "0", "WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    return [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(ranks)]


def _kill(pid: int) -> None:
    with suppress(OSError):  # it has ended
        os.kill(pid, KILL)


def _is_alive(rank: BaseProcess) -> bool:
    try:
        return psutil.Process(rank.pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _run_rank(
    main: Callable[..., int],
    arguments: tuple[Any, ...],
    environment: dict[str, str],
    output: Path | None,
    killed: Sequence[int],
) -> None:
    """Runs one rank; its output, and the traceback of a crash, are appended to the file."""
    share_killed_rank(killed)
    if output is not None:
        sys.stdout.flush()
        sys.stderr.flush()
        try:
            with open(output, "ab", opener=open_unlinked) as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
        except OSError:  # its folder has been removed, which the launcher reports
            sys.exit(RunFailed.exit_code)
        faulthandler.enable()
    os.environ |= environment
    sys.exit(main(*arguments))


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
        _start(worker)
    there.close()
    try:
        while True:
            kind, content = here.recv()
            if kind == "done":
                return content
            if kind == "error":
                raise content
            if progress:
                progress(*content)
    except EOFError as error:
        worker.join()
        raise RunFailed(f"a process that checks the jobs has ended with exit code {worker.exitcode}") from error
    finally:
        if worker.exitcode is None and worker.pid is not None:
            _kill(worker.pid)


def _send_result(connection: Connection, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    with suppress(BrokenPipeError):  # the launcher is gone
        try:
            with long_names_refused():
                connection.send(("done", work(*arguments, lambda *report: connection.send(("progress", report)))))
        except CnnbenchError as error:
            connection.send(("error", ConfigError(str(error))))
        except Exception as error:
            print_traceback(error)
            connection.send(("error", RunFailed(f"unexpected error, {type(error).__name__}: {one_line(error)}")))
