"""``citynet gateway check`` against the simulated field: lines, devices, ports, sensors, outputs, certificates."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from citynet.runtime import child
from citynet.runtime.embedded import EmbeddedMosquitto
from citynet_gateway import check
from citynet_gateway.check import field
from citynet_gateway.check.finding import Finding
from citynet_gateway.settings import Endpoint, GatewaySettings
from citynet_sim.protocols.modbus import Device, SerialServer, TcpServer
from citynet_sim.protocols.sysfs import SensorTree
from tests.gateway import GatewayProcess, wait_for
from tests.integration.test_gateway_check import run_check
from tests.links import Authority

WIRE = "28-000005e2fdc3"
NOBODY = 65_534


def bus(devices: dict[str, int], **line: object) -> dict[str, Any]:
    each = [
        {"device": name, "unit": unit, "registers": [{"metric": "n", "address": 7}]} for name, unit in devices.items()
    ]
    return {"name": "rs485", "timeout_ms": 10_000, "devices": each, **line}


def findings(**settings: object) -> dict[str, tuple[str, str]]:
    """What is found of the field's side, by what it is about."""
    found = list(field.findings(GatewaySettings.model_validate(settings)))
    assert len({item.what for item in found}) >= len(found) - 1, "a bus may be told twice, nothing else"
    return {item.what: (item.verdict, item.text) for item in found}


@contextmanager
def forbidden(path: Path) -> Iterator[None]:
    """The file belongs to us, and yet we may neither read nor write it; root is somebody else meanwhile."""
    mode = path.stat().st_mode
    path.chmod(0)
    if is_root := os.geteuid() == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)
        path.chmod(mode)


def test_a_field_in_order(folder: Path, broker: EmbeddedMosquitto) -> None:
    tree = SensorTree(folder / "sys")
    tree.onewire(WIRE, 21_437)
    tree.iio(0, "bme280", {"in_temp_input": 19_500})
    (folder / "relay").write_text("0")
    with (
        SerialServer({1: Device(holding={7: 3})}, folder / "ttyBUS") as line,
        TcpServer({9: Device(holding={7: 4}, coils={2: 0})}) as server,
    ):
        tables = f"""
        sysfs = '{tree.root}'
        [gateway.hj212]
        port = {child.free_port()}
        stations = [{{ mn = "1", device = "river-3" }}]
        [gateway.push]
        port = {child.free_port()}
        [[gateway.modbus]]
        name = "rs485"
        serial = "{line.path}"
        timeout_ms = 10000
        devices = [{{ device = "meter", unit = 1, registers = [{{ metric = "n", address = 7 }}] }}]
        [[gateway.modbus]]
        name = "plc"
        host = "127.0.0.1"
        port = {server.port}
        timeout_ms = 10000
        devices = [{{ device = "pump", unit = 9, registers = [{{ metric = "n", address = 7 }}] }}]
        [[gateway.onewire]]
        sensor = "{WIRE}"
        device = "cabinet"
        metric = "air_c"
        [[gateway.iio]]
        sensor = "bme280"
        device = "cabinet"
        channels = [{{ channel = "temp", metric = "board_c", scale = 0.001 }}]
        [[gateway.outputs]]
        kind = "file"
        name = "fan"
        path = "{folder}/relay"
        [[gateway.outputs]]
        kind = "modbus"
        name = "valve"
        bus = "plc"
        unit = 9
        address = 2
        """  # fmt: skip
        tables = tables.replace("        ", "")
        top, _, rest = tables.strip().partition("\n")
        gateway = GatewayProcess(folder, broker, broker, {"sysfs": str(tree.root), "spool_bytes_max": 80 << 20}, rest)
        assert top.startswith("sysfs")
        code, found = run_check(gateway.config)
        assert {what: text for what, (verdict, text) in found.items() if verdict == "failed"} == {}
        assert code == 0
        assert found["modbus rs485"] == ("ok", f"{line.path} opens and is free")
        assert found["device meter"][1].endswith("holding 7: answers")
        assert found["modbus plc"] == ("ok", f"127.0.0.1:{server.port} takes connections")
        assert found["device pump"][0] == found["output valve"][0] == found["output fan"][0] == "ok"
        assert found[f"1-wire {WIRE}"] == ("ok", "air_c 21.437")
        assert found["iio bme280"] == ("ok", "board_c 19.5")
        assert {"hj212", "push", "push files"} <= set(found)
        assert (folder / "relay").read_text() == "0", "nothing is switched"


