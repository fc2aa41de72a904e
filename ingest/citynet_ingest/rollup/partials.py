"""Partials: what is known of a series in one bucket of time, as rows of one numpy dtype, and how they combine.

A partial of no usable reading is the neutral element of `merged`: sum 0, min +inf, max -inf. The sum takes values of
`HUGE` and more as infinite, so that adding partials up never overflows into an error of the database.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from citynet.batch import F64, I64, Bools, SeriesBatch
from citynet.quality import BAD

MINUTE_US = 60_000_000
HOUR_US = 60 * MINUTE_US
NONE_US = -(1 << 62)  # start of a bucket that is none
FIRST_NONE_US = np.iinfo(np.int64).max
LAST_NONE_US = np.iinfo(np.int64).min
HUGE = 1e300  # 1e8 values below it add up to a finite number

READINGS_MIN = 2  # a minute of fewer is not written

Partials = NDArray[np.void]  # of dtype PARTIAL
Row = tuple[Any, ...]  # one of them as Python values, in the order of its fields
PARTIAL = np.dtype(
    [
        ("start_us", "<i8"),  # of the bucket, µs since 1970
        ("first_us", "<i8"),  # of the first and the last usable reading
        ("last_us", "<i8"),
        ("sum", "<f8"),
        ("min", "<f8"),
        ("max", "<f8"),
        ("first", "<f8"),
        ("last", "<f8"),
        ("series", "<i4"),
        ("n", "<i4"),
        ("usable", "<i4"),
        ("spare", "<i4"),
    ]
)
_RAW = np.dtype(f"V{PARTIAL.itemsize}")  # whole rows: numpy moves those of many fields field by field, 20 times slower


def none(count: int = 0) -> Partials:
    """Rows that are no bucket."""
    rows = np.zeros(count, PARTIAL)
    rows["start_us"] = NONE_US
    return rows


def pick(rows: Partials, where: Bools | I64) -> Partials:
    """A copy of these rows: a mask or positions."""
    picked: Partials = rows.view(_RAW)[where].view(PARTIAL)
    return picked


def put(rows: Partials, where: Bools | I64, values: Partials) -> None:
    """Replace these rows."""
    rows.view(_RAW)[where] = values.view(_RAW)


def of_rows(rows: SeriesBatch, width_us: int) -> Partials:
    """One partial for every run of rows of one series and bucket; rows by series, time ascending inside a series."""
    if not len(rows):
        return none()
    bucket = rows.time_us // width_us
    start = _starts((rows.series[1:] != rows.series[:-1]) | (bucket[1:] != bucket[:-1]))
    usable = ((rows.quality & BAD) == 0) & np.isfinite(rows.value)
    counted: Bools | None = None if usable.all() else usable
    made = np.zeros(len(start), PARTIAL)
    made["series"] = rows.series[start]
    made["start_us"] = bucket[start] * width_us
    made["n"] = np.diff(start, append=len(rows))
    made["usable"] = made["n"] if counted is None else np.add.reduceat(counted, start, dtype=np.int32)
    value = rows.value
    low = value if counted is None else np.where(counted, value, np.inf)
    high = value if counted is None else np.where(counted, value, -np.inf)
    made["min"] = np.minimum.reduceat(low, start)
    made["max"] = np.maximum.reduceat(high, start)
    addend = value if counted is None else np.where(counted, value, 0.0)
    made["sum"] = np.add.reduceat(_bounded(addend), start)
    first, last = _ends(counted, start, len(rows))
    made["first"], made["first_us"] = value[first], rows.time_us[first]
    made["last"], made["last_us"] = value[last], rows.time_us[last]
    if counted is not None:
        _blank(made)
    return made


def coarser(partials: Partials, width_us: int) -> Partials:
    """Partials of wider buckets; those given are by series, time ascending, and do not overlap inside a series."""
    if not len(partials):
        return none()
    series, bucket = partials["series"], partials["start_us"] // width_us
    start = _starts((series[1:] != series[:-1]) | (bucket[1:] != bucket[:-1]))
    made = np.zeros(len(start), PARTIAL)
    made["series"] = series[start]
    made["start_us"] = bucket[start] * width_us
    for name, combine in (("n", np.add), ("usable", np.add), ("sum", np.add), ("min", np.minimum), ("max", np.maximum)):
        made[name] = combine.reduceat(partials[name], start)
    usable = partials["usable"] > 0
    first, last = _ends(None if usable.all() else usable, start, len(partials))
    made["first"], made["first_us"] = partials["first"][first], partials["first_us"][first]
    made["last"], made["last_us"] = partials["last"][last], partials["last_us"][last]
    _blank(made)
    return made


def merged(earlier: Partials, later: Partials) -> Partials:
    """Row by row, the partial of both; all readings of the one are before those of the other. Series and start are those
    of `later`."""
    both: Partials = later.view(_RAW).copy().view(PARTIAL)
    both["n"] += earlier["n"]
    both["usable"] += earlier["usable"]
    both["sum"] += earlier["sum"]
    both["min"] = np.minimum(earlier["min"], later["min"])
    both["max"] = np.maximum(earlier["max"], later["max"])
    starts, ends = earlier["usable"] > 0, later["usable"] == 0
    for name in ("first", "first_us"):
        both[name] = np.where(starts, earlier[name], later[name])
    for name in ("last", "last_us"):
        both[name] = np.where(ends, earlier[name], later[name])
    return both


def by_series(*parts: Partials) -> Partials:
    """All of them, by series and start; of equal ones those of an earlier argument first."""
    filled = [part for part in parts if len(part)]
    if len(filled) < 2:
        return filled[0] if filled else none()
    rows: Partials = np.concatenate([part.view(_RAW) for part in filled]).view(PARTIAL)
    return pick(rows, np.lexsort((rows["start_us"], rows["series"])).astype(np.int64))


def _starts(changes: Bools) -> I64:
    """First row of every run, given whether each row but the first differs from the one before it."""
    return np.concatenate([[0], np.flatnonzero(changes) + 1]).astype(np.int64)


def _ends(counted: Bools | None, start: I64, rows: int) -> tuple[I64, I64]:
    """First and last row that counts of every run; any row of the run where none does."""
    stop = np.append(start[1:], rows) - 1
    if counted is None:
        return start, stop
    place = np.arange(rows)
    first = np.minimum.reduceat(np.where(counted, place, rows), start)
    last = np.maximum.reduceat(np.where(counted, place, -1), start)
    return np.minimum(first, stop), np.maximum(last, start)


def _bounded(value: F64) -> F64:
    """Addends: a huge value is infinite."""
    if value.max() < HUGE and value.min() > -HUGE:
        return value
    bounded: F64 = np.where(np.abs(value) < HUGE, value, np.copysign(np.inf, value))
    return bounded


def _blank(made: Partials) -> None:
    """Partials without a usable reading have neither a first nor a last one."""
    empty = made["usable"] == 0
    if empty.any():
        made["first"][empty] = made["last"][empty] = np.nan
        made["first_us"][empty] = FIRST_NONE_US
        made["last_us"][empty] = LAST_NONE_US


def worth(minutes: Partials) -> Partials:
    """The minutes that are written. One of a single reading says no more than the reading, and costs several times as much;
    its hour counts it, so who reads knows that it was left out."""
    singles = minutes["n"] < READINGS_MIN
    return pick(minutes, ~singles) if singles.any() else minutes


def table(rows: list[Row]) -> Partials:
    """Rows as an array, by series and start; of equal ones the earlier first."""
    return np.array(sorted(rows, key=_place), PARTIAL) if rows else none()


def scalar(row: Row, time_us: int, value: float, *, is_usable: bool) -> Row:
    """An open bucket with one more reading, newer than all in it."""
    start_us, first_us, last_us, total, low, high, first, last, series, n, usable, spare = row
    if not is_usable:
        return start_us, first_us, last_us, total, low, high, first, last, series, n + 1, usable, spare
    addend = _addend(value)
    if not usable:
        first_us, first = time_us, value
    return (
        start_us, first_us, time_us, total + addend, min(low, value), max(high, value), first, value,
        series, n + 1, usable + 1, spare,
    )  # fmt: skip


def scalar_of(series: int, start_us: int, time_us: int, value: float, *, is_usable: bool) -> Row:
    """`of_rows` of one reading."""
    if not is_usable:
        return start_us, FIRST_NONE_US, LAST_NONE_US, 0.0, math.inf, -math.inf, math.nan, math.nan, series, 1, 0, 0
    return start_us, time_us, time_us, _addend(value), value, value, value, value, series, 1, 1, 0


def scalar_coarser(row: Row, width_us: int) -> Row:
    """`coarser` of one partial."""
    return row[0] // width_us * width_us, *row[1:]


def scalar_merged(earlier: Row, later: Row) -> Row:
    """`merged` of one row."""
    starts = earlier if earlier[10] else later
    ends = later if later[10] else earlier
    return (
        later[0], starts[1], ends[2], later[3] + earlier[3], min(earlier[4], later[4]), max(earlier[5], later[5]),
        starts[6], ends[7], later[8], earlier[9] + later[9], earlier[10] + later[10], later[11],
    )  # fmt: skip


def _addend(value: float) -> float:
    return value if -HUGE < value < HUGE else math.copysign(math.inf, value)


def _place(row: Row) -> tuple[int, int]:
    return row[8], row[0]
