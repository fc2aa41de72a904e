"""A client-side deadline for the database: the connection of work that takes too long is cut, and the retry path takes over.

The server's own `statement_timeout` ends before COMMIT does its work, and a server that is stopped, or sits behind something
that still answers at TCP, times nothing out. Cutting is safe because of what the next connection must do first: take our
shards' locks. They belong to the old server process until it is gone, so when we have them its transaction is decided, and
the commit number tells which way (ADR 6).
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator


class Watchdog:
    """Watches the work on one connection, of one thread at a time; `check` is called by another one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._limit_s = 0.0
        self._since: float | None = None

    def attach(self, fileno: int) -> None:
        """From now on this is the connection to cut. A duplicate is kept: the number itself may be another's by then."""
        duplicate = socket.socket(fileno=os.dup(fileno))
        with self._lock:
            self._close()
            self._socket = duplicate

    def detach(self) -> None:
        with self._lock:
            self._close()

    @contextlib.contextmanager
    def limit(self, seconds: float) -> Iterator[None]:
        """What happens inside may take so long from its start, or from the last `heard`."""
        with self._lock:
            self._limit_s, self._since = seconds, time.monotonic()
        try:
            yield
        finally:
            with self._lock:
                self._since = None

    def heard(self) -> None:
        """The server answered: the limit counts from here."""
        with self._lock:
            if self._since is not None:
                self._since = time.monotonic()

    def check(self, *, is_over: bool = False) -> bool:
        """Cut the connection if its work is overdue, or (`is_over`) whatever its work. Whether it did."""
        with self._lock:
            if self._since is None or self._socket is None:
                return False
            if not is_over and time.monotonic() - self._since < self._limit_s:
                return False
            with contextlib.suppress(OSError):  # it is gone already
                self._socket.shutdown(socket.SHUT_RDWR)
            self._close()
            return True

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
