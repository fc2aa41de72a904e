"""Readings as columns: `Batch` is one envelope, checked reading by reading; `SeriesBatch` is what store and engine see.

`Reading` objects live at the edges; `Batch.from_envelope` is the way in and `SeriesBatch.rows` the way out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from citynet.formats import Reject
from citynet.quality import BAD
from citynet.reading import Reading
from citynet.wire import Envelope

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
F64 = NDArray[np.float64]
U8 = NDArray[np.uint8]
Bools = NDArray[np.bool_]

PAST_US_MAX = 400 * 86_400 * 1_000_000  # a reading older than 400 days is dead-lettered
FUTURE_US_MAX = 3_600 * 1_000_000  # one from more than an hour ahead as well
_RADIX_MIN = 1_000


@dataclass(frozen=True, slots=True)
class Batch:
    """The good readings of one envelope, in acceptance order, and the rejected ones with their sequence numbers.

    Columns, one entry a reading: `index` int32 into `names`, `time_us` int64 (µs since 1970), `value` float64,
    `quality` uint8, `seq` int64.
    """

    names: tuple[str, ...]
    index: I32
    time_us: I64
    value: F64
    quality: U8
    seq: I64
    rejects: list[tuple[int, Reject]]

    def __len__(self) -> int:
        return len(self.index)

    def picked(self, keep: Bools, rejects: list[tuple[int, Reject]]) -> Batch:
        """The readings where `keep` is true, with these rejects."""
        return Batch(
            self.names,
            self.index[keep],
            self.time_us[keep],
            self.value[keep],
            self.quality[keep],
            self.seq[keep],
            rejects,
        )

    @classmethod
    def from_envelope(cls, envelope: Envelope, now_us: int) -> Batch:
        """Columns of an envelope received at `now_us` (µs since 1970).

        A reading with an index or a time out of range becomes a reject; NaN and infinity are kept, marked bad.
        """
        count = len(envelope)
        index = np.frombuffer(envelope.index.data, envelope.index.fmt)
        value = np.frombuffer(envelope.value.data, envelope.value.fmt).astype(np.float64)
        offset = np.frombuffer(envelope.dt_us.data, envelope.dt_us.fmt)
        if envelope.quality is None:
            quality = np.zeros(count, np.uint8)
        else:
            quality = np.frombuffer(envelope.quality.data, np.uint8).copy()
        finite = np.isfinite(value)
        if not finite.all():
            quality[~finite] |= BAD
        seq = _sequence(envelope, count)
        if _is_sound(envelope, index, offset, now_us):
            time_us = offset.astype(np.int64) + envelope.t0_us
            return cls(envelope.names, index.astype(np.int32), time_us, value, quality, seq, [])
        time_us, plausible = _event_times(envelope.t0_us, offset, now_us)
        known = index < len(envelope.names)
        keep = known & plausible
        rejects = [
            (
                int(seq[k]),
                _reject(
                    envelope, int(k), bool(known[k]), int(index[k]), int(offset[k]), float(value[k]), int(quality[k])
                ),
            )
            for k in np.flatnonzero(~keep)
        ]
        picked = index[keep].astype(np.int32)
        return cls(envelope.names, picked, time_us[keep], value[keep], quality[keep], seq[keep], rejects)


def _is_sound(
    envelope: Envelope, index: NDArray[np.integer[Any]], offset: NDArray[np.integer[Any]], now_us: int
) -> bool:
    """Whether every reading has a name and a plausible time: two reductions a column for what is nearly always so."""
    if not len(index):
        return True
    oldest, newest = envelope.t0_us + int(offset.min()), envelope.t0_us + int(offset.max())
    return int(index.max()) < len(envelope.names) and now_us - PAST_US_MAX <= oldest <= newest <= now_us + FUTURE_US_MAX


def _event_times(t0_us: int, offset: NDArray[np.integer[Any]], now_us: int) -> tuple[I64, Bools]:
    """t0 + dt, and which of them are plausible. Computed relative to now, so that nothing wraps around."""
    low, high = now_us - PAST_US_MAX - t0_us, now_us + FUTURE_US_MAX - t0_us
    limits = np.iinfo(offset.dtype)
    plausible = np.ones(len(offset), np.bool_)
    if low > limits.min:
        plausible &= offset >= min(low, limits.max) if low <= limits.max else np.zeros(len(offset), np.bool_)
    if high < limits.max:
        plausible &= offset <= max(high, limits.min) if high >= limits.min else np.zeros(len(offset), np.bool_)
    wide = np.where(plausible, offset, 0).astype(np.int64)
    base = t0_us if -(1 << 62) < t0_us < (1 << 62) else 0  # an absurd t0 leaves nothing plausible
    return wide + base, plausible


def _sequence(envelope: Envelope, count: int) -> I64:
    """Sequence number of every reading: notes take their places first, readings fill the rest in order."""
    seq0 = envelope.header.seq0
    if not envelope.notes:
        return np.arange(seq0, seq0 + count, dtype=np.int64)
    seq = np.empty(count, np.int64)
    filled, offset = 0, 0
    for position, note in envelope.notes:
        run = position - offset
        seq[filled : filled + run] = np.arange(seq0 + offset, seq0 + position)
        filled, offset = filled + run, position + note.span
    seq[filled:] = np.arange(seq0 + offset, seq0 + offset + count - filled)
    return seq


def _reject(envelope: Envelope, row: int, known: bool, index: int, offset: int, value: float, quality: int) -> Reject:
    if not known:
        return Reject("index-out-of-range", f"i[{row}]", f"{index}, there are {len(envelope.names)} names")
    name = envelope.names[index]
    device, _, metric = name.partition("/")
    reading = Reading(device, metric, envelope.t0_us + offset, value, quality)
    return Reject("implausible-time", f"dt[{row}]", f"{name}: {envelope.t0_us} + {offset} µs since 1970", reading)


@dataclass(frozen=True, slots=True)
class SeriesBatch:
    """Readings by series id: grouped by series, inside a series in the order of acceptance.

    Columns: `series` int32, `time_us` int64 (µs since 1970), `value` float64, `quality` uint8; all of one length.
    """

    series: I32
    time_us: I64
    value: F64
    quality: U8

    def __len__(self) -> int:
        return len(self.series)

    @classmethod
    def empty(cls) -> SeriesBatch:
        return cls(np.empty(0, np.int32), np.empty(0, np.int64), np.empty(0, np.float64), np.empty(0, np.uint8))

    @classmethod
    def group(cls, series: I32, time_us: I64, value: F64, quality: U8) -> SeriesBatch:
        """Group columns that are in acceptance order by series; the order inside a series stays."""
        order = _stable_order(series)
        return cls(series[order], time_us[order], value[order], quality[order])

    def picked(self, rows: Bools | I64 | slice) -> SeriesBatch:
        """These rows: a mask, positions or a slice."""
        return SeriesBatch(self.series[rows], self.time_us[rows], self.value[rows], self.quality[rows])

    def starts(self) -> I64:
        """Row where each series' run begins."""
        if not len(self):
            return np.empty(0, np.int64)
        return np.flatnonzero(np.diff(self.series, prepend=self.series[0] - 1)).astype(np.int64)

    def rows(self) -> Iterator[tuple[int, int, float, int]]:
        """(series, time_us, value, quality), row by row; for tests and oracles."""
        columns = (self.series, self.time_us, self.value, self.quality)
        return zip(*(column.tolist() for column in columns), strict=True)


def _stable_order(keys: I32) -> I64:
    """Positions that sort `keys`, equal ones in the order they had.

    numpy's stable sort is a radix sort for 16-bit integers only, and that is up to six times as fast: so wider keys are sorted
    by their lower and then by their upper half. Few keys are not worth it.
    """
    if len(keys) < _RADIX_MIN:
        return np.argsort(keys, kind="stable").astype(np.int64, copy=False)
    least = int(keys.min())
    offset = keys.astype(np.int64) - least
    order = np.argsort(offset.astype(np.uint16), kind="stable")
    if int(keys.max()) - least >= 1 << 16:
        order = order[np.argsort((offset >> 16).astype(np.uint16)[order], kind="stable")]
    return order.astype(np.int64, copy=False)
