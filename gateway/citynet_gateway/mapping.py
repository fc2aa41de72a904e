"""Foreign JSON on the local broker turned into readings by configuration, pure: topic and payload in, readings out.

A payload has one record, or a list of them. A value that is absent says nothing; one that is there and no number
costs only itself; a record of which nothing could be read is kept.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from citynet.errors import DecodeError
from citynet.formats import BYTES_MAX, INTEGER_MAX, Decoded, Reject
from citynet.formats.decoded import load_json
from citynet.ids import check_id
from citynet.reading import Reading
from citynet.wire import TELEMETRY
from citynet_gateway.drivers.mapping_settings import MappedValue, MappingSettings
from citynet_gateway.intake import Part, Sorter, raw_note, sort_values

RECORDS_MAX = 1_000
READINGS_MAX = 5_000
_PER_S = {"s": 1, "ms": 1_000, "us": 1_000_000}
_LEVEL = re.compile(r"\{(\d+)\}")
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?\s*")
_UNIX = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_ABSENT = object()

Steps = tuple[bool, tuple[str, ...]]  # from the top of the payload; names and positions


class Mapping:
    """One ``[[gateway.mappings]]`` at work."""

    def __init__(self, settings: MappingSettings) -> None:
        self._settings = settings
        self._levels = settings.topic.split("/")
        self._zone = ZoneInfo(settings.time_zone)
        self._values = [(_steps(value.path), value) for value in settings.values]

    @property
    def topic(self) -> str:
        return self._settings.topic

    def matches(self, topic: str) -> bool:
        """MQTT's own rule for filters."""
        levels = topic.split("/")
        for position, wanted in enumerate(self._levels):
            if wanted == "#":
                return True
            if position >= len(levels) or wanted not in ("+", levels[position]):
                return False
        return len(levels) == len(self._levels)

    def interpret(self, topic: str, payload: bytes, sorter: Sorter, accept_us: int) -> tuple[list[Part], int]:
        """The parts of a message (at least one) and how many raw notes are among them."""
        try:
            decoded = self.decode(topic, payload, accept_us)
        except DecodeError as error:
            return [Part(TELEMETRY, (), (raw_note(topic, payload, str(error)),))], 1
        return sort_values(topic, payload, decoded.readings, decoded.rejects, sorter)

    def decode(self, topic: str, payload: bytes, accept_us: int) -> Decoded:
        """Readings of a message, and what had to be left out.

        Args:
            accept_us: µs since the Unix epoch; stands in where the message has no time.

        Raises:
            DecodeError: not JSON, no records where they should be, too large.
        """
        if len(payload) > BYTES_MAX:
            raise DecodeError("too-large", "payload", f"{len(payload)} bytes, at most {BYTES_MAX}")
        body = load_json(payload)
        decoded = Decoded([], [])
        for position, record in enumerate(self._records(body)):
            try:
                self._read(decoded, topic, body, record, accept_us)
            except DecodeError as error:
                where = f"{self._settings.records or '$'}[{position}].{error.where}"
                decoded.rejects.append(Reject(error.reason, where, error.detail))
            if len(decoded.readings) > READINGS_MAX:
                raise DecodeError("too-many-readings", "payload", f"at most {READINGS_MAX} a message")
        return decoded

    def _records(self, body: object) -> Sequence[object]:
        place = self._settings.records
        found = _find(body, body, _steps(place)) if place else body
        if found is _ABSENT:
            raise DecodeError("no-records", place, "absent")
        records = found if isinstance(found, list) else [found]
        if not 0 < len(records) <= RECORDS_MAX:
            raise DecodeError("no-records", place or "$", f"{len(records)} records, 1 to {RECORDS_MAX} were expected")
        return records

    def _read(self, decoded: Decoded, topic: str, body: object, record: object, accept_us: int) -> None:
        device = self._device(topic, body, record)
        time_us = self._time_us(body, record, accept_us)
        read = 0
        for steps, value in self._values:
            found = _find(body, record, steps)
            if found is _ABSENT or found is None:
                if value.required:
                    decoded.rejects.append(Reject("absent", value.path, "a value that is required"))
                continue
            read += 1
            number = _number(found, value)
            if number is None:
                decoded.rejects.append(Reject("not-a-number", value.path, str(found)[:80]))
            else:
                decoded.readings.append(Reading(device, value.metric, time_us, number))
        if not read:
            raise DecodeError("no-values", "values", "none of the configured paths is there")

    def _device(self, topic: str, body: object, record: object) -> str:
        settings = self._settings
        if settings.device_path:
            found = _find(body, record, _steps(settings.device_path))
            text = "" if found is _ABSENT or isinstance(found, dict | list | bool) else str(found)
            return check_id(text, settings.device_path)
        levels = topic.split("/")
        return check_id(_LEVEL.sub(lambda match: levels[int(match[1]) - 1], settings.device), "topic")

    def _time_us(self, body: object, record: object, accept_us: int) -> int:
        place, kind = self._settings.time_path, self._settings.time_format
        if not place:
            return accept_us
        found = _find(body, record, _steps(place))
        if found is _ABSENT or found is None:
            raise DecodeError("no-time", place, "absent")
        try:
            if kind in _PER_S:
                return _number_us(found, _PER_S[kind])
            text = str(found)
            moment = datetime.fromisoformat(text) if kind == "iso" else datetime.strptime(text, kind)  # noqa: DTZ007
            if moment.tzinfo is None:
                moment = moment.replace(tzinfo=self._zone)
            return (moment - _UNIX) // _MICROSECOND
        except (ValueError, OverflowError):
            raise DecodeError("bad-time", place, f"{str(found)[:40]!r} is not {kind}") from None


def find(mappings: Sequence[Mapping], topic: str) -> Mapping | None:
    """The mapping that a topic belongs to; their filters do not overlap."""
    return next((mapping for mapping in mappings if mapping.matches(topic)), None)


def _number(found: object, value: MappedValue) -> float | None:
    """The number after scale and offset; None if there is none."""
    number: float
    if isinstance(found, str):
        if found in value.words:
            return value.words[found]
        if not _NUMBER.fullmatch(found):
            return None
        number = float(found)
    elif isinstance(found, int | float) and (isinstance(found, bool | float) or abs(found) <= INTEGER_MAX):
        number = float(found)
    else:
        return None
    number = number * value.scale + value.offset
    return number if math.isfinite(number) else None


def _number_us(found: object, per_s: int) -> int:
    """µs of a time in units of 1/per_s seconds. ValueError if it is none."""
    if isinstance(found, str) and _NUMBER.fullmatch(found):
        found = float(found) if not found.strip().lstrip("+-").isdigit() else int(found)
    if isinstance(found, bool) or not isinstance(found, int | float) or not abs(found) <= INTEGER_MAX:
        raise ValueError
    return found * 1_000_000 // per_s if isinstance(found, int) else round(found * 1_000_000 / per_s)


def _steps(path: str) -> Steps:
    from_top = path.startswith("$.")
    return from_top, tuple(path.removeprefix("$.").split("."))


def _find(body: object, record: object, steps: Steps) -> object:
    from_top, names = steps
    here = body if from_top else record
    for name in names:
        if isinstance(here, dict):
            here = here.get(name, _ABSENT)
        elif isinstance(here, list) and name.isascii() and name.isdigit() and len(name) < 7 and int(name) < len(here):
            here = here[int(name)]
        else:
            return _ABSENT
    return here
