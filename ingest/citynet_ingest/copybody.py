"""The body of a binary COPY into `reading`, made of columns by numpy: no per-row Python."""

from __future__ import annotations

import numpy as np

from citynet.batch import SeriesBatch

POSTGRES_EPOCH_US = 946_684_800_000_000  # 2000-01-01, where PostgreSQL counts from
_DAY_US = 86_400_000_000
HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"
_RECORD = np.dtype(
    [
        ("fields", ">i2"),
        ("time_size", ">i4"), ("time", ">i8"),
        ("series_size", ">i4"), ("series", ">i4"),
        ("value_size", ">i4"), ("value", ">f8"),
        ("quality_size", ">i4"), ("quality", ">i2"),
    ]
)  # fmt: skip


def copy_body(batch: SeriesBatch) -> bytes:
    """Rows (time, series_id, value, quality) in PostgreSQL's binary COPY format, header and trailer included."""
    records = np.empty(len(batch), _RECORD)
    records["fields"] = 4
    records["time_size"], records["time"] = 8, batch.time_us - POSTGRES_EPOCH_US
    records["series_size"], records["series"] = 4, batch.series
    records["value_size"], records["value"] = 8, batch.value
    records["quality_size"], records["quality"] = 2, batch.quality
    return HEADER + records.tobytes() + TRAILER


def days_of(batch: SeriesBatch) -> list[int]:
    """The days (since 1970, UTC) that the batch touches."""
    if not len(batch):
        return []
    first, last = int(batch.time_us.min()) // _DAY_US, int(batch.time_us.max()) // _DAY_US
    if first == last:
        return [first]
    return [int(day) for day in np.unique(batch.time_us // _DAY_US)]
