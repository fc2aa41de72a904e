"""The oracle of the rollups: buckets computed reading by reading, and how partials combine. Scalar, and slow."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from citynet_ingest.rollup.partials import HUGE, Partials

Row = tuple[int, int, float, int]  # series, µs since 1970, value, quality
Key = tuple[int, int]  # series, start of the bucket in µs
# n, usable, sum, min, max, (time, value) of the first and of the last usable reading
Bucket = tuple[int, int, Any, Any, Any, Any, Any]
EMPTY: Bucket = (0, 0, 0.0, math.inf, -math.inf, None, None)


def joined(a: Bucket, b: Bucket) -> Bucket:
    firsts = [point for point in (a[5], b[5]) if point is not None]
    lasts = [point for point in (a[6], b[6]) if point is not None]
    return (
        a[0] + b[0], a[1] + b[1], a[2] + b[2], min(a[3], b[3]), max(a[4], b[4]),
        min(firsts, default=None), max(lasts, default=None),
    )  # fmt: skip


def buckets_of(rows: Iterable[Row], width_us: int) -> dict[Key, Bucket]:
    """What the readings come to, per series and bucket."""
    found: dict[Key, Bucket] = {}
    for series, time_us, value, quality in rows:
        key = series, time_us // width_us * width_us
        one: Bucket = (1, 0, 0.0, math.inf, -math.inf, None, None)
        if math.isfinite(value) and quality & 3 < 2:
            addend = value if abs(value) < HUGE else math.copysign(math.inf, value)
            one = (1, 1, addend, value, value, (time_us, value), (time_us, value))
        found[key] = joined(found.get(key, EMPTY), one)
    return comparable(found)


def combined(partials: Iterable[Partials]) -> dict[Key, Bucket]:
    """All partials of a bucket as one."""
    found: dict[Key, Bucket] = {}
    for block in partials:
        for start, first_us, last_us, total, low, high, first, last, series, n, usable, _ in block.tolist():
            ends = ((first_us, first), (last_us, last)) if usable else (None, None)
            found[series, start] = joined(found.get((series, start), EMPTY), (n, usable, total, low, high, *ends))
    return comparable(found)


def comparable(found: dict[Key, Bucket]) -> dict[Key, Bucket]:
    """Sums that are no number are equal here."""
    return {
        key: (n, usable, "nan" if math.isnan(total) else total, *rest)
        for key, (n, usable, total, *rest) in found.items()
    }  # type: ignore[misc]
