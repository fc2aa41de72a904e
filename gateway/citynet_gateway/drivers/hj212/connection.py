"""One connection of a station: bytes in, frames to the driver, answers out. Lives on the driver's event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from citynet_gateway.drivers.hj212.frame import Broken, Deframer, Frame
from citynet_gateway.drivers.hj212.readings import Station

UNANSWERED_MAX = 16  # messages of one connection that wait for their sync; then it is not read
UNSENT_BYTES_MAX = 16 * 1024  # answers that a station does not take
NONSENSE_MAX = 100  # broken pieces without one frame of a known station in between


class Owner(Protocol):
    """What a connection tells its driver."""

    def opened(self, connection: Connection) -> None: ...

    def closed(self, connection: Connection) -> None: ...

    def took(self, connection: Connection, piece: Frame | Broken) -> None: ...

    @property
    def full(self) -> bool:
        """Whether nobody may be read now."""
        ...


class Connection(asyncio.Protocol):
    """A connection; `station` is known with its first frame that is in order."""

    def __init__(self, owner: Owner, data_bytes_max: int, clock_s: Callable[[], float]) -> None:
        self._owner = owner
        self._deframer = Deframer(data_bytes_max)
        self._clock_s = clock_s
        self._transport: asyncio.Transport | None = None
        self._working = self._stopped = False
        self.station: Station | None = None
        self.peer = ""
        self.unanswered = 0
        self.nonsense = 0
        self.opened_s = self.frame_s = clock_s()  # when the last whole frame came
        self.begun_s: float | None = None  # since when a frame is incomplete

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101
        self._transport = transport
        peer = transport.get_extra_info("peername")
        self.peer = str(peer[0]) if peer else "?"
        self._owner.opened(self)

    def data_received(self, data: bytes) -> None:
        self._deframer.feed(data)
        self.work()

    def connection_lost(self, _error: Exception | None) -> None:
        rest = self._deframer.rest()
        if rest is not None:
            self._owner.took(self, rest)
        self._transport = None
        self._owner.closed(self)

    def work(self) -> None:
        """Hand over what is whole, as long as answers do not stay away."""
        if self._working:
            return
        self._working = True
        while self.is_open and not self._held:
            piece = self._deframer.next()
            if piece is None:
                break
            if isinstance(piece, Frame):
                self.frame_s = self._clock_s()
            self._owner.took(self, piece)
        self._working = False
        self.begun_s = (self.begun_s or self._clock_s()) if self._deframer.waiting else None
        self.breathe()

    @property
    def _held(self) -> bool:
        return self._stopped or self.unanswered >= UNANSWERED_MAX or self._owner.full

    def breathe(self) -> None:
        """Read, or do not: a station that is not read waits, which is what it understands."""
        if self._transport is not None and self.is_open:
            if self._held:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    def stop_reading(self) -> None:
        """Take nothing more; answers still go out."""
        self._stopped = True
        self.breathe()

    def send(self, data: bytes) -> None:
        """Send, unless the station does not take what it was sent before; then the connection is of no use."""
        if self._transport is None or not self.is_open:
            return
        if self._transport.get_write_buffer_size() > UNSENT_BYTES_MAX:
            self._transport.abort()
        else:
            self._transport.write(data)

    def close(self) -> None:
        """Close after what is to be sent."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()
