"""Transport faults upon live devices: what a broker and a gateway's drivers get is what the truth file says.

In every city here one gateway's link doubles and delays messages and loses some, and the other's is down all the time: what
its devices had to say is lost, and nobody has it.
"""

from __future__ import annotations

import json
import struct
import threading
import tomllib
from collections import Counter
from collections.abc import Sequence
from math import isnan
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest

from citynet import formats
from citynet.reading import Reading
from citynet.runtime.child import free_port
from citynet.runtime.embedded import EmbeddedMosquitto
from citynet.runtime.metrics import REGISTRY
from citynet.runtime.settings import load
from citynet_gateway.drivers.hj212.driver import Hj212
from citynet_gateway.drivers.modbus.driver import Modbus
from citynet_gateway.settings import GatewaySettings
from citynet_sim.faults import TRANSPORT, Fault
from citynet_sim.firmware.fleet import Fleet, Member, Place, wall_us
from citynet_sim.firmware.journal import FleetJournal
from citynet_sim.firmware.link import Link
from citynet_sim.firmware.machine import Cause, Options, Report
from citynet_sim.firmware.polled import RegisterPost
from citynet_sim.firmware.tables import gateway_tables
from citynet_sim.protocols import modbus
from citynet_sim.settings import SimSettings
from citynet_sim.staging import simulation_of
from citynet_sim.truth import Truth, TruthWriter, read_truth
from tests.fieldbus import Collector, context, running
from tests.patience import wait_for

READ_INPUT = struct.pack(">BHH", 4, 0, 2)
DOWN = "gw-02"
SCENARIO = 'about = "one link is bad, the other one down"\n' + "".join(
    f'[[fault]]\nkind = "{kind}"\nat_s = 0\nhold_s = 36000\npeak = {peak}\ngateway = "{gateway}"\n'
    for kind, peak, gateway in (
        ("duplicate", 1.0, "gw-01"),
        ("loss", 0.3, "gw-01"),
        ("delay", 0.05, "gw-01"),
        ("gateway-reboot", 1.0, DOWN),
    )
)
Told = tuple[str, str, int, float]  # device, metric, time, value


class Stage:
    """Devices of a kind on a protocol, under the faults of `SCENARIO`, with their truth file."""

    def __init__(self, folder: Path, protocol: str, kind: str, count: int, broker_port: int = 1) -> None:
        (folder / "s.toml").write_text(SCENARIO)
        city = {"population": 0, "devices": {kind: count}}
        flags = {"scenario": str(folder / "s.toml"), "city": city, "sampling": {"every_s": 0.1}}
        settings = load(SimSettings, None, flags | {"broker": {"port": broker_port}})
        simulation = simulation_of(settings, wall_us())
        self.members = [Member(device, protocol, n) for n, device in enumerate(simulation.city.devices, start=1)]
        self.place = Place(folder, hj212_port=free_port())
        self._path = folder / "truth.jsonl"
        writer = TruthWriter(self._path)
        writer.header({"incidents": []})
        self._journal = FleetJournal(writer)
        options = Options(ack_s=1.0, retry_s=0.05, retry_s_max=0.1)
        self.fleet = Fleet(self.members, simulation, settings, self.place, self._journal, options)
        self.cut_off = {member.device.name for member in self.members if member.device.gateway == DOWN}
        assert 0 < len(self.cut_off) < len(self.members)

    def have_all_something_to_say(self) -> bool:
        """Whether every device that is cut off has a report that it could not hand over."""
        return all(r.firmware.buffer for r in self.fleet.runners if r.member.device.name in self.cut_off)

    def gateway(self, folder: Path) -> dict[str, Any]:
        """The gateway's settings that fit."""
        port, serial = self.place.hj212_port, self.fleet.serial
        found = gateway_tables(self.members, port=1, serial=serial, hj212_port=port, poll_s=0.05)
        return {"data_dir": folder, **tomllib.loads(found)["gateway"]}

    def truth(self) -> Truth:
        self._journal.end()
        return read_truth(self._path)

    def shown(self) -> list[Told]:
        """What polled devices answered, in order."""
        lines = [json.loads(line) for line in self._path.read_text().splitlines()]
        return [(line["device"], *row) for line in lines if line["t"] == "shown" for row in line["readings"]]


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def rows(readings: Sequence[Reading]) -> list[Told]:
    return [(reading.device, reading.metric, reading.time_us, reading.value) for reading in readings]


