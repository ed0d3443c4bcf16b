"""Where runs are carried out: the processes of one run on this machine, from a fork server that has imported torch and Lightning.

Lightning launches no process: it would start them with this one's command line.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from types import FrameType
from typing import Any

from cnnbench import signals
from cnnbench.errors import Interrupted

GRACE_S = (
    15.0  # for the other ranks to end by themselves when one has, and for a rank to save when its launcher has died
)
Main = Callable[..., int]


class Job:
    """The processes of one run: a rank each, in a session of its own, so that a key typed at the terminal reaches the launcher alone.

    Args:
        main: what each rank calls; its exit code is the rank's.
        arguments: what it is called with.
        ranks: how many there are.
    """

    def __init__(self, main: Main, arguments: tuple[Any, ...], ranks: int) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["cnnbench.train"])
        port = free_port()
        self.processes = [
            context.Process(target=_be_rank, args=(main, arguments, rank, ranks, port), name=f"rank {rank}")
            for rank in range(ranks)
        ]

    def start(self) -> None:
        """Starts the ranks; the first job's wait until the fork server has imported what it is to share.

        The fork server takes no notice of signals, which may come to all processes of a job: it ends when this one has.
        """
        resource_tracker.ensure_running()  # which would let them through again
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signals.NUMBERS)  # the fork server keeps it so
        try:
            forkserver.ensure_running()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for process in self.processes:
            process.start()

    def send(self, number: int) -> None:
        """Passes a signal on to every rank."""
        for process in self.living():
            assert process.pid is not None
            os.kill(process.pid, number)

    def living(self) -> list[ForkServerProcess]:
        """The ranks that have not ended."""
        return [process for process in self.processes if process.pid is not None and process.exitcode is None]

    def wait(self) -> int:
        """The exit code of the first rank that failed, else 0; below 0 it is a signal. The others are given some seconds, then killed."""
        code, deadline = 0, None
        while living := self.living():
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                for process in living:
                    process.kill()
            wait([process.sentinel for process in living], timeout=left if left is None or left > 0 else 1)
            ended = [process.exitcode for process in self.processes if process.exitcode]
            if ended and deadline is None:
                code, deadline = ended[0], time.monotonic() + GRACE_S
        return code


def _be_rank(main: Main, arguments: tuple[Any, ...], rank: int, ranks: int, port: int) -> None:
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # what has not begun ends without a word: the launcher says why
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals.NUMBERS)
    threading.Thread(target=_end_with_launcher, daemon=True).start()
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0", "WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    sys.argv = sys.argv[:1]
    sys.exit(main(*arguments))


def _end_with_launcher() -> None:
    """When the launcher dies, by kill -9 say: saves what there is, and ends."""
    launcher = multiprocessing.parent_process()
    assert launcher is not None
    wait([launcher.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_S)
    os._exit(1)


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
