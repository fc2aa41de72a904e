"""The judge: what the simulator's truth file says was sent, against what the database holds. Pure but for reading the file.

The format is documented in docs/truth-file.md; it is read here by its text so that the demo depends on no other room.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

ReadingKey = tuple[str, str, int, float]  # device, metric, time_us, value
LEVELS = {"blue": 1, "yellow": 2, "orange": 3, "red": 4}


@dataclass(frozen=True, slots=True)
class Incident:
    """Something the simulator staged and the rules must find, at every one of `devices`."""

    id: str
    rule: str
    level: int
    devices: tuple[str, ...]
    start_us: int


@dataclass(slots=True)
class Truth:
    """What was sent. A message is certain (acknowledged), possible (handed over at least once), or never handed over."""

    incidents: list[Incident] = field(default_factory=list)
    messages: dict[int, list[ReadingKey]] = field(default_factory=dict)
    acknowledged: set[int] = field(default_factory=set)
    lost_at_device: set[int] = field(default_factory=set)
    again: Counter[int] = field(default_factory=Counter)
    is_complete: bool = False

    def certain(self) -> set[int]:
        return self.acknowledged - self.lost_at_device

    def owes(self, until_us: int) -> bool:
        """Whether something of the time before is still to be sent, or to be acknowledged."""
        sent_us = {number: max(time_us for _, _, time_us, _ in readings) for number, readings in self.messages.items()}
        settled = self.acknowledged | self.lost_at_device
        is_behind = max(sent_us.values(), default=0) < until_us
        return is_behind or any(at_us < until_us and number not in settled for number, at_us in sent_us.items())


def read_truth(path: Path) -> Truth:
    """Read a truth file; a torn last line counts as not written."""
    truth = Truth()
    upto = 0
    for line in path.read_bytes().splitlines(keepends=True):
        if not line.endswith(b"\n"):
            break
        record = json.loads(line)
        kind = record["t"]
        if kind == "header":
            truth.incidents = [_incident(item) for item in record["incidents"]]
        elif kind == "msg":
            device = str(record["device"])
            truth.messages[int(record["n"])] = [(device, str(m), int(t), float(v)) for m, t, v in record["readings"]]
        elif kind == "ack":
            upto = max(upto, int(record["upto"]))
            truth.acknowledged.update(int(n) for n in record.get("also", ()))
        elif kind == "loss":
            truth.lost_at_device.update(int(n) for n in record["n"])
        elif kind == "again":
            truth.again.update(int(n) for n in record["n"])
        elif kind == "end":
            truth.is_complete = True
    truth.acknowledged.update(range(1, upto + 1))
    return truth


def _incident(item: dict[str, object]) -> Incident:
    devices = item["devices"]
    assert isinstance(devices, list)  # noqa: S101
    return Incident(
        str(item["id"]),
        str(item["expected_rule"]),
        LEVELS[str(item["expected_level"])],
        tuple(str(device) for device in devices),
        int(str(item["start_us"])),
    )


@dataclass(frozen=True, slots=True)
class Verdict:
    """Counted in readings. `recovered`: stored although their message was never acknowledged to the device."""

    sent: int
    lost: int
    duplicated: int
    unexpected: int
    recovered: int
    missing: tuple[ReadingKey, ...]

    @property
    def is_clean(self) -> bool:
        return self.lost == self.duplicated == self.unexpected == 0


def judge(truth: Truth, stored: Iterable[ReadingKey]) -> Verdict:
    """Compare multisets: every certain reading exactly once, every possible one at most as often as it was handed over."""
    found = Counter(stored)
    required: Counter[ReadingKey] = Counter()
    allowed: Counter[ReadingKey] = Counter()
    certain = truth.certain()
    for number, readings in truth.messages.items():
        if number in truth.lost_at_device:
            continue
        for key in readings:
            allowed[key] += 1 + truth.again[number]
            required[key] += number in certain
    missing = required - found
    surplus = found - allowed
    unexpected = sum(count for key, count in surplus.items() if allowed[key] == 0)
    return Verdict(
        sent=sum(allowed.values()) - sum(truth.again[n] * len(r) for n, r in truth.messages.items()),
        lost=missing.total(),
        duplicated=surplus.total() - unexpected,
        unexpected=unexpected,
        recovered=sum((found & allowed).values()) - sum((found & required).values()),
        missing=tuple(sorted(missing)[:5]),
    )


def detected(incident: Incident, alerts: Iterable[tuple[str, str, int, int]]) -> bool:
    """Whether alerts (rule, object, highest level, raised_us) found the incident at every one of its devices."""
    hits = {
        device
        for rule, device, level, raised_us in alerts
        if rule == incident.rule and level >= incident.level and raised_us >= incident.start_us
    }
    return set(incident.devices) <= hits