def test_a_serial_port_that_is_not_there_may_not_be_used_is_none_or_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "ttyBUS"

    def port(*, running: bool = False) -> Finding:
        return field.serial_port("modbus rs485", path, running=running)

    assert port().text.startswith(f"{path} is not there: is the adapter plugged in?")
    path.write_text("")
    assert port() == Finding("modbus rs485", "failed", f"{path} is no serial port")
    path.unlink()
    with SerialServer({1: Device()}, path):
        with forbidden(path):
            assert "add it to group dialout" in port().text
        assert port().verdict == "ok"
        other = os.open(path, os.O_RDWR | os.O_NOCTTY)
        fcntl.flock(other, fcntl.LOCK_EX)
        assert port().verdict == "failed"
        assert f"in use by another program (sudo fuser -v {path}" in port().text
        assert port(running=True) == Finding(
            "modbus rs485", "ok", f"{path}: in use, as it should be while the gateway runs"
        )
        os.close(other)


@pytest.mark.parametrize("kind", ["tcp", "serial"])
def test_devices_that_do_not_answer_or_have_no_such_register(kind: str, tmp_path: Path) -> None:
    devices = {
        1: Device(holding={7: 3}),
        2: Device(silent=True),
        3: Device(holding={8: 1}),
        4: Device(holding={7: 3}, corrupt=lambda data: b"\x99" * len(data)),
    }
    with ExitStack() as stack:
        place: dict[str, object]
        if kind == "tcp":
            place = {"host": "127.0.0.1", "port": stack.enter_context(TcpServer(devices)).port}
        else:
            line = stack.enter_context(SerialServer(devices, tmp_path / "ttyBUS"))
            place = {"serial": str(line.path), "baud": 115_200}
        # Who answers has time for it; the others cost what their bus gives them.
        found = findings(modbus=[bus({"good": 1, "other-map": 3}, **place)])
        found |= findings(modbus=[bus({"silent": 2}, timeout_ms=300, **place)])

        def heard() -> bool:
            found.update(findings(modbus=[bus({"garbage": 4}, timeout_ms=300, **place)]))
            assert found["device garbage"][0] == "failed"
            return "that are no answer" in found["device garbage"][1]

        wait_for(heard, "garbage in time")
    assert found["device good"][0] == "ok"
    assert [found[f"device {name}"][0] for name in ("silent", "other-map", "garbage")] == ["failed"] * 3
    assert "no answer within 300 ms" in found["device silent"][1]
    assert "check" in found["device silent"][1]
    assert "exception 2: no such address; is the register map that of this device?" in found["device other-map"][1]


def test_a_modbus_server_that_is_away() -> None:
    port = child.free_port()
    found = findings(modbus=[bus({"pump": 1}, host="127.0.0.1", port=port)])
    assert found == {"modbus rs485": ("failed", f"127.0.0.1:{port}: Connection refused")}


def test_of_many_devices_some_are_tried_and_the_rest_is_told() -> None:
    with TcpServer({unit: Device(holding={7: unit}) for unit in range(1, 21)}) as server:
        settings = GatewaySettings.model_validate(
            {"modbus": [bus({f"d{unit}": unit for unit in range(1, 21)}, host="127.0.0.1", port=server.port)]}
        )
        found = list(field.findings(settings))
    assert sum(item.what.startswith("device") for item in found) == field.DEVICES_TRIED_MAX
    assert found[-1] == Finding("modbus rs485", "ok", "4 more devices were not tried")


def test_ports_to_listen_on() -> None:
    port = child.free_port()
    with socket.create_server(("127.0.0.1", port)):
        assert field.listening("push", "127.0.0.1", port, running=False).text == (
            f"127.0.0.1 port {port}: in use by another program (sudo ss -ltnp 'sport = :{port}' names it)"
        )
        assert field.listening("push", "127.0.0.1", port, running=True).verdict == "ok"
    assert field.listening("push", "127.0.0.1", port, running=False).verdict == "ok"
    assert field.listening("push", "127.0.0.1", port, running=True).verdict == "warning"
    assert "this machine has no such address" in field.listening("push", "203.0.113.7", port, running=False).text
    assert "any free port" in field.listening("hj212", "0.0.0.0", 0, running=False).text


def test_beside_a_running_gateway_what_it_holds_is_in_order(folder: Path, broker: EmbeddedMosquitto) -> None:
    ports = [child.free_port() for _ in range(3)]
    with SerialServer({1: Device(holding={7: 3})}, folder / "ttyBUS") as line:
        tables = f"""
[gateway.hj212]
port = {ports[0]}
stations = [{{ mn = "1", device = "river-3" }}]
[gateway.push]
port = {ports[1]}
[[gateway.modbus]]
name = "rs485"
serial = "{line.path}"
devices = [{{ device = "meter", unit = 1, registers = [{{ metric = "n", address = 7 }}] }}]
"""
        gateway = GatewayProcess(
            folder, broker, broker, {"spool_bytes_max": 80 << 20, "metrics_port": ports[2]}, tables
        )
        assert not field.is_running(folder / "data/spool")
        try:
            gateway.start()
            wanted = {"hj212-listening", "push-listening", "field-subscribed"}
            wait_for(lambda: all(gateway.events(event) for event in wanted), "it listens everywhere")
            wait_for(lambda: line.line.requests, "the line is polled")
            assert field.is_running(folder / "data/spool")
            code, found = run_check(gateway.config)
            told = [found[what][1] for what in ("hj212", "push", "metrics", "modbus rs485")]
            assert all(text.endswith("in use, as it should be while the gateway runs") for text in told), told
            assert "device meter" not in found, "two programs on a line would garble each other's answers"
            assert code == 0
        finally:
            gateway.kill()
        assert not field.is_running(folder / "data/spool")


