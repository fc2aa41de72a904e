"""What is under deploy/ parses, is documented, and calls commands that exist."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from citynet.cli import LazyGroup
from citynet.runtime.cli_config import check_all
from citynet.runtime.metrics import REGISTRY
from citynet_gateway import metrics as gateway_metrics
from citynet_gateway.settings import GatewaySettings
from citynet_gateway.uplink import QUEUED_MAX
from citynet_ingest import metrics as ingest_metrics
from citynet_ingest.settings import IngestSettings

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))


def _compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    return found


def _words(text: str) -> dict[str, list[str]]:
    """Keys of a configuration of ``key value`` lines, with every value they were given."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            key, _, value = line.partition(" ")
            found.setdefault(key, []).append(value.strip())
    return found


def _known_command(words: list[str]) -> bool:
    """Whether ``citynet WORDS…`` names a command; options and what follows them are left out."""
    group: Any = LazyGroup()
    context = typer.Context(group)
    for word in words:
        if word.startswith("-") or not hasattr(group, "get_command"):
            break
        group = group.get_command(context, word)
        if group is None:
            return False
    return not hasattr(group, "get_command")


def test_the_dashboard_shows_metrics_that_exist() -> None:
    registered = {sample.name for family in REGISTRY.collect() for sample in family.samples}
    registered |= {f"{family.name}_total" for family in REGISTRY.collect() if family.type == "counter"}
    registered |= {f"{family.name}_bucket" for family in REGISTRY.collect() if family.type == "histogram"}
    registered |= {family.name for family in REGISTRY.collect()}
    board = json.loads((DEPLOY / "grafana" / "citynet.json").read_text(encoding="utf-8"))
    asked = {
        name for panel in board["panels"] for t in panel["targets"] for name in re.findall(r"citynet_\w+", t["expr"])
    }
    assert ingest_metrics.READINGS
    assert gateway_metrics.ACCEPTED
    assert len(asked) > 10
    assert asked - registered == set()


def test_compose_has_the_services_pinned_bounded_and_watched() -> None:
    services = _compose()["services"]
    assert set(services) == {"db", "broker", "migrate", "ingest", "push", "api"}
    for name, service in services.items():
        tag = service["image"].rpartition(":")[2]
        assert re.search(r"\d+\.\d+", tag), f"{name}: {service['image']} is not pinned"
        assert service["restart"]
        assert service["logging"]["options"]["max-size"]
        if name != "migrate":
            assert service["healthcheck"]["test"]
            assert service["stop_grace_period"]
    assert "pg" in services["db"]["image"]


def test_compose_publishes_on_loopback_only_by_default() -> None:
    ports = [port for service in _compose()["services"].values() for port in service.get("ports", [])]
    assert len(ports) == 4
    for port in ports:
        assert re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", port).startswith("127.0.0.1:"), port


def test_compose_refers_to_what_is_there_and_documented() -> None:
    text, compose = (DEPLOY / "compose.yaml").read_text(encoding="utf-8"), _compose()
    guide = (DEPLOY / "README.md").read_text(encoding="utf-8")
    variables = set(re.findall(r"\$\{(\w+)", text))
    assert variables
    for variable in variables:
        assert f"`{variable}`" in guide, f"{variable} is not documented"
        assert re.search(rf"\${{{variable}:-[^}}]+}}", text), f"{variable} has no default"
    files = {name: entry["file"] for name, entry in compose["secrets"].items()}
    for file in files.values():
        assert f"`{file.removeprefix('./')}`" in guide, f"{file} is not documented"
    for name, service in compose["services"].items():
        assert set(service.get("secrets", [])) <= set(files), name
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert source in compose["volumes"] or (DEPLOY / source).is_file(), f"{name}: {source}"
        for value in service.get("environment", {}).values():
            if (secret := Path(value)).is_relative_to("/run/secrets"):
                assert secret.name in service["secrets"], f"{name}: {value}"


def test_compose_runs_commands_and_settings_that_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ours = {name: item for name, item in _compose()["services"].items() if item["image"].startswith("citynet")}
    assert set(ours) == {"migrate", "ingest", "push", "api"}
    for name, service in ours.items():
        assert _known_command(service["command"]), f"{name}: {service['command']}"
        with monkeypatch.context() as environment:
            for key, value in service["environment"].items():
                environment.setenv(key, re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value))
            assert check_all(None)[1] == []


def test_dockerfile_copies_every_package_and_drops_root() -> None:
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8")
    house = (DEPLOY.parent / "pyproject.toml").read_text(encoding="utf-8")
    rooms = set(re.findall(r'"([\w-]+)/citynet(?:_\w+)?"', house))
    assert len(rooms) == 6
    for room in rooms:
        assert f"COPY {room} {room}\n" in text
        assert f"!{room}\n" in ignored
    assert re.findall(r"^USER (\S+)", text, re.MULTILINE) == ["10001:10001"]


