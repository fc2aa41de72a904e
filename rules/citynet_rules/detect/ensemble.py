"""Severity of one series without a rule: how far do level, spread and daily shape lie outside all that was seen before?

Method, figures and what did not help: docs/detectors.md.
"""

from __future__ import annotations

import numpy as np

from citynet.batch import F64
from citynet_rules.detect.profile import DailyProfile
from citynet_rules.detect.quantiles import QuantileRing

SHORT_ROWS = 6
LONG_ROWS = 48
MEMORY_ROWS = 4096
WARMUP_ROWS = 150
REFRACTORY_ROWS = 100
TAIL = 0.005
SPREAD_TAIL = 0.02
MARGINS = {"mean_short": 0.12, "std_short": 0.24, "std_long": 0.12, "daily": 1.0}
"""How far outside the tail quantiles is an alarm, in units of the past spread. A difference from a daily profile has spread of
its own making, so it must stand out by a whole one."""
FLOOR = 1e-6
"""Smallest spread as a share of the level: rounding of a constant series is no novelty."""
VALUE_MAX = 1e150
"""Values beyond count as this one, so that squares stay finite."""
RATIO_MAX = 1e6
ALARM = 0.5
"""Severity from which a row is an alarm."""

Features = dict[str, F64]


class SeriesDetector:
    """Novelty of one series; rows come in the order of their arrival and nothing is read ahead.

    The severity of a row is r / (1 + r), r the largest ratio of a feature's margin to its `MARGINS`; it is 0.5 where r = 1. For
    `REFRACTORY_ROWS` after an alarm it is halved, so that one event is announced once.
    """

    def __init__(self) -> None:
        self._recent: F64 = np.empty(0)
        self._rings = {name: QuantileRing(MEMORY_ROWS) for name in MARGINS}
        self._profile = DailyProfile()
        self._quiet = REFRACTORY_ROWS

    def feed(self, time_s: F64, value: F64) -> F64:
        """Severities (n, float64, 0..1) of n rows; a row without a finite value or time gets 0 and is not learnt.

        `time_s` is local wall-clock time in seconds; only its time of day and its date count. It may repeat or go back.
        """
        severity = np.zeros(len(value))
        known = np.isfinite(value) & np.isfinite(time_s)
        if known.any():
            level = np.clip(value[known], -VALUE_MAX, VALUE_MAX)
            columns = self._features(level)
            rows = zip(time_s[known].tolist(), *(column.tolist() for column in columns.values()), strict=True)
            severity[known] = [self._row(*row) for row in rows]
        return severity

    def _features(self, level: F64) -> Features:
        """Mean and deviation of the last rows at each row; before the first row a series counts as constant."""
        if not len(self._recent):
            self._recent = np.full(LONG_ROWS - 1, level[0])
        joined = np.concatenate([self._recent, level])
        self._recent = joined[1 - LONG_ROWS :]
        mean_short, std_short = rolling(joined, SHORT_ROWS)
        _, std_long = rolling(joined, LONG_ROWS)
        n = len(level)
        return {"mean_short": mean_short[-n:], "std_short": std_short[-n:], "std_long": std_long[-n:]}

    def _row(self, time_s: float, mean_short: float, std_short: float, std_long: float) -> float:
        level = self._rings["mean_short"]
        floor = FLOOR * abs(level.quantile(0.5)) if len(level) else 0.0
        ratio = self._novelty("mean_short", mean_short, floor)
        ratio = max(ratio, self._novelty("std_short", std_short, floor), self._novelty("std_long", std_long, floor))
        rest = self._profile.residual(time_s, mean_short)
        if rest is not None:
            daily = self._novelty("daily", rest[0], floor)
            ratio = max(ratio, daily if rest[1] else 0.0)
        severity = ratio / (1 + ratio)
        if self._quiet < REFRACTORY_ROWS:
            self._quiet += 1
            return severity / 2
        if severity >= ALARM:
            self._quiet = 1
        return severity

    def _novelty(self, name: str, value: float, floor: float) -> float:
        """Ratio of a feature's margin to its limit, from its past only; then the value becomes past."""
        ring = self._rings[name]
        ratio = novelty(ring, value, floor) / MARGINS[name] if len(ring) >= WARMUP_ROWS else 0.0
        ring.push(value)
        return min(ratio, RATIO_MAX)

    def save(self) -> dict[str, F64]:
        """The state as plain arrays: at most 4 × `MEMORY_ROWS` + 400 numbers."""
        rings = {name: ring.save() for name, ring in self._rings.items()}
        return {
            **rings,
            "recent": self._recent.copy(),
            "profile": self._profile.save(),
            "quiet": np.array([float(self._quiet)]),
        }

    def load(self, state: dict[str, F64]) -> None:
        """Replace the state by one that `save` gave."""
        for name, ring in self._rings.items():
            ring.load(state[name])
        self._recent = state["recent"].copy()
        self._profile.load(state["profile"])
        self._quiet = int(state["quiet"][0])


def novelty(past: QuantileRing, value: float, floor: float) -> float:
    """Distance of `value` outside the past's 0.5 % and 99.5 % quantiles, in units of its 2–98 % spread; 0 inside."""
    low, high = past.quantile(TAIL), past.quantile(1 - TAIL)
    outside = max(value - high, low - value)
    if outside <= 0:
        return 0.0
    spread = max(past.quantile(1 - SPREAD_TAIL) - past.quantile(SPREAD_TAIL), 0.05 * (high - low), floor)
    return outside / spread if spread > outside / RATIO_MAX else RATIO_MAX


def rolling(values: F64, width: int) -> tuple[F64, F64]:
    """Mean and population standard deviation over `width` rows ending at each row (n − width + 1 of them).

    Sums run row by row in one order, so that a result does not depend on how a stream is cut into pieces.
    """
    n = len(values) - width + 1
    total = np.zeros(n)
    for shift in range(width):
        total += values[shift : shift + n]
    mean = total / width
    square = np.zeros(n)
    for shift in range(width):
        square += (values[shift : shift + n] - mean) ** 2
    return mean, np.sqrt(square / width)
