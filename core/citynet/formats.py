"""What devices say: ThingsBoard telemetry JSON and SenML JSON (RFC 8428), turned into readings.

One bad value costs only itself: it becomes a `Reject` beside the good readings of its message. A message that cannot be
read at all raises `DecodeError`. The format is chosen by content type or by configuration, never by sniffing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite

import msgspec

from citynet.errors import DecodeError
from citynet.ids import is_id
from citynet.reading import Reading

THINGSBOARD = "application/vnd.thingsboard.telemetry+json"
SENML = "application/senml+json"
BYTES_MAX = 256 * 1024
INTEGER_MAX = 1 << 53  # beyond it a JSON number is not the number that was meant
SENML_RELATIVE_BELOW_S = 1 << 28  # RFC 8428 section 4.5.3: smaller times are offsets from now
SENML_VERSION_MAX = 10
_READINGS_MAX = 5_000


class Reject(msgspec.Struct, frozen=True, gc=False):
    """One value of a message that is no reading: a constant reason, the place, what stood there."""

    reason: str
    where: str
    detail: str


class Decoded(msgspec.Struct, frozen=True):
    """Readings of one message, and what had to be left out of them."""

    readings: list[Reading]
    rejects: list[Reject]


def decode(content_type: str, payload: bytes, device: str, accept_us: int) -> Decoded:
    """Decode a device's message.

    Args:
        content_type: MQTT 5 content type, or the configured one; parameters after ``;`` are ignored.
        device: the device that the topic names.
        accept_us: when the message was accepted, µs since the Unix epoch; stands in where the message has no time.

    Raises:
        DecodeError: unknown content type, too large, not JSON, or of the wrong shape.
    """
    if len(payload) > BYTES_MAX:
        raise DecodeError("too-large", "payload", f"{len(payload)} bytes, at most {BYTES_MAX}")
    decoder = _DECODERS.get(content_type.partition(";")[0].strip().lower())
    if decoder is None:
        raise DecodeError("unknown-content-type", "content-type", repr(content_type[:80]))
    decoded = decoder(payload, device, accept_us)
    if len(decoded.readings) + len(decoded.rejects) > _READINGS_MAX:
        raise DecodeError("too-many-readings", "payload", f"at most {_READINGS_MAX} a message")
    return decoded


def is_known(content_type: str) -> bool:
    """Whether `decode` understands this content type."""
    return content_type.partition(";")[0].strip().lower() in _DECODERS


# --- ThingsBoard ---


_any = msgspec.json.Decoder()


def _load(payload: bytes) -> object:
    try:
        return _any.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DecodeError("bad-json", "payload", str(error)[:200]) from None


def _thingsboard(payload: bytes, device: str, accept_us: int) -> Decoded:
    body = _load(payload)
    decoded = Decoded([], [])
    for position, item in enumerate(body if isinstance(body, list) else [body]):
        where = f"$[{position}]" if isinstance(body, list) else "$"
        if not isinstance(item, dict):
            raise DecodeError("wrong-shape", where, f"{type(item).__name__}: an object was expected")
        time_us, values = accept_us, item
        if "values" in item and "ts" in item:
            time_us, values, where = _thingsboard_time(item, where), item["values"], f"{where}.values"
            if not isinstance(values, dict):
                raise DecodeError("wrong-shape", where, f"{type(values).__name__}: an object was expected")
        for metric, value in values.items():
            _take(decoded, device, metric, time_us, value, f"{where}.{metric[:80]}")
    if not decoded.readings and not decoded.rejects:
        raise DecodeError("empty", "payload", "no values")
    return decoded


def _thingsboard_time(item: dict[str, object], where: str) -> int:
    stamp = item["ts"]
    if isinstance(stamp, bool) or not isinstance(stamp, int) or abs(stamp) > INTEGER_MAX:
        raise DecodeError("bad-time", f"{where}.ts", f"{str(stamp)[:40]!r} is not milliseconds since 1970")
    return stamp * 1000


# --- SenML ---


def _senml(payload: bytes, device: str, accept_us: int) -> Decoded:
    body = _load(payload)
    if not isinstance(body, list) or not body:
        raise DecodeError("wrong-shape", "$", "SenML is a non-empty list of records")
    decoded = Decoded([], [])
    base = _Base()
    for position, record in enumerate(body):
        where = f"$[{position}]"
        if not isinstance(record, dict):
            raise DecodeError("wrong-shape", where, f"{type(record).__name__}: an object was expected")
        base = base.updated(record, where)
        if not _has_value(record):
            continue  # a record of base fields only
        _senml_value(decoded, base, record, device, accept_us, where)
    return decoded


def _has_value(record: dict[str, object]) -> bool:
    return any(key in record for key in ("v", "vs", "vb", "vd", "s", "n"))


@dataclass(frozen=True, slots=True)
class _Base:
    """Base fields in force (RFC 8428 section 4.1): they hold until replaced."""

    name: str = ""
    time_s: float = 0.0
    value: float = 0.0

    def updated(self, record: dict[str, object], where: str) -> _Base:
        version = record.get("bver", SENML_VERSION_MAX)
        if not isinstance(version, int) or isinstance(version, bool) or not 0 < version <= SENML_VERSION_MAX:
            raise DecodeError("bad-version", f"{where}.bver", f"{str(version)[:20]!r}, at most {SENML_VERSION_MAX}")
        for label in record:
            if label.endswith("_"):  # section 4.4: labels that must be understood
                raise DecodeError("unknown-label", f"{where}.{label[:40]}", "a label that must be understood is not")
        return _Base(
            _string(record, "bn", self.name, where),
            _number(record, "bt", self.time_s, where),
            _number(record, "bv", self.value, where),
        )


def _senml_value(
    decoded: Decoded, base: _Base, record: dict[str, object], device: str, accept_us: int, where: str
) -> None:
    metric = _metric(base.name + _string(record, "n", "", where), device)
    moment = base.time_s + _number(record, "t", 0.0, where)
    is_relative = abs(moment) < SENML_RELATIVE_BELOW_S
    time_us = round(moment * 1_000_000) + (accept_us if is_relative else 0)
    if "vb" in record or "v" in record:
        value: object = record.get("vb", record.get("v"))
        if isinstance(value, int | float) and not isinstance(value, bool):
            value = value + base.value
        _take(decoded, device, metric, time_us, value, f"{where}.v")
    else:
        kind = next((key for key in ("vs", "vd", "s") if key in record), "v")
        decoded.rejects.append(Reject("not-a-number", f"{where}.{kind}", str(record.get(kind))[:80]))


def _metric(name: str, device: str) -> str:
    """The metric of a SenML name: what follows the topic's device, else what follows the last ``/`` or ``:``."""
    for mark in ("/", ":"):
        if name.startswith(device + mark):
            return name[len(device) + 1 :]
    return name.replace(":", "/").rpartition("/")[2]


