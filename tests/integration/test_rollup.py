"""Rollups through real ingest: what is written and what SQL computes from the readings is the same, across kills, refused
rows, a lost snapshot, and `citynet db rollup`."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import psycopg
import pytest
from typer.testing import CliRunner

from citynet.quality import BAD
from citynet.reading import Reading
from citynet.runtime.embedded import EmbeddedMosquitto
from citynet_ingest.cli_db import app
from citynet_ingest.rollup.buckets import IDLE_US
from citynet_ingest.rollup.partials import HOUR_US, MINUTE_US, PARTIAL, Partials
from citynet_ingest.store import rebuild
from tests.ingest import GatewayPeer, IngestProcess, ingest_running, letters, now_us, query, wait_for
from tests.rollups import Bucket, Key, Row, buckets_of, combined

LEVELS = (("rollup_minute", MINUTE_US), ("rollup_hour", HOUR_US))
SETTINGS = {"shipped_rules": False, "snapshot_s": 0.2}
BATCH = 40


@pytest.fixture
def ingest(folder: Path, broker: EmbeddedMosquitto, dsn: str) -> Iterator[IngestProcess]:
    with ingest_running(folder, broker, dsn, SETTINGS) as process:
        yield process


@pytest.fixture
def peer(broker: EmbeddedMosquitto) -> Iterator[GatewayPeer]:
    client = GatewayPeer(broker.port)
    yield client
    client.close()


def story(seed: int, start_us: int, count: int = 1200) -> list[Reading]:
    """Three devices in turn: two to three readings a minute, a few in most minutes, one every other minute; some readings bad,
    some no numbers, and of the latter two some late."""
    rng = random.Random(seed)
    step_us = {"d-1": (20_000_000, 28_000_000), "d-2": (1, 40_000_000), "d-3": (1, 180_000_000)}
    at_us = dict.fromkeys(step_us, start_us)
    readings = []
    for _ in range(count):
        device = rng.choice(list(step_us))
        at_us[device] += rng.randrange(*step_us[device])
        is_late = device != "d-1" and rng.random() < 0.08
        late_us = rng.choice([1_000_000, 200_000_000, 2 * HOUR_US]) if is_late else 0
        value = float("nan") if rng.random() < 0.02 else rng.randrange(-4000, 4000) / 8
        readings.append(Reading(device, "x", at_us[device] - late_us, value, BAD if rng.random() < 0.03 else 0))
    return readings


def send(peer: GatewayPeer, readings: list[Reading], first: int = 0) -> None:
    """The readings from position `first` on, all acknowledged at the end."""
    for at in range(first, len(readings), BATCH):
        peer.send(at + 1, readings[at : at + BATCH], highest=len(readings))
    peer.wait_acked(len(readings))


def raw(dsn: str) -> list[Row]:
    return query(
        dsn, "SELECT series_id, (extract(epoch FROM time) * 1000000)::bigint, value, quality::int FROM reading"
    )  # type: ignore[return-value]


def _us(column: str) -> str:
    return f"(extract(epoch FROM {column}) * 1000000)::bigint"


def written(dsn: str, table: str) -> Partials:
    rows = query(
        dsn,
        f"SELECT {_us('time')}, {_us('first_at')}, {_us('last_at')}, sum, CASE WHEN usable > 0 THEN min ELSE 'Infinity' END,"
        " CASE WHEN usable > 0 THEN max ELSE '-Infinity' END, first, last, series_id, n, usable, 0"
        f" FROM {table}",
    )
    return np.array(rows, PARTIAL) if rows else np.empty(0, PARTIAL)


def assert_equal_to_raw(dsn: str) -> dict[str, dict[Key, Bucket]]:
    """As a reader would: hours before the one of each series' newest reading; minutes of those whose minutes have as many
    readings as they have themselves. What else there is of a bucket is a part of its readings, and never a single one."""
    rows = raw(dsn)
    newest: dict[int, int] = {}
    for series, time_us, _, _ in rows:
        newest[series] = max(time_us, newest.get(series, time_us))
    truth = {table: buckets_of(rows, width_us) for table, width_us in LEVELS}
    there = {table: combined([written(dsn, table)]) for table, _ in LEVELS}
    for table, partials in there.items():
        assert partials.keys() <= truth[table].keys()
        assert all(bucket[0] <= truth[table][key][0] for key, bucket in partials.items()), "nothing is counted twice"
    closed = {key for key in truth["rollup_hour"] if key[1] + HOUR_US <= newest[key[0]]}
    hours = {key: there["rollup_hour"][key] for key in closed}
    assert hours == {key: truth["rollup_hour"][key] for key in closed}
    counted: Counter[Key] = Counter()
    for key, bucket in there["rollup_minute"].items():
        counted[hour_of(key)] += bucket[0]
    even = {key for key in closed if counted[key] == hours[key][0]}
    minutes = {key: bucket for key, bucket in there["rollup_minute"].items() if hour_of(key) in even}
    assert minutes == {key: bucket for key, bucket in truth["rollup_minute"].items() if hour_of(key) in even}
    assert even
    assert closed - even
    assert query(dsn, "SELECT count(*) FROM rollup_minute WHERE n < 2") == [(0,)]
    return {"rollup_minute": minutes, "rollup_hour": hours}


def hour_of(key: Key) -> Key:
    return key[0], key[1] // HOUR_US * HOUR_US


def rows_of(dsn: str, table: str) -> int:
    return int(query(dsn, f"SELECT count(*) FROM {table}")[0][0])


def test_rollups_equal_the_readings(ingest: IngestProcess, peer: GatewayPeer, dsn: str) -> None:
    send(peer, story(1, now_us() - 20 * HOUR_US))
    found = assert_equal_to_raw(dsn)
    late = query(dsn, "SELECT count(*) FROM reading WHERE quality & 64 <> 0")[0][0]
    assert late > 10
    assert len(found["rollup_hour"]) <= rows_of(dsn, "rollup_hour") <= len(found["rollup_hour"]) + late + 3


def test_what_a_redrive_stores_is_in_the_rollups(ingest: IngestProcess, peer: GatewayPeer, dsn: str) -> None:
    """Readings of the first minutes that were refused: their hours have long closed without them."""
    start_us = now_us() - 20 * HOUR_US
    readings = story(1, start_us)
    with psycopg.connect(dsn, autocommit=True) as connection:
        early = f"time < to_timestamp({start_us // 1_000_000 + 600})"
        connection.execute(f"ALTER TABLE reading ADD CONSTRAINT sane CHECK (NOT (value > 400 AND {early}))".encode())
        send(peer, readings)
        refused = len(query(dsn, "SELECT 1 FROM dead_letter"))
        assert refused > 3
        connection.execute("ALTER TABLE reading DROP CONSTRAINT sane")
    assert letters(ingest, "redrive", "--all")[1]["stored"] == refused
    assert ingest.stop() == 0
    assert_equal_to_raw(dsn)
    assert rows_of(dsn, "reading") == len(readings)


@pytest.mark.parametrize("failpoint", ["before-begin", "mid-copy", "before-commit", "after-commit", "after-puback"])
def test_killed_at_a_failpoint(
    failpoint: str, folder: Path, broker: EmbeddedMosquitto, peer: GatewayPeer, dsn: str
) -> None:
    """And once more with SIGKILL, and without the snapshot: the open buckets come back from the readings."""
    readings = story(2, now_us() - 20 * HOUR_US)
    process = IngestProcess(folder, broker.port, dsn, SETTINGS)
    process.start(failpoint=f"ingest.{failpoint}:6")
    try:
        process.wait_connected()
        for end in range(BATCH, 480 + 1, BATCH):  # each a commit of its own, until the worker is dead
            peer.send(end - BATCH + 1, readings[end - BATCH : end], highest=len(readings), wait=False)
            wait_for(lambda: peer.acked() >= end or process.running.poll() is not None, "a commit, or death")  # noqa: B023
        assert process.died() == -9, process.tail()
        process.start()
        send(peer, readings[:480], peer.acked() // BATCH * BATCH)
        process.kill()
        process.start()
        send(peer, readings[:840], 480)
        process.kill()
        with psycopg.connect(dsn) as connection:
            connection.execute("DELETE FROM engine_snapshot")
        process.start()
        send(peer, readings, 840)
        assert process.stop() == 0, process.tail()
    finally:
        if process.running.poll() is None:
            process.kill()
    assert_equal_to_raw(dsn)


def test_a_refused_row_changes_no_other_bucket(
    folder: Path, broker: EmbeddedMosquitto, peer: GatewayPeer, dsn: str
) -> None:
    """The commit is refused, the state is rebuilt, the parcels are cut until the row stands alone."""
    readings = story(3, now_us() - 20 * HOUR_US)
    readings[700] = msgspec.structs.replace(readings[700], value=77777.0)
    with psycopg.connect(dsn) as connection:
        connection.execute("ALTER TABLE reading ADD CONSTRAINT no_sevens CHECK (value <> 77777)")
    with ingest_running(folder, broker, dsn, SETTINGS):
        send(peer, readings)
    assert query(dsn, "SELECT count(*) FROM dead_letter") == [(1,)]
    assert rows_of(dsn, "reading") == len(readings) - 1
    assert_equal_to_raw(dsn)


def test_a_silent_series_is_written_whole(folder: Path, broker: EmbeddedMosquitto, peer: GatewayPeer, dsn: str) -> None:
    """A day after its end a bucket closes with the next snapshot; a later reading of the same hour has its own partial."""
    start_us = (now_us() - 3 * IDLE_US) // HOUR_US * HOUR_US
    readings = [Reading("d-1", "x", start_us + k * 10_000_000, float(k)) for k in range(200)]
    with ingest_running(folder, broker, dsn, SETTINGS) as process:
        send(peer, readings[:150])
        assert process.stop() == 0
        assert sum(n for n, *_ in combined([written(dsn, "rollup_hour")]).values()) == 150
        with psycopg.connect(dsn) as connection:
            connection.execute("DELETE FROM engine_snapshot")
        process.start()
        send(peer, readings, 150)
        assert process.stop() == 0
    for table, width_us in LEVELS:
        assert combined([written(dsn, table)]) == buckets_of(raw(dsn), width_us)


def test_rollups_are_computed_anew(
    ingest: IngestProcess, peer: GatewayPeer, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From nothing, from what is there, and beside a worker that goes on; readings that are gone keep their rollups."""
    start_us = now_us() - 20 * HOUR_US
    readings = story(4, start_us)
    send(peer, readings[:1000])
    found = assert_equal_to_raw(dsn)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("DELETE FROM rollup_minute WHERE series_id = 1")
        connection.execute("DELETE FROM rollup_hour")
    monkeypatch.setenv("CITYNET_DATABASE_DSN", dsn)
    monkeypatch.setattr(rebuild, "_SERIES", 2)
    span = ["rollup", "--from", moment(start_us - 3 * HOUR_US), "--to", moment(now_us()), "--json"]
    counts = []
    for _ in range(2):
        result = CliRunner().invoke(app, span)
        assert result.exit_code == 0, result.output
        counts.append(json.loads(result.stdout))
        healed = assert_equal_to_raw(dsn)
        assert healed["rollup_hour"] == found["rollup_hour"]
        assert healed["rollup_minute"].items() >= found["rollup_minute"].items()
    assert counts[0] == counts[1]
    assert counts[0]["minutes"] == worth_writing(dsn)
    assert counts[0]["hours"] == len(found["rollup_hour"])
    send(peer, readings, 1000)
    assert CliRunner().invoke(app, span).exit_code == 0  # once more, for late partials of the hour that was open before
    assert_equal_to_raw(dsn)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("DELETE FROM reading")
    before = rows_of(dsn, "rollup_minute")
    assert CliRunner().invoke(app, span).exit_code == 0
    assert rows_of(dsn, "rollup_minute") == before


