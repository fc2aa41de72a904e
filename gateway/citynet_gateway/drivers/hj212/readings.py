"""From a station's data message to readings. Pure.

What identifies a value is (MN, CN, DataTime, factor): a statement. Its name covers the values as well, so that a
logger's repetition is recognised, whatever its QN and however it is divided into packets, while a corrected value
is another reading and not swallowed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from hashlib import blake2b

from citynet.errors import DecodeError
from citynet.formats import Reject
from citynet.ids import is_id
from citynet.quality import BAD, GRADE_MASK
from citynet.reading import Reading
from citynet_gateway.drivers.hj212.factors import FACTORS, PERIODS, Factor, metric_of, quality_of
from citynet_gateway.drivers.hj212.message import Message, time_us
from citynet_gateway.spool.segment import TOKEN_BYTES

DATA_TIME = "DataTime"
_NOT_VALUES = frozenset({"Flag", "EFlag", "SampleTime"})
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?")
_ABSENT = frozenset({"", "-", "--", "---", "null", "NULL", "NaN", "nan"})


@dataclass(frozen=True, slots=True)
class Station:
    """A station as it is configured. `factors` are those of `FACTORS` with the settings' own over them."""

    mn: str
    device: str
    password: str | None
    checksum: str
    zone: tzinfo
    factors: Mapping[str, Factor]


@dataclass(frozen=True, slots=True)
class Statement:
    """What a message says of one factor."""

    name: bytes
    readings: tuple[Reading, ...]
    rejects: tuple[Reject, ...]


def is_data(message: Message) -> bool:
    """Whether it carries values: real-time, minute, hour and day data, states and running times."""
    return message.cn in PERIODS


def read(message: Message, station: Station, data_time: str) -> list[Statement]:
    """What a data message says, by factor in its order; `data_time` is its DataTime, or that of its first packet.

    Raises:
        DecodeError: no DataTime, one that is no time, or no values.
    """
    if not data_time:
        raise DecodeError("no-time", "CP.DataTime", "neither in this packet nor in the first of its group")
    at_us = time_us(data_time, station.zone)
    statements = [_statement(message, station, data_time, at_us, *group) for group in _by_factor(message).items()]
    if not any(statement.readings or statement.rejects for statement in statements):
        raise DecodeError("empty", "CP", "no values")
    return statements


def group_name(message: Message, data_time: str) -> bytes:
    """Names what all packets of (MN, CN, DataTime) share."""
    return _digest(message.mn, message.cn, data_time)


def token_of(statements: Sequence[Statement]) -> bytes:
    """Names a delivery of these statements, in whatever order."""
    return blake2b(b"".join(sorted(item.name for item in statements)), digest_size=TOKEN_BYTES).digest()


def _by_factor(message: Message) -> dict[str, list[tuple[str, str | None]]]:
    """(field, value) of every factor; what has no field, such as ``Lng=116.3``, has an empty one."""
    groups: dict[str, list[tuple[str, str | None]]] = {}
    for key, value in message.items:
        if key != DATA_TIME:
            code, _, field = key.rpartition("-") if "-" in key else (key, "", "")
            groups.setdefault(code, []).append((field, value))
    return groups


def _statement(
    message: Message,
    station: Station,
    data_time: str,
    at_us: int,
    code: str,
    fields: Sequence[tuple[str, str | None]],
) -> Statement:
    factor = station.factors.get(code) or Factor(code)
    period = PERIODS[message.cn]
    quality = quality_of(next((value or "" for field, value in fields if field == "Flag"), ""))
    readings: list[Reading] = []
    rejects: list[Reject] = []
    for field, value in fields:
        if field in _NOT_VALUES:
            continue
        where = f"CP.{code}-{field}"[:80] if field else f"CP.{code}"[:80]
        metric = metric_of(factor, period, field or "Rtd")
        scale = 1.0 if field == "Cou" else factor.scale
        number = _number(value, quality)
        if number is None:
            rejects.append(Reject("not-a-number", where, str(value)[:80]))
        elif not is_id(metric):
            rejects.append(Reject("bad-metric", where, repr(metric[:80])))
        elif any(reading.metric == metric for reading in readings):
            rejects.append(Reject("repeated-field", where, str(value)[:80]))
        else:
            readings.append(Reading(station.device, metric, at_us, number * scale, quality))
    said = ",".join(sorted(f"{field}={value}" for field, value in fields))
    return Statement(_digest(message.mn, message.cn, data_time, code, said), tuple(readings), tuple(rejects))


def _number(text: str | None, quality: int) -> float | None:
    """The number, NaN where a flagged instrument honestly has none, None where there should be one."""
    if text is not None and _NUMBER.fullmatch(text) and math.isfinite(number := float(text)):
        return number
    if text in _ABSENT and quality & GRADE_MASK == BAD:
        return math.nan
    return None


def _digest(*parts: str) -> bytes:
    return blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=TOKEN_BYTES).digest()


def factors_with(own: Mapping[str, Factor]) -> Mapping[str, Factor]:
    """The standard's factors, those of the settings over them."""
    return {**FACTORS, **own}
