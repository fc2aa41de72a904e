"""The series an engine knows: one slot each, with the newest accepted reading and whose watermark tells its time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from citynet.batch import F64, I32, I64
from citynet_rules.kinds.kind import Progress, Segments
from citynet_rules.reorder import Reorder
from citynet_rules.transition import NONE_US, SeriesInfo

SERVER = ""  # the server's own watermark


class SeriesTable:
    """Slots of series, append only; about 40 bytes a series beside its `SeriesInfo`.

    A slot exists for every series that was bound, fed or restored. Columns, one entry a slot: `ids` int32, `tip_us`
    int64 (`NONE_US` before the first reading), `tip` float64, `bound_us` int64 (lateness bound, 0 for most). What
    watermarks promise of a series is behind them by its bound, and before what waits of it in `order`.
    """

    def __init__(self) -> None:
        self._count = 0
        self._ids: I32 = np.empty(0, np.int32)
        self._tip_us: I64 = np.empty(0, np.int64)
        self._tip: F64 = np.empty(0, np.float64)
        self._source: I32 = np.empty(0, np.int32)
        self._bound_us: I64 = np.empty(0, np.int64)
        self.order: Reorder | None = None
        self.is_bounded = False  # whether any series has a lateness bound; then there is an `order`
        self._sorted_ids: I32 = np.empty(0, np.int32)
        self._slot_of_sorted: I64 = np.empty(0, np.int64)
        self._source_number: dict[str, int] = {SERVER: 0}
        self._watermark_us: list[int] = [NONE_US]
        self.info: list[SeriesInfo | None] = []

    def __len__(self) -> int:
        return self._count

    @property
    def ids(self) -> I32:
        return self._ids[: self._count]

    @property
    def tip_us(self) -> I64:
        return self._tip_us[: self._count]

    @property
    def tip(self) -> F64:
        return self._tip[: self._count]

    @property
    def bound_us(self) -> I64:
        return self._bound_us[: self._count]

    def slots(self, ids: I32) -> I64:
        """Slots of distinct `ids`; the unknown ones get one."""
        slot, known = self._find(ids)
        if not known.all():
            self._append(ids[~known])
            slot, _ = self._find(ids)
        return slot

    def set_source(self, slot: int, source: str) -> None:
        """Whose watermark counts for this series."""
        self._source[slot] = self._number_of(source)

    def set_bound(self, slot: int, bound_us: int) -> None:
        """How late readings of this series may come and change nothing."""
        self._bound_us[slot] = bound_us
        self.is_bounded = self.is_bounded or bound_us > 0

    def pass_time(self, source: str, watermark_us: int) -> None:
        """Move a source's watermark forward; a lower one is ignored."""
        number = self._number_of(source)
        self._watermark_us[number] = max(self._watermark_us[number], watermark_us)

    def watermarks(self) -> dict[str, int]:
        """Watermark of every source that has one."""
        numbers = self._source_number.items()
        return {name: self._watermark_us[n] for name, n in numbers if self._watermark_us[n] != NONE_US}

    @property
    def server_us(self) -> int:
        """The server's own watermark."""
        return self._watermark_us[0]

    def watermark_us(self, slot: I64) -> I64:
        """Watermark of the source of each of these series, as far as it goes for it."""
        found: I64 = np.array(self._watermark_us, np.int64)[self._source[slot]]
        return self._behind(found, slot)

    def waited_us(self, slot: I64, wait_us: int) -> I64 | int:
        """The server's watermark less `wait_us`, as far as it goes for each of these series; one number if none has a
        bound."""
        if self.server_us == NONE_US:
            return NONE_US
        waited_us = self.server_us - wait_us
        return self._behind(np.full(slot.shape, waited_us), slot) if self.is_bounded else waited_us

    def come_us(self, series: int, wait_us: int) -> int:
        """How far a series has come: its newest reading, its source's watermark, or the server's own less `wait_us`."""
        slot = self.slots(np.array([series], np.int32))
        waited_us = int(np.max(self.waited_us(slot, wait_us)))
        return max(int(self._tip_us[slot[0]]), int(self.watermark_us(slot)[0]), waited_us)

    def progress(self) -> Progress:
        """How far time has come, per slot."""
        if not self.is_bounded:
            return Progress(self.tip_us, self.tip, self._sources_us(self._watermark_us), self.server_us)
        every = np.arange(self._count)
        servers_us = self._behind(np.full(self._count, self.server_us), every)
        return Progress(self.tip_us, self.tip, self.watermark_us(every), self.server_us, servers_us)

    def reach_us(self, marks: Mapping[str, int], wait_us: int) -> I64:
        """How far watermarks will have come for each slot once `marks` have passed: that of its source, or the server's less
        `wait_us`."""
        ahead = self._watermark_us.copy()
        for source, watermark_us in marks.items():
            number = self._source_number.get(source)
            if number is not None:
                ahead[number] = max(ahead[number], watermark_us)
        reached = self._sources_us(ahead)
        if ahead[0] != NONE_US:
            reached = np.maximum(reached, ahead[0] - wait_us)
        return reached

    def _sources_us(self, watermark_us: Sequence[int]) -> I64:
        """Of these, by number of the source, the one of each slot's."""
        found: I64 = np.array(watermark_us, np.int64)[self._source[: self._count]]
        return found

    def _behind(self, watermark_us: I64, slot: I64) -> I64:
        if not self.is_bounded or self.order is None:
            return watermark_us
        promised_us = np.minimum(watermark_us - self._bound_us[slot], self.order.limit_us(slot))
        return np.where((watermark_us == NONE_US) | (self._bound_us[slot] == 0), watermark_us, promised_us)

    def move(self, segments: Segments) -> None:
        """The last reading of every segment is now the newest of its series."""
        last = segments.stop - 1
        self._tip_us[segments.slot] = segments.time_us[last]
        self._tip[segments.slot] = segments.value[last]

    def reset(self) -> None:
        """Forget readings and watermarks; slots, infos and sources stay."""
        self._tip_us[:] = NONE_US
        self._tip[:] = np.nan
        self._watermark_us = [NONE_US] * len(self._watermark_us)

    def put(self, ids: I32, tip_us: I64, tip: F64) -> None:
        """Set the newest readings of distinct `ids`."""
        slot = self.slots(ids)
        self._tip_us[slot] = tip_us
        self._tip[slot] = tip

    def _number_of(self, source: str) -> int:
        number = self._source_number.setdefault(source, len(self._watermark_us))
        if number == len(self._watermark_us):
            self._watermark_us.append(NONE_US)
        return number

    def _find(self, ids: I32) -> tuple[I64, NDArray[np.bool_]]:
        if not self._count:
            return np.zeros(len(ids), np.int64), np.zeros(len(ids), np.bool_)
        place = np.minimum(np.searchsorted(self._sorted_ids, ids), self._count - 1)
        return self._slot_of_sorted[place], self._sorted_ids[place] == ids

    def _append(self, ids: I32) -> None:
        count = self._count + len(ids)
        if count > len(self._ids):
            capacity = max(count, 2 * len(self._ids), 1024)
            self._ids = _grown(self._ids, capacity, 0)
            self._tip_us = _grown(self._tip_us, capacity, NONE_US)
            self._tip = _grown(self._tip, capacity, np.nan)
            self._source = _grown(self._source, capacity, 0)
            self._bound_us = _grown(self._bound_us, capacity, 0)
        self._ids[self._count : count] = ids
        self._count = count
        self.info += [None] * len(ids)
        self._slot_of_sorted = np.argsort(self.ids, kind="stable").astype(np.int64)
        self._sorted_ids = self.ids[self._slot_of_sorted]


def _grown(column: NDArray[Any], capacity: int, fill: float) -> NDArray[Any]:
    wider = np.full(capacity, fill, column.dtype)
    wider[: len(column)] = column
    return wider
