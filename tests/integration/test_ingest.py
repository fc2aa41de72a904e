"""Ingest against a real broker and a real database: the guarantee of class A and B, and bad input."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psycopg
import pytest

from citynet import control, formats, topics, wire
from citynet.control import Claim, Held, Hello, Status
from citynet.notes import ClockNote, EventNote, LossNote, RawNote
from citynet.quality import BAD, LATE
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


def as_rows(readings: list[Reading]) -> list[tuple[str, int, float, int]]:
    return sorted((r.name, r.time_us, r.value, r.quality) for r in readings)


def test_a_batch_is_stored_then_acknowledged(ingest: IngestProcess, peer: GatewayPeer, dsn: str) -> None:
    readings = [msgspec.structs.replace(r, value=r.value / 8) for r in some_readings(500, now_us() - 600_000_000)]
    peer.send(1, readings)
    peer.wait_acked(500)
    assert stored(dsn) == as_rows(readings), "values that a sensor can have: none is flagged"
    assert query(dsn, "SELECT seq, stored, claimed FROM stream_cursor") == [(500, 500, 500)]
    assert query(dsn, "SELECT DISTINCT registered FROM device UNION SELECT DISTINCT registered FROM series") == [
        (False,)
    ]
    assert ingest.stop() == 0


def test_duplicates_overlaps_gaps_and_stale_epochs(ingest: IngestProcess, peer: GatewayPeer, dsn: str) -> None:
    """Row 11 of the test matrix: exactly once, whatever the order of sending."""
    readings = some_readings(100, now_us() - 600_000_000)
    peer.send(1, readings[:40])
    peer.send(1, readings[:40])  # duplicate
    peer.send(31, readings[30:60])  # overlap: 41..60 are new
    peer.send(71, readings[70:])  # gap: 61..70 are missing
    wait_for(
        lambda: any(ack.why == "gap" and ack.seq == 60 for ack in peer.acks), "the server asks for a resend from 61"
    )
    peer.send(61, readings[60:])
    peer.wait_acked(100)
    peer.send(1, readings[:10])  # a stale copy
    old = [Reading("gas-2", "ch4_lel", r.time_us, r.value) for r in readings[:5]]
    peer.send(1, old, epoch=99)  # another epoch counts for itself
    peer.wait_acked(5, epoch=99)
    assert stored(dsn) == as_rows([*readings, *old])


def test_json_envelope_is_the_same(ingest: IngestProcess, peer: GatewayPeer, dsn: str) -> None:
    readings = some_readings(3, now_us())
    body = wire.encode(wire.Header("gw-t", "telemetry", 5, 1, 3), readings, content_type=wire.JSON)
    peer.publish(topics.up("gw-t"), body, wire.JSON)
    peer.wait_acked(3, epoch=5)
    assert stored(dsn) == as_rows(readings)


def test_poison_costs_only_itself(ingest: IngestProcess, peer: GatewayPeer, dsn: str) -> None:
    """Row 12: one absurd time in 500 readings is one dead letter; NaN is a reading of quality bad."""
    start = now_us() - 600_000_000
    readings = some_readings(500, start)
    readings[123] = Reading("gas-1", "ch4_lel", 9_000_000_000_000_000, 1.0)
    readings[7] = Reading("gas-1", "ch4_lel", readings[7].time_us, math.nan)
    peer.send(1, readings)
    peer.wait_acked(500)
    rows = stored(dsn)
    assert len(rows) == 499
    assert [quality for _, _, value, quality in rows if math.isnan(value)] == [BAD]
    assert query(dsn, "SELECT seq, records, reason, place FROM dead_letter") == [
        (124, 1, "implausible-time", "dt[123]")
    ]
    assert query(dsn, "SELECT seq, stored, dead_lettered FROM stream_cursor") == [(500, 499, 1)]


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"\xff\xff\xff", "bad-cbor"),
        (b"", "bad-cbor"),
        (b"\x81\x01", "not-a-map"),
        (b"\x00" * (1 << 20) + b"\x00", "too-large"),
    ],
)
def test_undecodable_batch_is_dead_lettered(
    ingest: IngestProcess, peer: GatewayPeer, dsn: str, payload: bytes, reason: str
) -> None:
    peer.publish(topics.up("gw-t"), payload)
    wait_for(lambda: query(dsn, "SELECT 1 FROM dead_letter"), "dead letter")
    assert query(dsn, "SELECT reason, length(payload), times FROM dead_letter") == [(reason, len(payload), 1)]
    peer.send(1, some_readings(1, now_us()))
    peer.wait_acked(1)


def test_broken_body_is_dead_lettered_under_its_numbers_and_acknowledged(
    ingest: IngestProcess, peer: GatewayPeer, dsn: str
) -> None:
    body = json.loads(
        wire.encode(wire.Header("gw-t", "telemetry", 1, 1, 3), some_readings(3, now_us()), content_type=wire.JSON)
    )
    body["x"].pop()
    peer.publish(topics.up("gw-t"), json.dumps(body).encode(), wire.JSON)
    peer.wait_acked(3)
    assert query(dsn, "SELECT seq, records, reason, place FROM dead_letter") == [(1, 3, "length-mismatch", "x")]
    peer.send(4, some_readings(2, now_us()))
    peer.wait_acked(5)


def test_nobody_writes_under_anothers_name(ingest: IngestProcess, peer: GatewayPeer, dsn: str) -> None:
    body = wire.encode(wire.Header("gw-other", "telemetry", 1, 1, 1), some_readings(1, now_us()))
    peer.publish(topics.up("gw-t"), body)
    peer.publish("citynet/v1/up/63/gw-t", body)
    wait_for(lambda: len(query(dsn, "SELECT 1 FROM dead_letter")) == 2, "two dead letters")
    assert {row[0] for row in query(dsn, "SELECT reason FROM dead_letter")} == {"identity-mismatch", "wrong-shard"}
    assert query(dsn, "SELECT 1 FROM stream_cursor") == []


def test_notes_are_booked(ingest: IngestProcess, peer: GatewayPeer, dsn: str) -> None:
    readings = some_readings(2, now_us())
    notes = [
        (1, LossNote(2, 4, "spool-full")),
        (5, RawNote("field/gw-t/x", b"\x00\xffjunk", "bad-json")),
        (6, ClockNote("boot-1", 12)),
        (7, EventNote("gas-1", "door", "opened\x00", 5)),
    ]
    peer.send(1, readings, notes=notes)
    peer.wait_acked(8)
    assert query(dsn, "SELECT seq, stored, dead_lettered, lost, noted FROM stream_cursor") == [(8, 2, 1, 3, 2)]
    assert query(dsn, "SELECT first, last, count, reason FROM loss") == [(2, 4, 3, "spool-full")]
    assert query(dsn, "SELECT seq, payload, detail FROM dead_letter") == [(6, b"\x00\xffjunk", "bad-json")]
    assert query(dsn, "SELECT seq, kind FROM gateway_note ORDER BY 1") == [(7, "clock"), (8, "event")]


def test_late_and_repeated_times_are_stored_and_flagged(ingest: IngestProcess, peer: GatewayPeer, dsn: str) -> None:
    readings = some_readings(3, now_us() - 60_000_000)
    peer.send(1, [readings[2]])
    peer.wait_acked(1)
    peer.send(2, [readings[0], readings[2]])
    peer.wait_acked(3)
    assert [(value, quality) for _, _, value, quality in stored(dsn)] == [(0.0, LATE), (1.0, 0), (1.0, LATE)]


def test_hello_is_answered_with_the_cursor(ingest: IngestProcess, peer: GatewayPeer) -> None:
    peer.send(1, some_readings(5, now_us()))
    peer.wait_acked(5)
    held = [Held(1, "telemetry", 1, 9), Held(2, "alarm", 1, 1)]
    peer.publish(topics.hello("gw-t"), control.encode(Hello("r1", held)), "")
    wait_for(lambda: len([ack for ack in peer.acks if ack.why == "hello"]) == 2, "two answers")
    assert {(a.ep, a.st, a.seq, a.ref) for a in peer.acks if a.why == "hello"} == {
        (1, "telemetry", 5, "r1"),
        (2, "alarm", 0, "r1"),
    }


def test_status_is_kept_and_claims_are_booked(ingest: IngestProcess, peer: GatewayPeer, dsn: str) -> None:
    status = Status(True, "1.0", now_us(), claims=[Claim(7, "telemetry", 10, 0)])
    peer.publish(topics.status("gw-t"), control.encode(status), "")
    wait_for(lambda: query(dsn, "SELECT 1 FROM gateway WHERE online"), "gateway online")
    assert query(dsn, "SELECT epoch, seq, claimed FROM stream_cursor") == [(7, 0, 10)]
    peer.publish(topics.status("gw-t"), control.encode(Status(False)), "")
    wait_for(lambda: query(dsn, "SELECT 1 FROM gateway WHERE NOT online AND status->'claims' IS NOT NULL"), "offline")


def test_direct_devices(ingest: IngestProcess, peer: GatewayPeer, dsn: str) -> None:
    now_ms = now_us() // 1000
    peer.publish(topics.dev("lift-1"), b'{"ts": %d, "values": {"a": 1.5, "b": "x"}}' % now_ms, "")
    senml = f'[{{"bn":"lift-1/","n":"c","v":2,"bt":{now_ms / 1000:.3f}}}]'.encode()
    peer.publish(topics.dev("lift-1"), senml, formats.SENML)
    wait_for(lambda: len(stored(dsn)) == 2, "two readings")
    assert [(name, value) for name, _, value, _ in stored(dsn)] == [("lift-1/a", 1.5), ("lift-1/c", 2.0)]
    assert query(dsn, "SELECT reason, place FROM dead_letter") == [("not-a-number", "$.values.b")]
    assert query(dsn, "SELECT stored, dead_lettered, duplicates FROM direct_tally") == [(2, 1, 0)]


def test_a_row_the_database_refuses_costs_only_itself(ingest: IngestProcess, peer: GatewayPeer, dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("ALTER TABLE reading ADD CONSTRAINT sane CHECK (value <> 3)")
    readings = some_readings(50, now_us() - 600_000_000)  # value 3.0 is the seventh
    peer.send(1, readings)
    peer.wait_acked(50)
    assert len(stored(dsn)) == 49
    assert query(dsn, "SELECT seq, records, reason, place FROM dead_letter") == [
        (7, 1, "refused-by-database", "gas-1/ch4_lel")
    ]
    assert query(dsn, "SELECT stored, dead_lettered FROM stream_cursor") == [(49, 1)]


def test_a_leak_becomes_an_alert_with_its_evidence(ingest: IngestProcess, peer: GatewayPeer, dsn: str) -> None:
    start = now_us() - 120_000_000
    peer.send(1, [Reading("gas-9", "ch4_lel", start + k * 5_000_000, 60.0) for k in range(20)])
    peer.wait_acked(20)
    rows = query(dsn, "SELECT rule_id, object, level_max, cleared_at, value FROM alert")
    assert [(row[1], row[2], row[3]) for row in rows] == [("gas-9", 4, None)]
    kinds = [row[0] for row in query(dsn, "SELECT kind FROM alert_transition ORDER BY id")]
    assert kinds[0] == "raise"
    assert query(dsn, "SELECT count(*) FROM alert_transition WHERE evidence = '{}'") == [(0,)]


def test_the_verdict_is_stored_with_the_alert(ingest: IngestProcess, peer: GatewayPeer, dsn: str) -> None:
    """What the scale cannot show is the device's from its raise on; what stays within it is for people when its time is up."""
    start = now_us() - 600_000_000
    sent = [Reading("mh-7", "level_m", start + k * 5_000_000, 9.0) for k in range(20)]
    sent += [Reading("gas-8", "ch4_lel", start + k * 5_000_000, 60.0) for k in range(20)]
    peer.send(1, sent)
    peer.wait_acked(len(sent))
    columns = "object, verdict, audience, people, (extract(epoch FROM verdict_at) * 1000000)::bigint"
    of = "FROM alert WHERE rule_id IN ('gas-ch4-void', 'drainage-level-high') ORDER BY object"
    raised = dict(query(dsn, f"SELECT object, (extract(epoch FROM raised_at) * 1000000)::bigint {of}"))
    assert query(dsn, f"SELECT {columns} {of}") == [
        ("gas-8", "undecided", "people", True, raised["gas-8"] + 30_000_000),
        ("mh-7", "device", "maintenance", False, raised["mh-7"]),
    ]
    ((zh, en),) = query(dsn, "SELECT verdict_zh, verdict_en FROM alert WHERE rule_id = 'drainage-level-high'")
    assert zh.startswith("疑似设备故障，转维护核查：")
    assert en.startswith("probably a fault of the device, for maintenance: ")
    assert query(
        dsn, "SELECT verdict, audience, people FROM alert WHERE rule_id = 'device-range-level' AND object = 'mh-7'"
    ) == [("device", "maintenance", False)]
    told = "SELECT t.kind, t.evidence #>> '{verdict,state}' FROM alert_transition t JOIN alert a ON a.id = t.alert_id"
    assert query(dsn, f"{told} WHERE a.rule_id = 'gas-ch4-void' AND a.object = 'gas-8' ORDER BY t.id") == [
        ("raise", "undecided"), ("verdict", "undecided"),
    ]  # fmt: skip
    doubt = "t.kind = 'raise' AND a.rule_id = 'drainage-level-high' AND a.object = 'mh-7'"
    assert query(dsn, f"SELECT t.evidence #>> '{{verdict,rule}}' FROM alert_transition t JOIN alert a ON a.id = t.alert_id"
                      f" WHERE {doubt}") == [("device-range-level",)]  # fmt: skip


