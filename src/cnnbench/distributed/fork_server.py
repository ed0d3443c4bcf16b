"""Where runs are carried out: the processes of one run on this machine, from a fork server that has imported torch and Lightning.

Lightning launches no process: it would start them with this one's command line.
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

GRACE_S = (
    15.0  # for the other ranks to end by themselves when one has, and for a rank to save when its launcher has died
)
Main = Callable[..., int]
T = TypeVar("T")


class Job:
    """The processes of one run: a rank each, in a session of its own, so that a key typed at the terminal reaches the launcher alone.

    Args:
        main: what each rank calls; its exit code is the rank's.
        arguments: what it is called with.
        ranks: how many there are.
        environment: variables for them, besides.
        output: where what they print goes, at the end of the file; None: to this process's.
    """

    def __init__(
        self,
        main: Main,
        arguments: tuple[Any, ...],
        ranks: int,
        environment: Mapping[str, str] | None = None,
        output: Path | None = None,
    ) -> None:
        port = free_port() if ranks > 1 else 0
        self.processes = [
            process(_be_rank, main, arguments, rank, ranks, port, dict(environment or {}), output)
            for rank in range(ranks)
        ]
        self._code = 0
        self._deadline: float | None = None  # for the ranks that are left

    def start(self) -> None:
        """Starts the ranks; the first job's wait until the fork server has imported what it is to share."""
        serve()
        GUARD.start()
        for rank in self.processes:
            rank.start()
            assert rank.pid is not None
            GUARD.watch(rank.pid)

    def send(self, number: int) -> None:
        """Passes a signal on to every rank."""
        for rank in self.living():
            assert rank.pid is not None
            with suppress(ProcessLookupError):
                os.kill(rank.pid, number)

    def kill(self) -> None:
        """Ends every rank at once, and whatever it has started."""
        for rank in self.processes:
            if rank.pid is None:
                continue
            elsewhere = _descendants(rank.pid) if rank.exitcode is None else []
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(rank.pid, signal.SIGKILL)
            for each in elsewhere:
                with suppress(psutil.Error):
                    each.kill()
            if rank.exitcode is None:  # it had no group of its own yet
                rank.kill()

    def living(self) -> list[ForkServerProcess]:
        """The ranks that have not ended."""
        return [rank for rank in self.processes if rank.pid is not None and rank.exitcode is None]

    @property
    def sentinels(self) -> list[int]:
        """What becomes ready when a rank ends."""
        return [rank.sentinel for rank in self.living()]

    def ended(self) -> int | None:
        """The exit code of the first rank that failed, else 0; below 0 it is a signal. None while some are on.

        When one has failed the others are given some seconds, then killed.
        """
        living = self.living()
        failed = [rank.exitcode for rank in self.processes if rank.exitcode]
        if failed and self._deadline is None:
            self._code, self._deadline = failed[0], time.monotonic() + GRACE_S
        if living and self._deadline is not None and time.monotonic() > self._deadline:
            self.kill()
        return None if living else self._code

    def wait(self) -> int:
        """The same, once all have ended."""
        while (code := self.ended()) is None:
            left = 1.0 if self._deadline is None else self._deadline - time.monotonic()
            wait(self.sentinels, timeout=max(0.05, left) if self._deadline else None)
        return code


def _descendants(pid: int) -> list[psutil.Process]:
    """What a process has started, be it in a session of its own."""
    with suppress(psutil.Error):
        return psutil.Process(pid).children(recursive=True)
    return []


class Guard:
    """A process that ends what this one has started when this one is killed, be it in the midst of a call that lets no other thread run."""

    def __init__(self) -> None:
        self._pids: Connection | None = None

    def start(self) -> None:
        """Starts it, if it is not on."""
        if self._pids is None:
            told, self._pids = multiprocessing.Pipe(duplex=False)
            guard = process(_guard, told)
            guard.daemon = True  # nobody waits for it
            with held_back():
                guard.start()
            told.close()

    def watch(self, pid: int) -> None:
        """A process's group is to end some seconds after this process has, by itself or by force."""
        with suppress(OSError):  # it was killed
            if self._pids is not None:
                self._pids.send(pid)

    def dismiss(self) -> None:
        """Nothing is left to be watched; it ends."""
        if self._pids is not None:
            self._pids.close()
            self._pids = None


GUARD = Guard()


