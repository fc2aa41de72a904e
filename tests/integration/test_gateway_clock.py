"""Row 13 of the test matrix at the gateway: its clock is a year off, in 1970, set late, or steps while it works.

The gateway runs for real on a machine whose clock a file tells (`machine-clock` in tests/faults/mutants.py).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from citynet.notes import ClockNote
from citynet.quality import CLOCK_UNSYNCED
from citynet.reading import Reading
from citynet.wire import ALARM, TELEMETRY
from tests.gateway import wait_for
from tests.integration.test_gateway_mqtt import City

SECOND_US = 1_000_000
YEAR_US = 365 * 86_400 * SECOND_US
SLACK_US = 30 * SECOND_US


def now_us() -> int:
    return time.time_ns() // 1000


class Machine(City):
    """A city whose gateway's machine has a clock of its own."""

    def __init__(self, folder: Path, path: Path) -> None:
        super().__init__(folder)
        self._path = path
        self._state = {"error_us": 0, "booted_us": 0, "synced": 0, "boot": 1}

    def set(self, **state: int) -> None:
        self._state |= state
        self._path.with_suffix(".new").write_text(json.dumps(self._state))
        os.replace(self._path.with_suffix(".new"), self._path)

    def run(self, **settings: object) -> None:
        self.configure(**{"clock": "wait", "clock_wait_s": 3600.0, **settings})
        self.start(mutant="machine-clock")

    def send(self, first: int, count: int, metric: str = "level") -> None:
        self.device.send_all([{metric: float(k)} for k in range(first, first + count)])

    def accepted(self) -> int:
        return sum(item["last"] for item in self.gateway.spool()["epochs"] if item["stream"] == TELEMETRY)

    def readings(self, metric: str = "level") -> list[Reading]:
        with self.server._lock:
            return [item for item in self.server.readings if item.metric == metric]

    def clock_notes(self) -> list[ClockNote]:
        with self.server._lock:
            return [note for *_, note in self.server.notes if isinstance(note, ClockNote)]

    def wait(self, count: int, metric: str = "level") -> list[Reading]:
        wait_for(lambda: len(self.readings(metric)) >= count, f"{count} readings of {metric}")
        return self.readings(metric)


@pytest.fixture
def machine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    monkeypatch.setenv("CITYNET_TEST_MACHINE", str(folder / "machine"))
    found = Machine(folder, folder / "machine")
    found.set()
    yield found
    found.close()


def assert_about_now(readings: list[Reading], since_us: int, quality: int = 0) -> None:
    assert {item.quality for item in readings} == {quality}
    times = [item.time_us for item in readings]
    assert times == sorted(times)
    assert since_us - SLACK_US <= times[0] <= times[-1] <= now_us() + SLACK_US


@pytest.mark.parametrize("error_us", [-YEAR_US, YEAR_US, -now_us()], ids=["a-year-behind", "a-year-ahead", "1970"])
def test_readings_wait_for_the_clock_and_get_their_true_time(machine: Machine, error_us: int) -> None:
    machine.set(error_us=error_us)
    machine.run()
    began_us = now_us()
    machine.send(0, 100)
    machine.send(0, 3, "flood_alarm")
    alarms = machine.wait(3, "flood_alarm")
    assert {item.quality for item in alarms} == {CLOCK_UNSYNCED}, (
        "alarms do not wait; they say that their time is a guess"
    )
    wait_for(lambda: machine.accepted() >= 100, "accepted")
    wait_for(lambda: machine.server.statuses[-1].clock == "unsynced", "the status says so")
    assert machine.readings() == [], "telemetry waits"
    # The process may die meanwhile; what it stamped is of this boot all the same.
    machine.gateway.kill()
    machine.start(mutant="machine-clock")
    machine.send(100, 50)
    machine.set(error_us=0, synced=1)
    readings = machine.wait(150)
    assert [item.value for item in readings] == [float(k) for k in range(150)]
    assert_about_now(readings, began_us)
    (note,) = wait_for(machine.clock_notes, "the mapping is a record")
    assert note.boot == "boot-1"
    wait_for(lambda: machine.server.statuses[-1].clock == "synced", "the status says so")


def test_without_any_clock_readings_are_sent_flagged_after_the_wait(machine: Machine) -> None:
    machine.set(error_us=-now_us())
    machine.run(clock_wait_s=0.5)
    machine.send(0, 50)
    first = machine.wait(50)
    assert {item.quality for item in first} == {CLOCK_UNSYNCED}
    machine.device.send_all([{"ts": 1_790_000_000_000, "values": {"timed": 1.0}}])
    (timed,) = machine.wait(1, "timed")
    assert (timed.time_us, timed.quality) == (1_790_000_000 * SECOND_US, 0), "a time of its own is not touched"
    machine.set(error_us=0, synced=1)
    wait_for(machine.clock_notes, "the clock is known")
    began_us = now_us()
    machine.send(50, 50)
    assert_about_now(machine.wait(100)[50:], began_us)
    assert [item.value for item in machine.readings()] == [float(k) for k in range(100)]


def test_a_boot_that_never_knew_the_time(machine: Machine) -> None:
    """Two boots without time and link, then one with both: everything in order, and the boots do not overlap."""
    machine.uplink.stop()
    for boot, error_us in ((1, YEAR_US), (2, -now_us())):
        machine.set(boot=boot, error_us=error_us, booted_us=0)
        machine.run()
        machine.send(50 * boot, 50)
        wait_for(lambda accepted=50 * boot: machine.accepted() >= accepted, "this boot's own")
        machine.gateway.kill()
    machine.set(boot=3, error_us=0, synced=1)
    machine.run()
    machine.send(150, 50)
    machine.uplink.start()
    readings = machine.wait(150)
    assert [item.value for item in readings] == [float(k) for k in range(50, 200)]
    assert [item.quality for item in readings] == [CLOCK_UNSYNCED] * 100 + [0] * 50
    assert max(item.time_us for item in readings) <= now_us() + SLACK_US, "a clock ahead does not stamp the future"


def test_steps_while_running(machine: Machine) -> None:
    """Set by hand it is not believed; set by a time server it is, and the step is a record. Order and number do not care."""
    machine.set(synced=1)
    machine.run()
    began_us, sent = now_us(), 0
    for error_us, synced in ((0, 1), (-YEAR_US, 0), (0, 1), (-now_us(), 0), (YEAR_US, 0), (0, 1)):
        machine.set(error_us=error_us, synced=synced)
        machine.send(sent, 30)
        sent += 30
        machine.wait(sent)
    assert_about_now(machine.readings(), began_us)
    machine.set(error_us=-3_600 * SECOND_US, synced=1)  # the time server itself was wrong before
    (note,) = wait_for(machine.clock_notes, "the step is a record")
    machine.send(sent, 30)
    later = machine.wait(sent + 30)[sent:]
    assert all(began_us - 3_700 * SECOND_US < item.time_us < began_us for item in later)
    assert [item.value for item in machine.readings()] == [float(k) for k in range(sent + 30)]
    assert len(machine.gateway.events("clock-stepped")) == 1
    assert note.boot == "boot-1"
    claims = wait_for(
        lambda: [c for c in machine.server.statuses[-1].claims if c.st == TELEMETRY and c.acked == sent + 30],
        "the books",
    )
    assert claims[0].accepted == sent + 30
    assert any(key[0] == ALARM for key in machine.server.cursors)
