"""Which rows a figure is made of: raw readings, or the rollups' partials of a minute or an hour.

Ingest writes the partials of a bucket when the next reading of its series passes the bucket's end. So of each series the
hours before that of its newest reading are complete. Their minutes leave single readings out: they are complete where their
partials count as many readings as those of their hour, and an hour where they do not is taken from raw rows. The open hour
is raw, too, but for the minutes from its beginning on that have partials, if nothing in it came late: the partials of late
readings would be all that an open bucket has. Readings from before there were rollups have no partials; that stretch, too,
is taken from raw rows, so it is never a hole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
# A Monday 00:00 UTC: weeks begin on Mondays, and every shorter width that divides a day begins at midnight.
ORIGIN = datetime(2001, 1, 1, tzinfo=UTC)
# An hour of no more readings than this is no dearer to read than its minutes would be.
FEW_AN_HOUR = 120


class Source(StrEnum):
    """The coarsest rows an answer is made of."""

    RAW = "raw"
    MINUTE = "minute"
    HOUR = "hour"


@dataclass(frozen=True, slots=True)
class Extent:
    """What there is of a series: its newest reading ever, and within a range its oldest raw reading and first partials.

    `minutes_n` and `hours_n` are the readings of the first partial. `solid_to` is how far the minutes of the open hour, from
    its beginning on, are complete. All but `id` may be None.
    """

    id: int
    newest_at: datetime | None
    oldest_at: datetime | None
    minutes_at: datetime | None
    minutes_n: int | None
    hours_at: datetime | None
    hours_n: int | None
    solid_to: datetime | None = None

    def readings(self, span: timedelta) -> float:
        """A rough number of readings in a range of this length, judged by its first partial; 0 if there is none."""
        if self.hours_n is not None:
            return self.hours_n * (span / HOUR)
        return (self.minutes_n or 0) * (span / MINUTE)

    def finest_kept_s(self) -> int:
        """Seconds of the finest rows that still reach as far back in the range as the coarser ones: 1, 60 or 3600."""
        oldest = self.oldest_at or datetime.max.replace(tzinfo=UTC)
        minutes = self.minutes_at or datetime.max.replace(tzinfo=UTC)
        if self.hours_at is not None and min(oldest, minutes) >= self.hours_at + HOUR:
            return 3600
        return 60 if self.minutes_at is not None and oldest >= self.minutes_at + MINUTE else 1


@dataclass(frozen=True, slots=True)
class Stretch:
    """Rows of one source of a series in [start, end). `is_light`: raw, and no dearer to read than minutes would be."""

    id: int
    source: Source
    start: datetime
    end: datetime
    is_light: bool = False


@dataclass(frozen=True, slots=True)
class Uneven:
    """An hour of a series whose minutes count other than `n` readings, those that the hour counts (None: it has no partial).

    `is_gone`: retention has taken its raw readings.
    """

    id: int
    at: datetime
    n: int | None
    is_gone: bool


def source_of(width_s: int) -> Source:
    """The coarsest source that is exact for buckets of this width."""
    if width_s % 3600 == 0:
        return Source.HOUR
    return Source.MINUTE if width_s % 60 == 0 else Source.RAW


def floor(at: datetime, width: timedelta) -> datetime:
    """The start of the bucket that holds a time."""
    return at - (at - ORIGIN) % width


def ceil(at: datetime, width: timedelta) -> datetime:
    """The first start of a bucket at or after a time."""
    return at + (ORIGIN - at) % width


def by_minutes(extent: Extent, start: datetime, end: datetime, source: Source) -> list[tuple[datetime, datetime]]:
    """The whole hours of [start, end) that would be taken from minutes, as ranges: where to look for uneven ones."""
    if source is Source.RAW:
        return []
    first, last, closed = _hours(extent, start, end, source)
    ranges = [(floor(start, HOUR), ceil(first, HOUR)), (floor(last, HOUR), ceil(closed, HOUR))]
    open_at = ranges[1][1] if extent.newest_at is None else floor(extent.newest_at, HOUR)
    return [(low, min(high, open_at)) for low, high in ranges if low < min(high, open_at)]


def stretches(
    extent: Extent, start: datetime, end: datetime, source: Source, uneven: Iterable[Uneven] = ()
) -> list[Stretch]:
    """Where the readings of a series in [start, end) are found: each reading in exactly one stretch.

    What is left of an uneven hour that is gone are some of its minutes: ask `left_by_hours` first.

    Args:
        extent: of the series, over the same range.
        start, end: on whole minutes unless `source` is raw.
        source: the coarsest to use.
        uneven: those of the series in the ranges of `by_minutes`.
    """
    if source is Source.RAW:
        return _kept([Stretch(extent.id, Source.RAW, start, end)] if _reaches(extent, start) else [])
    first, last, closed = _hours(extent, start, end, source)
    by_hour = {hour.at: hour for hour in uneven}
    found = _by_hour(extent, start, first, by_hour)
    found.append(Stretch(extent.id, Source.HOUR, first, last))
    found += _by_hour(extent, last, closed, by_hour)
    if _reaches(extent, closed):
        solid_to = min(end, max(closed, extent.solid_to or closed))
        found.append(Stretch(extent.id, Source.MINUTE, closed, solid_to))
        found.append(Stretch(extent.id, Source.RAW, solid_to, end, is_light=True))
    return _kept(found)


def left_by_hours(uneven: Iterable[Uneven]) -> datetime | None:
    """The end of the newest hour of which the hour's partials are the finest that is left; None: there is none."""
    return max((hour.at + HOUR for hour in uneven if hour.is_gone and hour.n is not None), default=None)