def check(stage: Stage, truth: Truth, heard: Counter[Told], *, once: bool) -> None:
    """What arrived is what the truth says: all that was acknowledged, nothing that was lost, copies where they are told."""
    lost = [message for message in truth.messages if message.lost is not None]
    assert {message.gateway for message in lost} >= {DOWN}
    assert not any(heard[row] for message in lost for row in rows(message.readings))
    assert not any(message.gateway == DOWN for message in truth.messages if message.lost is None)
    handed = {row: message for message in truth.messages if message.lost is None for row in rows(message.readings)}
    assert set(heard) <= set(handed)
    for row, message in handed.items():
        assert heard[row] <= (1 if once else 1 + message.resends)
        assert heard[row] >= 1 or not message.acked
    assert any(message.resends for message in handed.values())


@pytest.mark.parametrize(("protocol", "kind"), [("mqtt", "gas-well"), ("chirpstack", "manhole")])
def test_what_a_broker_hears_is_what_the_truth_says(
    broker: EmbeddedMosquitto, tmp_path: Path, protocol: str, kind: str
) -> None:
    """What was lost on its way is sent again, copies are told as such, and nothing else arrives."""
    stage = Stage(tmp_path, protocol, kind, 3, broker.port)
    heard: Counter[Told] = Counter()
    lock = threading.Lock()
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)

    def on_message(_client: object, _data: object, message: paho.MQTTMessage) -> None:
        device = message.topic.split("/")[3 if protocol == "chirpstack" else 2]
        content_type = message.properties.ContentType  # type: ignore[union-attr]
        decoded = formats.decode(content_type, bytes(message.payload), device, 0)
        with lock:
            heard.update(rows(decoded.readings))

    def arrived() -> Counter[Told]:
        with lock:
            return heard.copy()

    subscribed = threading.Event()
    client.on_message = on_message
    client.on_connect = lambda *_: client.subscribe([("field/#", 1), ("application/#", 1)])
    client.on_subscribe = lambda *_: subscribed.set()
    client.connect("127.0.0.1", broker.port)
    client.loop_start()
    try:
        wait_for(subscribed.is_set, "subscribed")
        with stage.fleet:
            wait_for(lambda: len(arrived()) >= 25 and max(arrived().values()) > 1, "reports, and one of them twice")
            wait_for(stage.have_all_something_to_say, "reports that cannot be handed over")
        truth = stage.truth()
        acked = {row for message in truth.messages if message.acked for row in rows(message.readings)}
        wait_for(lambda: acked <= set(arrived()), "all that was acknowledged is heard")
    finally:
        client.disconnect()
        client.loop_stop()
    assert acked
    check(stage, truth, heard, once=False)


def test_what_a_gateway_takes_of_stations_is_what_the_truth_says(tmp_path: Path) -> None:
    """Frames that come twice are read once; those of a station whose link is down are lost, and the truth says so."""
    stage = Stage(tmp_path, "hj212", "air-station", 6)
    settings = GatewaySettings.model_validate(stage.gateway(tmp_path))
    before = {name: counted(name, **labels) for name, labels in _HJ212.items()}
    with running(Hj212(context(settings), settings.hj212)) as got:

        def news(name: str) -> float:
            return counted(name, **_HJ212[name]) - before[name]

        with stage.fleet:
            wait_for(lambda: len({r.device for r in got.readings()}) == 6 - len(stage.cut_off), "a report of each")
            wait_for(lambda: news(_AGAIN) >= 1, "one that came again")
            wait_for(stage.have_all_something_to_say, "reports that cannot be handed over")
        truth = stage.truth()
        heard = Counter(rows(got.readings()))
    check(stage, truth, heard, once=True)
    assert 1 <= news(_AGAIN) <= sum(message.resends for message in truth.messages)
    assert news(_FRAMES) <= sum(1 + message.resends for message in truth.messages if message.lost is None)


