"""Readings of one or many series over a range, fitted to a number of points: raw where they are few, else buckets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import DictRow

from citynet.quality import describe
from citynet_api.buckets import choose, whole, width_s
from citynet_api.database import Row, fetch
from citynet_api.problems import Problem, wrong
from citynet_api.settings import ApiSettings
from citynet_api.sources import (
    HOUR,
    Extent,
    Source,
    Stretch,
    Uneven,
    by_minutes,
    left_by_hours,
    parameters,
    raw_span,
    source_of,
    stretches,
)

Session = AsyncConnection[DictRow]


@dataclass(frozen=True, slots=True)
class Span:
    """What is asked: a range, a width or ``auto``, and how many points a series ``auto`` aims at."""

    start: datetime
    end: datetime
    bucket: str
    points: int


@dataclass(frozen=True, slots=True)
class History:
    """Readings or buckets a series, both as rows, ascending in time; `bucket` is raw or the width."""

    start: datetime
    end: datetime
    bucket: str
    source: Source
    readings: Mapping[int, Sequence[Row]]
    buckets: Mapping[int, Sequence[Row]]


async def read(session: Session, settings: ApiSettings, ids: Sequence[int], asked: Span) -> History:
    """The history of these series.

    Raises:
        Problem: 422 for a width that makes too many buckets, or that needs more raw readings than one answer may read.
    """
    known = await extents(session, ids, asked.start, asked.end)
    if asked.bucket == "auto":
        few = await _few(session, settings, known, asked)
        if few is not None:
            return History(asked.start, asked.end, "raw", Source.RAW, few, {})
    least_s = 1
    while True:
        width = _width(settings, known, asked, least_s)
        start, end = whole(asked.start, asked.end, width_s(width))
        source = source_of(width_s(width))
        around = known if (start, end) == (asked.start, asked.end) else await extents(session, ids, start, end)
        found, refused = await locate(session, settings, around, start, end, source)
        if refused is None:
            break
        if asked.bucket != "auto" or source is not Source.MINUTE:
            raise refused
        least_s = 3600
    rows = await fetch(session, "reading_bucket", {**parameters(found, start, end), "bucket_s": width_s(width)})
    return History(start, end, width, source, {}, by_series(rows))


async def extents(session: Session, ids: Sequence[int], start: datetime, end: datetime) -> list[Extent]:
    """What there is of each series around a range."""
    rows = await fetch(session, "series_extent", {"ids": list(ids), "from": start, "to": end})
    return [Extent(**row) for row in rows]


async def locate(
    session: Session, settings: ApiSettings, known: Sequence[Extent], start: datetime, end: datetime, source: Source
) -> tuple[list[Stretch], Problem | None]:
    """Where the readings of these series in a range are found, and why they shall not be read from there, if so."""
    uneven = await _uneven(session, known, start, end, source)
    found = [s for extent in known for s in stretches(extent, start, end, source, uneven.get(extent.id, ()))]
    left = max((at for hours in uneven.values() if (at := left_by_hours(hours))), default=None)
    if left is not None:
        what = "of some readings before" if source is Source.MINUTE else "cuts an hour; of some readings before"
        name = "bucket" if source is Source.MINUTE else "from"
        rest = "only figures by the hour are left. Take whole hours, or bucket=auto"
        return found, wrong(name, f"{what} {left:%Y-%m-%dT%H:%MZ} {rest}")
    return found, _too_much(found, known, settings, source)


async def _uneven(
    session: Session, known: Sequence[Extent], start: datetime, end: datetime, source: Source
) -> Mapping[int, Sequence[Uneven]]:
    ranges = [(extent.id, *one) for extent in known for one in by_minutes(extent, start, end, source)]
    if not ranges:
        return {}
    ids, starts, ends = (list(column) for column in zip(*ranges, strict=True))
    asked = {"ids": ids, "starts": starts, "ends": ends, "from": min(starts), "to": max(ends)}
    found: dict[int, list[Uneven]] = {}
    for row in await fetch(session, "series_uneven", asked):
        found.setdefault(row["id"], []).append(Uneven(**row))
    return found


def _too_much(
    found: Sequence[Stretch], known: Sequence[Extent], settings: ApiSettings, source: Source
) -> Problem | None:
    """Problem 422 if the stretches hold more time of raw readings than one answer may read."""
    needed = raw_span(found, {extent.id: extent.newest_at for extent in known}) / HOUR
    most = settings.raw_hours_max
    if needed <= most:
        return None
    reads = f"reads {needed:.0f} h of raw readings, all series together; at most {most:g} h"
    if source is Source.RAW:
        return wrong("bucket", f"{reads}. Take a width of whole minutes, or a shorter range")
    return wrong(
        "from", f"{reads}. The rollups lack them: shorten the range, take whole hours, or run citynet db rollup"
    )


def by_series(rows: Sequence[Row]) -> dict[int, list[Row]]:
    """Rows by their column `id`, which is taken out."""
    found: dict[int, list[Row]] = {}
    for row in rows:
        found.setdefault(row.pop("id"), []).append(row)
    return found


def reading(row: Row) -> dict[str, Any]:
    """A raw row with its quality in words."""
    return {**row, "quality_text": describe(row["quality"])}


async def _few(
    session: Session, settings: ApiSettings, known: Sequence[Extent], asked: Span
) -> Mapping[int, Sequence[Row]] | None:
    """All readings, if no series has more than the points wanted; else None.

    The estimate only spares the attempt; it may err to either side.
    """
    points = min(asked.points, settings.points_max)
    span = asked.end - asked.start
    if any(extent.readings(span) > 2 * points or extent.finest_kept_s() > 1 for extent in known):
        return None
    ids = [extent.id for extent in known]
    wanted = {"ids": ids, "from": asked.start, "to": asked.end, "limit": points + 1}
    found = by_series(await fetch(session, "reading_few", wanted))
    return None if any(len(rows) > points for rows in found.values()) else found


def _width(settings: ApiSettings, known: Sequence[Extent], asked: Span, least_s: int) -> str:
    least_s = max(least_s, *(extent.finest_kept_s() for extent in known), 1)
    if len(known) * (asked.end - asked.start) > timedelta(hours=settings.raw_hours_max):
        least_s = max(least_s, 60)
    return choose(asked.bucket, asked.start, asked.end, asked.points, settings.points_max, least_s)