def worth_writing(dsn: str) -> int:
    """Minutes of two readings and more, before the one of each series' newest reading."""
    rows = raw(dsn)
    newest = {series: max(row[1] for row in rows if row[0] == series) for series, *_ in rows}
    found = buckets_of(rows, MINUTE_US).items()
    return sum(n > 1 and start_us + MINUTE_US <= newest[series] for (series, start_us), (n, *_) in found)


def moment(time_us: int) -> str:
    return np.datetime64(time_us, "us").astype(str) + "Z"


@pytest.mark.parametrize(
    ("start", "stop", "message"),
    [
        ("yesterday", "2026-01-01T00:00Z", "no date"),
        ("2026-01-01", "2026-01-02T00:00Z", "time zone"),
        ("2026-01-02T00:00Z", "2026-01-01T00:00Z", "not after"),
    ],
)
def test_a_wrong_span_is_refused(start: str, stop: str, message: str) -> None:
    result = CliRunner().invoke(app, ["rollup", "--from", start, "--to", stop])
    assert result.exit_code == 2
    assert message in result.output


def test_two_rebuilds_are_refused(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CITYNET_DATABASE_DSN", dsn)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(hashtext('citynet.rollup.rebuild'))")
        result = CliRunner().invoke(app, ["rollup", "--from", "2026-01-01T00:00Z", "--to", "2026-01-02T00:00Z"])
    assert result.exit_code == 1
    assert "another process" in result.output
