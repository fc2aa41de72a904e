"""Edge sense and interlocks of a real gateway process: with the link down, over kills, with outputs that fail or hang."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from citynet.wire import ALARM, TELEMETRY
from citynet_gateway.outputs.port import OutputError
from citynet_gateway.outputs.worker import ASKED_MAX, Acted, OutputWorker
from tests.gateway import wait_for
from tests.integration.test_gateway_mqtt import City
from tests.patience import DEADLINE_S

GAS = {
    "name": "gas-high", "device": "sensor-1", "metric": "ch4", "output": "fan", "above": 10.0, "min_on_s": 0.1,
    "stale_after_s": 30.0,
}  # fmt: skip


class Cabinet(City):
    """A city with a fan that is a file."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.fan = folder / "fan"
        self.fan.write_text("0\n")

    def run(self, *interlocks: dict[str, object], **settings: object) -> None:
        fan: dict[str, object] = {"kind": "file", "name": "fan", "path": str(self.fan)}
        self.configure(interlocks=list(interlocks) or [GAS], outputs=[fan], **settings)
        self.start()

    def is_on(self) -> bool:
        """The gateway writes it again now and then, and empties it for that."""
        text: str = wait_for(lambda: self.fan.read_text().strip(), "what the fan says")
        return text == "1"

    def wait_switched(self, count: int) -> bool:
        """Until the gateway has switched so often and has it on record; what the fan is then."""
        wait_for(lambda: len(self.gateway.events("output-switched")) >= count, f"switched {count} times")
        return self.is_on()

    def build_in(self) -> None:
        """The fan's file, off, there at once as it is."""
        self.fan.with_suffix(".new").write_text("0\n")
        self.fan.with_suffix(".new").replace(self.fan)

    def wait_fan(self, on: bool) -> None:
        wait_for(lambda: self.fan.read_text().strip() == str(int(on)), f"the fan is {'on' if on else 'off'}")


@pytest.fixture
def cabinet(folder: Path) -> Iterator[Cabinet]:
    found = Cabinet(folder)
    yield found
    found.close()


def test_an_interlock_acts_with_the_link_down_and_every_action_is_a_record(cabinet: Cabinet) -> None:
    cabinet.uplink.stop()
    cabinet.run()
    assert cabinet.wait_switched(1), "fail-safe from the start"
    cabinet.device.send({"ch4": 1.0})
    assert not cabinet.wait_switched(2)
    cabinet.device.send({"ch4": 12.5})
    assert cabinet.wait_switched(3)
    cabinet.device.send({"ch4": 2.0})
    assert not cabinet.wait_switched(4)
    assert cabinet.gateway.stop() == 0
    assert cabinet.is_on(), "and at the stop"
    cabinet.uplink.start()
    cabinet.run()
    wait_for(lambda: len(cabinet.server.events("output-on")) == 4, "the records arrive")
    codes = [note.code for note in cabinet.server.events()]
    assert codes[:8] == [
        "output-on", "interlock-released", "output-off", "interlock-tripped", "output-on", "interlock-released", "output-off",
        "output-on",
    ]  # fmt: skip
    tripped = cabinet.server.events("interlock-tripped")[0]
    assert (tripped.device, tripped.text) == ("sensor-1", "gas-high (sensor-1/ch4 above 10): limit, newest 12.5")
    streams = {stream for stream, *_ in cabinet.server.notes}
    assert streams == {ALARM}
    assert cabinet.server.values() == [1.0, 12.5, 2.0]


def test_killed_it_comes_back_safe_and_a_latch_is_kept(cabinet: Cabinet) -> None:
    cabinet.run(GAS | {"latch": True, "on_start": "release"})
    cabinet.device.send({"ch4": 1.0})
    cabinet.device.send({"ch4": 50.0})
    cabinet.wait_fan(True)
    wait_for((cabinet.folder / "data" / "interlocks").exists, "the latch is remembered")
    cabinet.gateway.kill()
    cabinet.fan.write_text("0\n")  # the cabinet lost its power as well
    cabinet.start()
    cabinet.wait_fan(True)
    cabinet.device.send({"ch4": 1.0})
    cabinet.wait_values(3)
    assert cabinet.is_on(), "only a person releases it"


def test_silence_and_bad_readings_trip(cabinet: Cabinet) -> None:
    # Long enough that a slow machine sees the fan stand still in between.
    cabinet.run(GAS | {"stale_after_s": 3.0}, sense=[{"metrics": ["ch4"], "max": 100.0}])
    stop = threading.Event()

    def speak() -> None:
        while not stop.wait(0.1):
            cabinet.device.send({"ch4": 1.0})

    speaker = threading.Thread(target=speak)
    speaker.start()
    cabinet.wait_fan(False)
    stop.set()
    speaker.join()
    cabinet.wait_fan(True)
    # Out of range is no reading, and neither is one of an hour ago.
    wait_for(lambda: cabinet.device.send({"ch4": -1.0, "other": 1}) and cabinet.fan.read_text().strip() == "0", "off")
    cabinet.device.send({"ch4": 5_000.0})
    cabinet.device.send({"ts": int(time.time() - 3_600) * 1000, "values": {"ch4": 2.0}})
    cabinet.wait_fan(True)
    wait_for(lambda: "newest -1" in [note.text[-9:] for note in cabinet.server.events("interlock-tripped")], "told")


