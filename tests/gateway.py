"""A gateway process between a field device and a server stand-in, all on a real broker.

The stand-in is a real MQTT client that speaks the acknowledgement protocol as the server does: one cursor per stream and
epoch, duplicates acknowledged again, gaps answered with the cursor. Tests tell it to misbehave.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from citynet import control, topics, wire
from citynet.control import Ack, Stream
from citynet.notes import EventNote, LossNote, Note
from citynet.reading import Reading
from citynet.runtime.embedded import EmbeddedMosquitto
from citynet_gateway import toml_text
from tests.ingest import kept
from tests.patience import DEADLINE_S, wait_for

GATEWAY = "gw-1"

Key = tuple[Stream, int]


class GatewayProcess:
    """``citynet gateway run`` as its own process, so that it can be killed for real."""

    def __init__(
        self,
        folder: Path,
        field: EmbeddedMosquitto,
        uplink: EmbeddedMosquitto,
        settings: Mapping[str, object] | None = None,
        tables: str = "",
    ) -> None:
        values = {
            "id": GATEWAY, "data_dir": str(folder / "data"), "sync_interval_ms": 50, "heartbeat_s": 0.0,
            "status_interval_s": 0.5, "resend_after_s": 1.0, "resend_after_s_max": 3.0, **(settings or {}),
        }  # fmt: skip
        lines = [
            "[log]",
            "level = 'info'",
            "[gateway]",
            *(f"{key} = {toml_text.value(item)}" for key, item in values.items()),
        ]
        lines += ["[gateway.uplink]", f"port = {uplink.port}", "[gateway.local]", f"port = {field.port}", tables]
        self.folder = folder
        self.config = folder / "gateway.toml"
        self.config.write_text("\n".join(lines))
        self.log = folder / "gateway.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, failpoint: str = "", mutant: str = "") -> None:
        module = ["tests.faults.mutants", mutant] if mutant else ["citynet"]
        environment = {**os.environ, "CITYNET_FAILPOINT": failpoint, "PYTHONPATH": str(Path(__file__).parents[1])}
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *module, "gateway", "run", "--config", str(self.config)],
                stdout=output,
                stderr=output,
                env=environment,
            )

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def wait_dead(self, deadline_s: float = DEADLINE_S) -> int:
        assert self.process is not None
        return self.process.wait(deadline_s)

    def kill(self) -> None:
        if self.alive and self.process is not None:
            self.process.kill()
            self.process.wait()

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(DEADLINE_S)

    def events(self, event: str) -> list[dict[str, Any]]:
        """The log entries of this event. A kill may cut a line short; the next entry then follows on the same line."""
        text = self.log.read_text() if self.log.exists() else ""
        found, at, decoder = [], 0, json.JSONDecoder()
        while (at := text.find('{"', at)) >= 0:
            try:
                entry, at = decoder.raw_decode(text, at)
            except json.JSONDecodeError:
                at += 1
                continue
            found += [entry] if entry.get("event") == event else []
        return found

    def spool(self, verb: str = "status") -> dict[str, Any]:
        """``citynet gateway spool status|verify --json``."""
        done = subprocess.run(
            [sys.executable, "-m", "citynet", "gateway", "spool", verb, "--json", "--config", str(self.config)],
            capture_output=True,
            check=False,
            timeout=DEADLINE_S,
        )
        result: dict[str, Any] = json.loads(done.stdout)
        return result


class FieldDevice:
    """A device that publishes with QoS 1 and counts a message as sent when its broker has it."""

    def __init__(self, port: int, name: str = "sensor-1") -> None:
        self.topic = topics.field("field", GATEWAY, name)
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=f"dev-{name}", protocol=paho.MQTTv5)
        self._client.max_inflight_messages_set(1000)
        self._client.reconnect_delay_set(1, 1)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def send(
        self, body: object, *, topic: str = "", content_type: str = "", retain: bool = False
    ) -> paho.MQTTMessageInfo:
        wait_for(self._client.is_connected, "the device connects")  # else paho says of a message that it has failed
        payload = body if isinstance(body, bytes) else json.dumps(body).encode()
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        if content_type:
            properties.ContentType = content_type
        return kept(self._client.publish(topic or self.topic, payload, qos=1, properties=properties, retain=retain))

    def send_all(self, bodies: list[Any]) -> None:
        infos = [self.send(body) for body in bodies]
        for info in infos:
            info.wait_for_publish(DEADLINE_S)
            assert info.is_published()

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


class ServerPeer:
    """The server's side. `stored` has the records in the order in which they were stored."""

    def __init__(self, port: int) -> None:
        self.stored: list[tuple[Stream, int, int, str, float]] = []  # stream, epoch, seq, name, value
        self.readings: list[Reading] = []  # the same with their times and qualities
        self.notes: list[tuple[Stream, int, int, Note]] = []
        self.cursors: dict[Key, int] = {}
        self.statuses: list[control.Status] = []
        self.hellos: list[control.Hello] = []
        self.batches: list[wire.Header] = []
        self.why: Counter[str] = Counter()
        self.credit = 100
        self.mute = False  # takes and stores, but sends no acknowledgement
        self.deaf = 0  # how many of the next batches get lost on the way
        self.repeat = 1  # how often each acknowledgement is sent
        self._lock = threading.Lock()
        self._subscribed = threading.Event()
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id="server", protocol=paho.MQTTv5)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = lambda *_: self._client.subscribe([(name, 1) for name in self._topics()])
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = self._on_message
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = 3600
        self._client.connect("127.0.0.1", port, clean_start=False, properties=properties)
        self._client.loop_start()
        assert self._subscribed.wait(DEADLINE_S)

    @staticmethod
    def _topics() -> tuple[str, ...]:
        return topics.UP_ALL, topics.HELLO_ALL, topics.STATUS_ALL

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def values(self) -> list[float]:
        """Values of the field's readings, in the order stored."""
        with self._lock:
            return [value for *_, name, value in self.stored if not name.endswith("gateway_uptime_s")]

    def forget(self, key: Key, seq: int) -> None:
        """Restored from a backup: the cursor is back at `seq`, what came later is gone."""
        with self._lock:
            self.cursors[key] = seq
            self.stored = [row for row in self.stored if (row[0], row[1]) != key or row[2] <= seq]

    def say(self, ack: Ack) -> None:
        """Send any acknowledgement."""
        self._client.publish(topics.ack(GATEWAY), control.encode(ack), qos=1)

    def _on_message(self, _client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
        topic, payload = topics.parse(message.topic), bytes(message.payload)
        with self._lock:
            if topic.kind == "status":
                self.statuses.append(control.decode(payload, control.Status))
            elif topic.kind == "hello":
                hello = control.decode(payload, control.Hello)
                self.hellos.append(hello)
                for held in hello.held:
                    self._answer(
                        Ack(held.ep, held.st, self.cursors.get((held.st, held.ep), 0), self.credit, "hello", hello.ref)
                    )
            elif self.deaf:
                self.deaf -= 1
            else:
                assert message.properties is not None
                assert message.properties.ContentType == wire.CBOR
                self._take(wire.decode(payload))

    def _take(self, envelope: wire.Envelope) -> None:
        header = envelope.header
        self.batches.append(header)
        key: Key = (header.stream, header.epoch)
        cursor = self.cursors.get(key, 0)
        assert header.highest >= header.last
        if header.seq0 > cursor + 1:
            self._ack(key, cursor, "gap")
            return
        if header.last <= cursor:
            self._ack(key, cursor, "duplicate")
            return
        self._store(envelope, cursor)
        self.cursors[key] = header.last
        self._ack(key, header.last, "commit")

    def _store(self, envelope: wire.Envelope, cursor: int) -> None:
        header = envelope.header
        readings = iter(envelope.readings())
        notes = dict(envelope.notes)
        position = 0
        while position < header.count:
            seq = header.seq0 + position
            note = notes.get(position)
            if note is not None:
                if seq + note.span - 1 > cursor:
                    self.notes.append((header.stream, header.epoch, seq, note))
                position += note.span
                continue
            reading = next(readings)
            if seq > cursor:
                self.readings.append(reading)
                self.stored.append((header.stream, header.epoch, seq, reading.name, reading.value))
            position += 1

    def _ack(self, key: Key, seq: int, why: control.AckCause) -> None:
        self.why[why] += 1
        self._answer(Ack(key[1], key[0], seq, self.credit, why))

    def _answer(self, ack: Ack) -> None:
        if not self.mute:
            for _ in range(self.repeat):
                self.say(ack)

    def events(self, code: str = "") -> list[EventNote]:
        """The event notes, those of one code or all of them."""
        with self._lock:
            found = [note for *_, note in self.notes if isinstance(note, EventNote)]
        return [note for note in found if not code or note.code == code]

    def losses(self) -> list[tuple[Stream, int, LossNote]]:
        with self._lock:
            return [(stream, epoch, note) for stream, epoch, _, note in self.notes if isinstance(note, LossNote)]
