"""A TCP proxy that can be told to misbehave: between ingest and the database, ingest and the broker, gateway and broker."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from types import TracebackType
from typing import Self

from psycopg.conninfo import conninfo_to_dict

from citynet.runtime.child import free_port
from tests.ingest import wait_for

_CHUNK_BYTES = 65_536
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER of zero seconds: close sends RST


def port_of(dsn: str) -> int:
    """The port to stand in front of."""
    return int(str(conninfo_to_dict(dsn)["port"]))


class _Link:
    """One connection through the proxy: the client's socket and the server's."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client, self.server = client, server
        self.is_half_open = False
        self.is_orphan = False

    def reset(self) -> None:
        """End both sides with RST, as a router does that has forgotten the connection."""
        for end in (self.client, self.server):
            _reset(end)

    def orphan(self) -> None:
        """The client's side is gone; the server hears nothing of it."""
        self.is_orphan = True
        _reset(self.client)

    def half_open(self) -> None:
        """The server's side is gone; the client hears nothing of it."""
        self.is_half_open = True
        _reset(self.server)


def _reset(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads it
    end.close()


class Proxy:
    """Forwards 127.0.0.1:`port` to 127.0.0.1:`target`; a thread a direction, all ended by `close`.

    `stop` refuses and resets, `start` listens again on the same port; `deaf` holds every byte back, `heal` lets them go;
    `slow` delays every chunk; `reset` cuts what is connected; `half_open` loses the server's side of it silently;
    `cut_after` and `cut_at` reset the connection at a chosen byte of what the client says.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._lock = threading.Lock()
        self._links: list[_Link] = []
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self._orphans: list[_Link] = []
        self._listener: socket.socket | None = None
        self._hearing = threading.Event()
        self._closing = threading.Event()
        self._delay_s = 0.0
        self._bytes_left: int | None = None
        self._pattern: bytes | None = None
        self._forward_pattern = False
        self.accepted = 0
        self.cuts = 0
        self.port = free_port()  # ours while nobody listens as well: `start` must find it free
        self._hearing.set()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._hearing.set()
        self.stop()
        for end in self._sockets:
            _reset(end)
        for thread in self._threads:
            thread.join(5)

    # --- what may be asked of it ---

    def start(self) -> None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen()
        with self._lock:
            self._listener = listener
        self._spawn(self._accept, listener)

    def stop(self) -> None:
        with self._lock:
            listener, self._listener = self._listener, None
        if listener is not None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        self.reset()

    def reset(self) -> None:
        for link in self._taken():
            link.reset()

    def half_open(self) -> None:
        for link in self._taken():
            link.half_open()

    def orphan(self) -> None:
        """Cut the clients off; the server still believes in them, until `release`."""
        orphans = self._taken()
        self._orphans += orphans
        for link in orphans:
            link.orphan()

    def release(self) -> None:
        while self._orphans:
            _reset(self._orphans.pop().server)

    def deaf(self) -> None:
        self._hearing.clear()

    def slow(self, delay_s: float) -> None:
        self._delay_s = delay_s

    def heal(self) -> None:
        self._delay_s = 0.0
        self._hearing.set()

    def cut_after(self, count: int) -> None:
        """Forward `count` more bytes of what clients say, then reset that connection (once)."""
        with self._lock:
            self._bytes_left = count

    def cut_at(self, pattern: bytes, *, forward: bool) -> None:
        """Reset the next connection on which a client says `pattern` in one chunk (once): after the server got that chunk,
        but before the client hears the answer, or (`forward` false) before the server got it."""
        with self._lock:
            self._pattern, self._forward_pattern = pattern, forward

    def wait_cut(self, cuts: int) -> None:
        """Until so many connections were cut at a chosen byte."""
        wait_for(lambda: self.cuts >= cuts, f"{cuts} connections are cut")

    # --- threads ---

    def _taken(self) -> list[_Link]:
        with self._lock:
            links, self._links = self._links, []
        return links

    def _spawn(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, name="proxy", daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._target), timeout=5)
            except OSError:
                _reset(client)
                self.accepted += 1
                continue
            server.settimeout(None)
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            link = _Link(client, server)
            if not self._admit(link, listener):
                link.reset()
                return
            self._spawn(self._pump, link, client, server, True)
            self._spawn(self._pump, link, server, client, False)

    def _admit(self, link: _Link, listener: socket.socket) -> bool:
        """Whether `stop` did not come in between: what it did not find to reset would live on behind a closed port.

        Who sees `accepted` grow can be sure that the connection is one that `stop` and `reset` find."""
        with self._lock:
            if listener is not self._listener:
                return False
            self._links.append(link)
            self._sockets += (link.client, link.server)
            self.accepted += 1
            return True

    def _pump(self, link: _Link, source: socket.socket, sink: socket.socket, is_client: bool) -> None:
        try:
            while data := source.recv(_CHUNK_BYTES):
                self._hearing.wait()
                if self._delay_s and self._closing.wait(self._delay_s):
                    return
                if is_client:
                    data, is_cut = self._cut(data)
                    if is_cut:
                        self._finish_cut(link, data)
                        return
                if not link.is_half_open:
                    sink.sendall(data)
        except OSError:
            pass
        if not (link.is_half_open or link.is_orphan):
            link.reset()

    def _cut(self, data: bytes) -> tuple[bytes, bool]:
        """What may still go to the server, and whether the connection ends with it."""
        with self._lock:
            if self._pattern is not None and self._pattern in data:
                self._pattern = None
                return (data if self._forward_pattern else b""), True
            if self._bytes_left is None:
                return data, False
            if len(data) < self._bytes_left:
                self._bytes_left -= len(data)
                return data, False
            count, self._bytes_left = self._bytes_left, None
            return data[:count], True

    def _finish_cut(self, link: _Link, data: bytes) -> None:
        """The client hears nothing more; what it said so far reaches the server, which then sees an orderly end, whatever
        it has to say meanwhile."""
        link.orphan()
        with contextlib.suppress(OSError):
            link.server.sendall(data)
            link.server.shutdown(socket.SHUT_WR)
        self.cuts += 1
