"""What a device says: one sample as the message that a device of its kind sends.

The kinds speak ThingsBoard telemetry JSON or SenML JSON (RFC 8428, base name ``device/``, base time in seconds with
millisecond precision, unit as the series' UCUM code).
Samples are on whole milliseconds, so both formats give exactly the sample's µs back.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from citynet import topics
from citynet.formats import SENML, THINGSBOARD
from citynet_sim.kinds import KINDS
from citynet_sim.simulation import Sample

_encoder = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class Message:
    """A numbered message on its way: `number` counts the run's messages from 1."""

    number: int
    gateway: str
    device: str
    topic: str
    content_type: str
    payload: bytes


def message(number: int, sample: Sample, field_prefix: str) -> Message:
    """The message that carries `sample`."""
    device = sample.device
    content_type, payload = encode(sample)
    topic = topics.field(field_prefix, device.gateway, device.name)
    return Message(number, device.gateway, device.name, topic, content_type, payload)


def encode(sample: Sample) -> tuple[str, bytes]:
    """Content type and payload of a sample."""
    if KINDS[sample.device.kind].wire == THINGSBOARD:
        names = [metric.name for metric in sample.device.metrics]
        values = dict(zip(names, sample.values, strict=True))
        return THINGSBOARD, _encoder.encode({"ts": sample.time_us // 1000, "values": values})
    records: list[dict[str, object]] = [
        {"n": metric.name, "u": metric.unit, "v": value}
        for metric, value in zip(sample.device.metrics, sample.values, strict=True)
    ]
    records[0] = {"bn": f"{sample.device.name}/", "bt": sample.time_us / 1e6, **records[0]}
    return SENML, _encoder.encode(records)
