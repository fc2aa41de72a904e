"""Rows 11 and 12 of the test matrix, by force: mutated messages of every kind, among those of a healthy gateway and a healthy
device. The worker never dies, the books balance, and the healthy ones do not notice."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import pytest

from citynet import control, formats, topics, wire
from citynet.control import Claim, Held, Hello, Status
from citynet.notes import ClockNote, EventNote, LossNote, RawNote
from citynet.reading import Reading
from citynet.runtime.embedded import EmbeddedMosquitto
from tests.faults import load
from tests.faults.harness import CLEAN, DirectDevice, Ledger, LedgerPeer, Report, assert_balanced, judge
from tests.ingest import GatewayPeer, ingest_running, now_us, query, stored, wait_for

GATEWAYS = 5
AT_ONCE = 200
NUMBERS = [
    0,
    1,
    -1,
    255,
    65_535,
    65_536,
    (1 << 31) - 1,
    1 << 53,
    (1 << 63) - 1,
    1 << 63,
    -(1 << 63),
    1 << 64,
    1e308,
    0.5,
]
ODDITIES = [*NUMBERS, None, True, "", "a\0b", "\ud800", "x" * 5000, [], {}, [[]], {"": {}}]
Message = tuple[str, bytes, str]  # topic, payload, content type


def valid(rng: random.Random) -> Message:
    """A message as a gateway or a device may send it."""
    gateway = f"gw-wild-{rng.randrange(GATEWAYS)}"
    kind = rng.choice(["batch", "batch", "batch", "direct", "senml", "hello", "status"])
    start_us = now_us() - rng.randrange(600_000_000)
    readings = [
        Reading(f"wild-{rng.randrange(3)}", rng.choice("abc"), start_us + k * 1000, rng.uniform(-1, 1))
        for k in range(rng.randrange(0, 30))
    ]
    if kind == "batch":
        content_type = rng.choice([wire.CBOR, wire.JSON])
        notes = [] if rng.random() < 0.5 else some_notes(rng, len(readings))
        count = len(readings) + sum(note.span for _, note in notes)
        header = wire.Header(
            gateway, rng.choice(wire.STREAMS), rng.randrange(1, 4), rng.randrange(1, 60), max(1, count)
        )
        if not count:
            return topics.up(gateway), b"", content_type
        return topics.up(gateway), wire.encode(header, readings, notes, content_type=content_type), content_type
    if kind == "direct":
        body = [{"ts": r.time_us // 1000, "values": {r.metric: r.value}} for r in readings] or {"a": 1}
        return topics.dev("wild-direct"), json.dumps(body).encode(), formats.THINGSBOARD
    if kind == "senml":
        pack = [{"n": f"wild-direct/{r.metric}", "t": r.time_us / 1e6, "v": r.value} for r in readings]
        return topics.dev("wild-direct"), json.dumps(pack).encode(), formats.SENML
    if kind == "hello":
        return topics.hello(gateway), control.encode(Hello("r", [Held(1, "telemetry", 1, rng.randrange(1, 99))])), ""
    return topics.status(gateway), control.encode(Status(True, "1", start_us, claims=[Claim(1, "alarm", 0, 0)])), ""


def some_notes(rng: random.Random, readings: int) -> list[tuple[int, object]]:
    """One note at the end, of any kind."""
    note = rng.choice([
        lambda seq: LossNote(seq, seq + rng.randrange(5), "trimmed"), lambda _: RawNote("field/x/y", b"\xff\0", "bad-json"),
        lambda _: ClockNote("boot-1", 5), lambda _: EventNote("wild-1", "door", "open", 7),
    ])(readings + 1)  # fmt: skip
    return [(readings, note)]


def mutated(rng: random.Random, message: Message) -> Message:
    """The same with one to three things changed: bytes, a field of JSON, the content type, the topic."""
    topic, payload, content_type = message
    for _ in range(rng.randrange(1, 4)):
        what = rng.randrange(8)
        if what < 3:
            payload = in_bytes(rng, payload)
        elif what < 6:
            payload = in_fields(rng, payload)
        elif what == 6:
            content_type = rng.choice([wire.CBOR, wire.JSON, formats.THINGSBOARD, formats.SENML, "text/plain", ""])
        else:
            topic = rng.choice([topic + "/x", topic + "é", topics.up("gw-wild-0"), "citynet/v1/up/99/gw-wild-0", topic])
    return topic, payload, content_type


def in_bytes(rng: random.Random, payload: bytes) -> bytes:
    at, end = sorted((rng.randrange(len(payload) + 1), rng.randrange(len(payload) + 1)))
    change = rng.randrange(5)
    if change == 0:
        return payload[:at]
    if change == 1:
        return payload[:at] + rng.randbytes(rng.randrange(1, 9)) + payload[at:]
    if change == 2:
        return payload[:at] + payload[end:]
    if change == 3:
        return payload[:end] + payload[at:]
    return payload[:at] + bytes([rng.randrange(256)]) + payload[at + 1 :]


def in_fields(rng: random.Random, payload: bytes) -> bytes:
    """Of a JSON message; others get a bit flipped."""
    try:
        body = json.loads(payload)
    except ValueError:
        return in_bytes(rng, payload)
    place = body
    while isinstance(place, dict | list) and place:
        key = rng.choice(list(place)) if isinstance(place, dict) else rng.randrange(len(place))
        if not isinstance(place[key], dict | list) or rng.random() < 0.4:
            place[key] = rng.choice(ODDITIES)
            break
        place = place[key]
    return json.dumps(body).encode("utf-8", "surrogatepass")


def fuzz(folder: Path, broker: EmbeddedMosquitto, dsn: str, seed: int, messages: int) -> None:
    rng = random.Random(seed)
    start_us, started = load.minutes_ago(10), time.monotonic()
    gateway, device = Ledger(folder / "gateway.ledger"), Ledger(folder / "device.ledger")
    stranger = GatewayPeer(broker.port, "gw-stranger")
    with (
        ingest_running(folder, broker, dsn) as ingest,
        LedgerPeer(broker.port, "gw-1", gateway) as peer,
        DirectDevice(broker.port, "lift-1", device) as lift,
    ):
        try:
            for _ in range(messages // AT_ONCE):
                some = [mutated(rng, valid(rng)) if rng.random() < 0.8 else valid(rng) for _ in range(AT_ONCE)]
                for number, (topic, payload, content_type) in enumerate(some, 1):
                    stranger.publish(topic, payload, content_type, wait=number == AT_ONCE)
                peer.accept(load.plain(rng, "gas-1", 20, start_us + len(gateway.readings) * 1000))
                lift.say(load.plain(rng, "lift-1", 5, start_us + len(device.readings) * 1000))
                peer.wait_drained()
                assert ingest.running.poll() is None, ingest.tail()
            lift.wait_taken()
            heard = "SELECT 1 FROM reading r JOIN series s ON s.id = r.series_id JOIN device d ON d.id = s.device_id"
            heard += " WHERE d.name = 'lift-1' HAVING count(*) = %s"
            wait_for(lambda: query(dsn, heard, len(device.readings)), "the healthy device is heard")
            assert ingest.log.read_text().count('"broker-connected"') == 1, "the worker never stumbled"
            assert ingest.stop() == 0, ingest.tail()
        finally:
            stranger.close()
    assert of_healthy([gateway, device], dsn) == CLEAN
    assert_balanced(dsn)
    dead = dict(query(dsn, "SELECT reason, sum(records * times)::int FROM dead_letter GROUP BY 1"))
    wild = sum(1 for name, *_ in stored(dsn) if name.startswith("wild"))
    print(f"{messages} messages, {time.monotonic() - started:.0f} s: {wild} readings stored, dead letters {dead}")
    assert wild > 0
    assert len(dead) >= 10, "the mutations reach many ways to be wrong"


def of_healthy(ledgers: list[Ledger], dsn: str) -> Report:
    """Strangers' readings are not in any ledger; that they are there is no finding."""
    report = judge(ledgers, dsn)
    wild = sum(1 for name, *_ in stored(dsn) if not name.startswith(("gas-1/", "lift-1/")))
    return Report(report.lost, report.recovered, report.unexpected - wild, report.duplicated)


def test_mutated_messages(folder: Path, broker: EmbeddedMosquitto, dsn: str, seed: int) -> None:
    fuzz(folder, broker, dsn, seed, 3_000)


@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_a_hundred_thousand_mutated_messages(folder: Path, broker: EmbeddedMosquitto, dsn: str, seed: int) -> None:
    fuzz(folder, broker, dsn, seed, int(load.nightly_s(1000) * 100))
