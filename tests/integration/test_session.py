"""The MQTT session of ingest against brokers that misbehave."""

from __future__ import annotations

import asyncio
import time

import mqtt5
import pytest

from citynet.runtime.settings import BrokerEndpoint, BrokerSettings
from citynet_ingest import session
from citynet_ingest.push.courier import Courier
from citynet_ingest.session import Session
from tests.patience import DEADLINE_S

KEEP_ALIVE_S = 1


def test_a_session_that_is_connecting_closes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that takes connections and says nothing does not hold up the end."""
    monkeypatch.setattr(session, "_CONNECT_TIMEOUT_S", 10 * DEADLINE_S)
    asyncio.run(_closes_at_once())


async def _closes_at_once() -> None:
    heard, ended = asyncio.Event(), asyncio.Event()

    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.set()
        await ended.wait()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    courier = Courier(BrokerSettings(port=server.sockets[0].getsockname()[1]))
    running = asyncio.create_task(courier.run())
    await heard.wait()
    courier.close()
    await asyncio.wait_for(running, DEADLINE_S)  # a try to connect may take ten times that
    ended.set()
    server.close()


class Broker(asyncio.Protocol):
    """Takes every connection and answers pings, nothing else; `heard` has what came."""

    def __init__(self, heard: asyncio.Queue[str]) -> None:
        self._heard = heard

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._heard.put_nowait("connection")
        transport.write(mqtt5.ConnAckPacket().write())

    def data_received(self, data: bytes) -> None:
        at, view = 0, memoryview(data)
        while at < len(view):
            packet, used = mqtt5.read(view[at:])
            at += used
            if isinstance(packet, mqtt5.PingReqPacket):
                self._heard.put_nowait("ping")
                self._transport.write(mqtt5.PingRespPacket().write())


class Owner:
    """Of a session; hears of nothing but its connection."""

    def __init__(self) -> None:
        self.is_connected = asyncio.Event()

    def connected(self, generation: int, session_present: bool) -> None:
        self.is_connected.set()

    def received(self, packet: mqtt5.PublishPacket, generation: int) -> None: ...

    def paused(self) -> None: ...

    def lost(self) -> None: ...

    def failed(self, error: str) -> None: ...

    def taken_over(self) -> None: ...


def test_a_link_that_was_not_read_for_long_is_not_called_dead_when_reading_goes_on() -> None:
    """The answer is there, and the next look at the clock may come before it is read."""
    asyncio.run(_goes_on())


async def _goes_on() -> None:
    loop, owner, heard = asyncio.get_running_loop(), Owner(), asyncio.Queue[str]()
    server = await loop.create_server(lambda: Broker(heard), "127.0.0.1", 0)
    session = Session(
        BrokerEndpoint(port=server.sockets[0].getsockname()[1]), "s", [mqtt5.TopicFilter("t")], owner,
        receive_maximum=1, keep_alive_s=KEEP_ALIVE_S, session_expiry_s=0, retry_s_max=1,
    )  # fmt: skip
    running = asyncio.create_task(session.run())
    await owner.is_connected.wait()
    session.pause()
    await asyncio.sleep(1.6 * KEEP_ALIVE_S)  # nothing is read for so long

    def hold_up() -> None:
        """As a machine does that has other things to do, over a moment at which the link is looked at."""
        time.sleep(0.6 * KEEP_ALIVE_S)
        loop.call_soon(session.resume)

    loop.call_soon(hold_up)
    came = [await heard.get() for _ in range(heard.qsize() + 3)]
    assert came == ["connection"] + ["ping"] * (len(came) - 1), "none anew"
    session.close()
    await running
    server.close()
