"""A steady load: a process of its own that publishes a fleet's batches on schedule and writes down when.

Its clock is the monotonic one, which all processes of a machine share.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from citynet import topics, wire
from citynet.runtime import child
from citynet_ingest.bench.load import Draft, Encoder, Fleet, drafts, gateway_name
from citynet_ingest.bench.publish import Publisher, connected
from citynet_ingest.bench.stage import BenchError, Stage

BEYOND = 99.0  # far above the limit of rules.toml
_LEVEL = 2  # position of level_m among a device's metrics
_UNACKNOWLEDGED_MAX = 20_000
_GRACE_S = 30.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What to publish: a fleet's batches for `seconds`, one reading beyond its limit in every `crossing_every`-th batch
    after the first `calm_s` (0: none)."""

    port: int
    report: str
    gateways: int
    series_each: int
    rounds: int
    period_us: int
    seconds: float
    crossing_every: int
    calm_s: float

    def fleet(self) -> Fleet:
        return Fleet(self.gateways, self.series_each, self.rounds, self.period_us)

    def batches_per_s(self) -> float:
        return self.gateways / (self.rounds * self.period_us / 1e6)


@dataclass(frozen=True, slots=True)
class Report:
    """What was published: readings, in how many seconds, how far behind schedule at worst; of every crossing the device, the
    time of its reading (µs since 1970) and when its batch was handed to the socket (monotonic, ns)."""

    readings: int
    seconds: float
    behind_s_max: float
    crossings: list[tuple[str, int, int]]


@dataclass(slots=True)
class Offer:
    """A load that is being published."""

    process: subprocess.Popen[bytes]
    path: Path

    def is_over(self) -> bool:
        return self.process.poll() is not None

    def report(self) -> Report:
        """Wait for its end. BenchError if it failed."""
        if self.process.wait(_GRACE_S) != 0 or not self.path.exists():
            raise BenchError(f"the steady load failed:\n{self.path.with_suffix('.log').read_text()[-2000:]}")
        found = json.loads(self.path.read_text())
        crossings = [(str(device), int(time_us), int(sent_ns)) for device, time_us, sent_ns in found.pop("crossings")]
        return Report(**found, crossings=crossings)


@contextmanager
def offer(
    stage: Stage, fleet: Fleet, seconds: float, *, crossing_every: int = 0, calm_s: float = 0.0
) -> Iterator[Offer]:
    """Publish a fleet's batches in real time, in a process of its own, until `seconds` are over or the block is left."""
    path = stage.folder / "paced.json"
    path.unlink(missing_ok=True)
    plan = Plan(
        stage.broker.port, str(path), **asdict(fleet), seconds=seconds, crossing_every=crossing_every, calm_s=calm_s
    )
    with path.with_suffix(".log").open("wb") as output:
        command = [sys.executable, "-m", "citynet_ingest.bench.paced", json.dumps(asdict(plan))]
        process = child.spawn(command, output)
    try:
        yield Offer(process, path)
    finally:
        child.stop(process)


def run(plan: Plan) -> Report:
    """Publish on schedule. The batches of a turn are spread evenly over the turn."""
    fleet, interval_s = plan.fleet(), 1 / plan.batches_per_s()
    turn_us = fleet.rounds * fleet.period_us
    turns = int(plan.seconds * 1e6 // turn_us) + 1
    encode = Encoder(fleet, turns)
    batches = int(plan.seconds / interval_s)
    crossings: list[tuple[str, int, int]] = []
    behind_s_max = 0.0
    with connected(plan.port, wire.CBOR) as publisher:
        start_us, start_s = time.time_ns() // 1_000 - turn_us, time.monotonic()  # the last reading of a batch is of now
        for number, draft in zip(range(batches), drafts(fleet, turns, start_us), strict=False):
            crossing = _crossing(plan, draft, number, number * interval_s)
            payload = encode(draft)
            due_s = start_s + number * interval_s
            time.sleep(max(0.0, due_s - time.monotonic()))
            behind_s_max = max(behind_s_max, time.monotonic() - due_s)
            if crossing:
                crossings.append((*crossing, time.monotonic_ns()))
            _send(publisher, topics.up(gateway_name(draft.gateway)), payload)
        seconds = time.monotonic() - start_s
    return Report(batches * fleet.batch, seconds, behind_s_max, crossings)


def _crossing(plan: Plan, draft: Draft, number: int, at_s: float) -> tuple[str, int] | None:
    """Put a reading beyond its limit at the end of a batch, if its turn has come: (device, time of the reading)."""
    if not plan.crossing_every or at_s < plan.calm_s or number % plan.crossing_every:
        return None
    device = number // plan.crossing_every % (plan.series_each // 4)
    column = device * 4 + _LEVEL
    draft.value[-1, column] = BEYOND
    name = plan.fleet().names(draft.gateway)[column]
    return name.partition("/")[0], int(draft.time_us[-1, column])


def _send(publisher: Publisher, topic: str, payload: bytes) -> None:
    publisher.send(publisher.packet(topic, payload))
    publisher.take_what_came()
    publisher.wait(_UNACKNOWLEDGED_MAX)


if __name__ == "__main__":
    asked = Plan(**json.loads(sys.argv[1]))
    Path(asked.report).write_text(json.dumps(asdict(run(asked))))
