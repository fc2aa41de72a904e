"""The harness of the fault tests: a ledger on disk, a gateway and a direct device that keep to the protocol, and a judge.

Everything that a source says is in its ledger, synced, before it is sent, and marked there when it is acknowledged. When the
dust has settled the ledgers are compared with the database as multisets of (series, time, value).
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import paho.mqtt.client as paho
import psycopg
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from citynet import control, formats, topics, wire
from citynet.control import Ack, Held, Hello
from citynet.notes import LossNote
from citynet.reading import Reading
from citynet_ingest import audit
from tests.ingest import DEADLINE_S, IngestProcess, kept, stored, wait_for

Row = tuple[str, int, float]  # device/metric, µs since 1970, value
_RESEND_S_MAX = 4.0
_PACE_S = 0.01


def row_of(reading: Reading) -> Row:
    return reading.name, reading.time_us, reading.value


class Ledger:
    """What one source has said, in order, and how far it was acknowledged. A file of JSON lines, synced at every entry."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab")
        self.readings: list[Reading] = []
        self.acknowledged: set[int] = set()  # positions, from 0

    def accept(self, readings: Sequence[Reading]) -> None:
        """Write down and sync; only then may they be sent."""
        self._write([json.dumps(row_of(reading)) for reading in readings])
        self.readings += readings

    def mark(self, positions: Iterable[int]) -> None:
        """These were acknowledged."""
        new = sorted(set(positions) - self.acknowledged)
        if new:
            self._write([json.dumps({"from": new[0], "to": new[-1], "acknowledged": len(new)})])
            self.acknowledged.update(new)

    def _write(self, lines: list[str]) -> None:
        self._file.write("".join(f"{line}\n" for line in lines).encode())
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


@dataclass(frozen=True)
class Report:
    """What became of everything that was said.

    `lost`: acknowledged and not in the database. `recovered`: in the database although its acknowledgement never came.
    `unexpected`: in the database and nobody said it. `duplicated`: copies beyond the first.
    """

    lost: int
    recovered: int
    unexpected: int
    duplicated: int


CLEAN = Report(0, 0, 0, 0)


def judge(ledgers: Sequence[Ledger], dsn: str) -> Report:
    """Compare ledgers with the readings in the database."""
    promised: Counter[Row] = Counter()
    unpromised: Counter[Row] = Counter()
    for ledger in ledgers:
        for position, reading in enumerate(ledger.readings):
            (promised if position in ledger.acknowledged else unpromised)[row_of(reading)] += 1
    found: Counter[Row] = Counter((name, time_us, value) for name, time_us, value, _ in stored(dsn))
    surplus = found - promised - unpromised
    said = promised.keys() | unpromised.keys()
    duplicated = sum(count for row, count in surplus.items() if row in said)
    return Report(
        lost=(promised - found).total(),
        recovered=((found - promised) & unpromised).total(),
        unexpected=surplus.total() - duplicated,
        duplicated=duplicated,
    )


