"""How wide the buckets of a chart are: parsed, chosen, and kept within the bound on points."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from citynet_api.problems import wrong
from citynet_api.sources import ceil, floor

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_WIDTH = re.compile(r"([1-9][0-9]{0,3})([smhd])")
# Widths people read easily; ``auto`` takes the finest that keeps to the number of points.
LADDER = (
    *("1s", "2s", "5s", "10s", "15s", "30s", "1m", "2m", "5m", "10m", "15m", "30m"),
    *("1h", "2h", "3h", "6h", "12h", "1d", "7d"),
)


def width_s(text: str) -> int:
    """Seconds of a width such as ``10s``, ``5m``, ``1h``, ``1d``. Problem 422 naming ``bucket`` for anything else."""
    match = _WIDTH.fullmatch(text)
    if match is None:
        raise wrong("bucket", f"is raw, auto, or a number of s, m, h or d such as 10s or 5m (got {text[:20]!r})")
    return int(match[1]) * _UNITS_S[match[2]]


def whole(start: datetime, end: datetime, seconds: int) -> tuple[datetime, datetime]:
    """The range widened to whole buckets, so that a bucket is the same in every answer. Problem 422 beyond the calendar."""
    width = timedelta(seconds=seconds)
    try:
        return floor(start, width), ceil(end, width)
    except OverflowError:
        raise wrong("from", "is too near the end of the calendar") from None


def choose(bucket: str, start: datetime, end: datetime, points: int, points_max: int, least_s: int = 1) -> str:
    """The width for a time range: `bucket` itself, or for ``auto`` the finest that needs at most `points` buckets.

    Args:
        least_s: ``auto`` is not finer than this many seconds.

    Raises:
        Problem: 422 if the answer would have more than `points_max` buckets; it names a width that fits.
    """
    if bucket == "auto":
        return _finest(start, end, min(points, points_max), least_s)
    if _count(start, end, bucket) > points_max:
        needed = _finest(start, end, points_max, 1)
        raise wrong(
            "bucket", f"{bucket} over this range makes more than {points_max} buckets; take {needed} or coarser"
        )
    return bucket


def _count(start: datetime, end: datetime, width: str) -> float:
    first, last = whole(start, end, width_s(width))
    return (last - first) / timedelta(seconds=width_s(width))


def _finest(start: datetime, end: datetime, points: int, least_s: int) -> str:
    fitting = (width for width in LADDER if width_s(width) >= least_s and _count(start, end, width) <= max(points, 2))
    found = next(fitting, None)
    if found is None:
        raise wrong("from", f"is too far back for {points} points even of {LADDER[-1]}; shorten the range")
    return found
