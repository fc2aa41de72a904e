"""Settings of a gateway: table ``[gateway]`` of `citynet.toml`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from citynet.formats import THINGSBOARD, is_known
from citynet.ids import is_id
from citynet.runtime.settings import BrokerEndpoint, Table, table_config
from citynet_gateway import interlock_settings
from citynet_gateway.clock import ClockMode
from citynet_gateway.drivers.hj212.settings import Hj212Settings
from citynet_gateway.drivers.mapping_settings import MappingSettings, overlap
from citynet_gateway.drivers.modbus.settings import BUSES_MAX, ModbusSettings
from citynet_gateway.drivers.push_settings import PushSettings
from citynet_gateway.drivers.sysfs.settings import SENSORS_MAX, IioSettings, OneWireSettings
from citynet_gateway.interlock_settings import INTERLOCKS_MAX, InterlockSettings
from citynet_gateway.outputs.settings import OUTPUTS_MAX, OutputSettings, misfits
from citynet_gateway.sense_settings import SenseSettings
from citynet_gateway.spool import SpoolSettings
from citynet_gateway.window import Limits


def _identifier(text: str) -> str:
    if not is_id(text):
        raise ValueError("must be 1..64 of A-Z a-z 0-9 . _ -")
    return text


def _prefix(text: str) -> str:
    if not text or any(not is_id(part) for part in text.split("/")):
        raise ValueError("must be topic levels of A-Z a-z 0-9 . _ - separated by /, without wildcards")
    return text


def _content_type(text: str) -> str:
    if not is_known(text):
        raise ValueError("no decoder for this content type")
    return text


class Endpoint(BrokerEndpoint, extra="forbid", frozen=True):
    """A broker as a gateway may reach it."""

    websocket_path: str | None = Field(
        None,
        pattern="^/",
        max_length=200,
        description="MQTT over WebSocket at this path, such as /mqtt; unset: plain MQTT",
    )


_LOOPBACK = Endpoint.model_validate({})


class GatewaySettings(Table):
    """A gateway: where the field speaks to it, what it keeps, how it sends."""

    model_config = table_config("gateway")

    id: Annotated[str, AfterValidator(_identifier)] = Field("gateway", description="this gateway's identifier")
    data_dir: Path = Field(Path("gateway-data"), description="folder of the spool; on storage that honours flush")
    uplink: Endpoint = Field(_LOOPBACK, description="the server's broker")
    local: Endpoint = Field(
        _LOOPBACK,
        description="the broker that devices publish to; its max_inflight_messages should reach receive_max",
    )
    hj212: Hj212Settings = Field(
        Hj212Settings.model_validate({}), description="environmental stations, HJ 212-2017; off without stations"
    )
    mappings: list[MappingSettings] = Field(
        [], max_length=64, description="payloads of other makers on the local broker, and what they mean"
    )
    push: PushSettings = Field(
        PushSettings.model_validate({}), description="devices that push over HTTP; off without a port"
    )
    field_prefix: Annotated[str, AfterValidator(_prefix)] = Field(
        "field", max_length=200, description="devices publish to <field_prefix>/<gateway>/<device>"
    )
    content_type_default: Annotated[str, AfterValidator(_content_type)] = Field(
        THINGSBOARD, description="format of field messages that carry no MQTT 5 content type"
    )
    modbus: list[ModbusSettings] = Field(
        default_factory=list,
        max_length=BUSES_MAX,
        description="Modbus buses: tables [[gateway.modbus]], docs/drivers.md",
    )
    iio: list[IioSettings] = Field(
        default_factory=list, max_length=SENSORS_MAX, description="sensors of Linux's IIO: tables [[gateway.iio]]"
    )
    onewire: list[OneWireSettings] = Field(
        default_factory=list, max_length=SENSORS_MAX, description="1-wire thermometers: tables [[gateway.onewire]]"
    )
    sysfs: Path = Field(Path("/sys"), description="where the kernel shows its sensors")
    outputs: list[OutputSettings] = Field(
        default_factory=list, max_length=OUTPUTS_MAX, description="what can be switched: tables [[gateway.outputs]]"
    )
    alarm_metrics: list[str] = Field(
        ["*_alarm"], max_length=100, description="shell patterns of metrics that go to the alarm stream"
    )
    receive_max: int = Field(
        1024, ge=1, le=2048, description="field messages that may be unanswered at a time (MQTT Receive Maximum)"
    )
    sync_interval_ms: int = Field(
        1000, ge=1, le=1000, description="longest time a telemetry message waits for its sync, and so for its answer"
    )
    sync_bytes_max: int = Field(
        256 << 10,
        ge=1,
        le=2 << 20,
        description="pending bytes that make a sync due at once; fewer wear the storage more",
    )
    spool: str = Field(
        "segments",
        pattern="^(segments|sqlite)$",
        description="segments: our own files; sqlite: a database, for several times the writes",
    )
    segment_bytes: int = Field(4 << 20, ge=64 << 10, le=8 << 20, description="size at which a segment is closed")
    spool_bytes_max: int = Field(
        1 << 30,
        ge=8 << 20,
        le=1 << 40,
        description="cap of the spool; at the cap sources are not answered, for those that cannot wait the oldest gives way",
    )
    spool_age_max_h: float = Field(
        0.0, ge=0, le=87_600, description="telemetry kept longer, in hours of operation, is given up; 0 keeps it"
    )
    window: int = Field(8, ge=1, le=256, description="unacknowledged batches per stream")
    batch_readings_max: int = Field(500, ge=1, le=4000, description="records of one batch")
    batch_bytes_max: int = Field(256 << 10, ge=1 << 10, le=512 << 10, description="bytes of one batch, about")
    uplink_bytes_s_max: int = Field(
        0,
        ge=0,
        le=1 << 30,
        description="cap of the uplink in bytes a second, on average; 0: none. Alarms are not held back",
    )
    batch_age_ms_max: int = Field(
        500, ge=0, le=60_000, description="how long a small batch waits for more while another is on its way"
    )
    resend_after_s: float = Field(5.0, ge=0.1, le=300, description="silence after which the server is asked again")
    resend_after_s_max: float = Field(20.0, ge=0.1, le=600, description="the longest step of that, after backoff")
    heartbeat_s: float = Field(
        10.0, ge=0, le=3600, description="interval of the reading <id>/gateway_uptime_s (alarm stream); 0 sends none"
    )
    status_interval_s: float = Field(5.0, ge=0.1, le=3600, description="interval of the retained status")
    clock: str = Field(
        "trust",
        pattern="^(trust|wait)$",
        description="trust the machine's clock once it is past 2024, or wait until the kernel calls it synchronised",
    )
    clock_wait_s: float = Field(
        120.0, ge=0, le=86_400, description="how long telemetry waits for the clock while there is a link"
    )
    sense: list[SenseSettings] = Field([], max_length=256, description="deadbands, units and ranges of metrics")
    interlocks: list[InterlockSettings] = Field(
        [], max_length=INTERLOCKS_MAX, description="limits that switch outputs on the gateway itself"
    )
    output_refresh_s: float = Field(
        10.0, ge=0, le=3_600, description="how often an output is written again, for its own watchdog; 0: never"
    )
    metrics_port: int = Field(0, ge=0, le=65_535, description="Prometheus metrics on loopback; 0 serves none")

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.spool_bytes_max < 16 * self.segment_bytes:
            # An eighth is the alarm stream's; it must hold the segment being written and one being sent.
            raise ValueError("spool_bytes_max must be at least 16 x segment_bytes")
        if self.resend_after_s_max < self.resend_after_s:
            raise ValueError("resend_after_s_max must not be below resend_after_s")
        if problems := misfits(self.outputs, self.modbus):
            raise ValueError("; ".join(problems))
        if bad := [pattern for pattern in self.alarm_metrics if not pattern or len(pattern) > 64]:
            raise ValueError(f"alarm_metrics: patterns of 1 to 64 characters, not {bad[0][:80]!r}")
        filters = [f"{self.field_prefix}/{self.id}/+", *(mapping.topic for mapping in self.mappings)]
        for position, topic in enumerate(filters):
            if twice := [other for other in filters[:position] if overlap(topic, other)]:
                raise ValueError(f"mappings: {topic} overlaps {twice[0]}, a message could be taken twice")
        if wrong := interlock_settings.problem(self.interlocks, [item.name for item in self.outputs]):
            raise ValueError(wrong)
        return self

    @property
    def clock_mode(self) -> ClockMode:
        return "wait" if self.clock == "wait" else "trust"

    @property
    def spool_dir(self) -> Path:
        return self.data_dir / "spool"

    def spool_settings(self) -> SpoolSettings:
        return SpoolSettings(
            segment_bytes=self.segment_bytes,
            bytes_max=self.spool_bytes_max,
            age_max_s=round(self.spool_age_max_h * 3600),
        )

    def limits(self) -> Limits:
        return Limits(self.window, self.resend_after_s, self.resend_after_s_max)
