"""Ends HTTP connections that take too long although they never pause, as of a server that sends headers for ever.

The time limit of a socket is for each read: a server that sends a byte now and then does not exceed it.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from math import inf
from typing import Any

from requests.adapters import HTTPAdapter

POLL_S = 0.1


class Watchdog(HTTPAdapter):
    """An adapter for a session of requests; ends its connections when a block takes longer than its `limit`.

    A context, in which a thread watches.

    Attributes:
        late: whether a block has taken too long.
    """

    def __init__(self) -> None:
        self.late = False
        self._until = inf
        self._sockets: list[socket.socket] = []  # second handles, as the TLS library takes over the first ones
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="download watchdog", daemon=True)
        super().__init__()

    def __enter__(self) -> Watchdog:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()
        self.close()
        for each in self._sockets:
            each.close()

    @contextmanager
    def limit(self, seconds: float) -> Iterator[None]:
        """Ends all connections if the block takes longer."""
        self._until = time.monotonic() + seconds
        try:
            yield
        finally:
            self._until = inf

    def init_poolmanager(self, *arguments: Any, **keys: Any) -> None:
        """Makes the pools of connections, which note each socket."""
        super().init_poolmanager(*arguments, **keys)
        self._watch_pools(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **keys: Any) -> Any:
        """The pools of connections to a proxy, which note each socket."""
        manager = super().proxy_manager_for(proxy, **keys)
        self._watch_pools(manager)
        return manager

    def _watch_pools(self, manager: Any) -> None:
        """Makes a manager of urllib3 use connections that note their sockets."""
        sockets = self._sockets

        def watched(pool: Any) -> Any:
            class Connection(pool.ConnectionCls):
                def _new_conn(self) -> socket.socket:
                    made: socket.socket = super()._new_conn()
                    sockets.append(made.dup())
                    return made

            return type(pool.__name__, (pool,), {"ConnectionCls": Connection})

        pools = manager.pool_classes_by_scheme
        manager.pool_classes_by_scheme = {scheme: watched(pool) for scheme, pool in pools.items()}

    def _watch(self) -> None:
        while not self._ended.wait(POLL_S):
            self.late |= time.monotonic() > self._until
            for each in self._sockets if self.late else ():  # also those made since, as after a redirect
                with suppress(OSError):  # it is closed already
                    each.shutdown(socket.SHUT_RDWR)
