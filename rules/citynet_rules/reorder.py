"""Readings of series with a lateness bound, put in order of event time before anything evaluates them.

A series' frontier is its newest accepted reading less its bound, or its newest released reading where that is newer. A
reading at or before the frontier is late, and so is one whose time another one of its series has already. The others wait
here, and are released in order of time when the frontier has passed them, or when watermarks have (`due`): nobody is left
then who could come before them. So the readings of a series may be permuted within the bound, and what is released, and what
is late, is the same.

Watermarks release a reading when they are past it by the bound, and have moved on by the bound since the series was heard
last: a device whose clock is slow, or that tells of the past hour, keeps its order too. Until then the promise of watermarks
ends before what waits (`limit_us`).

Everything that waits has been stored by its commit. A snapshot holds it too; where both are read back it is found to be here.

Bound: `HELD_MAX` readings wait a series; beyond, the oldest are released early, which `hurried` counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from citynet.batch import I32, I64, Bools, SeriesBatch
from citynet.errors import CitynetError
from citynet_rules.late import newest_before
from citynet_rules.transition import NONE_US

HELD_MAX = 4096
FAR_US = 1 << 62
Held = NDArray[np.void]
HELD = np.dtype([("slot", "<i8"), ("time_us", "<i8"), ("value", "<f8"), ("quality", "u1")])
_SAVED = np.dtype([("series", "<i4"), ("time_us", "<i8"), ("value", "<f8"), ("quality", "u1")])
_NONE: Held = np.empty(0, HELD)


class Reorder:
    """Readings that wait: 25 bytes each, and 32 a slot."""

    def __init__(self) -> None:
        self._rows: dict[int, Held] = {}  # by slot; by time, never empty
        self._oldest_us: I64 = np.empty(0, np.int64)  # by slot
        self._newest_us: I64 = np.empty(0, np.int64)
        self._heard_us: I64 = np.empty(0, np.int64)  # where watermarks were when it was heard last
        self._limit_us: I64 = np.empty(0, np.int64)  # before the oldest that waited when watermarks moved last
        self.hurried = 0

    def __len__(self) -> int:
        return sum(map(len, self._rows.values()))

    def __bool__(self) -> bool:
        return bool(self._rows)

    def take(self, slot: I64, batch: SeriesBatch, tip_us: I64, bound_us: I64, reached_us: I64) -> tuple[Bools, Held]:
        """Take accepted readings; which of them are late, and what is released, by slot and time.

        Args:
            slot: one entry a series of the batch, in its order.
            tip_us, bound_us, reached_us: newest released reading, bound, and watermark of each of them.
        """
        self._grow(int(slot.max()) + 1)
        start = batch.starts()
        group = np.repeat(np.arange(len(slot)), np.diff(start, append=len(batch)))
        newest_us = np.maximum(tip_us, self._newest_us[slot])
        before_us = newest_before(batch.time_us, start, newest_us)
        late: Bools = batch.time_us <= np.maximum(before_us - bound_us[group], tip_us[group])
        fresh = np.flatnonzero(~late)
        old = np.concatenate([self._rows.get(s, _NONE) for s in slot.tolist()])
        rows = np.concatenate([old, _rows(slot[group[fresh]], batch.picked(fresh))])
        order = np.lexsort((rows["time_us"], rows["slot"]))  # stable: of one time the first that came is the first
        again = np.zeros(len(rows), np.bool_)
        again[1:] = (np.diff(rows["time_us"][order]) == 0) & (np.diff(rows["slot"][order]) == 0)
        late[fresh[order[again] - len(old)]] = True
        heard = np.add.reduceat(~late, start) > 0
        self._heard_us[slot[heard]] = reached_us[heard]
        return late, self._release(slot, rows[order[~again]], bound_us)

    def _release(self, slot: I64, rows: Held, bound_us: I64) -> Held:
        """Of all rows of these slots, by slot and time, what is behind their frontiers; the rest is kept."""
        if not len(rows):
            return rows
        begin = np.flatnonzero(np.diff(rows["slot"], prepend=-1))
        end = np.append(begin[1:], len(rows))
        count = end - begin
        by = np.argsort(slot)
        bound_us = bound_us[by[np.searchsorted(slot, rows["slot"][begin], sorter=by)]]
        past_us = np.repeat(rows["time_us"][end - 1] - bound_us, count)
        too_many = np.repeat(end, count) - np.arange(len(rows)) > HELD_MAX
        due = rows["time_us"] <= past_us
        self.hurried += int(np.count_nonzero(too_many & ~due))
        due |= too_many
        for s, first, last in zip(rows["slot"][begin].tolist(), begin.tolist(), end.tolist(), strict=True):
            self._keep(s, rows[first + int(np.count_nonzero(due[first:last])) : last])
        return rows[due]

    def due(self, reached_us: I64, bound_us: I64) -> Held:
        """Release what watermarks have passed by the bound, by slot and time; arguments by slot."""
        self._grow(len(bound_us))
        past_us = reached_us - bound_us
        count = len(past_us)
        found = [_NONE]
        for s in np.flatnonzero(np.maximum(self._oldest_us, self._heard_us)[:count] <= past_us).tolist():
            rows = self._rows.get(s, _NONE)
            passed = int(np.searchsorted(rows["time_us"], past_us[s], side="right"))
            found.append(rows[:passed])
            self._keep(s, rows[passed:])
        return np.concatenate(found)

    def hear(self, reached_us: int) -> None:
        """All that waits counts as heard when watermarks were there."""
        slot = np.fromiter(self._rows, np.int64, len(self._rows))
        self._heard_us[slot] = np.maximum(self._heard_us[slot], reached_us)

    def settle(self) -> None:
        """Watermarks have moved: what waits now limits their promise."""
        np.subtract(self._oldest_us, 1, out=self._limit_us)

    def limit_us(self, slot: I64) -> I64:
        """How far watermarks may go for these series."""
        self._grow(int(slot.max(initial=-1)) + 1)
        return self._limit_us[slot]

    def frontier_us(self, bound_us: I64) -> I64:
        """By slot the newest reading that waits, less the bound; `NONE_US` where none does."""
        self._grow(len(bound_us))
        newest_us = self._newest_us[: len(bound_us)]
        return np.where(newest_us == NONE_US, NONE_US, newest_us - bound_us)

    def drop(self, slot: int) -> None:
        """Forget what waits of a series that has no bound any more: it is read back from the store."""
        if slot in self._rows:
            self._keep(slot, _NONE)

    def save(self, ids: I32) -> bytes:
        """All that waits, by series and time; `ids` are the series' by slot. Nothing is no bytes."""
        rows = np.concatenate([_NONE, *self._rows.values()])
        saved = np.empty(len(rows), _SAVED)
        saved["series"] = ids[rows["slot"]]
        for name in ("time_us", "value", "quality"):
            saved[name] = rows[name]
        return saved[np.lexsort((saved["time_us"], saved["series"]))].tobytes()

    def load(self, slot: I64, saved: Held, tip_us: I64, reached_us: I64) -> None:
        """Replace all by what was saved, in slots (one entry a row) whose newest released readings are `tip_us`, and whose
        watermarks `reached_us`; of rows that stand there twice the first counts."""
        self._rows = {}
        for column, fill in self._columns():
            column[:] = fill
        kept = saved["time_us"] > tip_us
        rows = np.empty(int(kept.sum()), HELD)
        rows["slot"] = slot[kept]
        for name in ("time_us", "value", "quality"):
            rows[name] = saved[name][kept]
        rows = rows[np.lexsort((rows["time_us"], rows["slot"]))]
        again = (np.diff(rows["slot"], prepend=-1) == 0) & (np.diff(rows["time_us"], prepend=FAR_US) == 0)
        rows = rows[~again]
        self._grow(int(rows["slot"].max(initial=-1)) + 1)
        for part in np.split(rows, np.flatnonzero(np.diff(rows["slot"])) + 1):
            if len(part):
                self._keep(int(part["slot"][0]), part)
        self._heard_us[slot[kept]] = reached_us[kept]
        self.settle()

    def _columns(self) -> list[tuple[I64, int]]:
        """Each with what it holds where nothing waits."""
        fill = (FAR_US, NONE_US, NONE_US, FAR_US - 1)
        return list(zip((self._oldest_us, self._newest_us, self._heard_us, self._limit_us), fill, strict=True))

    def _keep(self, slot: int, rows: Held) -> None:
        if len(rows):
            self._rows[slot] = rows.copy()  # a slice would keep all of the rows that it is of
            self._oldest_us[slot], self._newest_us[slot] = rows["time_us"][0], rows["time_us"][-1]
        else:
            self._rows.pop(slot, None)
            self._oldest_us[slot], self._newest_us[slot] = FAR_US, NONE_US

    def _grow(self, count: int) -> None:
        there = len(self._oldest_us)
        if count > there:
            more = max(count, 2 * there) - there
            grown = [np.append(column, np.full(more, fill, np.int64)) for column, fill in self._columns()]
            self._oldest_us, self._newest_us, self._heard_us, self._limit_us = grown


def read(state: bytes) -> Held:
    """What was saved. CitynetError: it was not."""
    if len(state) % _SAVED.itemsize:
        raise CitynetError("rules snapshot: readings that wait are damaged")
    return np.frombuffer(state, _SAVED)


def joined(parts: Sequence[Held]) -> Held:
    """What several snapshots have saved."""
    return np.concatenate([np.empty(0, _SAVED), *parts])


def _rows(slot: I64, batch: SeriesBatch) -> Held:
    rows: Any = np.empty(len(batch), HELD)
    rows["slot"], rows["time_us"], rows["value"], rows["quality"] = slot, batch.time_us, batch.value, batch.quality
    return rows  # type: ignore[no-any-return]
