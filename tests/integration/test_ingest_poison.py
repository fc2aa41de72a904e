"""Rows 11 and 12 of the test matrix where it hurts: what strangers may send must cost only itself, and never the worker."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from citynet import formats, topics, wire
from citynet.quality import BAD
from citynet.reading import Reading
from citynet.runtime.embedded import EmbeddedMosquitto
from tests.ingest import GatewayPeer, IngestProcess, ingest_running, now_us, query, some_readings, stored, wait_for


@pytest.fixture
def ingest(folder: Path, broker: EmbeddedMosquitto, dsn: str) -> Iterator[IngestProcess]:
    with ingest_running(folder, broker, dsn) as process:
        yield process


@pytest.fixture
def peer(broker: EmbeddedMosquitto) -> Iterator[GatewayPeer]:
    client = GatewayPeer(broker.port)
    yield client
    client.close()


def test_reordered_batches_and_stale_epochs(ingest: IngestProcess, peer: GatewayPeer, dsn: str) -> None:
    """Batches in reverse: each that finds a gap is refused until its predecessor is there; epochs do not mix."""
    readings = some_readings(60, now_us() - 600_000_000)
    peer.send(41, readings[40:], epoch=5, highest=60)
    wait_for(lambda: any(ack.why == "gap" and ack.seq == 0 for ack in peer.acks), "the gap is answered")
    for _ in range(6):
        for first in (41, 21, 1):
            peer.send(first, readings[first - 1 : first + 19], epoch=5, highest=60)
    peer.wait_acked(60, epoch=5)
    assert all(ack.seq <= 60 for ack in peer.acks), "no acknowledgement of what was never sent"
    stale = [Reading("gas-2", "ch4_lel", r.time_us, r.value) for r in readings[:3]]
    peer.send(1, stale, epoch=4)
    peer.wait_acked(3, epoch=4)
    peer.send(5, stale, epoch=4)  # a gap in the old epoch, although the new one is far beyond
    wait_for(lambda: any(a.ep == 4 and a.why == "gap" and a.seq == 3 for a in peer.acks), "the old epoch's own gap")
    assert len(stored(dsn)) == 63
    assert query(dsn, "SELECT epoch, seq, stored FROM stream_cursor ORDER BY 1") == [(4, 3, 3), (5, 60, 60)]


def test_one_bad_reading_of_500_in_json(ingest: IngestProcess, peer: GatewayPeer, dsn: str) -> None:
    readings = some_readings(500, now_us() - 600_000_000)
    body = json.loads(wire.encode(wire.Header("gw-t", "telemetry", 1, 1, 500), readings, content_type=wire.JSON))
    body["i"][250] = 77
    body["x"][10] = None
    peer.publish(topics.up("gw-t"), json.dumps(body).encode(), wire.JSON)
    peer.wait_acked(500)
    rows = stored(dsn)
    assert len(rows) == 499
    assert [quality for *_, value, quality in rows if math.isnan(value)] == [BAD]
    assert query(dsn, "SELECT seq, records, reason, place FROM dead_letter") == [
        (251, 1, "index-out-of-range", "i[250]")
    ]


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [("s0", 1 << 63, "out-of-range"), ("ep", 1 << 63, "out-of-range"), ("n", 1 << 63, "out-of-range")],
)
def test_numbers_beyond_63_bits(
    ingest: IngestProcess, peer: GatewayPeer, dsn: str, key: str, value: int, reason: str
) -> None:
    body = json.loads(
        wire.encode(wire.Header("gw-t", "telemetry", 1, 1, 2), some_readings(2, now_us()), content_type=wire.JSON)
    )
    peer.publish(topics.up("gw-t"), json.dumps(body | {key: value}).encode(), wire.JSON)
    wait_for(lambda: query(dsn, "SELECT 1 FROM dead_letter"), "dead letter")
    assert query(dsn, "SELECT reason, place, seq FROM dead_letter") == [(reason, key, None)]
    peer.send(1, some_readings(1, now_us()))
    peer.wait_acked(1)


@pytest.mark.parametrize(("count", "highest"), [(1 << 40, 1 << 41), (60, 10)])
def test_a_broken_batch_whose_header_lies_moves_no_cursor(
    ingest: IngestProcess, peer: GatewayPeer, dsn: str, count: int, highest: int
) -> None:
    """It announces more than a message holds, or more than there is: what really has those numbers is still to come."""
    readings = some_readings(10, now_us() - 600_000_000)
    header = wire.Header("gw-t", "telemetry", 1, 1, 10, 10)
    body = json.loads(wire.encode(header, readings, content_type=wire.JSON)) | {"n": count, "hi": highest}
    peer.publish(topics.up("gw-t"), json.dumps(body).encode(), wire.JSON)
    wait_for(lambda: query(dsn, "SELECT 1 FROM dead_letter"), "dead letter")
    assert query(dsn, "SELECT reason, seq, records FROM dead_letter") == [("count-mismatch", None, 1)]
    peer.send(1, readings)
    peer.wait_acked(10)
    assert len(stored(dsn)) == 10


def test_poison_of_direct_devices(ingest: IngestProcess, peer: GatewayPeer, dsn: str) -> None:
    """One bad value in 500 costs one dead letter; thousands do not copy their message thousands of times."""
    start_ms = now_us() // 1000 - 600_000
    points: list[dict[str, object]] = [{"ts": start_ms + k, "values": {"a": k}} for k in range(500)]
    points[123] = {"ts": start_ms + 123, "values": {"a": 1 << 63}}
    peer.publish(topics.dev("lift-1"), json.dumps(points).encode(), formats.THINGSBOARD)
    wait_for(lambda: len(stored(dsn)) == 499, "499 readings")
    assert query(dsn, "SELECT records, length(payload) > 1000 FROM dead_letter") == [(1, True)]
    bad = [{"ts": start_ms + k, "values": {"a": f"no number {k}"}} for k in range(4000)]
    body = json.dumps(bad).encode()
    peer.publish(topics.dev("lift-2"), body, formats.THINGSBOARD)
    peer.publish(topics.dev("lift-3"), b'\xff\xfe{"a": 1}', formats.THINGSBOARD)
    peer.publish(topics.dev("lift-3"), b'{"a": NaN}', formats.THINGSBOARD)
    peer.publish(topics.dev("lift-3"), bytes(1 << 20), formats.THINGSBOARD)
    wait_for(lambda: query(dsn, "SELECT 1 FROM direct_tally WHERE dead_lettered = 4004"), "4004 dead letters")
    kept = query(dsn, "SELECT sum(records * times), sum(length(payload)), max(length(payload)) FROM dead_letter "
                      "WHERE topic = %s", topics.dev("lift-2"))[0]  # fmt: skip
    assert (kept[0], kept[2]) == (4000, len(body))
    assert kept[1] < 4 * len(body), "the message is kept once"
    assert {row[0] for row in query(dsn, "SELECT reason FROM dead_letter WHERE topic = %s", topics.dev("lift-3"))} == {
        "bad-json",
        "too-large",
    }


@pytest.mark.parametrize(
    "body",
    [
        b'{"online": true, "version": "\\\\u0000"}',
        b'{"online": true, "version": "\\u0000", "clock": "a\\u0000b"}',
        b'{"online": true, "later": 1e999999}',
        b'{"online": true, "later": "\xff\xfe"}',
        b'{"online": true, "at_us": 1000000000000000000000000000}',
    ],
)
def test_a_retained_status_cannot_kill_the_worker(
    ingest: IngestProcess, peer: GatewayPeer, dsn: str, body: bytes
) -> None:
    """It would come again after every restart. Valid to a JSON parser need not be valid to PostgreSQL."""
    peer.publish(topics.status("gw-t"), body, "")
    wait_for(lambda: query(dsn, "SELECT 1 FROM gateway WHERE id = 'gw-t' AND online"), "the status is kept")
    peer.send(1, some_readings(1, now_us()))
    peer.wait_acked(1)
    assert ingest.stop() == 0, ingest.tail()
