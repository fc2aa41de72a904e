"""The baseline that people write: aiomqtt, `json.loads`, `executemany` every hundred messages. A process of its own.

It acknowledges on arrival (the library does), so it promises less than we do; it is here for its speed only.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import sys

import aiomqtt
import psycopg

_INSERT = "INSERT INTO baseline_reading (time, device, metric, value) VALUES (%s, %s, %s, %s)"
_EVERY = 100
_TIMEOUT_S = 60.0  # the answer to SUBSCRIBE comes after the messages that were queued
CLIENT_ID = "citynet-bench-baseline"


async def run(port: int, dsn: str, count: int) -> None:
    """Take `count` messages and store them."""
    connection = await psycopg.AsyncConnection.connect(dsn)
    rows: list[tuple[dt.datetime, str, str, float]] = []
    taken = 0
    async with aiomqtt.Client(
        "127.0.0.1",
        port,
        identifier=CLIENT_ID,
        protocol=aiomqtt.ProtocolVersion.V5,
        clean_start=False,
        timeout=_TIMEOUT_S,
    ) as client:
        await client.subscribe("citynet/v1/dev/+/+", qos=1)
        async for message in client.messages:
            body = json.loads(bytes(message.payload))
            device = str(message.topic).rpartition("/")[2]
            time = dt.datetime.fromtimestamp(body["ts"] / 1000, dt.UTC)
            rows.extend((time, device, metric, value) for metric, value in body["values"].items())
            taken += 1
            if len(rows) >= _EVERY or taken == count:
                async with connection.cursor() as cursor:
                    await cursor.executemany(_INSERT, rows)
                await connection.commit()
                rows.clear()
            if taken == count:
                break
    await connection.close()


if __name__ == "__main__":
    asyncio.run(run(int(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
