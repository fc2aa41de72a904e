"""Transport faults upon live devices: what a broker and a Modbus master see of them, and that the truth file tells it."""

from __future__ import annotations

import json
import struct
import threading
from collections import Counter
from pathlib import Path

import paho.mqtt.client as paho

from citynet.runtime.embedded import EmbeddedMosquitto
from citynet.runtime.settings import load
from citynet_sim.faults import TRANSPORT, Fault
from citynet_sim.firmware.fleet import Fleet, Member, Place, wall_us
from citynet_sim.firmware.journal import FleetJournal
from citynet_sim.firmware.link import Link
from citynet_sim.firmware.machine import Cause, Options, Report
from citynet_sim.firmware.polled import RegisterPost
from citynet_sim.protocols import modbus
from citynet_sim.settings import SimSettings
from citynet_sim.staging import simulation_of
from citynet_sim.truth import TruthWriter, read_truth
from tests.patience import wait_for

READ_INPUT = struct.pack(">BHH", 4, 0, 2)
SCENARIO = """
about = "doubled on the way, some of it lost, and now and then nobody is there"
[[fault]]
kind = "duplicate"
at_s = 0
hold_s = 36000
peak = 1.0
[[fault]]
kind = "loss"
at_s = 0
hold_s = 36000
peak = 0.3
[[fault]]
kind = "delay"
at_s = 0
hold_s = 36000
peak = 0.05
"""


def test_what_a_broker_hears_is_what_the_truth_says(broker: EmbeddedMosquitto, tmp_path: Path) -> None:
    """What was lost on its way is sent again, copies are told as such, and nothing else arrives."""
    (tmp_path / "s.toml").write_text(SCENARIO)
    flags = {"scenario": str(tmp_path / "s.toml"), "broker": {"port": broker.port}, "sampling": {"every_s": 0.1}}
    settings = load(SimSettings, None, flags | {"city": {"population": 0, "devices": {"gas-well": 1}}})
    simulation = simulation_of(settings, wall_us())
    (device,) = simulation.city.devices
    heard: Counter[int] = Counter()
    lock = threading.Lock()
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)

    def on_message(_client: object, _data: object, message: paho.MQTTMessage) -> None:
        with lock:
            heard[json.loads(message.payload)["ts"]] += 1

    subscribed = threading.Event()
    client.on_message = on_message
    client.on_connect = lambda *_: client.subscribe("field/#", qos=1)
    client.on_subscribe = lambda *_: subscribed.set()
    client.connect("127.0.0.1", broker.port)
    client.loop_start()
    try:
        wait_for(subscribed.is_set, "subscribed")
        writer = TruthWriter(tmp_path / "truth.jsonl")
        writer.header({"incidents": []})
        journal = FleetJournal(writer)
        options = Options(ack_s=0.5, retry_s=0.05, retry_s_max=0.1)
        with Fleet([Member(device, "mqtt", 1)], simulation, settings, Place(tmp_path), journal, options):
            wait_for(lambda: len(heard) >= 5 and max(heard.values()) > 1, "five reports, and one of them twice")
        journal.end()
        truth = read_truth(tmp_path / "truth.jsonl")
        sent = {m.readings[0].time_us // 1000: m for m in truth.messages if m.lost is None}
        acked = [ts for ts, message in sent.items() if message.acked]
        wait_for(lambda: all(heard[ts] for ts in acked), "all that was acknowledged is heard")
    finally:
        client.disconnect()
        client.loop_stop()
    assert len(acked) >= 4
    with lock:
        assert set(heard) <= set(sent)
        assert all(count <= 1 + sent[ts].resends for ts, count in heard.items())


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
