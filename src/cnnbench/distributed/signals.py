"""SIGINT, SIGTERM and SIGUSR1 while a run is on."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

NUMBERS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))
SAME_S = 0.3  # one that comes again so soon is the same: Slurm and systemd send it to the launcher, which passes it on, and to the ranks


@contextmanager
def raising(error: Callable[[int], BaseException]) -> Iterator[None]:
    """A signal within is an exception: what `error` makes of its number."""

    def receive(number: int, frame: FrameType | None) -> None:
        raise error(number)

    before = {number: signal.signal(number, receive) for number in NUMBERS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Signals:
    """The first ends the run: at once, by a KeyboardInterrupt, or, while it is `held`, as soon as `received` is looked at.

    The second ends the process.

    Args:
        at_second: is called with its number before that.
    """

    def __init__(self, at_second: Callable[[int], None]) -> None:
        self.at_second = at_second
        self.received = 0
        self.held = False
        self._received_at = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._receive) for number in NUMBERS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def hold(self) -> None:
        """From now on somebody looks at `received` every now and then."""
        self.held = True

    def release(self) -> None:
        """From now on nobody does."""
        self.held = False
        if self.received:
            raise KeyboardInterrupt

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            if time.monotonic() - self._received_at > SAME_S:
                self.at_second(number)
                os._exit(128 + number)
            return
        self.received, self._received_at = number, time.monotonic()
        if not self.held:
            raise KeyboardInterrupt
