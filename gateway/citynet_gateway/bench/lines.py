"""The lines of the gateway's table."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from citynet import topics
from citynet.wire import TELEMETRY
from citynet_gateway import bench_interlock
from citynet_gateway.bench.memory import drivers, resident_mib
from citynet_gateway.bench.scene import GATEWAY, Governor, Scene, Server, client, wait_for
from citynet_gateway.bench.spools import fill

CORE_SHARE = 0.25
READINGS_A_MESSAGE = 10
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Line:
    """A figure beside its goal and a baseline of the same run; `at_most` where less is better."""

    name: str
    value: float
    unit: str
    goal: float
    at_most: bool = False
    baseline: float | None = None
    note: str = ""

    @property
    def ok(self) -> bool:
        return self.value <= self.goal if self.at_most else self.value >= self.goal

    def as_dict(self) -> dict[str, object]:
        return {**asdict(self), "ok": self.ok}

    def as_text(self) -> str:
        sign = "≤" if self.at_most else "≥"
        against = f", against {self.baseline:,.4g}" if self.baseline is not None else ""
        verdict = "ok" if self.ok else "MISSED"
        return f"{self.name:34} {self.value:>12,.4g} {self.unit:12} goal {sign} {self.goal:,g}  {verdict}{against}  {self.note}"


class Load:
    """A device that keeps a number of messages unanswered by its broker: as fast as the gateway takes them, or at a rate."""

    def __init__(self, port: int, readings: int, rate: float | None) -> None:
        self._client = client("device", port)
        self._topic = topics.field("field", GATEWAY, "station-1")
        self._readings = readings
        self._rate = rate
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._publish, daemon=True)
        self.messages = self.payload_bytes = 0
        self._thread.start()

    def stop(self) -> None:
        """Say nothing more; returns when the broker has everything."""
        self._done.set()
        self._thread.join()
        wait_for(lambda: not self._client.want_write(), "the device's queue is empty")
        self._client.disconnect()
        self._client.loop_stop()

    def _publish(self) -> None:
        began_s = time.monotonic()
        while not self._done.is_set():
            if self._rate is not None and self.messages >= self._rate * (time.monotonic() - began_s):
                time.sleep(0.001)
                continue
            ts, n = time.time_ns() // 1_000_000, self.messages
            values = {f"m{k}": round((n + k) % 997 / 8, 3) for k in range(self._readings)}
            payload = json.dumps({"ts": ts, "values": values}, separators=(",", ":")).encode()
            info = self._client.publish(self._topic, payload, qos=1)
            self.messages += 1
            self.payload_bytes += len(payload)
            if self._rate is None and n % 200 == 199:
                info.wait_for_publish(30)


def _accepted(scene: Scene) -> float:
    return scene.sample("citynet_gateway_accepted_records_total", TELEMETRY)


def intake(folder: Path, say: Say, *, quick: bool) -> list[Line]:
    """Readings accepted a second on a quarter of a core, and the bytes written for them, beside a spool on SQLite."""
    found = {}
    for spool in ("sqlite", "segments"):
        say(f"intake with 1 s group sync, spool on {spool}, {CORE_SHARE:.0%} of a core")
        found[spool] = _intake(folder / spool, spool, 3.0 if quick else 20.0)
    rate, amplification, used = found["segments"]
    other = found["sqlite"]
    note = f"used {used:.0%}; {READINGS_A_MESSAGE} readings a message, sent on meanwhile"
    pages = "of the process, in whole pages; payload: the JSON"
    return [
        Line("intake on a quarter of a core", rate, "readings/s", 3_000, baseline=other[0], note=note),
        Line("bytes written a byte of payload", amplification, "x", 1.5, at_most=True, baseline=other[1], note=pages),
    ]


def _intake(folder: Path, spool: str, seconds: float) -> tuple[float, float, float]:
    """(readings a second, bytes written a byte of payload, share of a core)."""
    with Scene(folder, {"spool": spool}) as scene:
        server = Server(scene.broker.port)
        scene.start()
        with Governor(scene, CORE_SHARE):
            load = Load(scene.broker.port, READINGS_A_MESSAGE, None)
            wait_for(partial(_accepted, scene), "the first sync")
            began_s, accepted = time.monotonic(), _accepted(scene)
            cpu_s, written = scene.cpu_s(), scene.written_bytes()
            time.sleep(seconds)
            # On a machine that was busy elsewhere there may have been none; in memory nothing is ever written.
            wait_for(lambda: _accepted(scene) > accepted, "one more sync")
            wait_for(lambda: not written or scene.written_bytes() > written, "one more page")
            took_s, count = time.monotonic() - began_s, _accepted(scene) - accepted
            used = (scene.cpu_s() - cpu_s) / took_s
            payload_bytes = count / READINGS_A_MESSAGE * load.payload_bytes / load.messages
            amplification = (scene.written_bytes() - written) / payload_bytes
            load.stop()
        server.close()
    return count / took_s, amplification, used


def kept(folder: Path, say: Say, *, quick: bool) -> list[Line]:
    """500 events a second, each a message of its own: how many are saved and sent."""
    rate, seconds = 500, 3 if quick else 60
    say(f"{rate} events/s for {seconds} s")
    with Scene(folder / "kept") as scene:
        server = Server(scene.broker.port)
        scene.start()
        load = Load(scene.broker.port, 1, rate)
        time.sleep(seconds)
        load.stop()
        wait_for(lambda: server.arrived[TELEMETRY] >= load.messages, "everything has arrived")
        share = 100 * server.arrived[TELEMETRY] / load.messages
        server.close()
    return [
        Line(
            "events saved and sent",
            share,
            "%",
            100,
            note=f"{load.messages} events; EdgeX on a Pi 3B: 58 % at 200/s (edgex-go #5185)",
        )
    ]


def drain(folder: Path, say: Say, *, quick: bool) -> list[Line]:
    """A backlog drains while live alarms go on; memory and the time to open a full spool."""
    say("filling a spool of 1 GiB")
    size = (64 << 20) if quick else (1 << 30)
    records = fill(folder / "drain" / "data" / "spool", size, 4)
    goal = 100_000 if quick else 1_000_000
    with Scene(folder / "drain", {"spool_bytes_max": 2 << 30}) as scene:
        server = Server(scene.broker.port, wanted="live_alarm")
        say("opening it")
        opened_s = scene.start()
        highest = opened_mib = scene.memory_mib()
        say(f"opened with {opened_mib:.1f} MiB; draining {goal:,} of {records:,} records")
        began_s = time.monotonic()
        sent: dict[float, float] = {}
        device = client("live", scene.broker.port)
        while server.arrived[TELEMETRY] < goal:
            number = float(len(sent))
            sent[number] = time.monotonic()
            device.publish(topics.field("field", GATEWAY, "live"), json.dumps({"live_alarm": number}), qos=1)
            highest = max(highest, scene.memory_mib())
            time.sleep(0.1)
        rate = server.arrived[TELEMETRY] / (time.monotonic() - began_s)
        wait_for(lambda: len(server.heard) >= len(sent), "the live alarms have arrived")
        delays = sorted(at_s - sent[value] for value, at_s in server.heard)
        device.disconnect()
        device.loop_stop()
        server.close()
    p99_s = delays[min(len(delays) - 1, int(0.99 * len(delays)))]
    return [
        Line("drain of a backlog", rate, "readings/s", 20_000, note=f"{goal:,} records of {records:,}"),
        Line("live alarm meanwhile, p99", p99_s, "s", 2.0, at_most=True, note=f"{len(delays)} alarms"),
        Line(
            "resident memory, highest",
            highest,
            "MiB",
            48,
            at_most=True,
            note=f"with {size >> 20} MiB of spool, while it drains",
        ),
        Line(
            "start with a full spool",
            opened_s,
            "s",
            5,
            at_most=True,
            note="from the start of the process until it listens to the field",
        ),
    ]


def memory(folder: Path, say: Say, *, quick: bool) -> list[Line]:
    """Resident memory at rest, by driver."""
    found = []
    for number, (name, settings) in enumerate(drivers().items()):
        if quick and number:
            break
        say(f"memory at rest: {name}")
        mib = resident_mib(folder / f"memory-{number}", settings)
        found.append(Line(f"resident memory, {name}", mib, "MiB", 48, at_most=True, note="at rest, empty spool"))
    return found


def interlock(folder: Path, say: Say, *, quick: bool) -> list[Line]:
    """From a device's publication to the switched output, without a link."""
    actions = 40 if quick else bench_interlock.ACTIONS_MIN
    say(f"{actions} interlocks trip")
    place = folder / "interlock"
    place.mkdir()
    place.chmod(0o711)
    found = bench_interlock.run(place, actions)
    note = f"{found.actions} actions, median {1000 * found.median_s:.1f} ms, longest {1000 * found.max_s:.1f} ms"
    return [Line("interlock, p99", 1000 * found.p99_s, "ms", 200, at_most=True, note=note)]


LINES: dict[str, Callable[..., list[Line]]] = {
    "intake": intake,
    "kept": kept,
    "drain": drain,
    "memory": memory,
    "interlock": interlock,
}
