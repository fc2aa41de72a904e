"""The body of a binary COPY into `reading`, made of columns by numpy: no per-row Python."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from citynet.batch import SeriesBatch

POSTGRES_EPOCH_US = 946_684_800_000_000  # 2000-01-01, where PostgreSQL counts from
_DAY_US = 86_400_000_000
HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"
PIECE_ROWS = 32_768  # 1.2 MB; larger ones leave the processor's cache
_RECORD = np.dtype(
    [
        ("fields", ">i2"),
        ("time_size", ">i4"), ("time", ">i8"),
        ("series_size", ">i4"), ("series", ">i4"),
        ("value_size", ">i4"), ("value", ">f8"),
        ("quality_size", ">i4"), ("quality", ">i2"),
    ]
)  # fmt: skip


_BLANK = np.zeros(1, _RECORD)
_BLANK["fields"], _BLANK["time_size"], _BLANK["series_size"], _BLANK["value_size"], _BLANK["quality_size"] = (
    4,
    8,
    4,
    8,
    2,
)
_BLANK_BYTES = np.frombuffer(_BLANK.tobytes(), np.uint8)  # a record without its values


def copy_body(batch: SeriesBatch) -> bytearray:
    """Rows (time, series_id, value, quality) in PostgreSQL's binary COPY format, header and trailer included."""
    return _rows(batch, HEADER, TRAILER)


def copy_pieces(batch: SeriesBatch) -> Iterator[bytearray]:
    """`copy_body` in two pieces or more, of `PIECE_ROWS` rows at most: the server is busy with one while the next is made, and
    no large body is kept."""
    rows = len(batch)
    last = (rows - 1) // PIECE_ROWS * PIECE_ROWS or rows // 2  # where the last piece begins
    for start in range(0, last, PIECE_ROWS):
        piece = batch.picked(slice(start, min(start + PIECE_ROWS, last)))
        yield _rows(piece, HEADER if start == 0 else b"", b"")
    yield _rows(batch.picked(slice(last, rows)), b"" if last else HEADER, TRAILER)


def _rows(batch: SeriesBatch, head: bytes, tail: bytes) -> bytearray:
    """Written in place: every copy of a large body costs as much as making it."""
    start, size = len(head), len(batch) * _RECORD.itemsize
    body = bytearray(start + size + len(tail))
    body[:start], body[start + size :] = head, tail
    if size:
        np.frombuffer(body, np.uint8, size, start).reshape(-1, _RECORD.itemsize)[:] = _BLANK_BYTES
        records = np.frombuffer(body, _RECORD, len(batch), start)
        records["time"] = batch.time_us - POSTGRES_EPOCH_US
        records["series"] = batch.series
        records["value"] = batch.value
        records["quality"] = batch.quality
    return body


def days_of(batch: SeriesBatch) -> list[int]:
    """The days (since 1970, UTC) that the batch touches."""
    if not len(batch):
        return []
    first, last = int(batch.time_us.min()) // _DAY_US, int(batch.time_us.max()) // _DAY_US
    if first == last:
        return [first]
    return [int(day) for day in np.unique(batch.time_us // _DAY_US)]
