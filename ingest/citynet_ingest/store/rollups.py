"""Partials into their tables by binary COPY, and readings out of the store whose buckets are open."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import psycopg

from citynet.batch import I32, SeriesBatch
from citynet_ingest import metrics
from citynet_ingest.copybody import HEADER, POSTGRES_EPOCH_US, TRAILER
from citynet_ingest.rollup.buckets import Closed, Rollup
from citynet_ingest.rollup.partials import Partials, by_series

Connection = psycopg.Connection[tuple[object, ...]]
Blocks = Callable[[Connection, str, dict[str, object]], Iterator[SeriesBatch]]
_DAY_US = 86_400_000_000
_REOPEN_SERIES = 500  # a statement
_COLUMNS = ("n", "usable", "sum", "min", "max", "first", "last")
_COPY = "COPY {} (time, series_id, n, usable, sum, min, max, first, last, first_at, last_at) FROM STDIN (FORMAT binary)"
_RECORD = np.dtype(
    [
        ("fields", ">i2"),
        ("time_size", ">i4"), ("time", ">i8"),
        ("series_size", ">i4"), ("series", ">i4"),
        ("n_size", ">i4"), ("n", ">i4"),
        ("usable_size", ">i4"), ("usable", ">i4"),
        ("sum_size", ">i4"), ("sum", ">f8"),
        ("min_size", ">i4"), ("min", ">f8"),
        ("max_size", ">i4"), ("max", ">f8"),
        ("first_size", ">i4"), ("first", ">f8"),
        ("last_size", ">i4"), ("last", ">f8"),
        ("first_at_size", ">i4"), ("first_at", ">i8"),
        ("last_at_size", ">i4"), ("last_at", ">i8"),
    ]
)  # fmt: skip


def copy_partials(connection: Connection, closed: Closed) -> None:
    """COPY what closed into `rollup_minute` and `rollup_hour`, by series and time.

    The row path on every server: the columnstore's `client_sorted` is a promise that late partials break.
    """
    for level, on_time, late in (
        ("minute", closed.minutes, closed.late_minutes),
        ("hour", closed.hours, closed.late_hours),
    ):
        rows = by_series(on_time, late)
        if not len(rows):
            continue
        with connection.cursor().copy(_COPY.format(f"rollup_{level}")) as copy:
            copy.write(partials_body(rows))
        metrics.PARTIALS.labels(level, "closed").inc(len(on_time))
        metrics.PARTIALS.labels(level, "late").inc(len(late))


def partials_body(rows: Partials) -> bytes:
    """Partials in PostgreSQL's binary COPY format. Without a usable reading min, max, first and last are NaN, and their
    times the start of the bucket."""
    records = np.empty(len(rows), _RECORD)
    for name in _RECORD.names or ():
        if name.endswith("_size"):
            records[name] = _RECORD[name.removesuffix("_size")].itemsize
    records["fields"] = 11
    records["time"] = rows["start_us"] - POSTGRES_EPOCH_US
    records["series"] = rows["series"]
    for name in _COLUMNS:
        records[name] = rows[name]
    empty = rows["usable"] == 0
    for name in ("min", "max", "first", "last"):
        records[name][empty] = np.nan
    for name, source in (("first_at", "first_us"), ("last_at", "last_us")):
        records[name] = np.where(empty, rows["start_us"], rows[source]) - POSTGRES_EPOCH_US
    return HEADER + records.tobytes() + TRAILER


def days_of_partials(closed: Closed) -> list[int]:
    """The days (since 1970, UTC) whose partitions these partials need."""
    parts = (closed.minutes, closed.hours, closed.late_minutes, closed.late_hours)
    starts = [part["start_us"] for part in parts if len(part)]
    return [int(day) for day in np.unique(np.concatenate(starts) // _DAY_US)] if starts else []


def unknown_series(rollup: Rollup, ids: Sequence[int]) -> I32:
    """Those of the series whose open buckets no snapshot gave: to be rebuilt by `reopen`."""
    return rollup.unknown(np.array(ids, np.int32))


def replay(rollup: Rollup, rows: SeriesBatch, unopened: I32) -> None:
    """Move the open buckets on by readings that were stored after the snapshot; those of `unopened` series are left out.

    What closes was written in the transaction that stored these readings.
    """
    keep = ~np.isin(rows.series, unopened)
    rollup.feed(rows.picked(keep))


def reopen(connection: Connection, rollup: Rollup, ids: I32, blocks: Blocks) -> int:
    """Rebuild the open buckets of these series, which `rollup` does not know, from the stored readings.

    What is not yet in the partials of a series' newest hour is its newest readings there, so many as are missing. The scan
    is bounded by that hour. Returns how many readings were read.
    """
    reread = 0
    for first in range(0, len(ids), _REOPEN_SERIES):
        wanted = {"series": ids[first : first + _REOPEN_SERIES].tolist()}
        for rows in blocks(connection, "rollup_missed", wanted):
            rollup.feed(rows)  # what closes here is written, or of a time before rollups: `citynet db rollup`
            reread += len(rows)
    return reread
