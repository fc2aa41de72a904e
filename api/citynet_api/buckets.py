"""How wide the buckets of a chart are: parsed, chosen, and kept within the bound on points."""

from __future__ import annotations

import re
from datetime import timedelta

from citynet_api.problems import wrong

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_WIDTH = re.compile(r"([1-9][0-9]{0,3})([smhd])")
# Widths people read easily; ``auto`` takes the finest that keeps to the number of points.
LADDER = ("1s", "5s", "10s", "30s", "1m", "5m", "10m", "30m", "1h", "3h", "6h", "12h", "1d", "7d")


def width_s(text: str) -> int:
    """Seconds of a width such as ``10s``, ``5m``, ``1h``, ``1d``. Problem 422 naming ``bucket`` for anything else."""
    match = _WIDTH.fullmatch(text)
    if match is None:
        raise wrong("bucket", f"is raw, auto, or a number of s, m, h or d such as 10s or 5m (got {text[:20]!r})")
    return int(match[1]) * _UNITS_S[match[2]]


def choose(bucket: str, span: timedelta, points: int, points_max: int) -> str:
    """The width for a time range: `bucket` itself, or for ``auto`` the finest that needs at most `points` buckets.

    Raises:
        Problem: 422 if the answer would have more than `points_max` buckets; it names a width that fits.
    """
    seconds = span.total_seconds()
    if bucket == "auto":
        return _finest(seconds, min(points, points_max))
    if seconds / width_s(bucket) > points_max:
        needed = _finest(seconds, points_max)
        raise wrong(
            "bucket", f"{bucket} over this range makes more than {points_max} buckets; take {needed} or coarser"
        )
    return bucket


def _finest(seconds: float, points: int) -> str:
    fitting = (width for width in LADDER if seconds / width_s(width) <= points)
    found = next(fitting, None)
    if found is None:
        raise wrong("from", f"is too far back for {points} points even of {LADDER[-1]}; shorten the range")
    return found
