"""``citynet gateway check`` and ``top``: plain words, exit codes, JSON."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from citynet.runtime import child
from citynet.runtime.embedded import EmbeddedMosquitto
from citynet_gateway import check, top
from citynet_gateway.cli import app
from tests.gateway import FieldDevice, GatewayProcess, wait_for
from tests.patience import DEADLINE_S


def run_check(config: Path) -> tuple[int, dict[str, tuple[str, str]]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(check, "CONNECT_TIMEOUT_S", DEADLINE_S)  # a slow machine is no broker that does not answer
        result = CliRunner().invoke(app, ["check", "--json", "--config", str(config)])
    report = json.loads(result.stdout)
    assert report["ok"] == (result.exit_code == 0)
    return result.exit_code, {item["what"]: (item["verdict"], item["text"]) for item in report["findings"]}


def test_all_is_well_also_beside_a_running_gateway(folder: Path, broker: EmbeddedMosquitto) -> None:
    gateway = GatewayProcess(folder, broker, broker, {"spool_bytes_max": 80 << 20})
    try:
        gateway.start()
        wait_for(lambda: gateway.events("field-subscribed"), "the gateway listens")
        code, found = run_check(gateway.config)
        assert code == 0
        assert {what for what, (verdict, _) in found.items() if verdict == "failed"} == set()
        assert set(found) == {"clock", "disk flush", "disk space", "certificate", "field broker", "uplink broker"}
        assert gateway.events("uplink-lost") == []
        assert not list((folder / "data").glob("check-*"))
    finally:
        gateway.kill()


def test_what_is_wrong_is_said_plainly(folder: Path, broker: EmbeddedMosquitto, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    config = tmp_path / "x.toml"
    config.write_text(
        f"[gateway]\ndata_dir = '{tmp_path}/file/data'\n[gateway.local]\nport = {child.free_port()}\n"
        f"[gateway.uplink]\nhost = 'no-such-host.invalid'\n"
    )
    code, found = run_check(config)
    assert code == 1
    assert found["disk"] == (
        "failed", f"{tmp_path}/file/data: Not a directory: the gateway must be able to write there",
    )  # fmt: skip
    assert found["field broker"][0] == "failed"
    assert "Connection refused" in found["field broker"][1]
    assert found["uplink broker"][1].startswith("the name no-such-host.invalid is not known")


def test_a_broker_that_refuses_us(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "CONNECT_TIMEOUT_S", DEADLINE_S)
    with EmbeddedMosquitto(folder / "strict", more="per_listener_settings false\nallow_anonymous false\n") as strict:
        endpoint = check.Endpoint(port=strict.port)
        found = check.broker("uplink broker", endpoint, "x")
    assert found.verdict == "failed"
    assert "refuses us: Not authorized" in found.text


@pytest.mark.parametrize(
    ("year", "has_mark", "verdict"), [(1970, False, "failed"), (2026, False, "warning"), (2026, True, "ok")]
)
def test_clock(tmp_path: Path, year: int, has_mark: bool, verdict: str) -> None:
    mark = tmp_path / "synchronized"
    if has_mark:
        mark.touch()
    assert check.clock(datetime(year, 5, 1, tzinfo=UTC), mark).verdict == verdict


def test_top_shows_a_running_gateway(folder: Path, broker: EmbeddedMosquitto) -> None:
    gateway = GatewayProcess(folder, broker, broker, {"metrics_port": child.free_port()})
    device = FieldDevice(broker.port)
    try:
        gateway.start()
        wait_for(lambda: gateway.events("field-subscribed"), "the gateway listens")
        device.send_all([{"level": k} for k in range(37)])

        def shows(*words: str) -> bool:
            result = CliRunner().invoke(app, ["top", "--once", "--config", str(gateway.config)])
            return result.exit_code == 0 and all(word in result.stdout for word in words)

        page = ("accepted", " 37 ", "field connected   uplink connected", "no troubles")
        wait_for(lambda: shows(*page), f"a page with {page}")
        assert gateway.stop() == 0
        gone = CliRunner().invoke(app, ["top", "--once", "--config", str(gateway.config)])
        assert gone.exit_code == 1
        assert "is the gateway running" in gone.stderr
    finally:
        device.close()
        gateway.kill()


def test_rates_and_troubles_of_the_page() -> None:
    before = top.parse('citynet_gateway_accepted_records_total{stream="telemetry"} 100.0\n')
    now = top.parse(
        '# HELP x y\ncitynet_gateway_accepted_records_total{stream="telemetry"} 350.0\n'
        'citynet_gateway_given_up_records{reason="spool_full"} 12.0\n'
    )
    text = top.page(now, before, 2.0)
    assert "125.0/s" in text
    assert "12  records given up (spool_full)" in text
    assert "NOT CONNECTED" in text
