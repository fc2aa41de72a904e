"""Individual air quality index (IAQI) of one pollutant's mean, by an edition of HJ 633.

IAQI = (I₂ − I₁) / (C₂ − C₁) · (C − C₁) + I₁ between two breakpoints, rounded up to a whole number (HJ 633-2026, domain
reference 2.13, status P). A computed index that exceeds a whole number by less than 1e-9 is that number: it is the
binary fraction's error, not the air's.
"""

from __future__ import annotations

import tomllib
from bisect import bisect_left
from dataclasses import dataclass
from datetime import date
from math import ceil, isfinite, nan
from pathlib import Path

import numpy as np

from citynet.batch import F64

INDICES = (0, 50, 100, 150, 200, 300, 400, 500)
ROUNDING = 1e-9


@dataclass(frozen=True)
class Class:
    """One of the six classes; `upto` is its highest AQI (the last one has none). They are not the four warning
    colours."""

    upto: int
    name_zh: str
    colour: str


CLASSES = (
    Class(50, "优", "green"),
    Class(100, "良", "yellow"),
    Class(150, "轻度污染", "orange"),
    Class(200, "中度污染", "red"),
    Class(300, "重度污染", "purple"),
    Class(500, "严重污染", "maroon"),
)


@dataclass(frozen=True)
class Column:
    """Breakpoints of one pollutant and averaging time: `at` are concentrations in `unit`, the first one 0; `index` the
    indices there; `beyond` the index above the last one, NaN for none."""

    name: str
    unit: str
    at: tuple[float, ...]
    index: tuple[int, ...]
    beyond: float

    def iaqi(self, concentration: float) -> float:
        """Index of a mean, a whole number; NaN when there is none (not finite, or beyond a table without a cap).

        Below 0 is 0: instruments swing around their zero.
        """
        if not isfinite(concentration):
            return nan
        if concentration > self.at[-1]:
            return self.beyond
        high = max(1, bisect_left(self.at, concentration))
        c1, c2, i1, i2 = self.at[high - 1], self.at[high], self.index[high - 1], self.index[high]
        return float(ceil((i2 - i1) / (c2 - c1) * (max(concentration, 0.0) - c1) + i1 - ROUNDING))

    def iaqis(self, concentration: F64) -> F64:
        """`iaqi` of a column of means, bit for bit."""
        at, index = np.array(self.at), np.array(self.index, np.float64)
        high = np.clip(np.searchsorted(at, concentration), 1, len(at) - 1)
        c1, c2, i1, i2 = at[high - 1], at[high], index[high - 1], index[high]
        found = np.ceil((i2 - i1) / (c2 - c1) * (np.maximum(concentration, 0.0) - c1) + i1 - ROUNDING)
        found = np.where(concentration > at[-1], self.beyond, found)
        result: F64 = np.where(np.isfinite(concentration), found, nan)
        return result


@dataclass(frozen=True)
class Edition:
    """An edition's columns by name, such as ``pm2_5_24h``, and where its numbers come from."""

    name: str
    status: str
    source: str
    columns: dict[str, Column]
    valid_from: date | None
    valid_to: date | None


def _read() -> dict[str, Edition]:
    data = tomllib.loads(Path(__file__).with_name("hj633.toml").read_text(encoding="utf-8"))
    editions = {}
    for name, facts in data.items():
        columns = {
            key: _column(key, column["unit"], column["at"], facts["beyond"]) for key, column in facts["column"].items()
        }
        dates = facts.get("valid_from"), facts.get("valid_to")
        editions[name] = Edition(name, facts["status"], facts["source"], columns, *dates)
    return editions


def _column(name: str, unit: str, at: list[float], beyond: str) -> Column:
    index = INDICES[: len(at) + 1]
    ends_early = len(index) < len(INDICES)
    top = nan if ends_early and beyond == "none" else float(index[-1])
    return Column(name, unit, (0.0, *map(float, at)), index, top)


EDITIONS = _read()


def class_of(aqi: int) -> Class:
    """The class of an AQI of 0 to 500."""
    return next((each for each in CLASSES if aqi <= each.upto), CLASSES[-1])
