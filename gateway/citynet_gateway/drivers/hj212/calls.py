"""Requests to stations on their way: one at a time a station, sent again as the standard says. On the driver's loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from citynet_gateway import metrics
from citynet_gateway.drivers.hj212.connection import Connection
from citynet_gateway.drivers.hj212.frame import encode
from citynet_gateway.drivers.hj212.message import Message, segment, time_text
from citynet_gateway.drivers.hj212.readings import Station
from citynet_gateway.drivers.hj212.request import OVER_TIME_S, SENDS_MAX, Exchange, Reply, Request


class Calls:
    """By device: the connection that reaches it, and the exchange under way."""

    def __init__(self, clock_us: Callable[[], int], over_time_s: float = OVER_TIME_S) -> None:
        self._clock_us = clock_us
        self._over_time_s = over_time_s
        self._reach: dict[str, tuple[Station, Connection]] = {}
        self._underway: dict[str, tuple[Exchange, asyncio.Event]] = {}
        self._tasks: set[asyncio.Task[Reply]] = set()
        self._qn_ms = 0

    def reached(self, station: Station, connection: Connection) -> None:
        """The station spoke on this connection."""
        self._reach[station.device] = (station, connection)

    def forget(self, connection: Connection) -> None:
        """The connection is gone."""
        self._reach = {device: found for device, found in self._reach.items() if found[1] is not connection}

    def take(self, station: Station, message: Message) -> bool:
        """Whether the message answers a request of ours."""
        found = self._underway.get(station.device)
        if found is None or not found[0].take(message):
            return False
        found[1].set()
        return True

    def begin(self, device: str, request: Request) -> None:
        """Ask, whatever comes of it."""
        task = asyncio.get_running_loop().create_task(self.ask(device, request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def ask(self, device: str, request: Request) -> Reply:
        """Send a request and wait for what comes of it: at most `SENDS_MAX` times, and as long for its result."""
        if device in self._underway:
            return Reply("busy")
        if device not in self._reach:
            return Reply("no-connection")
        station, _ = self._reach[device]
        exchange, news = Exchange(request, self._new_qn(station)), asyncio.Event()
        data = segment(request.message(station.mn, station.password or "", exchange.qn))
        self._underway[device] = (exchange, news)
        try:
            reply = await self._wait(device, exchange, news, encode(data, station.checksum))
        finally:
            del self._underway[device]
        metrics.HJ212_REQUESTS.labels(reply.outcome).inc()
        return reply

    async def _wait(self, device: str, exchange: Exchange, news: asyncio.Event, frame: bytes) -> Reply:
        for _ in range(SENDS_MAX):
            if not exchange.answered:
                if device not in self._reach:
                    return Reply("no-connection")
                self._reach[device][1].send(frame)
            try:
                async with asyncio.timeout(self._over_time_s):
                    while exchange.reply is None:
                        await news.wait()
                        news.clear()
            except TimeoutError:
                continue
            return exchange.reply
        return exchange.give_up()

    def _new_qn(self, station: Station) -> str:
        """The request's number: the time in milliseconds, never the same twice."""
        self._qn_ms = max(self._qn_ms + 1, self._clock_us() // 1000)
        return time_text(self._qn_ms * 1000, station.zone, milliseconds=True)
