"""Which way rows take into `reading`: straight into TimescaleDB's columnstore, or as ordinary rows.

The columnstore path costs a third of the time and a tenth of the space, but pays only with enough rows a series, and
`client_sorted` is a promise about the chunk, not only about one COPY: rows of a series that overlap what went there before come
out of order (tried on TimescaleDB 2.29.2: no error, wrong `ORDER BY`). The rules engine's late flag is just what tells them
apart: a row without it is newer than all of its series before, so only late rows take the ordinary way, and all rows of series
with a lateness bound, of which that is not so.
"""

from __future__ import annotations

from enum import StrEnum

import numpy as np

from citynet.batch import I32, SeriesBatch
from citynet.quality import LATE

DIRECT_ROWS_MIN = 5_000
DIRECT_ROWS_PER_SERIES_MIN = 5  # from here on smaller than rows with their index; faster from 2 on (ADR 9)


class Why(StrEnum):
    """Reason for a choice; the label of the metric."""

    DIRECT = "direct"
    PLAIN_SERVER = "rows-plain-server"
    FEW_ROWS = "rows-few"
    FEW_PER_SERIES = "rows-few-per-series"
    LATE = "rows-late"


def choose(rows: SeriesBatch, *, has_columnstore: bool) -> Why:
    """The way of rows that are sorted by series and time and none of them late."""
    if not has_columnstore:
        return Why.PLAIN_SERVER
    if len(rows) < DIRECT_ROWS_MIN:
        return Why.FEW_ROWS
    if len(rows) < DIRECT_ROWS_PER_SERIES_MIN * len(rows.starts()):
        return Why.FEW_PER_SERIES
    return Why.DIRECT


def split_late(rows: SeriesBatch, bounded: I32 | None = None) -> tuple[SeriesBatch, SeriesBatch]:
    """(rows in time, late rows and those of `bounded` series, which may be out of order), both in the order they had."""
    late = (rows.quality & LATE) != 0
    if bounded is not None and len(bounded):
        late |= np.isin(rows.series, bounded)
    if not late.any():
        return rows, SeriesBatch.empty()
    return rows.picked(~late), rows.picked(late)


def by_day(rows: SeriesBatch, day_us: int = 86_400_000_000) -> list[SeriesBatch]:
    """Rows cut by day (a chunk or partition each): a columnstore COPY across many chunks is several times slower."""
    days = rows.time_us // day_us
    if not len(rows) or days.min() == days.max():
        return [rows] if len(rows) else []
    return [rows.picked(days == day) for day in np.unique(days)]
