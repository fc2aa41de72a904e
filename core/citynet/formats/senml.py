"""SenML (RFC 8428) in JSON and CBOR: base fields, relative time, one reading a record."""

from __future__ import annotations

from dataclasses import dataclass

import cbor2

from citynet.errors import DecodeError
from citynet.formats.decoded import INTEGER_MAX, Decoded, Reject, load_json, take

SENML_RELATIVE_BELOW_S = 1 << 28  # section 4.5.3: smaller times are offsets from now
SENML_VERSION_MAX = 10
_DEPTH_MAX = 8
# Section 6, table 4.
_LABELS = {
    -1: "bver", -2: "bn", -3: "bt", -4: "bu", -5: "bv", -6: "bs",
    0: "n", 1: "u", 2: "v", 3: "vs", 4: "vb", 5: "s", 6: "t", 7: "ut", 8: "vd",
}  # fmt: skip


def decode_json(payload: bytes, device: str, accept_us: int) -> Decoded:
    """Readings of a SenML pack in JSON; relative times count from the moment of acceptance."""
    return _decode(load_json(payload), device, accept_us)


def decode_cbor(payload: bytes, device: str, accept_us: int) -> Decoded:
    """Readings of a SenML pack in CBOR (RFC 8428 section 6: integer labels)."""
    try:
        body = cbor2.loads(payload, max_depth=_DEPTH_MAX, allow_duplicate_keys=False)
    except (cbor2.CBORDecodeError, ValueError, OverflowError, RecursionError) as error:
        raise DecodeError("bad-cbor", "payload", str(error)[:200]) from None
    if isinstance(body, list):
        body = [_labelled(record) for record in body]
    return _decode(body, device, accept_us)


def _labelled(record: object) -> object:
    """A CBOR record under the labels of JSON."""
    if not isinstance(record, dict):
        return record
    return {_LABELS.get(key, key) if isinstance(key, int) else key: value for key, value in record.items()}


def _decode(body: object, device: str, accept_us: int) -> Decoded:
    if not isinstance(body, list) or not body:
        raise DecodeError("wrong-shape", "$", "SenML is a non-empty list of records")
    decoded = Decoded([], [], [])
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
        take(decoded, device, metric, time_us, value, f"{where}.v")
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
