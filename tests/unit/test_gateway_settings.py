"""Every setting has a bound and a description; a mistake is named in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from citynet.errors import ConfigError
from citynet.runtime.settings import load
from citynet_gateway.settings import GatewaySettings


def mistake(folder: Path, text: str) -> str:
    """The message for a settings file."""
    path = folder / "citynet.toml"
    path.write_text(f"[gateway]\n{text}\n")
    with pytest.raises(ConfigError) as caught:
        load(GatewaySettings, path)
    return str(caught.value)


def test_the_defaults_are_valid_and_every_field_is_described() -> None:
    settings = GatewaySettings()
    assert settings.spool_settings().bytes_max == 1 << 30
    assert [name for name, field in GatewaySettings.model_fields.items() if not field.description] == []


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ('id = "two words"', "gateway.id"),
        ('field_prefix = "field/#"', "gateway.field_prefix"),
        ('content_type_default = "text/csv"', "gateway.content_type_default"),
        ("sync_interval_ms = 1001", "gateway.sync_interval_ms"),
        ("sync_bytes_max = 0", "gateway.sync_bytes_max"),
        ("receive_max = 5000", "gateway.receive_max"),
        ("segment_bytes = 1000", "gateway.segment_bytes"),
        ("window = 0", "gateway.window"),
        ("batch_readings_max = 70000", "gateway.batch_readings_max"),
        ("heartbeat_s = -1", "gateway.heartbeat_s"),
        ("metrics_port = 70000", "gateway.metrics_port"),
        ("unheard_of = 1", "gateway.unheard_of"),
        ("[gateway.local]\nport = 0", "gateway.local.port"),
    ],
)
def test_a_mistake_names_the_file_and_the_field(tmp_path: Path, text: str, field: str) -> None:
    assert mistake(tmp_path, text).startswith(f"{tmp_path}/citynet.toml: {field}: ")


def test_settings_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    assert "16 x segment_bytes" in mistake(tmp_path, "spool_bytes_max = 10000000")
    assert "resend_after_s_max" in mistake(tmp_path, "resend_after_s = 30.0")
    assert "alarm_metrics" in mistake(tmp_path, 'alarm_metrics = [""]')
