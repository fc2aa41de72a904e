"""Readings out of a binary COPY of arrays: rows (series, quality, times, values), each a series' readings of one quality.

The arrays are taken by numpy as they lie in the bytes; what is done in Python is done once a row, not once a reading.
"""

from __future__ import annotations

import struct

import numpy as np

from citynet.batch import I64, Bools, SeriesBatch
from citynet.errors import CitynetError
from citynet.quality import LATE
from citynet_ingest.copybody import HEADER, POSTGRES_EPOCH_US, TRAILER

_HEAD = struct.Struct(">hiiihi")  # fields, size and series, size and quality, size of the first array
_ARRAY = struct.Struct(">iiiii")  # dimensions, has nulls, type, length, lower bound
_SIZE = struct.Struct(">i")
_TIME = np.dtype([("size", ">i4"), ("cell", ">i8")])
_VALUE = np.dtype([("size", ">i4"), ("cell", ">f8")])


def readings_of(body: bytes | bytearray) -> SeriesBatch:
    """The readings of a whole COPY, late ones left out, by series and time.

    Raises:
        CitynetError: not a body of this shape.
    """
    if body[: len(HEADER)] != HEADER or body[-len(TRAILER) :] != TRAILER:
        raise CitynetError("COPY from the database: header or end is missing")
    series: list[int] = []
    quality: list[int] = []
    count: list[int] = []
    times, values = [], []
    place, end = len(HEADER), len(body) - len(TRAILER)
    while place < end:
        fields, _, ident, _, code, size = _HEAD.unpack_from(body, place)
        place += _HEAD.size
        dimensions, nulls, _, length, _ = _ARRAY.unpack_from(body, place)
        if fields != 4 or dimensions != 1 or nulls or size != _ARRAY.size + length * _TIME.itemsize:
            raise CitynetError(f"COPY from the database: byte {place} is not an array of times")
        after = place + size + _SIZE.size + _ARRAY.size
        if not code & LATE:
            series.append(ident)
            quality.append(code)
            count.append(length)
            times.append(np.frombuffer(body, _TIME, length, place + _ARRAY.size)["cell"])
            values.append(np.frombuffer(body, _VALUE, length, after)["cell"])
        place = after + length * _VALUE.itemsize
    if not series:
        return SeriesBatch.empty()
    order = sorted(range(len(series)), key=series.__getitem__)
    lengths = np.array(count, np.int64)[order]
    return _ordered(
        SeriesBatch(
            np.repeat(np.array(series, np.int32)[order], lengths),
            np.concatenate([times[k] for k in order]).astype(np.int64) + POSTGRES_EPOCH_US,
            np.concatenate([values[k] for k in order]).astype(np.float64),
            np.repeat(np.array(quality, np.uint8)[order], lengths),
        )
    )


def _ordered(batch: SeriesBatch) -> SeriesBatch:
    """By time inside each series: so they come, unless a series has several qualities or the server scanned out of order."""
    falls: Bools = (np.diff(batch.time_us) <= 0) & (np.diff(batch.series) == 0)
    if not falls.any():
        return batch
    start = batch.starts()
    stop = np.append(start[1:], len(batch))
    for run in np.unique(np.searchsorted(start, np.flatnonzero(falls), "right") - 1).tolist():
        rows = slice(int(start[run]), int(stop[run]))
        order = np.argsort(batch.time_us[rows], kind="stable")
        for column in (batch.time_us, batch.value, batch.quality):
            column[rows] = column[rows][order]
    return batch


def cut(batch: SeriesBatch, edges_us: I64) -> list[SeriesBatch]:
    """A batch by series and time, cut at moments in ascending order: one piece more than there are edges."""
    if not len(edges_us):
        return [batch]
    piece = np.searchsorted(edges_us, batch.time_us, "right").astype(np.int16)
    order = np.argsort(piece, kind="stable")
    sorted_ = batch.picked(order)
    ends = np.cumsum(np.bincount(piece, minlength=len(edges_us) + 1))
    return [sorted_.picked(slice(int(first), int(last))) for first, last in zip([0, *ends[:-1]], ends, strict=True)]
