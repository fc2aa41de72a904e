"""The uplink over TLS with client certificates, over WebSocket, and over a thin link with a long way."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from citynet.runtime.embedded import EmbeddedMosquitto
from citynet.wire import ALARM, TELEMETRY
from tests.gateway import FieldDevice, GatewayProcess, ServerPeer, wait_for
from tests.links import Authority, Bridge, ThinLink, WebSocketFront

MINUTE_S = 60.0


@pytest.fixture
def field(folder: Path) -> Iterator[EmbeddedMosquitto]:
    with EmbeddedMosquitto(folder / "field") as server:
        yield server


def uplink_table(gateway: GatewayProcess, port: int, **inner: object) -> None:
    """Rewrite the gateway's settings: its uplink goes to `port`, with these further keys."""
    text = gateway.config.read_text()
    head, _, rest = text.partition("[gateway.uplink]")
    tail = rest[rest.index("[gateway.local]") :]
    lines = [f"port = {port}", *(f"{key} = {json.dumps(value)}" for key, value in inner.items() if key != "tls")]
    tls = inner.get("tls")
    if isinstance(tls, dict):
        lines += ["[gateway.uplink.tls]", *(f"{key} = {json.dumps(str(value))}" for key, value in tls.items())]
    gateway.config.write_text("\n".join([head, "[gateway.uplink]", *lines, tail]))


def tls_broker(folder: Path, authority: Authority, certificate: tuple[Path, Path]) -> EmbeddedMosquitto:
    """A broker whose second listener (`port` + nothing: told in `more`) wants certificates."""
    crt, key = certificate
    plain = EmbeddedMosquitto(folder / "uplink")
    port = EmbeddedMosquitto(folder / "unused").port
    broker = EmbeddedMosquitto(
        folder / "uplink",
        port=plain.port,
        more=f"listener {port} 127.0.0.1\nallow_anonymous true\ncafile {authority.ca}\ncertfile {crt}\nkeyfile {key}\n"
        "require_certificate true\n",
    )
    broker.tls_port = port  # type: ignore[attr-defined]
    return broker


def lost(gateway: GatewayProcess) -> list[str]:
    return [str(entry["error"]) for entry in gateway.events("uplink-lost")]


def test_tls_with_client_certificates(folder: Path, field: EmbeddedMosquitto) -> None:
    authority = Authority(folder / "ca")
    ours = authority.issue("gw-1")
    with tls_broker(folder, authority, authority.issue("broker")) as uplink:
        gateway = GatewayProcess(folder, field, uplink)
        uplink_table(
            gateway,
            uplink.tls_port,
            tls={"ca_file": authority.ca, "cert_file": ours[0], "key_file": ours[1]},  # type: ignore[attr-defined]
        )
        server, device = ServerPeer(uplink.port), FieldDevice(field.port)
        try:
            gateway.start()
            wait_for(lambda: gateway.events("field-subscribed"), "the gateway listens")
            device.send_all([{"level": k} for k in range(20)])
            wait_for(lambda: server.values() == [float(k) for k in range(20)], "everything arrives")
            wait_for(
                lambda: server.statuses and "expires in 29 days" in server.statuses[-1].drivers.get("uplink", ""),
                "told early",
            )
            assert lost(gateway) == []
        finally:
            gateway.kill()
            device.close()
            server.close()


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("expired", "our certificate .* expired on "),
        ("broker-expired", "the certificate of 127.0.0.1:.* has expired"),
        ("stranger", "the certificate of 127.0.0.1:.* is not accepted: "),
    ],
)
def test_what_is_wrong_with_certificates_is_said_plainly_and_counted(
    folder: Path, field: EmbeddedMosquitto, case: str, expected: str
) -> None:
    authority = Authority(folder / "ca")
    ours = authority.issue("gw-1", days=0 if case == "expired" else 30)
    brokers = authority.issue("broker", days=0 if case == "broker-expired" else 30)
    trusted = Authority(folder / "other").ca if case == "stranger" else authority.ca
    with tls_broker(folder, authority, brokers) as uplink:
        metrics_port = EmbeddedMosquitto(folder / "unused").port
        gateway = GatewayProcess(folder, field, uplink, {"metrics_port": metrics_port})
        port: int = uplink.tls_port  # type: ignore[attr-defined]
        uplink_table(gateway, port, tls={"ca_file": trusted, "cert_file": ours[0], "key_file": ours[1]})
        try:
            gateway.start()
            wait_for(lambda: lost(gateway), "the gateway says that it cannot connect")
            assert re.search(expected, lost(gateway)[0]), lost(gateway)
            reason = "certificate-expired" if "expired" in case else "tls"
            wanted = f'citynet_gateway_uplink_connect_failures_total{{reason="{reason}"}}'
            assert wanted in scrape(metrics_port)
            assert gateway.stop() == 0
        finally:
            gateway.kill()