@pytest.mark.parametrize("name", ["mosquitto.conf", "field.conf"])
def test_broker_names_its_limits(name: str) -> None:
    words = _words((DEPLOY / "mosquitto" / name).read_text(encoding="utf-8"))
    for key in ("max_queued_messages", "max_queued_bytes", "max_inflight_messages", "message_size_limit"):
        assert int(words[key][0]) > 0, key
    assert words["allow_anonymous"] == ["false"]
    for key in ("password_file", "acl_file", "persistent_client_expiration", "autosave_interval"):
        assert words[key], key
    assert words["set_tcp_nodelay"] == ["true"]


def test_broker_limits_fit_what_the_clients_ask_for() -> None:
    server = _words((DEPLOY / "mosquitto" / "mosquitto.conf").read_text(encoding="utf-8"))
    assert int(server["max_inflight_messages"][0]) >= IngestSettings().receive_maximum
    assert int(server["message_size_limit"][0]) > 1 << 20
    assert int(server["max_queued_messages"][0]) > 1_000 * QUEUED_MAX
    assert int(server["persistent_client_expiration"][0].rstrip("d")) * 86_400 > IngestSettings().session_expiry_s
    field = _words((DEPLOY / "mosquitto" / "field.conf").read_text(encoding="utf-8"))
    assert int(field["max_inflight_messages"][0]) >= GatewaySettings().receive_max


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_unit_calls_a_command_that_exists(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    (line,) = re.findall(r"^ExecStart=(.+)$", text, re.MULTILINE)
    program, *words = line.split()
    assert program == "/opt/citynet/.venv/bin/citynet"
    assert _known_command(words), line
    for key in ("NoNewPrivileges=yes", "ProtectSystem=strict", "User=citynet", "RestrictAddressFamilies="):
        assert key in text, key
    for document in re.findall(r"^Documentation=file:/opt/citynet/(\S+)$", text, re.MULTILINE):
        assert (DEPLOY.parent / document).is_file(), document
    if "Type=oneshot" not in text:
        for key in ("Restart=always", "MemoryMax=", "TimeoutStopSec=", "StartLimitIntervalSec=0"):
            assert key in text, key


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_systemd_accepts_the_unit(path: Path, tmp_path: Path) -> None:
    text = path.read_text(encoding="utf-8").replace("/opt/citynet/.venv/bin/citynet", "/bin/true")
    copy = tmp_path / path.name.replace("@", "@0-63")
    copy.write_text(text, encoding="utf-8")
    result = subprocess.run(
        ["systemd-analyze", "verify", str(copy)], check=False, capture_output=True, text=True, timeout=120
    )
    about_ours = [line for line in result.stderr.splitlines() if path.name.partition("@")[0].partition(".")[0] in line]
    assert about_ours == []


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_accepts_the_gateway_with_field_buses(tmp_path: Path) -> None:
    unit = (DEPLOY / "systemd/citynet-gateway.service").read_text(encoding="utf-8")
    (tmp_path / "gateway.service").write_text(
        unit.replace("/opt/citynet/.venv/bin/citynet", "/bin/true"), encoding="utf-8"
    )
    extra = (DEPLOY / "systemd/citynet-gateway-field-buses.conf").read_text(encoding="utf-8")
    (tmp_path / "gateway.service.d").mkdir()
    # Also with what is left to the reader.
    (tmp_path / "gateway.service.d/all.conf").write_text(re.sub(r"^#(?=[A-Z]\w+=)", "", extra, flags=re.MULTILINE))
    result = subprocess.run(
        ["systemd-analyze", "verify", str(tmp_path / "gateway.service")],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert [line for line in result.stderr.splitlines() if str(tmp_path) in line] == []


def test_every_timer_has_its_service_and_makes_up_for_a_missed_night() -> None:
    timers = sorted((DEPLOY / "systemd").glob("*.timer"))
    assert [timer.stem for timer in timers] == ["citynet-maintain"]
    for timer in timers:
        assert timer.with_suffix(".service") in UNITS
        text = timer.read_text(encoding="utf-8")
        assert "OnCalendar=" in text
        assert "Persistent=true" in text


@pytest.mark.parametrize("path", sorted(DEPLOY.glob("*/*.toml")), ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_settings_files_load(path: Path) -> None:
    loaded, problems = check_all(path)
    assert problems == []
    assert loaded


def test_every_settings_file_is_among_them() -> None:
    assert {path.parent.name for path in DEPLOY.rglob("*.toml")} == {"raspberry-pi", "systemd"}


@pytest.mark.skipif(shutil.which("sh") is None, reason="no shell")
def test_bootstrap_script_is_executable_and_parses() -> None:
    script = DEPLOY.parent / "citynet"
    assert script.stat().st_mode & 0o111 == 0o111
    assert subprocess.run(["sh", "-n", str(script)], check=False, timeout=120).returncode == 0
