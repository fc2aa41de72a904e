"""Simulated devices, one of every protocol, through real gateway, broker and ingest into the store: judged by their truth."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from math import isnan
from pathlib import Path

import paho.mqtt.client as paho
import pytest

from citynet.demo.judge import judge
from citynet.demo.judge import read_truth as read_for_judge
from citynet.errors import ConfigError
from citynet.runtime.child import free_port
from citynet.runtime.embedded import EmbeddedMosquitto
from citynet.runtime.settings import load
from citynet_sim.city import build
from citynet_sim.cli_serve import chosen, options_of
from citynet_sim.firmware.identity import dev_eui
from citynet_sim.firmware.tables import gateway_tables
from citynet_sim.settings import SimSettings
from citynet_sim.truth import read_truth
from tests.gateway import GATEWAY, GatewayProcess
from tests.ingest import ingest_running, stored, wait_for
from tests.patience import DEADLINE_S

DEVICES = [
    "gas-0001=mqtt", "gas-0002=senml", "aq-0001=hj212", "mh-0001=chirpstack", "dma-0001=modbus-tcp", "ps-0001=modbus-tcp",
    "hs-0001=modbus-rtu", "br-0001=iio", "ut-0001=onewire",
]  # fmt: skip
POLLED = ("dma-0001", "ps-0001", "hs-0001")
FILES = ("br-0001", "ut-0001")
PUSHING = ("gas-0001", "gas-0002", "aq-0001", "mh-0001")
READINGS_MIN = 60
Row = tuple[str, str, int, float]


class Serve:
    """``citynet sim serve`` and the gateway's settings that fit it."""

    def __init__(self, folder: Path, broker: EmbeddedMosquitto) -> None:
        kinds = (
            "gas-well",
            "air-station",
            "manhole",
            "water-meter",
            "pump-station",
            "heat-station",
            "bridge",
            "tunnel-section",
        )
        self.config = folder / "sim.toml"
        self.config.write_text(
            f'[sim]\ngateways = ["{GATEWAY}"]\nseed = 5\nbroker = {{ port = {broker.port} }}\n[sim.sampling]\nevery_s = 0.5\n'
            "[sim.city]\npopulation = 0\n[sim.city.devices]\n" + "".join(f"{kind} = 2\n" for kind in kinds)
        )
        self.folder, self.truth = folder / "devices", folder / "truth.jsonl"
        self.hj212_port, self.modbus_port = free_port(), free_port()
        settings = load(SimSettings, self.config, {})
        members = chosen(build(settings.seed, settings.parameters()), DEVICES)
        self.eui = {dev_eui(member.device): member.device.name for member in members}
        tables = gateway_tables(
            members, port=self.modbus_port, serial=self.folder / "ttySIM", hj212_port=self.hj212_port, poll_s=0.7
        )
        # Every unit answers: a slow machine is no silence, whose answer would be shown and not read.
        self.tables = tables.replace("[[gateway.modbus]]\n", "[[gateway.modbus]]\ntimeout_ms = 10000\n")

    def start(self, *more: str) -> subprocess.Popen[str]:
        words = ["--config", str(self.config), "--truth", str(self.truth), "--folder", str(self.folder)]
        words += ["--hj212-port", str(self.hj212_port), "--modbus-port", str(self.modbus_port), *more]
        words += ["--option", "retry_s=0.2", "--option", "ack_s=5", "--option", "retry_s_max=1"]
        command = [sys.executable, "-m", "citynet", "sim", "serve", *DEVICES, *words]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def shown(self) -> dict[str, list[float]]:
        """What polled devices answered, by series, in order."""
        found: dict[str, list[float]] = {}
        for line in self.truth.read_text().splitlines():
            record = json.loads(line)
            for metric, _, value in record["readings"] if record["t"] == "shown" else ():
                found.setdefault(f"{record['device']}/{metric}", []).append(value)
        return found