def assert_balanced(dsn: str, *, is_drained: bool = True) -> None:
    """The conservation equation holds, the tables hold what the books say, and (if drained) no spool holds anything back."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        found = audit.run(connection)
    assert found.is_balanced, found.to_json()
    assert not is_drained or all(stream.in_spool == 0 for stream in found.streams), found.to_json()


def _client(name: str, port: int, keep_alive_s: int) -> paho.Client:
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id=name, protocol=paho.MQTTv5)
    client.reconnect_delay_set(1, 1)
    client.max_inflight_messages_set(1000)
    client.connect_async("127.0.0.1", port, keepalive=keep_alive_s)
    return client


def wait_logged(ingest: IngestProcess, event: str, times: int = 1) -> None:
    """Until ingest has logged this event so often."""
    wait_for(lambda: ingest.log.read_text().count(f'"{event}"') >= times, f"{event} logged {times} times")


def last_for(seconds: float) -> None:
    """A fault lasts so long. Never to wait for something: that is what `wait_for` is for."""
    until = time.monotonic() + seconds
    wait_for(lambda: time.monotonic() > until, "time passes", seconds + DEADLINE_S)


class LedgerPeer:
    """A gateway to the letter of the wire contract: a window of unacknowledged batches, resend after a timeout that
    doubles, hello at every connect, back on a gap. Runs on a thread of its own until `close`.

    What is acknowledged is trimmed. If the server then asks for it again, all that can be sent is a loss record.
    """

    def __init__(
        self, port: int, gateway: str, ledger: Ledger, *, epoch: int = 1, window: int = 4, batch: int = 20,
        resend_s: float = 0.7, keep_alive_s: int = 4,
    ) -> None:  # fmt: skip
        self.gateway, self.epoch, self.ledger = gateway, epoch, ledger
        self.connections = 0
        self.violations: list[str] = []
        self._window, self._batch, self._resend_s = window, batch, resend_s
        self._pause_s = resend_s
        self._lock = threading.RLock()
        self._acked = 0  # trimmed up to here
        self._next = 1
        self._flying: deque[int] = deque()  # last sequence number of every batch under way
        self._ref = ""
        self._greeted = False
        self._echoes = 0
        self._echoed = threading.Event()
        self._moved_at = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"peer-{gateway}")
        self._client = _client(f"{gateway}-peer", port, keep_alive_s)
        self._client.on_connect = self._subscribe
        self._client.on_subscribe = lambda *_: self._connected()
        self._client.on_disconnect = lambda *_: self._disconnected()
        self._client.on_message = self._on_message

    def __enter__(self) -> Self:
        self._client.loop_start()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._client.disconnect()
        self._client.loop_stop()
        self.ledger.close()

    def accept(self, readings: Sequence[Reading]) -> None:
        """Take readings over: into the ledger, then onto the wire."""
        self.ledger.accept(readings)
        with self._lock:
            self._pump()

    def accept_until(self, readings: Sequence[Reading], more: int) -> None:
        """Take readings over, and wait until so many more are acknowledged than before, or all. Counted afterwards they might
        not be there: all that was taken over may be acknowledged by then, as may what was left of earlier ones by now."""
        goal = min(self._acked + more, len(self.ledger.readings) + len(readings))
        self.accept(readings)
        self.wait_acked(goal)

    @property
    def acked(self) -> int:
        return self._acked

    @property
    def is_drained(self) -> bool:
        """Whether everything accepted is acknowledged and nothing is under way."""
        with self._lock:
            return self._acked == len(self.ledger.readings) and not self._flying

    def wait_acked(self, seq: int) -> None:
        """Until so much is acknowledged: delivery is under way."""
        wait_for(lambda: self._acked >= seq, f"{self.gateway} has {seq} readings acknowledged")

    def wait_drained(self, deadline_s: float = DEADLINE_S) -> None:
        wait_for(lambda: self.is_drained, f"{self.gateway} drains {len(self.ledger.readings)} readings", deadline_s)
        assert self.violations == []

    def hear_out(self) -> None:
        """Until every acknowledgement that the broker had when this began is taken: a message of our own goes the same way,
        behind them. Time is no proof of that: each is synced to the ledger first, on a disk that others keep busy."""
        with self._lock:
            self._echoes += 1
            self._echoed.clear()
        echo = Ack(self.epoch, wire.TELEMETRY, 0, 0, ref=f"echo-{self._echoes}")
        self._client.publish(topics.ack(self.gateway), control.encode(echo), qos=1)
        assert self._echoed.wait(DEADLINE_S), f"{self.gateway} hears itself"

    # --- the protocol; all below under the lock ---

    def _subscribe(self, *_: object) -> None:
        self._client.subscribe(topics.ack(self.gateway), qos=1)

    def _connected(self) -> None:
        with self._lock:
            self.connections += 1
            self._hello()

    def _disconnected(self) -> None:
        with self._lock:
            self._greeted = False
            self._flying.clear()

    def _hello(self) -> None:
        self._ref = f"hello-{self.connections}"
        self._moved_at = time.monotonic()
        held = [Held(self.epoch, wire.TELEMETRY, self._acked + 1, len(self.ledger.readings))]
        self._client.publish(topics.hello(self.gateway), control.encode(Hello(self._ref, held)), qos=1)

    def _on_message(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        ack = control.decode(bytes(message.payload), Ack)
        with self._lock:
            if ack.ref == f"echo-{self._echoes}":
                self._echoed.set()
            elif ack.ep == self.epoch and ack.st == wire.TELEMETRY and (ack.why != "hello" or ack.ref == self._ref):
                self._take(ack)
                self._pump()

    def _take(self, ack: Ack) -> None:
        if ack.seq > len(self.ledger.readings):
            self.violations.append(f"acknowledgement of the future: {ack}")
            return
        while self._flying and self._flying[0] <= ack.seq:
            self._flying.popleft()
        if ack.seq > self._acked or ack.why == "hello":
            self._moved_at, self._pause_s = time.monotonic(), self._resend_s
        self.ledger.mark(range(self._acked, ack.seq))
        self._acked = max(self._acked, ack.seq)
        self._next = max(self._next, ack.seq + 1)
        if ack.why == "hello":
            self._greeted = True
        if ack.why in ("gap", "hello"):
            self._next = ack.seq + 1
            self._flying.clear()

    def _pump(self) -> None:
        accepted = len(self.ledger.readings)
        while self._greeted and len(self._flying) < self._window and self._next <= accepted:
            first = self._next
            if first <= self._acked:  # asked for again after it was acknowledged: nobody has it any more
                last, readings, notes = self._acked, [], [(0, LossNote(first, self._acked, "trimmed"))]
            else:
                last, notes = min(first + self._batch - 1, accepted), []
                readings = self.ledger.readings[first - 1 : last]
            header = wire.Header(self.gateway, wire.TELEMETRY, self.epoch, first, last - first + 1, accepted)
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.ContentType = wire.CBOR
            body = wire.encode(header, readings, notes)
            self._client.publish(topics.up(self.gateway), body, qos=1, properties=properties)
            self._flying.append(last)
            self._next = last + 1

    def _run(self) -> None:
        while not self._stop.wait(_PACE_S):
            with self._lock:
                overdue = time.monotonic() - self._moved_at > self._pause_s
                if not self._flying and self._greeted:
                    self._moved_at = time.monotonic()
                elif overdue and self._client.is_connected():
                    self._pause_s = min(2 * self._pause_s, _RESEND_S_MAX)
                    self._moved_at = time.monotonic()
                    if self._greeted:
                        self._next = self._acked + 1
                        self._flying.clear()
                    else:
                        self._hello()
                self._pump()


class DirectDevice:
    """A plain device without a gateway: QoS 1, one reading a message, marked when the broker has taken it."""

    def __init__(self, port: int, device: str, ledger: Ledger, *, keep_alive_s: int = 4) -> None:
        self.device, self.ledger = device, ledger
        self._waiting: list[tuple[int, paho.MQTTMessageInfo]] = []
        self._client = _client(f"{device}-device", port, keep_alive_s)

    def __enter__(self) -> Self:
        self._client.loop_start()
        wait_for(self._client.is_connected, f"{self.device} connects")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.disconnect()
        self._client.loop_stop()
        self.ledger.close()

    def say(self, readings: Sequence[Reading]) -> None:
        """Publish readings of whole milliseconds, one message each."""
        first = len(self.ledger.readings)
        self.ledger.accept(readings)
        for position, reading in enumerate(readings, first):
            body = json.dumps({"ts": reading.time_us // 1000, "values": {reading.metric: reading.value}})
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.ContentType = formats.THINGSBOARD
            info = self._client.publish(topics.dev(self.device), body, qos=1, properties=properties)
            self._waiting.append((position, kept(info)))

    @property
    def untaken(self) -> int:
        """How many messages the broker has not acknowledged yet; marks those that it has."""
        waiting = [(position, info) for position, info in self._waiting if not info.is_published()]
        self.ledger.mark({position for position, _ in self._waiting} - {position for position, _ in waiting})
        self._waiting = waiting
        return len(self._waiting)

    def wait_taken(self) -> None:
        """Until the broker has taken everything."""
        wait_for(lambda: not self.untaken, f"the broker takes what {self.device} said")
