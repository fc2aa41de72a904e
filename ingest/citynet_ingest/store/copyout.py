"""Readings out of a binary COPY: rows (series, quality, times, values), each a series' readings of one quality, whose times and
values are bytes, eight a reading and big-endian as the protocol has them.

They are taken by numpy as they lie there; what is done in Python is done once a row, not once a reading.
"""

from __future__ import annotations

import struct

import numpy as np

from citynet.batch import F64, I64, Bools, SeriesBatch
from citynet.errors import CitynetError
from citynet.quality import LATE
from citynet_ingest.copybody import HEADER, POSTGRES_EPOCH_US, TRAILER

_HEAD = struct.Struct(">hiiihi")  # fields, size and series, size and quality, size of the times
_SIZE = struct.Struct(">i")
_CELL = 8


def readings_of(body: bytes | bytearray) -> SeriesBatch:
    """The readings of a whole COPY, late ones left out, by series and time.

    Raises:
        CitynetError: not a body of this shape.
    """
    if body[: len(HEADER)] != HEADER or body[-len(TRAILER) :] != TRAILER:
        raise CitynetError("COPY from the database: header or end is missing")
    series: list[int] = []
    quality: list[int] = []
    size: list[int] = []
    at: list[int] = []  # where the times begin
    place, end = len(HEADER), len(body) - len(TRAILER)
    while place < end:
        fields, _, ident, _, code, length = _HEAD.unpack_from(body, place)
        place += _HEAD.size
        after = place + length
        if fields != 4 or length <= 0 or length % _CELL or _SIZE.unpack_from(body, after)[0] != length:
            raise CitynetError(f"COPY from the database: byte {place} does not begin times with their values")
        if not code & LATE:
            series.append(ident)
            quality.append(code)
            size.append(length)
            at.append(place)
        place = after + _SIZE.size + length
    if not series:
        return SeriesBatch.empty()
    order = np.argsort(np.array(series), kind="stable").tolist()
    view = memoryview(body)
    times = b"".join([view[at[k] : at[k] + size[k]] for k in order])
    values = b"".join([view[at[k] + size[k] + _SIZE.size : at[k] + 2 * size[k] + _SIZE.size] for k in order])
    view.release()
    time_us: I64 = np.frombuffer(times, ">i8").astype(np.int64)
    time_us += POSTGRES_EPOCH_US
    value: F64 = np.frombuffer(values, ">f8").astype(np.float64)
    count = np.array(size, np.int64)[order] // _CELL
    ids, codes = np.array(series, np.int32)[order], np.array(quality, np.uint8)[order]
    return _ordered(SeriesBatch(np.repeat(ids, count), time_us, value, np.repeat(codes, count)))


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