def test_an_output_that_fails_is_told_once_and_tried_until_it_works(cabinet: Cabinet) -> None:
    cabinet.fan.unlink()
    cabinet.run()
    (failed,) = wait_for(lambda: cabinet.server.events("output-failed"), "the failure is a record")
    assert "No such file" in failed.text
    wait_for(lambda: "No such file" in cabinet.server.statuses[-1].drivers.get("output-fan", ""), "the status tells it")
    cabinet.device.send_all([{"level": 1.0}])
    cabinet.wait_values(1)
    cabinet.build_in()
    cabinet.wait_fan(True)
    wait_for(
        lambda: [note for note in cabinet.server.events("output-on") if "after it had failed" in note.text], "back"
    )
    assert len(cabinet.server.events("output-failed")) == 1


def test_the_deadband_holds_back_and_the_source_is_answered(cabinet: Cabinet) -> None:
    # The broker sends a sixth message only when one of five was answered.
    sense = [{"metrics": ["level", "*_alarm"], "deadband": 0.5, "heartbeat_s": 3600, "unit_in": "m", "unit_out": "cm"}]
    cabinet.run(GAS, sense=sense, receive_max=5)
    cabinet.device.send_all([{"level": 1.0 + k % 2 / 1000} for k in range(60)])
    cabinet.device.send_all([{"door_alarm": 1}] * 3)
    cabinet.device.send_all([{"level": 2.0}])
    wait_for(lambda: 200.0 in cabinet.server.values(), "the last one")
    rows = [(row[0], row[4]) for row in cabinet.server.stored]
    assert [value for stream, value in rows if stream == TELEMETRY] == [100.0, 200.0]
    assert [value for stream, value in rows if stream == ALARM] == [100.0] * 3
    assert cabinet.gateway.stop() == 0
    cabinet.start()
    cabinet.device.send_all([{"level": 2.0}])
    wait_for(lambda: cabinet.server.values().count(200.0) == 2, "the first reading after a restart is kept")


# --- outputs


class Hanging:
    """An output whose device does not answer until it is let go."""

    name = "valve"

    def __init__(self) -> None:
        self.go = threading.Event()
        self.writes: list[bool] = []

    def write(self, on: bool) -> None:
        self.go.wait(DEADLINE_S)
        self.writes.append(on)

    def read(self) -> bool | None:
        raise OutputError("it cannot tell")

    def close(self) -> None:
        self.go.set()


def test_an_output_that_hangs_blocks_nobody_and_gets_the_newest_demand() -> None:
    output, told = Hanging(), list[Acted]()
    worker = OutputWorker(output, 0.0, told.append)
    worker.start()
    for number in range(100):
        worker.demand(number % 2 == 0, f"demand {number}", time.monotonic())  # returns at once
    wait_for(lambda: worker.is_overdue, "it is noticed")
    assert worker.error == "does not answer"
    waiting = [worker.ask() for _ in range(ASKED_MAX + 1)]
    with pytest.raises(OutputError, match="too many are waiting"):
        waiting[-1].result(0)
    output.go.set()
    with pytest.raises(OutputError, match="cannot tell"):
        waiting[0].result(DEADLINE_S)
    assert worker.stop(DEADLINE_S)
    assert output.writes[-1] is False
    assert len(output.writes) <= 2, "what was demanded in between is past"
    assert told[-1].why == "demand 99"


class Relay:
    """An output that falls back when its watchdog says so."""

    name = "relay"
    is_on = False

    def write(self, on: bool) -> None:
        self.is_on = on

    def read(self) -> bool | None:
        return self.is_on

    def close(self) -> None:
        """Nothing is held."""


def test_an_output_is_written_again_for_its_watchdog() -> None:
    relay, told = Relay(), list[Acted]()
    worker = OutputWorker(relay, 0.05, told.append)
    worker.start()
    worker.demand(True, "test", time.monotonic())
    wait_for(lambda: relay.is_on, "on")
    relay.is_on = False
    wait_for(lambda: relay.is_on, "on again")
    assert worker.write(False, "by hand").result(DEADLINE_S) is False
    assert worker.ask().result(DEADLINE_S) is False
    assert worker.stop(DEADLINE_S)
    assert [item.on for item in told] == [True, False], "repetitions are no records"
