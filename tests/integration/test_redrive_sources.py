"""Dead letters of messages with keys, of the HTTP front's topic and of configured sources, and under several workers."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from contextlib import ExitStack, closing
from itertools import count
from pathlib import Path

import psycopg
import pytest

from citynet import formats, topics, wire
from citynet.runtime.embedded import EmbeddedMosquitto
from citynet_ingest.lanes import LANES, lane_of
from citynet_ingest.letter import shard_of_topic
from citynet_ingest.sources import Sources
from tests.faults.harness import assert_balanced
from tests.ingest import GatewayPeer, ingest_running, letters, now_us, query, some_readings, stored, wait_for

SENML = {"direct_content_type": formats.SENML_CBOR}
HALVES = ("0-31", "32-63")


@pytest.fixture(autouse=True)
def _sources(monkeypatch: pytest.MonkeyPatch) -> None:
    sources = [{"topic": "application/+/device/{device}/event/up", "format": "chirpstack"}]
    monkeypatch.setenv("CITYNET_INGEST_SOURCES", json.dumps(sources))


@pytest.fixture
def peer(broker: EmbeddedMosquitto) -> Iterator[GatewayPeer]:
    client = GatewayPeer(broker.port)
    yield client
    client.close()


def execute(dsn: str, text: str, *parameters: object) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(text.encode(), parameters)


def message(**values: float) -> bytes:
    return json.dumps({"ts": now_us() // 1000, "values": values}).encode()


def uplink(eui: str, key: str, **values: float) -> bytes:
    event = {"deduplicationId": key, "time": dt.datetime.now(dt.UTC).isoformat(), "deviceInfo": {"devEui": eui}}
    return json.dumps(event | {"fCnt": 1, "object": values}).encode()


def foreign(eui: str) -> str:
    return f"application/7/device/{eui}/event/up"


def named(form: str, half: int) -> str:
    """An identifier of this form of the lower or upper half of the lanes."""
    return next(name for name in map(form.format, count(1)) if lane_of(name) * len(HALVES) // LANES == half)


@pytest.mark.parametrize("topic", [topics.dev("lift-1"), topics.push("lift-1")], ids=["device", "push"])
def test_a_key_holds_across_a_redrive(
    folder: Path, broker: EmbeddedMosquitto, peer: GatewayPeer, dsn: str, topic: str
) -> None:
    """Read wrongly at first. Its sender says it again before the redrive (long before, too) and after it."""
    body = message(a=1)
    with ingest_running(folder, broker, dsn, SENML) as ingest:
        for key in ("before", "after", "after"):
            peer.publish(topic, body, "", key=key)
        wait_for(lambda: query(dsn, "SELECT sum(times) FROM dead_letter") == [(3,)], "dead letters")
        assert query(dsn, "SELECT times FROM dead_letter ORDER BY id") == [(1,), (2,)], "each key is a message"
        assert query(dsn, "SELECT count(*) FROM message_key") == [(0,)], "nothing was stored under it"
        assert ingest.stop() == 0
    with ingest_running(folder, broker, dsn) as ingest:
        for key in ("before", "other"):
            peer.publish(topic, body, "", key=key)
        wait_for(lambda: len(stored(dsn)) == 2, "stored, now that it can be read")
        execute(dsn, "UPDATE message_key SET at = now() - interval '7 hours'")
        wait_for(lambda: query(dsn, "SELECT count(*) FROM message_key") == [(1,)], "the other key is forgotten")
        told = letters(ingest, "redrive", "--all")[1]
        assert (told["redriven"], told["stored"], told["failed"]) == (2, 1, [])
        peer.publish(topic, body, "", key="after")
        wait_for(lambda: query(dsn, "SELECT sum(duplicates) FROM direct_tally") == [(3,)], "duplicates")
        assert ingest.stop() == 0
    assert len(stored(dsn)) == 3
    assert query(dsn, "SELECT stored, dead_lettered FROM direct_tally") == [(3, 0)]
    assert_balanced(dsn)


def test_a_message_under_anothers_key_stays_refused(
    folder: Path, broker: EmbeddedMosquitto, peer: GatewayPeer, dsn: str
) -> None:
    with ingest_running(folder, broker, dsn) as ingest:
        for value in (1, 2):
            peer.publish(topics.push("plant-1"), message(a=value), "", key="k")
        wait_for(lambda: query(dsn, "SELECT 1 FROM dead_letter"), "dead letter")
        status, told = letters(ingest, "redrive", "--all")
        assert (status, told["redriven"], len(told["failed"])) == (1, 0, 1)
        assert told["failed"][0]["error"].startswith("idempotency-key-reused at ")
        assert ingest.stop() == 0
    assert [value for _, _, value, _ in stored(dsn)] == [1.0]
    assert_balanced(dsn)


def test_the_missing_value_of_an_uplink_is_taken_though_its_key_is_known(
    folder: Path, broker: EmbeddedMosquitto, peer: GatewayPeer, dsn: str
) -> None:
    eui = "0101010101010101"
    with ingest_running(folder, broker, dsn) as ingest:
        peer.publish(foreign(eui), uplink(eui, "id-1", level=1, total=1 << 60), "")
        peer.publish(topics.push("lora-1"), uplink(eui, "id-2", level=2, total=1 << 60), formats.CHIRPSTACK)
        wait_for(lambda: len(query(dsn, "SELECT 1 FROM dead_letter")) == 2, "dead letters")
        mended = f"convert_to(replace(convert_from(payload, 'UTF8'), '{1 << 60}', '7'), 'UTF8')"
        execute(dsn, f"UPDATE dead_letter SET payload = {mended}")
        told = letters(ingest, "redrive", "--all")[1]
        assert (told["redriven"], told["stored"], told["failed"]) == (2, 2, [])
        assert ingest.stop() == 0
    assert sorted((name, value) for name, _, value, _ in stored(dsn)) == [
        (f"{eui}/level", 1.0), (f"{eui}/level", 2.0), (f"{eui}/total", 7.0), (f"{eui}/total", 7.0),
    ]  # fmt: skip
    assert query(dsn, "SELECT received FROM device_uplink") == [(2,)]
    assert_balanced(dsn)


def test_of_several_workers_the_one_of_the_sender_takes_a_letter(
    folder: Path, broker: EmbeddedMosquitto, peer: GatewayPeer, dsn: str
) -> None:
    """Gateway, direct device, push source and device of a configured source, of both workers."""
    peers, wanted = [], {half: set[str]() for half in HALVES}
    with ExitStack() as running:
        for half in HALVES:
            (folder / half).mkdir()
            ingest = running.enter_context(ingest_running(folder / half, broker, dsn, {"shards": half}))
        for number, half in enumerate(HALVES):
            gateway, device, source = (named(f"{kind}-{{}}", number) for kind in ("gw", "lift", "plant"))
            eui = named("{:016d}", number)
            batch = wire.encode(wire.Header(gateway, "telemetry", 1, 1, 2), some_readings(2, now_us(), f"gas-{half}"))
            bodies = {
                topics.up(gateway): batch, topics.dev(device): message(a=1),
                topics.push(source): uplink(f"{9 + number:016x}", f"push-{half}", a=1),
                foreign(eui): uplink(eui, f"id-{half}", a=1),
            }  # fmt: skip
            for topic, body in bodies.items():
                kind = formats.CHIRPSTACK if topic == topics.push(source) else ""
                peer.publish(topic, b"\xff", kind)
                wait_for(
                    lambda at=topic: query(dsn, "SELECT 1 FROM dead_letter WHERE topic = %s", at), f"letter of {topic}"
                )
                execute(dsn, "UPDATE dead_letter SET payload = %s WHERE topic = %s", body, topic)
            peers.append(running.enter_context(closing(GatewayPeer(broker.port, gateway))))
            wanted[half] = {gateway, device, source, eui}
        status, told = letters(ingest, "redrive", "--all")
        assert (status, told["asked"], told["redriven"], told["stored"]) == (0, 8, 8, 10), told
        for gateway_peer in peers:
            gateway_peer.wait_acked(2)
    assert query(dsn, "SELECT worker, stored, dead_lettered FROM direct_tally ORDER BY worker") == [
        ("00-31", 3, 0), ("32-63", 3, 0),
    ]  # fmt: skip
    sources = {str(source) for (source,) in query(dsn, "SELECT DISTINCT source FROM device")}
    assert sources == wanted["0-31"] | wanted["32-63"]
    assert len(stored(dsn)) == 10
    assert query(dsn, "SELECT count(*) FROM broker_counter") == [(1,)]
    assert_balanced(dsn)


def test_a_command_that_knows_other_sources_than_the_worker_is_told_so(
    folder: Path, broker: EmbeddedMosquitto, peer: GatewayPeer, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    eui = next(
        eui for eui in map("{:016d}".format, count(1))
        if shard_of_topic(foreign(eui), Sources([])) // 8 != lane_of(eui)
    )  # fmt: skip
    with ingest_running(folder, broker, dsn) as ingest:
        peer.publish(foreign(eui), b"\xff", "")
        wait_for(lambda: query(dsn, "SELECT 1 FROM dead_letter"), "dead letter")
        with monkeypatch.context() as without:
            without.delenv("CITYNET_INGEST_SOURCES")
            status, told = letters(ingest, "redrive", "--all")
        assert (status, told["failed"][0]["error"].partition(" ")[0]) == (1, "other-shard")
        execute(dsn, "UPDATE dead_letter SET payload = %s", uplink(eui, "id-1", a=1))
        assert letters(ingest, "redrive", "--all")[1]["stored"] == 1
    assert_balanced(dsn)
