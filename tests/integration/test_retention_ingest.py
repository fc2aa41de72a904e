"""Retention and compression under a working ingest: the real broker, the real worker, late readings."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psycopg
import pytest

from citynet.quality import LATE
from citynet.reading import Reading
from citynet.runtime.embedded import EmbeddedMosquitto
from citynet_ingest import audit
from citynet_ingest.store.parts import parts
from citynet_ingest.store.paths import DIRECT_ROWS_MIN, DIRECT_ROWS_PER_SERIES_MIN
from citynet_ingest.store.server import probe
from tests.ingest import GatewayPeer, IngestProcess, ingest_running, now_us, query, stored, wait_for
from tests.life import Connection, parts_there, run, told

DAY_US = 86_400_000_000
BATCH = 500


@pytest.fixture
def ingest(folder: Path, broker: EmbeddedMosquitto, dsn: str) -> Iterator[IngestProcess]:
    with ingest_running(folder, broker, dsn) as process:
        yield process


@pytest.fixture
def peer(broker: EmbeddedMosquitto) -> Iterator[GatewayPeer]:
    client = GatewayPeer(broker.port)
    yield client
    client.close()


@pytest.fixture
def connection(dsn: str) -> Iterator[Connection]:
    with psycopg.connect(dsn, autocommit=True) as opened:
        opened.execute("SET timezone = 'UTC'")
        yield opened


class Sender:
    """Numbers what it sends, and remembers it."""

    def __init__(self, peer: GatewayPeer) -> None:
        self.peer = peer
        self.sent: list[Reading] = []

    def send(self, readings: list[Reading], *, wait: bool = True) -> None:
        for start in range(0, len(readings), BATCH):
            self.peer.send(len(self.sent) + 1, readings[start : start + BATCH])
            self.sent += readings[start : start + BATCH]
        if wait:
            self.peer.wait_acked(len(self.sent))

    def rows(self) -> list[tuple[str, int, float]]:
        return sorted((r.name, r.time_us, r.value) for r in self.sent)


def column(number: int, start_us: int, count: int, step_us: int = 1_000_000) -> list[Reading]:
    return [Reading(f"gas-{number}", "ch4_lel", start_us + k * step_us, number + k * 0.25) for k in range(count)]


def compress_all(connection: Connection) -> None:
    """What the columnstore policy does to every chunk; nothing on plain PostgreSQL."""
    server = probe(connection)
    for part in parts(connection, server) if server.timescale else []:
        if part.table == "reading":
            connection.execute(f"CALL convert_to_columnstore('{part.schema}.{part.name}', recompress => true)".encode())


def assert_all_there_in_order(sender: Sender, connection: Connection, dsn: str) -> None:
    assert [(name, time_us, value) for name, time_us, value, _ in stored(dsn)] == sender.rows()
    for (series,) in query(dsn, "SELECT id FROM series"):
        rows = connection.execute("SELECT time FROM reading WHERE series_id = %s ORDER BY time", (series,)).fetchall()
        assert rows == sorted(rows)
        backwards = "SELECT time FROM reading WHERE series_id = %s ORDER BY time DESC LIMIT 1"
        assert connection.execute(backwards, (series,)).fetchone() == rows[-1]
    assert audit.run(connection).is_balanced


@pytest.mark.usefixtures("ingest")
def test_late_rows_into_compressed_chunks(peer: GatewayPeer, connection: Connection, dsn: str) -> None:
    """Row 14 of the test matrix: late readings into compressed chunks, before, between and after recompressing; and with
    them, newer readings into the same chunks, by the row path and straight into the columnstore."""
    sender = Sender(peer)
    first = (now_us() // DAY_US - 3) * DAY_US
    many, each = 20, max(DIRECT_ROWS_MIN // 20, DIRECT_ROWS_PER_SERIES_MIN) + 50
    for round_number in range(3):
        start = first + round_number * 20_000_000_000  # of one day, the third reaching into the next
        for number in range(many):
            sender.send(column(number, start, each, 100_000_000), wait=False)
        peer.wait_acked(len(sender.sent))
        compress_all(connection)
        for number in range(0, many, 3):  # late: between what is compressed
            sender.send(column(number, start + 50_000_001 + round_number, 40, 100_000_000))
        sender.send(column(500, first - DAY_US + round_number, 5))  # of another day, a series unknown so far
        assert_all_there_in_order(sender, connection, dsn)
        compress_all(connection)
        assert_all_there_in_order(sender, connection, dsn)
    late = [quality for *_, quality in stored(dsn) if quality & LATE]
    assert len(late) >= 3 * 7 * 40
    if probe(connection).timescale:
        assert all(part.is_columnstore for part in parts(connection, probe(connection)) if part.table == "reading")


@pytest.mark.usefixtures("ingest")
def test_a_reading_of_a_day_that_was_dropped_is_stored(peer: GatewayPeer, connection: Connection, dsn: str) -> None:
    """The worker remembers that it made the partition; it must not take that for granted."""
    sender = Sender(peer)
    now = now_us()
    sender.send(column(1, now - 20 * DAY_US, 50))
    sender.send(column(1, now - 60_000_000, 50))
    clock = dt.datetime.now(dt.UTC)
    settings = {"reading_keep_days": 10, "minute_keep_days": 0, "require_rollups": False}
    assert set(told(run(connection, clock, **settings))) == {("reading", "drop", "done")}
    assert len(stored(dsn)) == 50
    sender.send(column(1, now - 20 * DAY_US + 7, 3))
    assert len(stored(dsn)) == 53
    assert query(dsn, "SELECT count(*) FROM dead_letter") == [(0,)]
    assert audit.run(connection).is_balanced
    assert set(told(run(connection, clock, **settings))) == {("reading", "drop", "done")}, "it goes with the next run"
    assert len(stored(dsn)) == 50
    assert query(dsn, "SELECT sum(records) FROM retired") == [(53,)]
    assert audit.run(connection).is_balanced


@pytest.mark.usefixtures("ingest")
def test_ingest_goes_on_while_parts_are_dropped(peer: GatewayPeer, connection: Connection, dsn: str) -> None:
    """Live readings and late ones of the very days that are being dropped, all stored or booked as retired."""
    sender = Sender(peer)
    now = now_us()
    random = np.random.default_rng(3)
    days = range(12, 24)
    for ago in days:
        sender.send(column(ago, now - ago * DAY_US, 20))
    sender.send(column(1, now - 600_000_000, 20))
    clock = dt.datetime.now(dt.UTC)
    settings = {"reading_keep_days": 10, "minute_keep_days": 0, "require_rollups": False, "drop_days_max": 50}
    dropped = 0
    for number in range(12):
        for k in range(10):  # in flight while the run works
            sender.send(column(1, now - 500_000_000 + (10 * number + k) * 3_000_000, 3), wait=False)
            sender.send(column(2, now - int(random.choice(days)) * DAY_US + 1000 * number + k, 1), wait=False)
        outcomes = [outcome for _, what, outcome in told(run(connection, clock, **settings)) if what == "drop"]
        assert set(outcomes) <= {"done"}
        dropped += len(outcomes)
    peer.wait_acked(len(sender.sent))
    assert dropped >= len(days)
    run(connection, clock, **settings)
    assert not [start for start in parts_there(connection) if start < (clock - dt.timedelta(days=11)).date()]
    (gone,) = query(dsn, "SELECT sum(records) FROM retired")[0]
    assert len(stored(dsn)) + gone == len(sender.sent)
    assert query(dsn, "SELECT count(*) FROM dead_letter") == [(0,)]
    wait_for(lambda: audit.run(connection).is_balanced, "the books balance")
