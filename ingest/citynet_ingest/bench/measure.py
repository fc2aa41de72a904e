"""The measurements: COPY ceilings, the baseline, and our own way from MQTT to COMMIT."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import mqtt5
import numpy as np
import psycopg

from citynet import formats, wire
from citynet.batch import SeriesBatch
from citynet.errors import CitynetError
from citynet.runtime import child
from citynet.runtime.embedded import EmbeddedMosquitto
from citynet_ingest.bench import baseline, load
from citynet_ingest.copybody import copy_body
from citynet_ingest.lanes import LANES, client_id, filters_of

_COPY_ROWS = 200_000
_DEADLINE_S = 300.0
_POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class Rate:
    """A measured rate and how it came about."""

    name: str
    per_s: float
    unit: str
    count: int
    seconds: float


def copy_ceiling(dsn: str, table_tail: str, name: str, total: int, start_us: int) -> Rate:
    """Binary COPY of sorted blocks into a table of our columns; `table_tail` is SQL that makes its index."""
    ids, times, values = load.rows(2_000, _COPY_ROWS // 2_000, start_us)
    bodies = [
        copy_body(SeriesBatch(ids, times + k * 100_000_000, values, np.zeros(len(ids), np.uint8)))
        for k in range(max(1, total // _COPY_ROWS))
    ]
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "DROP TABLE IF EXISTS bench_copy; CREATE TABLE bench_copy (time timestamptz NOT NULL, series_id integer NOT NULL,"
            " value double precision NOT NULL, quality smallint NOT NULL)"
        )
        if table_tail:
            connection.execute(table_tail.encode())
        started = time.perf_counter()
        for body in bodies:
            with connection.cursor().copy("COPY bench_copy FROM STDIN (FORMAT binary)") as copy:
                copy.write(body)
        seconds = time.perf_counter() - started
        connection.execute("DROP TABLE bench_copy")
    count = len(bodies) * _COPY_ROWS
    return Rate(name, count / seconds, "readings/s", count, seconds)


def watch(count: Callable[[], int], total: int, name: str, unit: str) -> Rate:
    """Rate from the first to the last stored reading, as the database shows them."""
    deadline = time.monotonic() + _DEADLINE_S
    first_count, first_s = 0, 0.0
    while time.monotonic() < deadline:
        now, seen = time.perf_counter(), count()
        if seen and not first_count:
            first_count, first_s = seen, now
        if seen >= total:
            seconds = max(now - first_s, 1e-9)
            return Rate(name, (total - first_count) / seconds, unit, total - first_count, seconds)
        time.sleep(_POLL_S)
    raise CitynetError(f"{name}: not finished within {_DEADLINE_S:.0f} s")


def open_session(port: int, client_id: str, filters: list[mqtt5.TopicFilter]) -> None:
    """Make a persistent session with its subscriptions, and leave: the broker queues for it."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as link:
        link.sendall(mqtt5.ConnectPacket(client_id, clean_start=True, session_expiry_interval=3600).write())
        inbox = load.Inbox(link)
        inbox.wait(0, mqtt5.ConnAckPacket)
        link.sendall(mqtt5.SubscribePacket(1, filters).write())
        inbox.wait(0, mqtt5.SubAckPacket)
        link.sendall(mqtt5.DisconnectPacket().write())


@contextmanager
def ingest_process(folder: Path, broker: EmbeddedMosquitto, dsn: str) -> Iterator[None]:
    """Our ingest worker as its own process, shipped rules armed."""
    config = folder / "bench.toml"
    config.write_text(f"[broker]\nport = {broker.port}\n[database]\ndsn = '{dsn}'\n[log]\nformat = 'json'\n[ingest]\n")
    with (folder / "ingest.log").open("ab") as output:
        process = child.spawn([sys.executable, "-m", "citynet", "ingest", "run", "--config", str(config)], output)
    try:
        yield
    finally:
        child.stop(process, grace_s=15)


def our_way(
    folder: Path,
    broker: EmbeddedMosquitto,
    dsn: str,
    messages: Iterator[tuple[str, bytes]],
    content_type: str,
    total: int,
    name: str,
) -> Rate:
    """Queue messages at the broker for our session, start ingest, watch what is committed."""
    for lane in range(LANES):
        open_session(broker.port, client_id(lane), filters_of(lane))
    load.publish(broker.port, messages, content_type)
    with psycopg.connect(dsn, autocommit=True) as connection:

        def stored() -> int:
            row = connection.execute(
                "SELECT (SELECT coalesce(sum(stored), 0) FROM stream_cursor)"
                " + (SELECT coalesce(sum(stored), 0) FROM direct_tally)"
            ).fetchone()
            return int(str(row[0])) if row else 0

        before = stored()
        with ingest_process(folder, broker, dsn):
            unit = "readings/s" if content_type == wire.CBOR else "messages/s"
            return watch(lambda: stored() - before, total, name, unit)


def peoples_way(broker: EmbeddedMosquitto, dsn: str, count: int, start_us: int) -> Rate:
    """aiomqtt and executemany, the same kind of messages, the same way of measuring."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "DROP TABLE IF EXISTS baseline_reading; CREATE TABLE baseline_reading (time timestamptz NOT NULL,"
            " device text NOT NULL, metric text NOT NULL, value double precision NOT NULL);"
            " CREATE INDEX ON baseline_reading (device, metric, time DESC)"
        )
        filters = [mqtt5.TopicFilter("citynet/v1/dev/+/+", max_qos=mqtt5.QoS.AT_LEAST_ONCE)]
        open_session(broker.port, baseline.CLIENT_ID, filters)
        load.publish(broker.port, load.json_messages(2_000, count, start_us), formats.THINGSBOARD)
        command = [sys.executable, "-m", "citynet_ingest.bench.baseline", str(broker.port), dsn, str(count)]
        process = child.spawn(command, subprocess.DEVNULL)
        try:
            return watch(lambda: _count(connection, "baseline_reading"), count, "aiomqtt + executemany", "messages/s")
        finally:
            child.stop(process)
            connection.execute("DROP TABLE baseline_reading")


def _count(connection: psycopg.Connection[tuple[object, ...]], table: str) -> int:
    row = connection.execute(f"SELECT count(*) FROM {table}".encode()).fetchone()
    return int(str(row[0])) if row else 0
