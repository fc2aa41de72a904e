"""Uplinks of a ChirpStack on its own topics: exactly once by deduplicationId, across kill -9; counters passed over."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from citynet import formats, topics
from citynet.runtime.embedded import EmbeddedMosquitto
from tests.ingest import GatewayPeer, IngestProcess, ingest_running, query, stored, wait_for
from tests.push import front_running

EUI, OTHER = "0101010101010101", "0202020202020202"
TOPIC = f"application/7/device/{EUI}/event/up"


@pytest.fixture(autouse=True)
def _sources(monkeypatch: pytest.MonkeyPatch) -> None:
    sources = [{"topic": "application/+/device/{device}/event/up", "format": "chirpstack"}]
    monkeypatch.setenv("CITYNET_INGEST_SOURCES", json.dumps(sources))


@pytest.fixture
def peer(broker: EmbeddedMosquitto) -> Iterator[GatewayPeer]:
    client = GatewayPeer(broker.port)
    yield client
    client.close()


def uplink(counter: int, eui: str = EUI, key: str = "") -> bytes:
    event = {
        "deduplicationId": key or f"id-{counter}",
        "time": dt.datetime.now(dt.UTC).isoformat(),
        "deviceInfo": {"devEui": eui},
        "fCnt": counter,
        "object": {"level": counter},
    }
    return json.dumps(event).encode()


def counters(dsn: str) -> list[tuple[object, ...]]:
    return query(dsn, "SELECT device, counter, received, missing, restarts FROM device_uplink ORDER BY device")


def levels(dsn: str) -> list[float]:
    return sorted(value for _, _, value, _ in stored(dsn))


def killed_once(folder: Path, broker: EmbeddedMosquitto, dsn: str, peer: GatewayPeer, failpoint: str) -> IngestProcess:
    """A worker that died over the first uplink and was started again."""
    process = IngestProcess(folder, broker.port, dsn)
    process.start(failpoint=failpoint)
    process.wait_connected()
    peer.publish(TOPIC, uplink(1), "")
    assert process.died() == -9, process.tail()
    process.start()
    return process


@pytest.mark.parametrize("failpoint", ["ingest.before-commit:2", "ingest.after-commit:2"])
def test_an_uplink_is_stored_once_however_often_it_is_sent(
    folder: Path, broker: EmbeddedMosquitto, dsn: str, peer: GatewayPeer, failpoint: str
) -> None:
    process = killed_once(folder, broker, dsn, peer, failpoint)
    try:
        for counter in (1, 1, 2, 5, 5, 0, 3):  # repeated, three passed over in two places, joined anew in between
            peer.publish(TOPIC, uplink(counter), "", wait=False)
        peer.publish(TOPIC, b"{", "")  # the last one
        wait_for(
            lambda: query(dsn, "SELECT 1 FROM dead_letter"), f"the last message is dealt with:\n{process.tail()}", 120
        )
    finally:
        process.kill()
    assert levels(dsn) == [0.0, 1.0, 2.0, 3.0, 5.0]
    assert counters(dsn) == [(EUI, 3, 5, 4, 1)]


def test_both_ways_to_us_are_one_and_nobody_speaks_for_another(
    folder: Path, broker: EmbeddedMosquitto, dsn: str, peer: GatewayPeer
) -> None:
    """The same uplink by MQTT and by ChirpStack's HTTP integration; another's name on a topic; what is nobody's."""
    sources = '[[push.sources]]\nname = "lora-1"\nformat = "chirpstack"\n'
    with (
        ingest_running(folder, broker, dsn),
        front_running(folder, broker, dsn, sources=sources) as front,
        front.client("lora-1") as client,
    ):
        headers = {"Content-Type": "application/json"}
        by_http = [client.post("/v1/push/lora-1?event=up", content=uplink(n), headers=headers).json() for n in (1, 1)]
        assert [answer["duplicate"] for answer in by_http] == [False, True]
        peer.publish(TOPIC, uplink(1), "")
        peer.publish(TOPIC, uplink(9, OTHER), "")
        peer.publish(topics.dev("meter-1"), uplink(9, OTHER), formats.CHIRPSTACK)
        peer.publish("application/7/device/no device/event/up", uplink(9), "")
        wait_for(lambda: query(dsn, "SELECT count(*) FROM dead_letter") == [(3,)], "three dead letters")
        assert client.post("/v1/push/lora-1", content=uplink(2, OTHER), headers=headers).json()["stored"] == 1
        assert query(dsn, "SELECT duplicates FROM direct_tally") == [(2,)]
    reasons = query(dsn, "SELECT reason, place FROM dead_letter ORDER BY 1, 2")
    assert reasons == [
        ("bad-identifier", "topic"),
        ("identity-mismatch", "deviceInfo.devEui"),
        ("identity-mismatch", "deviceInfo.devEui"),
    ]
    assert [(name, value) for name, _, value, _ in stored(dsn)] == [(f"{EUI}/level", 1.0), (f"{OTHER}/level", 2.0)]


def test_keys_are_forgotten_after_their_time(
    folder: Path, broker: EmbeddedMosquitto, dsn: str, peer: GatewayPeer
) -> None:
    with ingest_running(folder, broker, dsn):
        peer.publish(TOPIC, uplink(1), "")
        wait_for(lambda: query(dsn, "SELECT 1 FROM message_key"), "a key")
        with_age = "UPDATE message_key SET at = now() - interval '7 hours' RETURNING 1"
        assert query(dsn, with_age) == [(1,)]
        wait_for(lambda: not query(dsn, "SELECT 1 FROM message_key"), "the key is removed")