def test_two_workers_of_one_shard_are_refused(
    ingest: IngestProcess, folder: Path, broker: EmbeddedMosquitto, dsn: str
) -> None:
    second_folder = folder / "second"
    second_folder.mkdir()
    second = IngestProcess(second_folder, broker.port, dsn, {"shards": "56-63"})
    second.start()
    assert second.died() == 1
    assert "shards 56-63 are owned by another ingest worker: citynet-ingest-00-63 on " in second.tail()
    assert f"process {ingest.running.pid}" in second.tail(), "it says whom to stop"


def test_without_a_snapshot_the_engine_still_knows_how_far_every_series_had_come(
    folder: Path, broker: EmbeddedMosquitto, peer: GatewayPeer, dsn: str
) -> None:
    """A worker that takes over shards: an old reading is late although it is newer than all it has seen itself."""
    old = Reading("gas-1", "ch4_lel", now_us() - 30 * 86_400_000_000, 1.0)
    with ingest_running(folder, broker, dsn) as first:
        peer.send(1, [old])
        peer.wait_acked(1)
        assert first.stop() == 0
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("DELETE FROM engine_snapshot")
    with ingest_running(folder, broker, dsn):
        peer.send(2, [Reading("gas-1", "ch4_lel", old.time_us - 1_000_000, 2.0)])
        peer.wait_acked(2)
    assert [(value, quality) for _, _, value, quality in stored(dsn)] == [(2.0, LATE), (1.0, 0)]