def _guard(told: Connection) -> None:
    _begin()
    watched = []
    with suppress(EOFError):
        while True:
            with suppress(psutil.NoSuchProcess):
                watched.append(psutil.Process(told.recv()))  # knows it by when it began, too
            watched = [each for each in watched if each.is_running()]
    deadline = time.monotonic() + GRACE_S
    while time.monotonic() < deadline and (watched := [each for each in watched if each.is_running()]):
        time.sleep(0.1)
    for each in watched:
        with suppress(ProcessLookupError, psutil.NoSuchProcess):
            os.killpg(each.pid, signal.SIGKILL)


def serve() -> None:
    """Starts the fork server, if it is not on.

    It takes no notice of signals, which may come to all processes of a job: it ends when this one has.
    """
    forkserver.set_forkserver_preload(["cnnbench.training.preload"])
    resource_tracker.ensure_running()  # which would let them through again
    with held_back():  # the fork server keeps it so
        forkserver.ensure_running()


@contextmanager
def held_back() -> Iterator[None]:
    """A signal that comes within is met at its end: nothing is begun by halves."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals.NUMBERS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def dismiss() -> None:
    """Ends the fork server, when no further process is wanted: it would take a second to end by itself."""
    GUARD.dismiss()
    server: Any = forkserver._forkserver
    if server._forkserver_pid is not None:
        with suppress(ProcessLookupError):
            os.kill(server._forkserver_pid, signal.SIGKILL)
        server._stop()


def process(target: Callable[..., None], *arguments: Any) -> ForkServerProcess:
    """A process of the fork server's, not started; signals are blocked in it until it lets them in."""
    return multiprocessing.get_context("forkserver").Process(target=target, args=arguments)


def _be_rank(
    main: Main,
    arguments: tuple[Any, ...],
    rank: int,
    ranks: int,
    port: int,
    environment: dict[str, str],
    output: Path | None,
) -> None:
    _begin(output)
    threading.Thread(target=_end_with_launcher, daemon=True).start()
    os.environ |= environment
    if ranks > 1:
        os.environ |= {
            "RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0", "WORLD_SIZE": str(ranks),
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        }  # fmt: skip
    sys.argv = sys.argv[:1]
    sys.exit(main(*arguments))


def _begin(output: Path | None = None) -> None:
    """In a session of its own; a signal ends it without a word, until it is told otherwise: the launcher says why."""
    os.setsid()
    if output is not None:
        into(output)
    for number in signals.NUMBERS:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals.NUMBERS)


def into(output: Path) -> None:
    """Has all that this process prints, and what it says when it crashes, go to the end of a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    with output.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    faulthandler.enable()


def _end_with_launcher() -> None:
    """When the launcher dies, by kill -9 say: saves what there is, and ends."""
    launcher = multiprocessing.parent_process()
    assert launcher is not None
    wait([launcher.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_S)
    os.killpg(0, signal.SIGKILL)


@contextmanager
def forwarding(job: Job) -> Iterator[None]:
    """Signals to this process go to the ranks instead; where there are none yet, it ends."""

    def forward(number: int, frame: FrameType | None) -> None:
        if not job.living():
            raise Interrupted(f"stopped by {signal.Signals(number).name}", number)
        job.send(number)

    before = {number: signal.signal(number, forward) for number in signals.NUMBERS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def elsewhere(work: Callable[..., T], *arguments: Any, progress: Callable[..., None] | None = None) -> T:
    """What a function gives, called in a process of its own that has imported torch.

    Args:
        work: is called with the arguments, and with a function that tells `progress`.
        arguments: what can be pickled.
        progress: is called here with what `work` tells.

    Raises:
        ConfigError: what the function raised as such.
        RunFailed: it raised something else, or its process was killed.
    """
    serve()
    here, there = multiprocessing.Pipe()
    worker = process(_work, there, work, arguments)
    with held_back():
        worker.start()
    there.close()
    try:
        while True:
            kind, said = here.recv()
            if kind == "progress":
                if progress:
                    progress(*said)
            elif kind == "done":
                return said
            elif kind == "wrong":
                raise ConfigError(said)
            else:
                raise RunFailed(f"unexpected error\n{said}")
    except EOFError as error:
        worker.join()
        raise RunFailed(f"a process that checks the jobs has ended with {worker.exitcode}") from error
    finally:
        worker.kill()


def _work(connection: Connection, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    _begin()
    threading.Thread(target=_end_with_launcher, daemon=True).start()
    sys.argv = sys.argv[:1]
    with suppress(BrokenPipeError):  # nobody waits for it any more
        try:
            connection.send(("done", work(*arguments, lambda *said: connection.send(("progress", said)))))
        except CnnbenchError as error:
            connection.send(("wrong", str(error)))
        except BrokenPipeError:
            raise
        except Exception:
            connection.send(("failed", traceback.format_exc()))
