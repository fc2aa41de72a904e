"""Conditions under which a rule is judged at all: `when` of a rule file.

Each `Condition` is one of: a schedule in local time, another metric against a bound (the colour of a warning signal is one
too), or maintenance. All conditions of a rule must be met. They are judged at the times of the rule's own readings, by what
was known of the other metrics at that event time: the newest usable reading that is not older than `max_age_s`. A condition
whose metric is unknown is not met, unless the rule says `when_unknown = "met"`; maintenance that nobody mentions is none.

A reading at which the conditions are not met is not judged. With `when_ends = "clear"` an open alert is cleared at that
reading, and delays, runs and windows under way are forgotten; what was learned stays. With "hold" the reading is as if it
had not been sent: the alert stays open, a delay goes on if the pause is not longer than the rule's `gap_s_max`.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from citynet.batch import F64, I64, U8, Bools
from citynet.ids import is_id
from citynet.quality import TEST
from citynet_rules.colour import Age, Colour, level_of, microseconds

CONDITIONS_MAX = 8
MINUTE_US = 60_000_000
QUARTER_US = 15 * MINUTE_US
DAY_US = 1440 * MINUTE_US
Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
WEEKDAYS: tuple[Weekday, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-(?:([01]\d|2[0-3]):([0-5]\d)|(24):(00))")
_DATE = re.compile(r"(?:(\d{4})-)?(\d\d)-(\d\d)")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SCHEDULE = ("days", "hours", "dates")
_BOUNDS = ("at_least", "at_most", "equal")

Bound = Annotated[float, Field(allow_inf_nan=False)] | Colour
Texts = Annotated[tuple[str, ...], Field(strict=False, min_length=1, max_length=32)]


class Condition(BaseModel):
    """One condition. A schedule is met on one of `days`, within one of `hours` and one of `dates`, as far as each is given;
    hours across midnight belong to the day on which they begin."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    days: Annotated[tuple[Weekday, ...], Field(strict=False, min_length=1, max_length=7)] | None = None
    hours: Texts | None = Field(None, description='"22:00-06:00"; the first minute belongs to it, the last does not')
    dates: Texts | None = Field(
        None, description='"06-01/09-15" of every year, "2026-02-16/2026-02-22"; both ends belong'
    )
    time_zone: str | None = Field(None, description="IANA name; default: that of the rule file")
    metric: str | None = None
    device: str | None = Field(None, description="default: the device of the rule's own series")
    at_least: Bound | None = None
    at_most: Bound | None = None
    equal: Bound | None = None
    max_age_s: Age | None = Field(None, description="an older reading says nothing")
    maintenance: bool | None = None

    @field_validator("hours")
    @classmethod
    def _hours(cls, texts: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for text in texts or ():
            if _HOURS.fullmatch(text) is None or text[:5] == text[6:]:
                raise ValueError(f"{text[:20]!r}: hours such as 08:30-17:00 or 22:00-06:00 were expected")
        return texts

    @field_validator("dates")
    @classmethod
    def _dates(cls, texts: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for text in texts or ():
            _span(text)
        return texts

    @field_validator("metric", "device")
    @classmethod
    def _identifier(cls, text: str | None) -> str | None:
        if text is not None and not is_id(text):
            raise ValueError(f"{text[:80]!r} is not 1..64 of A-Z a-z 0-9 . _ -")
        return text

    @field_validator("time_zone")
    @classmethod
    def _zone(cls, name: str | None) -> str | None:
        if name is not None:
            check_zone(name)
        return name

    @model_validator(mode="after")
    def _one_of(self) -> Condition:
        """Exactly one kind of condition, complete."""
        given = {name for name in type(self).model_fields if getattr(self, name) is not None}
        if given & {*_SCHEDULE}:
            allowed, need = {*_SCHEDULE, "time_zone"}, {"time_zone"}
        elif self.maintenance is not None:
            allowed, need = {"maintenance", "metric", "device", "max_age_s"}, set()
        elif self.metric is not None:
            allowed, need = {"metric", "device", "max_age_s", *_BOUNDS}, {"max_age_s"}
            if not given & {*_BOUNDS}:
                raise ValueError("at_least, at_most or equal is missing")
        else:
            raise ValueError("a condition is a schedule (days, hours, dates), a metric or maintenance")
        if strange := given - allowed:
            raise ValueError(f"{', '.join(sorted(strange))} does not belong to this condition")
        if missing := need - given:
            hint = " (here, or at the head of the file)" if "time_zone" in missing else ""
            raise ValueError(f"{', '.join(missing)} is missing{hint}")
        return self

    @property
    def watched(self) -> str | None:
        """The metric it needs."""
        return self.metric or ("maintenance" if self.maintenance is not None else None)

    @property
    def age_us(self) -> int:
        """How old a reading may be; without bound for maintenance that says nothing else."""
        return 1 << 60 if self.max_age_s is None else microseconds(self.max_age_s)

    @property
    def bounds(self) -> tuple[float, float]:
        """The values that meet it, both ends included."""
        if self.equal is not None:
            return (_number(self.equal),) * 2
        low = -np.inf if self.at_least is None else _number(self.at_least)
        return low, np.inf if self.at_most is None else _number(self.at_most)


def _number(bound: float | str) -> float:
    return float(level_of(bound)) if isinstance(bound, str) else bound  # type: ignore[arg-type]


def check_zone(name: str) -> None:
    """ValueError: no time zone of this name."""
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError(f"unknown time zone {name[:60]!r}") from None


def met_rows(
    condition: Condition, time_us: I64, quality: U8, known_us: I64, known: F64, *, unknown_is_met: bool
) -> Bools:
    """Whether the condition was met at each of these times.

    Args:
        time_us: int64, event time of the readings to be judged; `quality` uint8, theirs.
        known_us, known: int64, float64, time and value of the newest usable reading of the condition's metric at or before
            each of these times, `NONE_US` where there is none; not used by a schedule.
    """
    if condition.watched is None:
        return scheduled(condition, time_us)
    is_known = known_us >= time_us - condition.age_us
    if condition.maintenance is not None:
        under = ((quality & TEST) != 0) | (is_known & (known != 0))
        return np.asarray(under == condition.maintenance, np.bool_)
    low, high = condition.bounds
    inside = (known >= low) & (known <= high)
    found: Bools = np.where(is_known, inside, unknown_is_met)
    return found


def scheduled(condition: Condition, time_us: I64) -> Bools:
    """`is_scheduled` of every time; the calendar is asked once a quarter of an hour and day."""
    quarter, of_quarter = np.unique(time_us // QUARTER_US, return_inverse=True)
    offset_us = np.array([_offset_us(str(condition.time_zone), q) for q in quarter.tolist()], np.int64)[of_quarter]
    local_us = time_us + np.where(offset_us < 0, np.maximum(offset_us, -DAY_US), offset_us)
    day, into_us = local_us // DAY_US, local_us % DAY_US
    days = np.unique(np.concatenate([day, day - 1]))
    fits = np.array([_fits_day(condition, d) for d in days.tolist()], np.bool_)
    today, yesterday = fits[np.searchsorted(days, day)], fits[np.searchsorted(days, day - 1)]
    met = np.zeros(len(time_us), np.bool_)
    for begin_us, end_us in _spans(condition.hours):
        if begin_us < end_us:
            met |= today & (into_us >= begin_us) & (into_us < end_us)
        else:
            met |= (today & (into_us >= begin_us)) | (yesterday & (into_us < end_us))
    met &= offset_us != _NO_CALENDAR
    return met


def is_scheduled(condition: Condition, time_us: int) -> bool:
    """The definition of `scheduled`, for one time. A time no calendar holds is in no schedule."""
    try:
        local = (_EPOCH + timedelta(microseconds=time_us)).astimezone(ZoneInfo(str(condition.time_zone)))
        before = local.date() - timedelta(days=1)
    except OverflowError:
        return False
    into_us = ((local.hour * 60 + local.minute) * 60 + local.second) * 1_000_000 + local.microsecond
    for begin_us, end_us in _spans(condition.hours):
        if begin_us < end_us and begin_us <= into_us < end_us and _is_day(condition, local.date()):
            return True
        late, early = into_us >= begin_us, into_us < end_us
        if begin_us > end_us and (
            (late and _is_day(condition, local.date())) or (early and _is_day(condition, before))
        ):
            return True
    return False


_NO_CALENDAR = -(1 << 40)


@lru_cache(maxsize=4096)
def _offset_us(zone: str, quarter: int) -> int:
    """Local time less UTC; offsets change at quarters of an hour only."""
    try:
        offset = (_EPOCH + timedelta(microseconds=quarter * QUARTER_US)).astimezone(ZoneInfo(zone)).utcoffset()
    except OverflowError:
        return _NO_CALENDAR
    return round((offset or timedelta()).total_seconds()) * 1_000_000


def local_us(zone: str, time_us: int) -> int:
    """Local time in µs since 1970 as the clocks there show it; of a time that no calendar holds UTC."""
    offset_us = _offset_us(zone, time_us // QUARTER_US)
    return time_us if offset_us == _NO_CALENDAR else time_us + offset_us


def _fits_day(condition: Condition, day: int) -> bool:
    """`_is_day` of a day counted from 1970."""
    try:
        return _is_day(condition, date(1970, 1, 1) + timedelta(days=day))
    except OverflowError:
        return False


def _is_day(condition: Condition, day: date) -> bool:
    if condition.days is not None and WEEKDAYS[day.weekday()] not in condition.days:
        return False
    if condition.dates is None:
        return True
    return any(_is_within(_span(text), day) for text in condition.dates)


def _is_within(span: tuple[tuple[int, ...], tuple[int, ...]], day: date) -> bool:
    first, last = span
    of_day = (day.year, day.month, day.day)[-len(first) :]
    return first <= of_day <= last if first <= last else of_day >= first or of_day <= last


@lru_cache(maxsize=4096)
def _span(text: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """First and last (month, day) or (year, month, day)."""
    ends = [_DATE.fullmatch(part) for part in text.split("/")]
    try:
        found = [tuple(int(part) for part in end.groups() if part) for end in ends if end is not None]
        for numbers in found:
            date(*([2024, *numbers] if len(numbers) == 2 else numbers))
        first, last = found
    except (ValueError, TypeError):
        raise ValueError(f"{text[:40]!r}: dates such as 06-01/09-15 or 2026-02-16/2026-02-22 were expected") from None
    if len(first) != len(last) or (len(first) == 3 and first > last):
        raise ValueError(f"{text[:40]!r}: the second date must be of the same form and not before the first")
    return first, last


@lru_cache(maxsize=4096)
def _spans(texts: tuple[str, ...] | None) -> tuple[tuple[int, int], ...]:
    """Begin and end of each span of hours, µs into the day."""
    found = []
    for text in texts or ("00:00-24:00",):
        begin, end = ((int(clock[:2]) * 60 + int(clock[3:])) * MINUTE_US for clock in text.split("-"))
        found.append((begin, end))
    return tuple(found)


def described(conditions: tuple[Condition, ...]) -> list[dict[str, Any]]:
    """Conditions as data, without what is not given."""
    return [condition.model_dump(mode="json", exclude_none=True) for condition in conditions]
