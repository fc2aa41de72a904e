"""SenML (RFC 8428) in JSON and CBOR: base fields, resolution, relative time.

A record gives a reading for its value (numbers, and booleans as 0 and 1) and one for its sum, under the metric ``NAME.sum``.
Text and data values are rejected one by one. Labels that are not known are passed over, unless they end with ``_``.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

import cbor2

from citynet.errors import DecodeError
from citynet.formats.decoded import INTEGER_MAX, Decoded, Reject, load_json, take

SENML_RELATIVE_BELOW_S = 1 << 28  # section 4.5.3: smaller times are offsets from now
SENML_VERSION_MAX = 10
_DEPTH_MAX = 8
_VALUES = ("v", "vb", "vs", "vd")
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
    """A CBOR record under the labels of JSON. A number that is no label of ours is an extension that may be passed over."""
    if not isinstance(record, dict):
        return record
    named: dict[str, object] = {}
    for key, value in record.items():
        label = _LABELS.get(key, str(key)) if isinstance(key, int) and not isinstance(key, bool) else key
        if not isinstance(label, str):
            raise DecodeError("wrong-type", "label", f"{type(key).__name__}: text or an integer was expected")
        if label in named:
            raise DecodeError("repeated-label", label[:40], "once as a number and once as text")
        named[label] = value
    return named


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
        if _is_measurement(record):
            _resolve(decoded, base, record, device, accept_us, where)
    return decoded


def _is_measurement(record: dict[str, object]) -> bool:
    """Whether a record is more than base fields for those that follow."""
    return any(key in record for key in ("n", "s", *_VALUES))


@dataclass(frozen=True, slots=True)
class _Base:
    """Base fields in force (RFC 8428 section 4.1): each holds until it is replaced. Units are not looked at."""

    name: str = ""
    time_s: float = 0.0
    value: float = 0.0
    sum: float | None = None
    version: int | None = None

    def updated(self, record: dict[str, object], where: str) -> _Base:
        for label in record:
            if label.endswith("_"):  # section 4.4: labels that must be understood
                raise DecodeError("unknown-label", f"{where}.{label[:40]}", "a label that must be understood is not")
        return _Base(
            _string(record, "bn", self.name, where),
            _number(record, "bt", self.time_s, where),
            _number(record, "bv", self.value, where),
            _number(record, "bs", 0.0, where) if "bs" in record else self.sum,
            self._version(record, where),
        )

    def _version(self, record: dict[str, object], where: str) -> int | None:
        """The version in force. Section 4.4: at most the one we know, and the same in every record."""
        if "bver" not in record:
            return self.version
        version = record["bver"]
        if not isinstance(version, int) or isinstance(version, bool) or not 0 < version <= SENML_VERSION_MAX:
            raise DecodeError("bad-version", f"{where}.bver", f"{str(version)[:20]!r}, at most {SENML_VERSION_MAX}")
        if self.version not in (None, version):
            raise DecodeError("bad-version", f"{where}.bver", f"{version} after {self.version}: one version a pack")
        return version


def _resolve(decoded: Decoded, base: _Base, record: dict[str, object], device: str, accept_us: int, where: str) -> None:
    """One record with the base fields added (section 4.6): its value, and its sum as a metric of its own."""
    metric = _metric(base.name + _string(record, "n", "", where), device)
    moment_s = base.time_s + _number(record, "t", 0.0, where)
    time_us = round(moment_s * 1_000_000) + (accept_us if moment_s < SENML_RELATIVE_BELOW_S else 0)
    given = [key for key in _VALUES if key in record]
    if len(given) > 1:
        decoded.rejects.append(Reject("several-values", where, f"{', '.join(given)}: a record has one value"))
        return
    if "s" in record or (base.sum is not None and not given):
        total = _number(record, "s", 0.0, where) + (base.sum or 0.0)
        take(decoded, device, f"{metric}.sum", time_us, total, f"{where}.s")
        if not given:
            return
    if not given or given[0] in ("vs", "vd"):
        kind = given[0] if given else "v"
        decoded.rejects.append(Reject("not-a-number", f"{where}.{kind}", str(record.get(kind))[:80]))
        return
    value = record[given[0]]
    if given[0] == "vb" and not isinstance(value, bool):
        decoded.rejects.append(Reject("wrong-type", f"{where}.vb", f"{str(value)[:80]}: true or false was expected"))
        return
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        value = _plus(value, base.value)
    take(decoded, device, metric, time_us, value, f"{where}.{given[0]}")


def _plus(value: float | Decimal, base: float) -> float | Decimal:
    """The value with its base added; as it is without one, so that what is no number or too large is told as such."""
    if not base or (isinstance(value, int) and abs(value) > INTEGER_MAX):
        return value
    return float(value) + base


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
    """A number that is no value: a time or something to add. Finite and at most 2⁵³, else it is not what was meant."""
    value = record.get(key, default)
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        number = value if isinstance(value, int) else float(value)
        if abs(number) <= INTEGER_MAX:  # false for NaN as well
            return number
    raise DecodeError("wrong-type", f"{where}.{key}", f"{str(value)[:40]!r}: a number was expected")
