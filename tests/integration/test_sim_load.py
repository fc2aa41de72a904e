"""The load mode against a real broker: every envelope is sound, in sequence and counted; what goes wrong is said."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from itertools import pairwise

import mqtt5
import paho.mqtt.client as paho
import pytest

from citynet import topics, wire
from citynet.errors import ConfigError
from citynet.runtime.child import free_port
from citynet.runtime.embedded import EmbeddedMosquitto
from citynet_sim.load import METRICS, Fleet, Stencil, stencils, values
from tests.ingest import wait_for
from tests.patience import DEADLINE_S

START_US = 1_767_225_600_000_000


def _load(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "citynet", "sim", "load", "--json", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=DEADLINE_S)


def _envelope(stencil: Stencil, packet_id: int) -> tuple[str, wire.Envelope]:
    packet, _ = mqtt5.read(bytes(stencil.next(packet_id)))
    assert isinstance(packet, mqtt5.PublishPacket)
    assert (packet.packet_id, packet.content_type) == (packet_id, wire.CBOR)
    assert packet.payload is not None
    return packet.topic, wire.decode(bytes(packet.payload))


@pytest.mark.parametrize(
    "fleet",
    [
        Fleet(7, 3),
        Fleet(1, 1, metrics=1, interval_us=1),
        Fleet(600, 2, interval_us=3_600_000_000),
        Fleet(2, 2, metrics=3),
    ],
)
def test_every_envelope_is_sound_and_follows_the_one_before(fleet: Fleet) -> None:
    seen: list[str] = []
    for gateway, stencil in enumerate(stencils(fleet, 77, START_US)):
        found = [_envelope(stencil, packet_id) for packet_id in (1, 0x0102, 65_535)]
        assert {topic for topic, _ in found} == {topics.up(f"load-{gateway:03d}")}
        for _, envelope in found:
            readings = envelope.readings()
            assert len(readings) == envelope.header.count == stencil.readings
            for reading in readings:
                calm, decimals = next((c, d) for name, c, d in METRICS if name == reading.metric)
                assert 0.0 <= reading.value == round(reading.value, decimals) <= calm + 7 * 10**-decimals
        for (_, before), (_, after) in pairwise(found):
            assert after.header.seq0 == before.header.last + 1
            assert after.t0_us - before.t0_us == fleet.rounds() * fleet.interval_us
            if stencil.readings > 10:
                assert [r.value for r in before.readings()] != [r.value for r in after.readings()]
        times: dict[str, list[int]] = {}
        for reading in [r for _, envelope in found for r in envelope.readings()]:
            times.setdefault(reading.name, []).append(reading.time_us)
        assert all(b - a == fleet.interval_us for series in times.values() for a, b in pairwise(series))
        seen += found[0][1].names
    assert len(seen) == len(set(seen)) == fleet.devices * fleet.metrics


def test_same_seed_same_values() -> None:
    assert (values(Fleet(5, 1)) == values(Fleet(5, 1))).all()
    assert (values(Fleet(5, 1)) != values(Fleet(5, 1, seed=2))).any()


def test_every_mistake_is_a_line() -> None:
    with pytest.raises(ConfigError) as caught:
        stencils(Fleet(5, 10, metrics=9), 1, START_US)
    assert caught.value.problems == ["--devices 5: one a gateway to 1000000", "--metrics 9: 1 to 4"]
    with pytest.raises(ConfigError, match="at most 65535 fit an envelope"):
        stencils(Fleet(100_000, 1), 1, START_US)


def test_a_load_arrives_whole_in_sequence_and_is_counted(broker: EmbeddedMosquitto) -> None:
    got: dict[str, list[wire.Envelope]] = {}
    ready = threading.Event()
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    client.on_connect = lambda *_: client.subscribe(topics.UP_ALL, qos=1)
    client.on_subscribe = lambda *_: ready.set()
    client.on_message = lambda _c, _d, m: got.setdefault(m.topic, []).append(wire.decode(bytes(m.payload)))
    client.connect("127.0.0.1", broker.port)
    client.loop_start()
    try:
        assert ready.wait(DEADLINE_S)
        done = _load(
            "--broker-port",
            str(broker.port),
            "--devices",
            "40",
            "--gateways",
            "4",
            "--rate",
            "8000",
            "--duration",
            "1.5",
        )
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout)
        wait_for(lambda: sum(map(len, got.values())) >= said["batches"], "all batches arrive")
    finally:
        client.disconnect()
        client.loop_stop()
    assert said["acked"] == said["batches"] == sum(map(len, got.values()))
    assert said["unheard"] == said["refused"] == 0
    assert said["readings"] == sum(len(e) for envelopes in got.values() for e in envelopes) <= 8000 * 1.5 + 4_000
    assert sorted(got) == sorted(topics.up(f"load-{k:03d}") for k in range(4))
    now_us = time.time_ns() // 1000
    for envelopes in got.values():
        assert [e.header.seq0 for e in envelopes] == [1 + k * len(envelopes[0]) for k in range(len(envelopes))]
        assert all(e.t0_us + max(e.dt_us.native()) <= now_us for e in envelopes)


def test_no_broker_is_one_line() -> None:
    port = free_port()
    done = _load("--broker-port", str(port), "--duration", "1")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith(f"127.0.0.1:{port}: connection 1 of load-000: Connection refused")


def test_a_broker_that_ends_the_connection_ends_the_load() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def take_and_leave() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(mqtt5.ConnAckPacket().write())
                connection.recv(4096)

        thread = threading.Thread(target=take_and_leave)
        thread.start()
        done = _load(
            "--broker-port", str(listener.getsockname()[1]), "--gateways", "1", "--devices", "2", "--duration", "20"
        )
        thread.join(DEADLINE_S)
    assert done.returncode == 1
    assert "connection" in done.stderr.splitlines()[-1]


def test_into_nothing_needs_no_broker() -> None:
    done = _load("--sink", "--duration", "0.2", "--devices", "10", "--gateways", "2")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["readings"] == said["batches"] * 1000 > 0


def test_the_bench_shows_every_value_with_its_baseline() -> None:
    command = [sys.executable, "-m", "citynet", "bench", "sim", "--quick", "--only", "load", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=DEADLINE_S)
    assert done.returncode == 0, done.stderr
    values = json.loads(done.stdout)["lines"]["load"]
    assert values["published_unacknowledged"] == values["published_100000_devices_unacknowledged"] == 0
    assert values["ratio_published_to_encode_only"] == pytest.approx(
        values["published_readings_per_s"] / values["encode_only_readings_per_s"]
    )
    assert all(value > 0 for name, value in values.items() if not name.endswith("unacknowledged"))
