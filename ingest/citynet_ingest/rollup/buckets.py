"""The open buckets of every series: readings in, closed partials out. Pure; time is in the data.

A series has at most one open minute and one open hour. The minute holds the readings that are not late since it began; the
hour the closed minutes since it began. Both close when a reading at or past their end comes, so the caller writes a bucket in
the transaction that stores the reading which closes it. Hence, after a crash: restore, feed the stored readings that came after
the snapshot and were not late, and drop what closes; it was written. Late readings never touch what is open: every feed that
has some gives partials of their own for them.

A minute of a single reading closes like any other, and its hour counts it; but it is not among the minutes to be written.

Series with a lateness bound have nothing open: their readings come in any order, and are treated as late ones are (ADR 35).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from citynet.batch import I32, I64, SeriesBatch
from citynet.errors import CitynetError
from citynet.quality import BAD, LATE
from citynet_ingest.rollup.partials import (
    HOUR_US,
    MINUTE_US,
    NONE_US,
    PARTIAL,
    READINGS_MIN,
    Partials,
    Row,
    by_series,
    coarser,
    merged,
    none,
    of_rows,
    pick,
    put,
    scalar,
    scalar_coarser,
    scalar_merged,
    scalar_of,
    table,
    worth,
)
from citynet_ingest.store.paths import split_late

IDLE_US = 24 * HOUR_US  # so long after its end the bucket of a series that fell silent is written
_FEW_ROWS = 16  # up to here row by row is quicker than columns
_NO_BUCKET: Any = none(1).item(0)
_MAGIC = b"CNRU\x01"  # the last byte is the version of this format


@dataclass(frozen=True, slots=True)
class Closed:
    """Partials to be written, each by series and start; minutes only of two readings and more."""

    minutes: Partials = field(default_factory=none)
    hours: Partials = field(default_factory=none)
    late_minutes: Partials = field(default_factory=none)
    late_hours: Partials = field(default_factory=none)

    def __len__(self) -> int:
        return len(self.minutes) + len(self.hours) + len(self.late_minutes) + len(self.late_hours)

    def plus(self, minutes: Partials, hours: Partials) -> Closed:
        """These and more that closed."""
        return Closed(
            by_series(self.minutes, minutes), by_series(self.hours, hours), self.late_minutes, self.late_hours
        )


NOTHING = Closed()


class Rollup:
    """Open buckets of any number of series; 164 bytes a series, and 4 for every id up to the highest."""

    def __init__(self) -> None:
        self._count = 0
        self._slot_of: I32 = np.empty(0, np.int32)  # by series id; -1: none
        self._ids: I32 = np.empty(0, np.int32)  # by slot
        self._minute = none()  # by slot
        self._hour = none()

    def feed(self, rows: SeriesBatch, bounded: I32 | None = None) -> Closed:
        """Take stored readings, grouped by series, time ascending inside a series, `LATE` set by the engine. Of `bounded`
        series nothing is open: their readings may come in any order and are given back as partials at once, as late ones."""
        if len(rows) > _FEW_ROWS:
            return self._feed_many(rows, bounded)
        minutes: list[Row] = []
        hours: list[Row] = []
        taken = self._take_few(rows, minutes, hours)
        rest = self._feed_many(rows.picked(slice(taken, None)), bounded) if taken < len(rows) else NOTHING
        return rest.plus(table(minutes), table(hours)) if minutes or hours else rest

    def _feed_many(self, rows: SeriesBatch, bounded: I32 | None = None) -> Closed:
        if not len(rows):
            return NOTHING
        with np.errstate(over="ignore", invalid="ignore"):
            current, late = split_late(rows, bounded)
            minutes, hours = self._take(of_rows(current, MINUTE_US)) if len(current) else (none(), none())
            if not len(late):
                return Closed(minutes, hours)
            order = np.lexsort((late.value, late.time_us, late.series)).astype(np.int64)
            late_minutes = of_rows(late.picked(order), MINUTE_US)
            return Closed(minutes, hours, worth(late_minutes), coarser(late_minutes, HOUR_US))

    def close_idle(self, now_us: int) -> tuple[Partials, Partials]:
        """Close the minute and hour of series that have been silent since `IDLE_US` before now.

        They must be written in the transaction of the next `snapshot`: no reading tells a recovery that they are closed.
        """
        minute = self._minute[: self._count]
        hour_us = minute["start_us"] // HOUR_US * HOUR_US
        idle = np.flatnonzero((minute["start_us"] != NONE_US) & (hour_us + HOUR_US + IDLE_US <= now_us))
        if not len(idle):
            return none(), none()
        return self._closed(idle[np.argsort(self._ids[idle])])

    def forget(self, ids: I32) -> tuple[Partials, Partials]:
        """Close what is open of these series and know them no more; to be written like what `close_idle` gives."""
        slot = self._slot_of[ids[ids < len(self._slot_of)]].astype(np.int64)
        slot = slot[slot >= 0]
        if not len(slot):
            return none(), none()
        slot = slot[np.argsort(self._ids[slot])]
        closed = self._closed(slot[self._minute["start_us"][slot] != NONE_US])
        self._slot_of[self._ids[slot]] = -1
        self._ids[slot] = -1
        return closed

    def _closed(self, idle: I64) -> tuple[Partials, Partials]:
        """Close the minutes and hours of these slots, which are by id and have a minute open."""
        if not len(idle):
            return none(), none()
        minutes, before = pick(self._minute, idle), pick(self._hour, idle)
        hours = coarser(minutes, HOUR_US)
        begun = before["start_us"] != NONE_US
        with np.errstate(over="ignore", invalid="ignore"):
            put(hours, begun, merged(pick(before, begun), pick(hours, begun)))
        put(self._minute, idle, none(len(idle)))
        put(self._hour, idle, none(len(idle)))
        return worth(minutes), hours

    def unknown(self, ids: I32) -> I32:
        """Those of the series that were neither fed nor restored."""
        inside = ids < len(self._slot_of)
        slot = np.full(len(ids), -1)
        slot[inside] = self._slot_of[ids[inside]]
        return ids[slot < 0]

    def snapshot(self) -> bytes:
        """All open buckets. Equal states give equal bytes."""
        order = np.argsort(self._ids[: self._count]).astype(np.int64)
        order = order[self._ids[order] >= 0]  # others were forgotten
        columns = (self._ids[order].astype("<i4"), pick(self._minute, order), pick(self._hour, order))
        return _MAGIC + len(order).to_bytes(4, "little") + b"".join(column.tobytes() for column in columns)

    def restore(self, state: bytes, only: I32 | None = None) -> None:
        """Take over the series of a snapshot, or those of `only` that are in it; others stay as they are.

        Raises:
            CitynetError: not a snapshot, of another version, or damaged; nothing has been taken over then.
        """
        head = len(_MAGIC) + 4
        count = int.from_bytes(state[len(_MAGIC) : head], "little")
        if state[: len(_MAGIC)] != _MAGIC or len(state) != head + count * (4 + 2 * PARTIAL.itemsize):
            raise CitynetError(f"rollup snapshot: {len(state)} bytes that are no snapshot of this version")
        ids = np.frombuffer(state, "<i4", count, head).astype(np.int32)
        minute = np.frombuffer(state, PARTIAL, count, head + 4 * count)
        hour = np.frombuffer(state, PARTIAL, count, head + (4 + PARTIAL.itemsize) * count)
        if (ids < 0).any() or len(np.unique(ids)) != count:
            raise CitynetError("rollup snapshot: damaged (a series stands twice, or is negative)")
        wanted = np.isin(ids, only) if only is not None else np.ones(count, np.bool_)
        slot = self._slots(ids[wanted])
        put(self._minute, slot, pick(minute, wanted))
        put(self._hour, slot, pick(hour, wanted))

    def _take_few(self, rows: SeriesBatch, minutes: list[Row], hours: list[Row]) -> int:
        """Take rows up to the first that is late or of an unknown series, which one with a bound is; returns how many. What
        closes is added."""
        for place, (series, time_us, value, quality) in enumerate(rows.rows()):
            slot = int(self._slot_of[series]) if series < len(self._slot_of) else -1
            if slot < 0 or quality & LATE:
                return place
            opened: Any = self._minute.item(slot)
            is_usable = not quality & BAD and math.isfinite(value)
            start_us = time_us // MINUTE_US * MINUTE_US
            if start_us == opened[0]:
                self._minute[slot] = scalar(opened, time_us, value, is_usable=is_usable)
                continue
            if opened[0] != NONE_US:
                self._close_one(slot, opened, start_us // HOUR_US * HOUR_US, hours)
                if opened[9] >= READINGS_MIN:
                    minutes.append(opened)
            self._minute[slot] = scalar_of(series, start_us, time_us, value, is_usable=is_usable)
        return len(rows)

    def _close_one(self, slot: int, minute: Row, next_hour_us: int, hours: list[Row]) -> None:
        """Move the open hour on by one closed minute, which a reading of the hour `next_hour_us` closed."""
        hour: Any = self._hour.item(slot)
        added = scalar_coarser(minute, HOUR_US)
        if hour[0] == added[0]:
            added = scalar_merged(hour, added)
        elif hour[0] != NONE_US:
            hours.append(hour)
        if added[0] != next_hour_us:
            hours.append(added)
            added = _NO_BUCKET
        self._hour[slot] = added

    def _take(self, runs: Partials) -> tuple[Partials, Partials]:
        """Minutes, one a series and minute, by series and time ascending; returns the minutes worth writing and the hours that
        closed."""
        slots = self._slots(runs["series"][_firsts(runs)])
        minutes = _advance(self._minute, slots, runs)
        if not len(minutes):
            return none(), none()
        first = _firsts(minutes)
        slots = self._slot_of[minutes["series"][first]].astype(np.int64)
        hours = _advance(self._hour, slots, coarser(minutes, HOUR_US))
        passed = slots[self._hour["start_us"][slots] != self._minute["start_us"][slots] // HOUR_US * HOUR_US]
        if len(passed):
            hours = by_series(hours, pick(self._hour, passed))
            put(self._hour, passed, none(len(passed)))
        return worth(minutes), hours

    def _slots(self, ids: I32) -> I64:
        """Slots of distinct series; the unknown ones get one."""
        if len(ids) and (highest := int(ids.max())) >= len(self._slot_of):
            self._slot_of = _grown(self._slot_of, highest + 1, np.full(1, -1, np.int32))
        slot = self._slot_of[ids].astype(np.int64)
        fresh = slot < 0
        if fresh.any():
            count = self._count + int(fresh.sum())
            if count > len(self._ids):
                self._ids = _grown(self._ids, count, np.zeros(1, np.int32))
                self._minute = _grown(self._minute, count, none(1))
                self._hour = _grown(self._hour, count, none(1))
            slot[fresh] = np.arange(self._count, count)
            self._slot_of[ids[fresh]] = slot[fresh]
            self._ids[self._count : count] = ids[fresh]
            self._count = count
        return slot


def _advance(opened: Partials, slots: I64, runs: Partials) -> Partials:
    """Move the open buckets of one level on by `runs` (by series, time ascending; `slots` of their series, in order).

    Returns what closed: what was open and is passed, and all runs but each series' last, which is open now.
    """
    first = _firsts(runs)
    last = np.append(first[1:], len(runs)) - 1
    before = pick(opened, slots)
    same = before["start_us"] == runs["start_us"][first]
    joined = first[same]
    if len(joined):
        put(runs, joined, merged(pick(before, same), pick(runs, joined)))
    put(opened, slots, pick(runs, last))
    if len(joined) == len(runs):
        return none()
    closes = ~same & (before["start_us"] != NONE_US)
    inner = np.ones(len(runs), np.bool_)
    inner[last] = False
    return by_series(pick(before, closes), pick(runs, inner))


def _firsts(rows: Partials) -> I64:
    """First row of every series."""
    series = rows["series"]
    return np.concatenate([[0], np.flatnonzero(series[1:] != series[:-1]) + 1]).astype(np.int64)


def _grown(column: NDArray[Any], count: int, fill: NDArray[Any]) -> NDArray[Any]:
    """The column with room for at least `count` rows, and for as many again as there were; new rows as the one of `fill`."""
    wider = np.repeat(fill, max(count, 2 * len(column), 1024))
    wider[: len(column)] = column
    return wider
