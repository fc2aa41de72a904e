"""Edge sense, pure: what becomes of a reading between its driver and the spool. Time is an argument.

In this order: convert the unit, flag what is out of range or stuck, and keep a value only if it says something new (report by
exception). What the deadband holds back is not accepted and not stored; its source is answered all the same. Always kept are
the first reading of a series after a start, a change of quality, a reading older than the last one kept, and everything of the
alarm stream.

`judge` decides and remembers nothing; `Judged.commit` makes the kept readings the ones that later values are compared with,
and is called when the spool has taken them. So a message that was refused and comes again is judged anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from math import isnan

from citynet import quality
from citynet.reading import Reading
from citynet_gateway import units
from citynet_gateway.clock import is_boot_stamp
from citynet_gateway.sense_settings import SenseSettings

SERIES_MAX = 10_000  # what is beyond them makes the oldest forgotten, whose next value is kept

_Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class _Rule:
    settings: SenseSettings
    scale: float
    offset: float
    low: float
    high: float
    heartbeat_us: int
    stuck_us: int
    has_deadband: bool


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a series is compared with: the last one kept, and since when its value has not changed."""

    value: float
    quality: int
    time_us: int
    kept_s: float
    same: float
    same_since_us: int


@dataclass(slots=True)
class Judged:
    """The outcome for one part: what to keep, and how many readings were held back, converted, flagged."""

    kept: tuple[Reading, ...]
    suppressed: int = 0
    out_of_range: int = 0
    stuck: int = 0
    sense: Sense | None = None
    seen: dict[_Key, _Seen] = field(default_factory=dict)

    def commit(self) -> None:
        """The spool has what is kept."""
        if self.sense is not None:
            self.sense.remember(self.seen)


class Sense:
    """The rules and the state of every series they are for."""

    def __init__(self, settings: Sequence[SenseSettings]) -> None:
        self._rules = [_rule(item) for item in settings]
        self._rule_of: dict[_Key, _Rule | None] = {}
        self._seen: dict[_Key, _Seen] = {}

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to do for any reading."""
        return not self._rules

    def __len__(self) -> int:
        """Series that are remembered."""
        return len(self._seen)

    def judge(self, readings: Sequence[Reading], now_s: float, *, is_alarm: bool) -> Judged:
        """Decide about the readings of one part. `now_s` is monotonic; `is_alarm`: nothing may be held back."""
        if not self._rules:
            return Judged(tuple(readings))
        judged = Judged((), sense=self)
        kept = [item for reading in readings if (item := self._one(reading, now_s, judged, is_alarm)) is not None]
        judged.kept = tuple(kept)
        return judged

    def converted(self, reading: Reading) -> Reading:
        """The reading in its kept unit and with its range judged; no state is asked."""
        rule = self._rule(reading.device, reading.metric)
        return reading if rule is None else _converted(rule, reading)

    def remember(self, seen: dict[_Key, _Seen]) -> None:
        """Take over what a judgement found."""
        for key, item in seen.items():
            self._seen.pop(key, None)  # to the end: the longest silent series goes first
            self._seen[key] = item
        while len(self._seen) > SERIES_MAX:
            del self._seen[next(iter(self._seen))]

    def _one(self, reading: Reading, now_s: float, judged: Judged, is_alarm: bool) -> Reading | None:
        key = (reading.device, reading.metric)
        rule = self._rule(*key)
        if rule is None:
            return reading
        new = judged.seen
        seen = new.get(key) or self._seen.get(key)
        result = _converted(rule, reading)
        judged.out_of_range += result.quality & quality.OUT_OF_RANGE != 0
        since_us = _same_since_us(seen, result)
        if rule.stuck_us and result.time_us - since_us >= rule.stuck_us:
            judged.stuck += 1
            result = _flagged(result, quality.STUCK)
        if seen is not None and not is_alarm and rule.has_deadband and not _is_news(rule, seen, result, now_s):
            judged.suppressed += 1
            new[key] = _Seen(seen.value, seen.quality, seen.time_us, seen.kept_s, result.value, since_us)
            return None
        new[key] = _Seen(result.value, result.quality, result.time_us, now_s, result.value, since_us)
        return result

    def _rule(self, device: str, metric: str) -> _Rule | None:
        key = (device, metric)
        try:
            return self._rule_of[key]
        except KeyError:
            if len(self._rule_of) >= SERIES_MAX:
                self._rule_of.clear()
            found = next((rule for rule in self._rules if _fits(rule.settings, device, metric)), None)
            self._rule_of[key] = found
            return found


def _rule(settings: SenseSettings) -> _Rule:
    scale, offset = 1.0, 0.0
    if settings.unit_in is not None and settings.unit_out is not None:
        scale, offset = units.conversion(settings.unit_in, settings.unit_out)
    return _Rule(
        settings,
        scale,
        offset,
        -float("inf") if settings.min is None else settings.min,
        float("inf") if settings.max is None else settings.max,
        round(settings.heartbeat_s * 1_000_000),
        round(settings.stuck_after_s * 1_000_000),
        settings.deadband > 0 or settings.deadband_percent > 0,
    )


def _fits(settings: SenseSettings, device: str, metric: str) -> bool:
    return any(fnmatchcase(metric, item) for item in settings.metrics) and any(
        fnmatchcase(device, item) for item in settings.devices
    )


def _converted(rule: _Rule, reading: Reading) -> Reading:
    if rule.scale != 1.0 or rule.offset:
        value = reading.value * rule.scale + rule.offset
        reading = Reading(reading.device, reading.metric, reading.time_us, value, reading.quality)
    if not rule.low <= reading.value <= rule.high and not isnan(reading.value):
        return _flagged(reading, quality.OUT_OF_RANGE, quality.UNCERTAIN)
    return reading


def _flagged(reading: Reading, flag: int, grade: int = quality.GOOD) -> Reading:
    code = reading.quality | flag
    if not code & quality.GRADE_MASK:
        code |= grade
    return Reading(reading.device, reading.metric, reading.time_us, reading.value, code)


def _same_since_us(seen: _Seen | None, reading: Reading) -> int:
    """Since when the series has had this value, by its own times. A clock that goes back begins anew."""
    if seen is None or seen.same != reading.value or reading.time_us < seen.same_since_us:
        return reading.time_us
    return (
        reading.time_us if is_boot_stamp(seen.same_since_us) != is_boot_stamp(reading.time_us) else seen.same_since_us
    )


def _is_news(rule: _Rule, seen: _Seen, reading: Reading, now_s: float) -> bool:
    if reading.quality != seen.quality or isnan(reading.value) != isnan(seen.value):
        return True
    # By its own times for what a device sends at once, by ours for a device whose clock stands still.
    elapsed_us = reading.time_us - seen.time_us
    if elapsed_us < 0 or elapsed_us >= rule.heartbeat_us or (now_s - seen.kept_s) * 1_000_000 >= rule.heartbeat_us:
        return True
    settings = rule.settings
    band = max(settings.deadband, abs(seen.value) * settings.deadband_percent / 100)
    return abs(reading.value - seen.value) > band
