"""A running ingest worker and a gateway's side of the wire, for tests: real processes, real broker, real database."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import psycopg
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from citynet import control, topics, wire
from citynet.control import Ack
from citynet.reading import Reading
from citynet.runtime.embedded import EmbeddedMosquitto
from tests.patience import DEADLINE_S, wait_for


def now_us() -> int:
    return time.time_ns() // 1000


class IngestProcess:
    """``citynet ingest run`` as its own process, so that it can be killed for real."""

    def __init__(self, folder: Path, broker_port: int, dsn: str, settings: Mapping[str, object] | None = None) -> None:
        lines = [
            f"[broker]\nport = {broker_port}\n[database]\ndsn = {json.dumps(dsn)}\n[log]\nlevel = 'info'\n[ingest]"
        ]
        lines += [f"{key} = {json.dumps(value)}" for key, value in {"retry_s_max": 0.5, **(settings or {})}.items()]
        self.config = folder / "ingest.toml"
        self.config.write_text("\n".join(lines))
        self.log = folder / "ingest.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, failpoint: str = "", mutant: str = "") -> None:
        module = ["tests.faults.mutants", mutant] if mutant else ["citynet"]
        environment = {**os.environ, "CITYNET_FAILPOINT": failpoint, "PYTHONPATH": str(Path(__file__).parents[1])}
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *module, "ingest", "run", "--config", str(self.config)],
                stdout=output, stderr=output, env=environment,
            )  # fmt: skip

    @property
    def running(self) -> subprocess.Popen[bytes]:
        assert self.process is not None
        return self.process

    def kill(self) -> None:
        self.running.kill()
        self.running.wait()

    def stop(self, grace_s: float = DEADLINE_S) -> int:
        if self.running.poll() is None:
            self.running.send_signal(signal.SIGTERM)
        try:
            return self.running.wait(grace_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"ingest did not stop in {grace_s} s:\n{self.tail()}") from None

    def died(self, deadline_s: float = DEADLINE_S) -> int:
        return self.running.wait(deadline_s)

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-4000:]

    def wait_connected(self) -> None:
        wait_for(
            lambda: "broker-connected" in self.log.read_text() or self.running.poll() is not None, "ingest connects"
        )
        assert "broker-connected" in self.log.read_text(), f"ingest ended before it was connected:\n{self.tail()}"


@contextmanager
def ingest_running(
    folder: Path, broker: EmbeddedMosquitto, dsn: str, settings: Mapping[str, object] | None = None, **start: str
) -> Iterator[IngestProcess]:
    """An ingest process that is connected; stopped at the end if it still runs."""
    process = IngestProcess(folder, broker.port, dsn, settings)
    process.start(**start)
    try:
        if not start.get("failpoint"):
            process.wait_connected()
        yield process
    finally:
        if process.running.poll() is None:
            process.kill()


def kept(info: paho.MQTTMessageInfo) -> paho.MQTTMessageInfo:
    """The same message, not given up if there was no connection at that moment (a broker ends one whose keep-alive a busy
    machine has missed): paho keeps it and sends it over the next one, yet would call it failed whenever it is asked."""
    if info.rc == paho.MQTT_ERR_NO_CONN:
        info.rc = paho.MQTT_ERR_SUCCESS
    return info


class GatewayPeer:
    """A gateway's side of the wire contract: sends batches, keeps what was acknowledged, sends again on demand."""

    def __init__(self, port: int, gateway: str = "gw-t") -> None:
        self.gateway = gateway
        self.acks: list[Ack] = []
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=f"{gateway}-peer", protocol=paho.MQTTv5)
        self.client.on_message = self._on_message
        subscribed = threading.Event()
        self.client.on_connect = lambda *_: self.client.subscribe(topics.ack(gateway), qos=1)
        self.client.on_subscribe = lambda *_: subscribed.set()
        self.client.reconnect_delay_set(1, 1)
        self.client.max_inflight_messages_set(1000)
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        # Not only connected: an answer to what is sent before the broker knows who listens is lost, and we never ask again.
        assert subscribed.wait(DEADLINE_S), f"{gateway} subscribes"

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def _on_message(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        self.acks.append(control.decode(message.payload, Ack))

    def publish(
        self,
        topic: str,
        payload: bytes,
        content_type: str = wire.CBOR,
        *,
        wait: bool = True,
        key: str = "",
        qos: int = 1,
    ) -> None:
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        if content_type:
            properties.ContentType = content_type
        if key:
            properties.UserProperty = ("idempotency-key", key)
        info = self.client.publish(topic, payload, qos=qos, properties=properties)
        if wait:
            kept(info).wait_for_publish(DEADLINE_S)

    def send(self, seq0: int, readings: list[Reading], *, epoch: int = 1, highest: int = 0, **more: Any) -> None:
        stream = more.pop("stream", wire.TELEMETRY)
        notes = more.pop("notes", [])
        count = len(readings) + sum(note.span for _, note in notes)
        header = wire.Header(self.gateway, stream, epoch, seq0, count, highest or seq0 + count - 1)
        self.publish(topics.up(self.gateway), wire.encode(header, readings, notes), **more)

    def acked(self, epoch: int = 1, stream: str = wire.TELEMETRY) -> int:
        """Highest sequence number acknowledged."""
        return max((ack.seq for ack in list(self.acks) if ack.ep == epoch and ack.st == stream), default=0)

    def wait_acked(self, seq: int, epoch: int = 1, stream: str = wire.TELEMETRY) -> None:
        wait_for(
            lambda: self.acked(epoch, stream) >= seq, f"acknowledgement of {seq} (have {self.acked(epoch, stream)})"
        )


def letters(ingest: IngestProcess, *words: str) -> tuple[int, Any]:
    """``citynet dead-letters … --json``: exit status and output."""
    if words[0] == "redrive" and "--wait-s" not in words:
        words = (*words, "--wait-s", str(DEADLINE_S))
    command = [sys.executable, "-m", "citynet", "dead-letters", *words, "--json", "--config", str(ingest.config)]
    done = subprocess.run(command, capture_output=True, check=False, timeout=2 * DEADLINE_S, text=True)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def stored(dsn: str) -> list[tuple[str, int, float, int]]:
    """Every stored reading: (device/metric, time_us, value, quality), sorted."""
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(
            "SELECT d.name || '/' || s.metric, (extract(epoch FROM r.time) * 1000000)::bigint, r.value, r.quality"
            " FROM reading r JOIN series s ON s.id = r.series_id JOIN device d ON d.id = s.device_id ORDER BY 1, 2, 3"
        ).fetchall()
    return [(str(n), int(t), float(v), int(q)) for n, t, v, q in rows]


def query(dsn: str, text: str, *parameters: object) -> list[tuple[Any, ...]]:
    with psycopg.connect(dsn) as connection:
        return connection.execute(text.encode(), parameters).fetchall()


def some_readings(count: int, start_us: int, device: str = "gas-1", metric: str = "ch4_lel") -> list[Reading]:
    return [Reading(device, metric, start_us + k * 1_000_000, k * 0.5) for k in range(count)]
