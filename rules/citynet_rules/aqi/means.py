"""Running and daily means of hourly values, with the completeness they need.

Completeness: 6 of 8 hours, 20 of 24 hours, and 14 running 8-hour means of a day whose largest is the day's ozone. These
are remembered from GB 3095-2012 and HJ 663-2013 and were not verified (status U); the 2026 editions may differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum, isfinite, nan

NEEDED_OF_8_H = 6
NEEDED_OF_24_H = 20
NEEDED_8_H_MEANS = 14


def mean(hours: Sequence[float], needed: int) -> float:
    """Mean of the finite values; NaN when there are fewer than `needed`."""
    valid = [value for value in hours if isfinite(value)]
    return fsum(valid) / len(valid) if len(valid) >= needed else nan


def running_8h(hours: Sequence[float]) -> list[float]:
    """The 8-hour mean that ends with each hour; NaN where the eight hours are not complete enough."""
    return [mean(hours[max(0, end - 8) : end], NEEDED_OF_8_H) for end in range(1, len(hours) + 1)]


def running_24h(hours: Sequence[float]) -> list[float]:
    """The 24-hour mean that ends with each hour; NaN where it is not complete enough."""
    return [mean(hours[max(0, end - 24) : end], NEEDED_OF_24_H) for end in range(1, len(hours) + 1)]


def daily_mean(hours: Sequence[float]) -> float:
    """Mean of a day's 24 hourly values.

    Raises:
        ValueError: not 24 values.
    """
    return mean(_day(hours), NEEDED_OF_24_H)


def daily_o3_8h(hours: Sequence[float]) -> float:
    """Largest 8-hour mean that lies within the day (ending with hours 8 to 24).

    Raises:
        ValueError: not 24 values.
    """
    means = [value for value in running_8h(_day(hours))[7:] if isfinite(value)]
    return max(means) if len(means) >= NEEDED_8_H_MEANS else nan


def _day(hours: Sequence[float]) -> Sequence[float]:
    if len(hours) != 24:
        raise ValueError(f"{len(hours)} hours, a day has 24 (NaN where there is none)")
    return hours