_FRAMES, _AGAIN = "citynet_gateway_hj212_frames_total", "citynet_gateway_field_duplicates_total"
_HJ212: dict[str, dict[str, str]] = {_FRAMES: {"outcome": "data"}, _AGAIN: {}}


def test_what_a_gateway_polls_of_a_serial_line_is_what_the_truth_says(tmp_path: Path) -> None:
    """Answers come late or not at all; what is read is what was shown, in order, and a unit that is cut off shows nothing."""
    stage = Stage(tmp_path, "modbus-rtu", "heat-station", 2)
    (cut_off,) = stage.cut_off
    (struck,) = {member.device.name for member in stage.members} - stage.cut_off
    tables = stage.gateway(tmp_path)
    tables["modbus"][0] |= {"baud": 115_200, "timeout_ms": 200}
    settings = GatewaySettings.model_validate(tables)
    driver = Modbus(settings.modbus[0], context(settings))

    def polled(got: Collector, *events: tuple[str, str]) -> bool:
        return driver.poll_now("") and set(events) <= set(
            got.events()
        )  # at once: a driver leaves the silent alone for a while

    with stage.fleet, running(driver) as got:
        # By its seed three questions in a row are lost; the next ones are not.
        wait_for(lambda: polled(got, (struck, "device_silent"), (cut_off, "device_silent")), "questions without answer")
        wait_for(lambda: polled(got, (struck, "device_back")), "an answer again")
        wait_for(
            lambda: polled(got) and _fewest(got, struck, stage) >= 2, "two values of each register"
        )  # the first answer may be too early
    assert stage.truth().messages == ()
    shown, read = _by_series(stage.shown()), _by_series(rows(got.readings()))
    assert {name for name, _ in shown} == {struck}
    assert set(read) == set(shown)
    for series, values in read.items():
        rest = iter(shown[series])  # an answer that came too late was shown all the same
        assert all(value in rest for value in values)


def _fewest(got: Collector, device: str, stage: Stage) -> int:
    """Values that were read of the metric of a device that was read least."""
    read = _by_series(rows(got.readings()))
    (metrics,) = [member.device.metrics for member in stage.members if member.device.name == device]
    return min(len(read.get((device, metric.name), [])) for metric in metrics)


def _by_series(told: list[Told]) -> dict[tuple[str, str], list[float]]:
    """Values in their order, without the bad ones of registers that were not there before the first sample."""
    found: dict[tuple[str, str], list[float]] = {}
    for device, metric, _, value in told:
        if not isnan(value):
            found.setdefault((device, metric), []).append(round(value, 6))
    return found


def test_a_modbus_unit_under_faults(tmp_path: Path) -> None:
    """It answers late, or not at all, in the time of its faults and no longer."""
    settings = load(SimSettings, None, {"city": {"population": 0, "devices": {"gas-well": 1}}, "scenario": "calm"})
    (device,) = simulation_of(settings, 0).city.devices
    now = [0.0]

    def fault(kind: str, from_s: float, to_s: float, peak: float) -> Fault:
        span = (round(from_s * 1e6), round(to_s * 1e6))
        return Fault(
            kind, TRANSPORT, kind, "device", "", "", (), (peak,), "", *span, 1e-3, 1.0, "", gateways=(device.gateway,)
        )

    faults = [fault("gateway-reboot", 10, 20, 1.0), fault("loss", 30, 40, 1.0), fault("delay", 50, 60, 0.001)]
    shown: list[object] = []
    link = Link(1, device.name, device.gateway, faults)
    post = RegisterPost(device, lambda: round(now[0] * 1e6), shown.append, link)
    assert post.deliver(Report(1, 0, {device.metrics[0].name: 1.0}, Cause.START), 1.0)
    line = modbus.Devices({1: post.unit})
    answered = []
    for now[0] in (5.0, 10.0, 19.0, 20.0, 30.0, 39.0, 40.0, 55.0):
        answered.append(line.answer(1, READ_INPUT) is not None)
    assert answered == [True, False, False, True, False, False, True, True]
    assert len(shown) == sum(answered)
    now[0] = 55.0
    assert post.unit.on_request is not None
    assert post.unit.on_request() == 0.001