def test_sensors_that_are_not_there_or_give_no_value(tmp_path: Path) -> None:
    tree = SensorTree(tmp_path)
    tree.short_circuit("28-000005e2fdc4")
    tree.iio(0, "bme280", {})
    channel = {"channel": "temp", "metric": "board_c"}
    found = findings(
        sysfs=str(tree.root),
        onewire=[{"sensor": sensor, "device": "d", "metric": "c"} for sensor in (WIRE, "28-000005e2fdc4")],
        iio=[{"sensor": sensor, "device": "d", "channels": [channel]} for sensor in ("bme280", "nowhere")],
    )
    assert {verdict for verdict, _ in found.values()} == {"failed"}
    assert found[f"1-wire {WIRE}"][1].startswith(f"{WIRE}: not on the 1-wire bus; is the data line on its pin")
    assert "short circuit" in found["1-wire 28-000005e2fdc4"][1]
    assert "in_temp_raw" in found["iio bme280"][1]
    assert "not among the IIO devices" in found["iio nowhere"][1]


def test_outputs_that_are_not_there_or_may_not_be_switched(tmp_path: Path) -> None:
    pytest.importorskip("gpiod")
    (tmp_path / "ours").write_text("0")
    outputs = [
        {"kind": "file", "name": "gone", "path": str(tmp_path / "gone")},
        {"kind": "file", "name": "folder", "path": str(tmp_path)},
        {"kind": "file", "name": "ours", "path": str(tmp_path / "ours")},
        {"kind": "gpio", "name": "no-chip", "chip": str(tmp_path / "gpiochip9"), "line": 4},
        {"kind": "gpio", "name": "none", "chip": "/dev/null", "line": 4},
    ]
    found = findings(outputs=outputs)
    assert found["output gone"] == ("failed", f"{tmp_path}/gone: No such file or directory")
    assert found["output folder"][1].endswith("Is a directory")
    assert found["output ours"][0] == "ok"
    assert found["output no-chip"] == ("failed", f"{tmp_path}/gpiochip9: No such file or directory")
    assert found["output none"][0] == "failed"
    with forbidden(tmp_path / "ours"):
        assert "may not be written by" in findings(outputs=outputs[2:3])["output ours"][1]


def test_certificates_that_are_missing_do_not_fit_or_have_expired(folder: Path) -> None:
    authority = Authority(folder / "pki")
    cert, key = authority.issue("gw-1", days=90)
    _, other_key = authority.issue("gw-2")
    old, old_key = authority.issue("gw-3", days=0)

    def verdict(cert_file: Path, key_file: Path, ca_file: Path = authority.ca) -> tuple[str, str]:
        tls = {"ca_file": ca_file, "cert_file": cert_file, "key_file": key_file}
        found = check.certificate_of("certificate", Endpoint.model_validate({"tls": tls}))
        return found.verdict, found.text

    assert verdict(cert, key)[0] == "ok"
    assert verdict(old, old_key)[0] == "failed"
    assert "expired on" in verdict(old, old_key)[1]
    missing = folder / "missing.key"
    for files in ((cert, missing), (cert, other_key), (cert, key, folder / "missing.crt")):
        assert verdict(*files)[0] == "failed", files
        assert str(files[-1]) in verdict(*files)[1]


def test_files_of_the_http_driver(folder: Path) -> None:
    authority = Authority(folder / "pki")
    old, old_key = authority.issue("gw-3", days=0)
    push = {"port": 1, "token_file": folder / "tokens"}

    def found(**more: object) -> Finding:
        return field.push_files(GatewaySettings.model_validate({"push": {**push, **more}}).push, datetime.now(UTC))

    assert "tokens: No such file" in found().text
    (folder / "tokens").write_text("a-long-enough-token\n")
    assert found().verdict == "ok"
    expired = found(tls_cert_file=old, tls_key_file=old_key)
    assert (expired.verdict, "expired on" in expired.text) == ("failed", True)
    assert found(tls_cert_file=folder / "none", tls_key_file=old_key).verdict == "failed"
