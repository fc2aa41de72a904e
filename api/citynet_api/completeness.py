"""How complete the readings are: how many a series should have sent in a range, against how many there are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import floor as whole_part
from typing import Any

from citynet_api.database import Row, fetch
from citynet_api.history import Session, extents, locate
from citynet_api.problems import wrong
from citynet_api.settings import ApiSettings
from citynet_api.sources import HOUR, MINUTE, Extent, Source, floor, parameters

# From this length on a range is cut to whole hours: minutes would cost sixty times the rows and say nothing more.
BY_HOURS_FROM = timedelta(hours=6)


@dataclass(frozen=True, slots=True)
class Count:
    """What one series should have sent and what it did. `expected` is None while its interval is not known."""

    about: Row
    received: int
    expected: int | None
    interval_s: float | None
    newest_at: datetime | None

    def fields(self) -> dict[str, Any]:
        """The fields of `SeriesCompleteness`."""
        origin = "registered" if self.about["interval_s"] is not None else "estimated"
        return {
            **self.about,
            "series_id": self.about["id"],
            "received": self.received,
            "expected": self.expected,
            "completeness": ratio([self]),
            "interval_s": self.interval_s,
            "interval_from": origin if self.interval_s is not None else None,
            "newest_at": self.newest_at,
        }


def cut_range(start: datetime, end: datetime, now: datetime) -> tuple[datetime, datetime]:
    """The range on whole minutes, or hours if it is long, and not beyond now. Problem 422 if nothing is left of it."""
    grain = HOUR if end - start >= BY_HOURS_FROM else MINUTE
    first, last = floor(start, grain), floor(min(end, now), grain)
    if first >= last:
        raise wrong("from", "leaves not one whole minute before now")
    return first, last


def expected(start: datetime, end: datetime, since: datetime, interval_s: float | None) -> int | None:
    """Readings that are due in [start, end) from a series that exists since a time. None without an interval."""
    if interval_s is None:
        return None
    due = end - max(start, min(since, end))
    return whole_part(due.total_seconds() / interval_s)


def ratio(counts: Iterable[Count]) -> float | None:
    """Received of expected, 0 to 1; of each series at most what was expected, so surplus hides no gap. None if none is due."""
    known = [(min(count.received, count.expected), count.expected) for count in counts if count.expected is not None]
    due = sum(wanted for _, wanted in known)
    return sum(got for got, _ in known) / due if due else None


def group(name: str | None, counts: Sequence[Count]) -> dict[str, Any]:
    """The fields of `GroupCompleteness` for these series."""
    known = [count.expected for count in counts if count.expected is not None]
    return {
        "group": name,
        "series": len(counts),
        "estimated": sum(1 for count in counts if count.interval_s is not None and count.about["interval_s"] is None),
        "unknown": len(counts) - len(known),
        "received": sum(count.received for count in counts),
        "expected": sum(known) if known else None,
        "completeness": ratio(counts),
    }


def grouped(counts: Iterable[Count], by: str) -> list[dict[str, Any]]:
    """Groups by district, metric or device, by name; those without a name last."""
    members: dict[str | None, list[Count]] = {}
    for count in counts:
        members.setdefault(count.about[by], []).append(count)
    return [group(name, members[name]) for name in sorted(members, key=lambda name: (name is None, name or ""))]


async def count(
    session: Session, settings: ApiSettings, series: Sequence[Row], start: datetime, end: datetime
) -> list[Count]:
    """Count the readings of these series (rows of ``completeness_series``) in a range that `cut_range` made."""
    ids = [row["id"] for row in series]
    known = await extents(session, ids, start, end)
    found, refused = await locate(session, settings, known, start, end, Source.HOUR)
    if refused is not None:
        raise refused
    received = {row["id"]: row["n"] for row in await fetch(session, "reading_count", parameters(found, start, end))}
    gaps = await _gaps(session, [row["id"] for row in series if row["interval_s"] is None], end)
    by_id = {extent.id: extent for extent in known}
    return [_count(row, by_id[row["id"]], received, gaps, start, end) for row in series]


def _count(
    about: Row,
    extent: Extent,
    received: Mapping[int, int],
    gaps: Mapping[int, float],
    start: datetime,
    end: datetime,
) -> Count:
    interval_s = about["interval_s"] if about["interval_s"] is not None else gaps.get(about["id"])
    # What was stored of the time before it was first heard of (a backlog) was due as well.
    since = [about["first_seen_at"], extent.oldest_at, extent.minutes_at, extent.hours_at]
    due = expected(start, end, min(at for at in since if at is not None), interval_s)
    return Count(about, received.get(about["id"], 0), due, interval_s, extent.newest_at)


async def _gaps(session: Session, ids: Sequence[int], end: datetime) -> Mapping[int, float]:
    """The usual distance of readings in seconds, by series; those without two readings are missing."""
    found = {row["id"]: row["gap_s"] for row in await fetch(session, "series_gap", {"ids": list(ids), "to": end})}
    young = [number for number in ids if number not in found]
    if young:
        rows = await fetch(session, "series_gap_raw", {"ids": young, "to": end})
        found |= {row["id"]: row["gap_s"] for row in rows}
    return found
