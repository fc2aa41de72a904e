"""Row 9 of the test matrix: the server side is away while a gateway accumulates 100,000 records; then it drains while life goes
on. Order is kept in every stream, alarms come first, live alarms stay quick, memory and disk stay small."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import psycopg
import pytest

from citynet.reading import Reading
from citynet.runtime.embedded import EmbeddedMosquitto
from tests.faults import load
from tests.faults.harness import CLEAN, Ledger, assert_balanced, judge
from tests.gateway import FieldDevice, GatewayProcess
from tests.ingest import IngestProcess, wait_for
from tests.patience import slowness

POINTS = 500  # in one field message
MESSAGES = 200
NIGHTLY_MESSAGES = 4_000
ALARM_EVERY = 10  # messages
LIVE_LATENCY_S_MAX = 5.0
GATEWAY_RSS_BYTES_MAX = 160 << 20
INGEST_RSS_BYTES_MAX = 400 << 20
SPOOL_BYTES_A_RECORD_MAX = 200
SPOOL_BYTES_DRAINED_MAX = 16 << 20
# The order in which the cursors of the streams moved.
MOVES = """
CREATE TABLE cursor_move (number bigserial, stream text, seq bigint);
CREATE FUNCTION note_move() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO cursor_move (stream, seq) VALUES (NEW.stream, NEW.seq);
    RETURN NULL;
END $$;
CREATE TRIGGER note_move AFTER INSERT OR UPDATE OF seq ON stream_cursor FOR EACH ROW EXECUTE FUNCTION note_move();
"""
BEFORE_ALARMS = """
SELECT coalesce(max(seq), 0) FROM cursor_move WHERE stream = 'telemetry'
    AND number < (SELECT min(number) FROM cursor_move WHERE stream = 'alarm' AND seq >= %s)"""
COUNTED = "SELECT count(*), coalesce(max(value), -1) FROM reading JOIN series s ON s.id = series_id WHERE metric = %s"


class Site:
    """A gateway with its device, and the server side that is away at first."""

    def __init__(self, folder: Path, field: EmbeddedMosquitto, dsn: str) -> None:
        self.uplink = EmbeddedMosquitto(folder / "uplink")
        self.gateway = GatewayProcess(folder, field, self.uplink)
        self.ingest = IngestProcess(folder, self.uplink.port, dsn)
        self.device = FieldDevice(field.port, "tunnel-1")
        self.levels, self.alarms = Ledger(folder / "levels.ledger"), Ledger(folder / "alarms.ledger")
        self.start_us = load.minutes_ago(600)

    def say(self, ledger: Ledger, metric: str, count: int) -> None:
        """One message of the next `count` values: 0, 1, 2 … a millisecond apart; returns when the gateway has answered."""
        first = len(ledger.readings)
        readings = [
            Reading("tunnel-1", metric, self.start_us + n * 1000, float(n)) for n in range(first, first + count)
        ]
        ledger.accept(readings)
        self.device.send_all([[{"ts": r.time_us // 1000, "values": {metric: r.value}} for r in readings]])
        ledger.mark(range(first, first + count))

    def spool_bytes(self) -> int:
        spool = self.gateway.folder / "data" / "spool"
        return sum(size_of(path) for path in spool.rglob("*") if path.is_file())

    def close(self) -> None:
        self.gateway.kill()
        if self.ingest.process is not None and self.ingest.process.poll() is None:
            self.ingest.kill()
        self.device.close()
        self.uplink.stop()
        self.levels.close()
        self.alarms.close()


def size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # trimmed in between
        return 0


@contextmanager
def a_site(folder: Path, dsn: str) -> Iterator[Site]:
    with ExitStack() as stack:
        site = Site(folder, stack.enter_context(EmbeddedMosquitto(folder / "field")), dsn)
        stack.callback(site.close)
        site.gateway.start()
        wait_for(lambda: site.gateway.events("field-subscribed"), "the gateway listens")
        yield site


def outlast(folder: Path, dsn: str, messages: int) -> None:
    with a_site(folder, dsn) as site, psycopg.connect(dsn, autocommit=True) as database:
        for number in range(messages):
            site.say(site.levels, "level", POINTS)
            if number % ALARM_EVERY == 0:
                site.say(site.alarms, "flood_alarm", 1)
        backlog = messages * POINTS
        spooled = site.spool_bytes()
        assert spooled < SPOOL_BYTES_A_RECORD_MAX * backlog
        early = len(site.alarms.readings)
        database.execute(MOVES)
        slow, started = slowness(), time.monotonic()
        site.uplink.start()
        site.ingest.start()
        highest, slowest, rounds = drain(site, database, backlog, early)
        seconds = time.monotonic() - started
        slow = max(slow, slowness())
        wait_for(lambda: site.spool_bytes() < SPOOL_BYTES_DRAINED_MAX, "the spool is trimmed")
        wait_for(lambda: count(database, "level") == len(site.levels.readings), "the live readings are stored")
        print(
            f"{backlog} records, {spooled >> 20} MiB of spool, drained in {seconds:.1f} s; {rounds} live alarms, the slowest"
            f" took {slowest:.2f} s; memory of the gateway {highest[0] >> 20} MiB, of ingest {highest[1] >> 20} MiB"
        )
        assert slowest < LIVE_LATENCY_S_MAX * slow
        assert highest[0] < GATEWAY_RSS_BYTES_MAX
        assert highest[1] < INGEST_RSS_BYTES_MAX
        assert site.gateway.stop() == 0
        assert site.ingest.stop() == 0, site.ingest.tail()
        assert judge([site.levels, site.alarms], dsn) == CLEAN
    assert_balanced(dsn)


def drain(
    site: Site, database: psycopg.Connection[tuple[object, ...]], backlog: int, early: int
) -> tuple[tuple[int, int], float, int]:
    """Watch it drain while the device goes on. Highest memory of gateway and ingest, the slowest live alarm (in s), their
    number."""
    assert site.gateway.process is not None
    memory = [psutil.Process(pid).memory_info for pid in (site.gateway.process.pid, site.ingest.running.pid)]
    highest, slowest, rounds = [0, 0], 0.0, 0
    wait_for(lambda: count(database, "flood_alarm") >= early, "the alarms of the outage are stored")
    row = database.execute(BEFORE_ALARMS, (early,)).fetchone()  # whenever we come to look
    assert row is not None
    assert int(str(row[0])) < backlog, "alarms came first"
    while rounds == 0 or count(database, "level") < backlog:
        site.say(site.levels, "level", 1)
        said = time.monotonic()
        site.say(site.alarms, "flood_alarm", 1)
        wait_for(lambda: count(database, "flood_alarm") == len(site.alarms.readings), "a live alarm is stored")
        slowest, rounds = max(slowest, time.monotonic() - said), rounds + 1
        highest = [max(seen, measure().rss) for seen, measure in zip(highest, memory, strict=True)]
    return (highest[0], highest[1]), slowest, rounds


def count(database: psycopg.Connection[tuple[object, ...]], metric: str) -> int:
    """Readings stored of a metric, which must be the first so many of its stream: visible in the order of acceptance."""
    row = database.execute(COUNTED, (metric,)).fetchone()
    assert row is not None
    assert row[1] == int(str(row[0])) - 1, f"{metric}: a reading became visible before its predecessor"
    return int(str(row[0]))


def test_a_hundred_thousand_records_wait(folder: Path, dsn: str) -> None:
    outlast(folder, dsn, MESSAGES)


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_two_million_records_wait(folder: Path, dsn: str) -> None:
    outlast(folder, dsn, int(NIGHTLY_MESSAGES * load.nightly_s(600) / 600))