def raw_span(found: Iterable[Stretch], newest: Mapping[int, datetime | None]) -> timedelta:
    """How much time of raw readings is to be read, over all series: what bounds the work of a query.

    Free are the open hour, hours of few readings, and the first minute of a stretch.
    """
    total = timedelta()
    for stretch in found:
        last = newest[stretch.id]
        if stretch.source is Source.RAW and not stretch.is_light and last is not None:
            total += max(timedelta(), min(stretch.end, last) - stretch.start - MINUTE)
    return total


def parameters(found: Sequence[Stretch], start: datetime, end: datetime) -> dict[str, Any]:
    """The stretches as the queries take them, with the bounds that hold for all of them."""
    return {
        "ids": [stretch.id for stretch in found],
        "sources": [stretch.source.value for stretch in found],
        "starts": [stretch.start for stretch in found],
        "ends": [stretch.end for stretch in found],
        "from": start,
        "to": end,
        "raw_from": min((stretch.start for stretch in found if stretch.source is Source.RAW), default=end),
    }


def _hours(extent: Extent, start: datetime, end: datetime, source: Source) -> tuple[datetime, datetime, datetime]:
    """[first, last) is to be taken from hours; what is before `closed` is complete in the rollups."""
    closed = end if extent.newest_at is None else max(start, min(end, floor(extent.newest_at, HOUR)))
    if source is Source.HOUR and extent.hours_at is not None:
        first, last = ceil(max(start, extent.hours_at), HOUR), floor(closed, HOUR)
        if first < last:
            return first, last, closed
    return closed, closed, closed


def _by_hour(extent: Extent, start: datetime, end: datetime, uneven: Mapping[datetime, Uneven]) -> list[Stretch]:
    """Minutes, or raw rows of uneven hours and of the time before the first partial."""
    partials = [floor(at, HOUR) for at in (extent.minutes_at, extent.hours_at) if at is not None]
    rolled = max(start, min([*partials, *uneven], default=end))
    found = []
    if extent.oldest_at is not None and start < rolled:
        found.append(Stretch(extent.id, Source.RAW, max(start, floor(extent.oldest_at, MINUTE)), min(rolled, end)))
    at = rolled
    while at < end:
        hour, stop = uneven.get(floor(at, HOUR)), min(end, floor(at, HOUR) + HOUR)
        is_raw = hour is not None and not hour.is_gone
        is_light = hour is not None and is_raw and hour.n is not None and hour.n <= FEW_AN_HOUR
        source = Source.RAW if is_raw else Source.MINUTE
        before = found[-1] if found else None
        if before and (before.source, before.is_light, before.end) == (source, is_light, at):
            found[-1] = replace(before, end=stop)
        else:
            found.append(Stretch(extent.id, source, at, stop, is_light))
        at = stop
    return found


def _reaches(extent: Extent, at: datetime) -> bool:
    return extent.newest_at is not None and extent.newest_at >= at


def _kept(found: list[Stretch]) -> list[Stretch]:
    return [stretch for stretch in found if stretch.start < stretch.end]
