"""The listening socket and its connections: how many, how long, and who gives way. Lives on the driver's event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from citynet.runtime import log
from citynet_gateway import metrics
from citynet_gateway.drivers.hj212.connection import Connection, Owner
from citynet_gateway.drivers.hj212.settings import Hj212Settings

RETRY_S = 5.0
_BACKLOG = 64

logger = log.get(__name__)


class Listener:
    """Accepts connections within the bounds of the settings."""

    def __init__(self, owner: Owner, settings: Hj212Settings, clock_s: Callable[[], float]) -> None:
        self._owner = owner
        self._settings = settings
        self._clock_s = clock_s
        self._server: asyncio.Server | None = None
        self._outage = log.OutageLog(logger, "hj212-listener")
        self._ending = False
        self.connections: list[Connection] = []  # oldest first

    @property
    def trouble(self) -> str:
        return self._outage.reason

    async def open(self) -> None:
        """Listen; tries again until the address can be had."""
        settings = self._settings
        while not self._ending:
            try:
                self._server = await asyncio.get_running_loop().create_server(
                    lambda: Connection(self._owner, settings.data_bytes_max, self._clock_s),
                    settings.host,
                    settings.port,
                    backlog=_BACKLOG,
                )
            except OSError as error:
                text = error.strerror or str(error)
                self._outage.failed(f"cannot listen on {settings.host} port {settings.port}: {text}")
                await asyncio.sleep(RETRY_S)
                continue
            self._outage.worked()
            logger.info("hj212-listening", host=settings.host, port=self._server.sockets[0].getsockname()[1])
            return

    def opened(self, connection: Connection) -> None:
        """At the bound the connection gives way that is least likely to be a station at work; else the new one."""
        if len(self.connections) >= self._settings.connections_max:
            stations = {item.station.mn: item for item in self.connections if item.station}  # the newest of each
            doomed = next(
                (item for item in self.connections if item.station is None or stations[item.station.mn] is not item),
                connection,
            )
            metrics.HJ212_REFUSED.inc()
            if doomed is connection:
                self._outage.failed(f"{len(self.connections)} connections, no more are let in (connections_max)")
            doomed.abort()
            if doomed is not connection:
                self.connections.remove(doomed)
        if connection.is_open:
            self.connections.append(connection)
        metrics.HJ212_CONNECTIONS.set(len(self.connections))

    def closed(self, connection: Connection) -> None:
        if connection in self.connections:
            self.connections.remove(connection)
            self._outage.worked()
        metrics.HJ212_CONNECTIONS.set(len(self.connections))

    def tick(self) -> None:
        """Close what has been silent, or in the middle of a frame, for too long. One that we do not read is not silent."""
        now_s = self._clock_s()
        for connection in list(self.connections):
            if connection.unanswered or self._owner.full:
                connection.frame_s, connection.begun_s = now_s, None
                continue
            begun_s = connection.begun_s
            stuck = begun_s is not None and now_s - begun_s > self._settings.frame_s
            if stuck or now_s - connection.frame_s > self._settings.idle_s:
                metrics.HJ212_TIMEOUTS.inc()
                connection.close()

    def pause(self) -> None:
        """Take nothing more."""
        self._ending = True
        if self._server is not None:
            self._server.close()
        for connection in self.connections:
            connection.stop_reading()

    def close(self) -> None:
        """Close every connection after its answers."""
        self.pause()
        for connection in list(self.connections):
            connection.close()
