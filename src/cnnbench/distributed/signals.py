"""Handling of the signals that stop a run or a sweep: the first lets it save, the second ends it at once."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType

from cnnbench.errors import Interrupted

NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU", "SIGBREAK")  # the last: Ctrl-Break on Windows
STOP_SIGNALS = tuple(getattr(signal, name) for name in NAMES if hasattr(signal, name))
# sent again by the system: the first by the shell after the terminal, the second by the kernel once a second
REPEATED = ("SIGHUP", "SIGXCPU")
_received: set[str] = set()  # the signals that this process has handled
REPEAT_S = 0.3  # Slurm and systemd send a signal to the launcher, which forwards it, and to the ranks: it arrives twice


@contextmanager
def handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Calls `handler` for the stop signals inside the context, and restores the former handlers at its end.

    SIGHUP stays ignored where it is, as under nohup. A signal that has come and that the system repeats is ignored afterwards: it
    would kill this process while it exits.
    """

    def handle(number: int, frame: FrameType | None) -> None:
        _received.add(signal.Signals(number).name)
        handler(number, frame)

    before = {number: signal.signal(number, handle) for number in STOP_SIGNALS if not is_ignored_hangup(number)}
    try:
        yield
    finally:
        for number, former in before.items():
            repeated = signal.Signals(number).name in _received.intersection(REPEATED)
            signal.signal(number, signal.SIG_IGN if repeated else former)


def is_ignored_hangup(number: int) -> bool:
    """Whether this is SIGHUP, and this process ignores it: nohup and disown ask for that."""
    return signal.Signals(number).name == "SIGHUP" and signal.getsignal(number) is signal.SIG_IGN


def is_second(number: int, first_at: float) -> bool:
    """Whether a stop signal asks for the end at once: it is no repetition of the first one.

    Args:
        number: of the signal.
        first_at: when the first stop signal came, by `time.monotonic`.
    """
    return signal.Signals(number).name not in REPEATED and time.monotonic() - first_at > REPEAT_S


def killed_by(number: int) -> str:
    """`'killed by SIGSEGV'`; after SIGKILL with the question whether there was enough memory."""
    name = signal.Signals(number).name
    return f"killed by {name}" + ("; was there enough memory?" if name == "SIGKILL" else "")


class SignalHandler(ExitStack):
    """Interrupts a run at the first stop signal, and ends the process at the second.

    The first signal sets `received` and raises KeyboardInterrupt; while the handler is `held`, it only sets `received`, which
    the training loop reads between two steps. In another thread than the main one the signals keep their handlers.

    Args:
        at_second: called with the number of the second signal before the process ends.

    Attributes:
        received: number of the first signal; 0: none came.
        has_interrupted: whether KeyboardInterrupt was raised, which a library may have turned into another exception.
    """

    def __init__(self, at_second: Callable[[int], None] = lambda number: None) -> None:
        super().__init__()
        self.at_second = at_second
        self.received = 0
        self.has_interrupted = False
        self.held = False
        self._received_at = 0.0

    def __enter__(self) -> SignalHandler:
        if threading.current_thread() is threading.main_thread():
            self.enter_context(handled_by(self._receive))
        return self

    def hold(self) -> None:
        """Makes signals only set `received` from now on."""
        self.held = True

    def release(self) -> None:
        """Makes signals interrupt again; raises KeyboardInterrupt if one arrived while the handler was held."""
        self.held = False
        if self.received:
            self.has_interrupted = True
            raise KeyboardInterrupt

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            if is_second(number, self._received_at):
                self.at_second(number)
                os._exit(128 + number)
            return
        self.received, self._received_at = number, time.monotonic()
        if not self.held:
            self.has_interrupted = True
            raise KeyboardInterrupt


@contextmanager
def interruptible() -> Iterator[None]:
    """Ends what is inside at the first stop signal, and the process at the second.

    Raises:
        Interrupted: a signal came.
    """
    with SignalHandler() as handler:
        try:
            yield
        except BaseException as error:
            if handler.has_interrupted:
                raise Interrupted(f"stopped by {signal.Signals(handler.received).name}", handler.received) from error
            raise