def scrape(port: int) -> str:
    code = f"import urllib.request as r; print(r.urlopen('http://127.0.0.1:{port}/metrics').read().decode())"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout


class Scene:
    """A gateway whose uplink leads over a bridge."""

    def __init__(self, folder: Path, field: EmbeddedMosquitto, uplink: EmbeddedMosquitto, bridge: Bridge) -> None:
        self.server = ServerPeer(uplink.port)
        self.device = FieldDevice(field.port)
        # Longer than a busy machine stands still: asking again has batches sent twice.
        self.gateway = GatewayProcess(folder, field, uplink, {"resend_after_s": 30.0, "resend_after_s_max": 30.0})
        self.bridge = bridge

    def start(self, **inner: object) -> None:
        uplink_table(self.gateway, self.bridge.port, **inner)
        self.gateway.start()
        wait_for(lambda: self.gateway.events("field-subscribed"), "the gateway listens")

    def close(self) -> None:
        self.gateway.kill()
        self.device.close()
        self.server.close()


def test_over_websocket(folder: Path, field: EmbeddedMosquitto) -> None:
    with EmbeddedMosquitto(folder / "uplink") as uplink, WebSocketFront(uplink.port) as front:
        scene = Scene(folder, field, uplink, front)
        try:
            scene.start(websocket_path="/mqtt/city")
            scene.device.send_all([{"level": k} for k in range(50)])
            wait_for(lambda: scene.server.values() == [float(k) for k in range(50)], "everything arrives")
            assert front.paths == ["/mqtt/city"]
            assert scene.gateway.stop() == 0
        finally:
            scene.close()


def test_over_64_kbit_and_600_ms_a_backlog_drains_and_alarms_overtake_it(
    folder: Path, field: EmbeddedMosquitto
) -> None:
    backlog, alarms = 12_000, 5
    with EmbeddedMosquitto(folder / "uplink") as uplink, ThinLink(uplink.port, 8_000, 0.3) as link:
        scene = Scene(folder, field, uplink, link)
        try:
            uplink.stop()
            scene.start()
            scene.device.send_all(
                [
                    [{"ts": 1_790_000_000_000 + 100 * k + j, "values": {"level": j}} for j in range(100)]
                    for k in range(backlog // 100)
                ]
            )
            uplink.start()
            wait_for(lambda: count(scene, TELEMETRY) > 0, "the backlog begins to arrive", MINUTE_S)
            slowest_s = 0.0
            for number in range(alarms):
                began_s, before = time.monotonic(), count(scene, TELEMETRY)
                scene.device.send_all([{"flood_alarm": number}])
                wait_for(
                    lambda goal=number + 1: count(scene, ALARM) >= goal, "a live alarm overtakes the backlog", MINUTE_S
                )
                slowest_s = max(slowest_s, time.monotonic() - began_s)
                assert before < backlog, "there was a backlog to overtake"
            wait_for(lambda: count(scene, TELEMETRY) == backlog, "the backlog is drained", 2 * MINUTE_S)
            print(f"slowest alarm {slowest_s:.1f} s; {link.carried_bytes} bytes carried; {scene.server.why}")
            assert scene.server.why["gap"] == 0
            assert scene.server.why["duplicate"] == 0
            assert scene.gateway.stop() == 0
        finally:
            scene.close()


def count(scene: Scene, stream: str) -> int:
    with scene.server._lock:
        return sum(row[0] == stream and not row[3].endswith("uptime_s") for row in scene.server.stored)
