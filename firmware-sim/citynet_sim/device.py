"""What a device says: samples as the message that a device of its kind sends.

The kinds speak ThingsBoard telemetry JSON or SenML JSON (RFC 8428, base name ``device/``, base time in seconds with
millisecond precision, unit as the series' UCUM code).
Samples are on whole milliseconds, so both formats give exactly the sample's µs back.
"""

from __future__ import annotations

from collections.abc import Sequence
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


def message(number: int, samples: Sequence[Sample], field_prefix: str) -> Message:
    """The message that carries samples of one device."""
    device = samples[0].device
    content_type, payload = encode(*samples)
    topic = topics.field(field_prefix, device.gateway, device.name)
    return Message(number, device.gateway, device.name, topic, content_type, payload)


def encode(*samples: Sample) -> tuple[str, bytes]:
    """Content type and payload of samples of one device."""
    if KINDS[samples[0].device.kind].wire == THINGSBOARD:
        names = [metric.name for metric in samples[0].device.metrics]
        records = [
            {"ts": sample.time_us // 1000, "values": dict(zip(names, sample.values, strict=True))} for sample in samples
        ]
        return THINGSBOARD, _encoder.encode(records if len(records) > 1 else records[0])
    pack = [record for sample in samples for record in _senml(sample)]
    pack[0] = {"bn": f"{samples[0].device.name}/", **pack[0]}
    return SENML, _encoder.encode(pack)


def _senml(sample: Sample) -> list[dict[str, object]]:
    """A sample's records; the first has the base time, which holds until the next sample's."""
    records: list[dict[str, object]] = [
        {"n": metric.name, "u": metric.unit, "v": value}
        for metric, value in zip(sample.device.metrics, sample.values, strict=True)
    ]
    records[0] = {"bt": sample.time_us / 1e6, **records[0]}
    return records
