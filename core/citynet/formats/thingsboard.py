"""ThingsBoard telemetry JSON: ``{"metric": value}``, ``{"ts": ms, "values": {…}}``, or a list of those."""

from __future__ import annotations

import msgspec

from citynet.errors import DecodeError
from citynet.formats.decoded import INTEGER_MAX, Decoded, load_json, take
from citynet.ids import is_id
from citynet.reading import Reading


class _Plain(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The ordinary message: a time and numbers, nothing else."""

    ts: int
    values: dict[str, float]


_plain = msgspec.json.Decoder(_Plain)


def decode(payload: bytes, device: str, accept_us: int) -> Decoded:
    """Readings of a message; one without ``ts`` is of the moment of acceptance."""
    try:
        plain = _plain.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _decode(payload, device, accept_us)  # anything else, or something wrong: value by value
    values, time_us = plain.values, plain.ts * 1000
    if not values or abs(plain.ts) > INTEGER_MAX:
        return _decode(payload, device, accept_us)
    for metric, value in values.items():
        if not -INTEGER_MAX < value < INTEGER_MAX or not is_id(metric):
            return _decode(payload, device, accept_us)
    return Decoded([Reading(device, metric, time_us, value) for metric, value in values.items()], [])


def _decode(payload: bytes, device: str, accept_us: int) -> Decoded:
    body = load_json(payload)
    decoded = Decoded([], [], [])
    for position, item in enumerate(body if isinstance(body, list) else [body]):
        where = f"$[{position}]" if isinstance(body, list) else "$"
        if not isinstance(item, dict):
            raise DecodeError("wrong-shape", where, f"{type(item).__name__}: an object was expected")
        time_us, values = accept_us, item
        if "values" in item and "ts" in item:
            time_us, values, where = _time(item, where), item["values"], f"{where}.values"
            if not isinstance(values, dict):
                raise DecodeError("wrong-shape", where, f"{type(values).__name__}: an object was expected")
        for metric, value in values.items():
            take(decoded, device, metric, time_us, value, f"{where}.{metric[:80]}")
    if not decoded.readings and not decoded.rejects:
        raise DecodeError("empty", "payload", "no values")
    return decoded


def _time(item: dict[str, object], where: str) -> int:
    stamp = item["ts"]
    if isinstance(stamp, bool) or not isinstance(stamp, int) or abs(stamp) > INTEGER_MAX:
        raise DecodeError("bad-time", f"{where}.ts", f"{str(stamp)[:40]!r} is not milliseconds since 1970")
    return stamp * 1000
