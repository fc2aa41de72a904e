"""Which rows a figure is made of: raw readings, or the rollups' partials of a minute or an hour.

Ingest writes the partials of a bucket when the next reading of its series passes the bucket's end. So of each series the
buckets before that of its newest reading are complete in the rollups, and the newest one is taken from raw rows alone: what
partials of late readings it may have already would count them twice. Readings from before there were rollups have no
partials; that stretch, too, is taken from raw rows, so it is never a hole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
# A Monday 00:00 UTC: weeks begin on Mondays, and every shorter width that divides a day begins at midnight.
ORIGIN = datetime(2001, 1, 1, tzinfo=UTC)


class Source(StrEnum):
    """The coarsest rows an answer is made of."""

    RAW = "raw"
    MINUTE = "minute"
    HOUR = "hour"


@dataclass(frozen=True, slots=True)
class Extent:
    """What there is of a series: its newest reading ever, and within a range its oldest raw reading and first partials.

    `minutes_n` and `hours_n` are the readings of the first partial; all but `id` may be None.
    """

    id: int
    newest_at: datetime | None
    oldest_at: datetime | None
    minutes_at: datetime | None
    minutes_n: int | None
    hours_at: datetime | None
    hours_n: int | None

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
    """Rows of one source of a series in [start, end)."""

    id: int
    source: Source
    start: datetime
    end: datetime


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


def stretches(extent: Extent, start: datetime, end: datetime, source: Source) -> list[Stretch]:
    """Where the readings of a series in [start, end) are found: each reading in exactly one stretch.

    Args:
        extent: of the series, over the same range.
        start, end: on whole minutes unless `source` is raw.
        source: the coarsest to use.
    """
    if source is Source.RAW:
        return _kept([Stretch(extent.id, Source.RAW, start, end)] if _reaches(extent, start) else [])
    closed = end if extent.newest_at is None else max(start, min(end, floor(extent.newest_at, MINUTE)))
    hours, hours_end = closed, closed
    if source is Source.HOUR and extent.hours_at is not None:
        first, last = ceil(max(start, extent.hours_at), HOUR), floor(closed, HOUR)
        if first < last:
            hours, hours_end = first, last
    minutes = hours if extent.minutes_at is None else min(extent.minutes_at, closed)
    covered = min(minutes, hours)
    found = [
        Stretch(extent.id, Source.MINUTE, minutes, hours),
        Stretch(extent.id, Source.HOUR, hours, hours_end),
        Stretch(extent.id, Source.MINUTE, max(minutes, hours_end), closed),
    ]
    if extent.oldest_at is not None and extent.oldest_at < covered:
        found.append(Stretch(extent.id, Source.RAW, max(start, floor(extent.oldest_at, MINUTE)), covered))
    if _reaches(extent, closed):
        found.append(Stretch(extent.id, Source.RAW, closed, end))
    return _kept(found)


def raw_span(found: Iterable[Stretch], newest: Mapping[int, datetime | None]) -> timedelta:
    """How much time of raw readings is to be read, over all series: what bounds the work of a query.

    The first minute of a stretch is free: the open end of a rollup is no longer.
    """
    total = timedelta()
    for stretch in found:
        last = newest[stretch.id]
        if stretch.source is Source.RAW and last is not None:
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


def _reaches(extent: Extent, at: datetime) -> bool:
    return extent.newest_at is not None and extent.newest_at >= at


def _kept(found: list[Stretch]) -> list[Stretch]:
    return [stretch for stretch in found if stretch.start < stretch.end]