@pytest.fixture(autouse=True)
def _sources(monkeypatch: pytest.MonkeyPatch) -> None:
    sources = [{"topic": "application/+/device/{device}/event/up", "format": "chirpstack"}]
    monkeypatch.setenv("CITYNET_INGEST_SOURCES", json.dumps(sources))


def _rows(dsn: str) -> list[Row]:
    """What is stored, without the bad readings of registers that were not there before the first sample."""
    return [(*name.split("/", 1), time_us, value) for name, time_us, value, _ in stored(dsn) if not isnan(value)]  # type: ignore[misc]


def _pushed(rows: list[Row]) -> list[Row]:
    own = tuple(word.split("=")[0] for word in DEVICES)
    silent = (*POLLED, *FILES)
    return [row for row in rows if (row[0] in own or row[0].startswith("02")) and row[0] not in silent]


def _is_subsequence(part: list[float], whole: list[float]) -> bool:
    rest = iter(whole)
    return all(any(abs(value - other) < 1e-9 for other in rest) for value in part)


@pytest.mark.parametrize("killed", [False, True], ids=["calm", "gateway-killed"])
def test_one_of_every_protocol_through_the_real_gateway(
    folder: Path, broker: EmbeddedMosquitto, dsn: str, *, killed: bool
) -> None:
    serve = Serve(folder, broker)
    gateway = GatewayProcess(folder, broker, broker, {"sysfs": str(serve.folder / "sys")}, serve.tables)
    with ingest_running(folder, broker, dsn):
        gateway.start()
        wait_for(lambda: gateway.events("gateway-started"), "gateway runs")
        process = serve.start()
        try:
            wait_for(lambda: _have_spoken(serve, _rows(dsn)), "readings flow, of all")
            if killed:
                gateway.kill()
                gateway.start()
                before = len(_rows(dsn))
                wait_for(lambda: len(_rows(dsn)) > before + READINGS_MIN, "readings flow again")
            process.terminate()
            said, words = process.communicate(timeout=DEADLINE_S)
            assert process.returncode == 0, words
            wait_for(lambda: judge(read_for_judge(serve.truth), _pushed(_rows(dsn))).lost == 0, "all is stored")
            if not killed:
                wait_for(lambda: len(_rows(dsn)) and _settled(serve, dsn), "what was polled is stored")
        finally:
            process.kill()
            gateway.kill()
        rows = _rows(dsn)
    truth = read_truth(serve.truth)
    assert truth.end is not None
    assert f"{truth.end.sent} reports" in said
    heard = {message.readings[0].device for message in truth.messages if message.acked}
    assert {serve.eui.get(name, name) for name in heard} == set(PUSHING)
    verdict = judge(read_for_judge(serve.truth), _pushed(rows))
    assert (verdict.lost, verdict.unexpected, verdict.duplicated) == (0, 0, 0)
    assert verdict.sent > READINGS_MIN
    _check_polled(serve, rows, killed=killed)


def _have_spoken(serve: Serve, rows: list[Row]) -> bool:
    named = {serve.eui.get(row[0], row[0]) for row in rows}
    return named >= {*PUSHING, *POLLED, *FILES} and len(_pushed(rows)) > READINGS_MIN


def _settled(serve: Serve, dsn: str) -> bool:
    counts = Counter(f"{device}/{metric}" for device, metric, _, _ in _rows(dsn))
    return all(counts[name] >= len(values) - 1 for name, values in serve.shown().items() if name.startswith(POLLED))


def _check_polled(serve: Serve, rows: list[Row], *, killed: bool) -> None:
    shown = serve.shown()
    for name in POLLED + FILES:
        series = [key for key in shown if key.startswith(f"{name}/")]
        assert series
        for key in series:
            found = [
                value
                for device, metric, _, value in sorted(rows, key=lambda row: row[2])
                if f"{device}/{metric}" == key
            ]
            assert found
            if name in FILES:  # a file does not know who reads it, nor how often
                assert set(found) <= set(shown[key])
            else:
                assert _is_subsequence(found, shown[key])
                assert killed or len(found) >= len(shown[key]) - 1  # one answer may have been under way at the end


