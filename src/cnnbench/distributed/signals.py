"""Handling of SIGINT, SIGTERM and SIGUSR1 during a run or a sweep."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType

STOP_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))
REPEAT_S = 0.3  # Slurm and systemd send a signal to the launcher, which forwards it, and to the ranks: it arrives twice


@contextmanager
def handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Calls `handler` for the stop signals inside the context, and restores the former handlers at its end."""
    before = {number: signal.signal(number, handler) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)


class SignalHandler(ExitStack):
    """Interrupts a run at the first stop signal, and ends the process at the second.

    The first signal sets `received` and raises KeyboardInterrupt; while the handler is `held`, it only sets `received`, which
    the training loop reads between two steps. In another thread than the main one the signals keep their handlers.

    Args:
        at_second: called with the number of the second signal before the process ends.
    """

    def __init__(self, at_second: Callable[[int], None]) -> None:
        super().__init__()
        self.at_second = at_second
        self.received = 0
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
            raise KeyboardInterrupt

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            if time.monotonic() - self._received_at > REPEAT_S:
                self.at_second(number)
                os._exit(128 + number)
            return
        self.received, self._received_at = number, time.monotonic()
        if not self.held:
            raise KeyboardInterrupt
