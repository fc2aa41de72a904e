"""The MQTT session of ingest against brokers that misbehave."""

from __future__ import annotations

import asyncio

import pytest

from citynet.runtime.settings import BrokerSettings
from citynet_ingest import session
from citynet_ingest.push.courier import Courier
from tests.patience import DEADLINE_S


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