def _string(record: dict[str, object], key: str, default: str, where: str) -> str:
    value = record.get(key, default)
    if not isinstance(value, str):
        raise DecodeError("wrong-type", f"{where}.{key}", f"{type(value).__name__}: text was expected")
    return value


def _number(record: dict[str, object], key: str, default: float, where: str) -> float:
    value = record.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > INTEGER_MAX:
        raise DecodeError("wrong-type", f"{where}.{key}", f"{str(value)[:40]!r}: a number was expected")
    return value


def _take(decoded: Decoded, device: str, metric: str, time_us: int, value: object, where: str) -> None:
    """Append one reading, or the reason why it is none. Booleans count as 0 and 1 (a door, a pump)."""
    if not is_id(metric):
        decoded.rejects.append(Reject("bad-metric", where, repr(metric[:80])))
    elif isinstance(value, bool):
        decoded.readings.append(Reading(device, metric, time_us, float(value)))
    elif isinstance(value, int) and abs(value) > INTEGER_MAX:
        decoded.rejects.append(Reject("integer-too-large", where, str(value)[:40]))
    elif isinstance(value, int | float) and isfinite(value):
        decoded.readings.append(Reading(device, metric, time_us, float(value)))
    else:
        decoded.rejects.append(Reject("not-a-number", where, str(value)[:80]))


_DECODERS: dict[str, Callable[[bytes, str, int], Decoded]] = {
    THINGSBOARD: _thingsboard,
    "application/json": _thingsboard,
    SENML: _senml,
}