def test_a_device_is_configured_updated_and_restarted_from_afar(folder: Path, broker: EmbeddedMosquitto) -> None:
    serve = Serve(folder, broker)
    answers: list[dict[str, object]] = []
    times: list[int] = []
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)

    def on_message(_client: object, _data: object, message: paho.MQTTMessage) -> None:
        body = json.loads(message.payload)
        if message.topic.startswith("config/"):
            answers.append(body)
        else:
            times.append(body["ts"])

    client.on_message = on_message
    client.on_connect = lambda *_: client.subscribe([(f"field/{GATEWAY}/gas-0001", 1), ("config/+/result", 1)])
    client.connect("127.0.0.1", broker.port)
    client.loop_start()

    def ask(body: object, count: int) -> dict[str, object]:
        payload = body if isinstance(body, bytes) else json.dumps(body).encode()
        client.publish("config/gas-0001", payload, qos=1)
        wait_for(lambda: len(answers) >= count, f"answer to {body!r}")
        return answers[-1]

    wait_for(client.is_connected, "connected")
    process = serve.start()
    try:
        wait_for(lambda: len(times) > 3, "reports flow")
        assert ask({"configure": {"interval_s": 2}}, 1)["revision"] == 1
        before = len(times)
        wait_for(lambda: len(times) >= before + 3, "fewer reports flow")
        assert min(b - a for a, b in zip(times[before:], times[before + 1 :], strict=False)) >= 1800
        assert ask({"configure": {"interval": 2}}, 2) == {"refused": "'interval': no such option"}
        assert ask(b"[1]", 3)["refused"]
        assert ask({"configure": {"update_s": 0.5, "boot_s": 0.2}, "update": "1.1.0"}, 4)["mode"] == "updating"
        wait_for(
            lambda: '"version": "1.1.0"' in json.dumps(ask({"configure": {"heartbeat_s": 60}}, len(answers) + 1)),
            "new version",
        )
        assert ask({"reboot": True}, len(answers) + 1)["mode"] == "booting"
        before = len(times)
        wait_for(lambda: len(times) > before, "reports flow again")
    finally:
        process.terminate()
        _, words = process.communicate(timeout=DEADLINE_S)
        client.disconnect()
        client.loop_stop()
    assert process.returncode == 0, words
    truth = read_truth(serve.truth)
    assert truth.end is not None
    assert truth.end.acked > 0


def test_mistakes_are_one_line_each(folder: Path, broker: EmbeddedMosquitto) -> None:
    serve = Serve(folder, broker)
    settings = load(SimSettings, serve.config, {})
    city = build(settings.seed, settings.parameters())
    with pytest.raises(ConfigError) as caught:
        chosen(city, ["gas-0001", "gas-9999=mqtt", "gas-0002=mqtt", "gas-0002=senml"])
    assert [problem.split(",")[0] for problem in caught.value.problems] == [
        "'gas-0001': needs =PROTOCOL",
        "'gas-9999' is not a device of this city (see `citynet sim devices`)",
        "gas-0002: there twice",
    ]
    with pytest.raises(ConfigError, match="dma-0001: a water-meter measures no temperature"):
        chosen(city, ["dma-0001=onewire"])
    for word, said in [
        ("heartbeat_s=0", "heartbeat_s: 0.0 is not in 1..604800"),
        ("speed=1", "'speed': no such option"),
        ("deadband.ch4_lel=x", "needs KEY=NUMBER"),
    ]:
        with pytest.raises(ConfigError, match=said):
            options_of([word])


def test_options_by_name() -> None:
    options = options_of(["deadband.ch4_lel=0.5", "buffer_max=10", "interval_s=2"])
    assert (options.deadband, options.buffer_max, options.interval_s) == ({"ch4_lel": 0.5}, 10, 2.0)
