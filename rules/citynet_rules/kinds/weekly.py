"""Kind `weekly`: deviation from the series' own time-of-week profile, with a robust spread.

The week has 168 bins, the hours of local time (`time_zone`; Monday 00:00 is bin 0). An hour is learned when it is over: by
the mean and the standard deviation of its usable readings, at least `count_min`. Each bin keeps the newest `weeks` hours,
as float32, and is judged from `weeks_min` on:

    c = median of the bin's means, at most `drift_max` away from the anchor: the median when the bin was first judged
    b = factor(n) · median of |mean − median of its own bin| over the bin and its two neighbours     (MAD)
    σ = max(√(b² + w²), sigma_min)      w = median of the bin's standard deviations
    z = (x − c) / σ                     the score is |z|, z or −z by `direction`; levels are values of it

Median and MAD: F. R. Hampel, J. Am. Stat. Assoc. 69, 1974; `factor` makes it σ for normal values and so few weeks (our
simulation, status D). A bin with σ = 0, or above `spread_max`, is not judged.

What keeps an anomaly out of the profile:

- An hour in which an alert was open at any time, or whose mean would have raised one, is not learned. So a leak that was
  told does not become the normal; a change that is meant needs a new version of the rule.
- The anchor: a rise so slow that each week passes can move c by `drift_max` and no further, so it is told at the latest when
  it has reached `drift_max` + level · σ (σ holds the trend that is within the kept weeks as well).
- Medians: of 3 or 4 weeks one, of 7 or 8 weeks three may be anything. A bin that was anomalous in half of its weeks has a
  large σ, which `spread_max` refuses. What lasted most of the learning time is the normal: nobody can know.

Holidays are judged as the weekday they fall on; `when` may leave them out. Where summer time ends, one bin is learned twice,
where it begins, one is left out; a time no calendar holds is taken as UTC.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, isnan, sqrt
from statistics import median
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from citynet.batch import F64, I32, I64, Bools
from citynet_rules.condition import check_zone, local_us
from citynet_rules.kinds import limit
from citynet_rules.kinds.graded import GradedRule, gap_s_max, grade, limits_of, off_delay_s, state_of
from citynet_rules.kinds.kind import UNUSABLE, Kernel
from citynet_rules.kinds.limit import LimitState
from citynet_rules.kinds.walk import Columns, Found, RankKernel
from citynet_rules.rule import Rule
from citynet_rules.transition import NONE_US

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
BINS = 168
WEEKS_MAX = 8
VALUE_MAX = 1e38  # float32 holds no more
FACTORS = {2: 2.10, 3: 3.03, 4: 2.11, 5: 2.02, 6: 1.92, 7: 1.81, 8: 1.78}
"""σ over the pooled median deviation of three bins, by their number of values: too large and too small equally often."""

F32 = NDArray[np.float32]
STATE = state_of(
    ("begin_us", "<i8"),
    ("end_us", "<i8"),
    ("n", "<i8"),
    ("mean", "<f8"),
    ("squares", "<f8"),
    ("tainted", "<i4"),
    ("bin", "<i4"),
    ("center", "<f8"),
    ("sigma", "<f8"),
    ("means", "<f4", (BINS, WEEKS_MAX)),
    ("spreads", "<f4", (BINS, WEEKS_MAX)),
    ("anchor", "<f4", (BINS,)),
)
"""11.6 KB a pair."""


class WeeklyRule(GradedRule):
    """A rule of kind `weekly`; levels in standard deviations, `sigma_min`, `spread_max` and `drift_max` in `unit`."""

    direction: Literal["either", "up", "down"] = "either"
    time_zone: str
    weeks: int = Field(4, ge=2, le=WEEKS_MAX)
    weeks_min: int = Field(3, ge=2, le=WEEKS_MAX)
    count_min: int = Field(2, ge=1, le=1_000_000)
    drift_max: float = Field(ge=0, allow_inf_nan=False)
    sigma_min: float = Field(0.0, ge=0, allow_inf_nan=False)
    spread_max: float | None = Field(None, gt=0, allow_inf_nan=False)

    @field_validator("time_zone")
    @classmethod
    def _zone(cls, name: str) -> str:
        check_zone(name)
        return name

    @model_validator(mode="after")
    def _reachable(self) -> WeeklyRule:
        if self.weeks_min > self.weeks:
            raise ValueError(f"weeks_min {self.weeks_min} must not be above weeks {self.weeks}")
        if self.spread_max is not None and self.spread_max <= self.sigma_min:
            raise ValueError(f"spread_max {self.spread_max:g} must be above sigma_min {self.sigma_min:g}")
        return self


class WeeklyState(NamedTuple):
    """The hour under way, `begin_us` to `end_us` (`NONE_US` if none): its bin, number, mean and sum of squared deviations of
    its readings, whether an alert was open in it, what it is judged by (`sigma` 0: not at all); the weeks, newest last, NaN
    where there is none; the latch. The arrays are never changed in place."""

    begin_us: int
    end_us: int
    n: int
    mean: float
    squares: float
    tainted: int
    bin: int
    center: float
    sigma: float
    means: F32
    spreads: F32
    anchor: F32
    latch: LimitState


class WeeklyMachine:
    """One weekly rule."""

    def __init__(self, rule: WeeklyRule) -> None:
        self.rule = rule
        self.limits = limits_of(rule)

    def initial(self) -> WeeklyState:
        empty = np.full((BINS, WEEKS_MAX), np.nan, np.float32)
        anchor = np.full(BINS, np.nan, np.float32)
        latch = limit.initial(self.limits)
        return WeeklyState(NONE_US, NONE_US, 0, 0.0, 0.0, 0, 0, 0.0, 0.0, empty, empty, anchor, latch)

    def step(self, state: WeeklyState, time_us: int, value: float, quality: int) -> tuple[WeeklyState, list[Found]]:
        if quality & UNUSABLE or not isfinite(value):
            return state, []
        if not state.begin_us <= time_us < state.end_us:
            state = self._opened(self._closed(state), time_us)
        n = state.n + 1
        away = value - state.mean
        mean = state.mean + away / n
        squares = state.squares + away * (value - mean)
        latch, found = state.latch, list[Found]()
        if state.sigma > 0:
            score = self._score((value - state.center) / state.sigma)
            reach = self.limits.close[0] * state.sigma
            band = (state.center - reach, state.center + reach)
            latch, changes = grade(self.limits, latch, time_us, score, band)
            found = [change._replace(more=self._basis(state, value)) for change in changes]
        tainted = int(state.tainted or state.latch.latched > 0 or latch.latched > 0)
        return state._replace(n=n, mean=mean, squares=squares, tainted=tainted, latch=latch), found

    def _score(self, z: float) -> float:
        return abs(z) if self.rule.direction == "either" else z if self.rule.direction == "up" else -z

    def _basis(self, state: WeeklyState, value: float) -> dict[str, Any]:
        return {"reading": value, "hour_of_week": state.bin, "baseline": state.center, "sigma": state.sigma}

    def _opened(self, state: WeeklyState, time_us: int) -> WeeklyState:
        """The hour of `time_us` begins."""
        local = local_us(self.rule.time_zone, time_us)
        begin_us = time_us - local % HOUR_US
        number = (local // DAY_US + 3) % 7 * 24 + local % DAY_US // HOUR_US  # 1970-01-01 was a Thursday
        center, sigma = self._profile(state, number)
        return state._replace(
            begin_us=begin_us, end_us=begin_us + HOUR_US, n=0, mean=0.0, squares=0.0, tainted=0, bin=number,
            center=center, sigma=sigma,
        )  # fmt: skip

    def _closed(self, state: WeeklyState) -> WeeklyState:
        """Learn the hour under way, if it may be learned."""
        if state.n < max(self.rule.count_min, 1) or state.tainted or not abs(state.mean) < VALUE_MAX:
            return state
        if state.sigma > 0 and self._score((state.mean - state.center) / state.sigma) >= self.limits.close[0]:
            return state
        spread = sqrt(state.squares / (state.n - 1)) if state.n > 1 and state.squares >= 0 else 0.0
        if not spread < VALUE_MAX:
            return state
        means, spreads, anchor = state.means.copy(), state.spreads.copy(), state.anchor
        for kept, newest in ((means, state.mean), (spreads, spread)):
            kept[state.bin, :-1] = kept[state.bin, 1:]
            kept[state.bin, -1] = newest
        weeks = self._weeks(means, state.bin)
        if len(weeks) >= self.rule.weeks_min and isnan(anchor[state.bin]):
            anchor = anchor.copy()
            anchor[state.bin] = median(weeks)
        return state._replace(means=means, spreads=spreads, anchor=anchor)

    def _profile(self, state: WeeklyState, number: int) -> tuple[float, float]:
        """Centre and σ of a bin; σ 0 where it is not judged."""
        rule, weeks = self.rule, self._weeks(state.means, number)
        if len(weeks) < rule.weeks_min:
            return 0.0, 0.0
        anchor = float(state.anchor[number])
        middle = median(weeks)
        center = min(max(middle, anchor - rule.drift_max), anchor + rule.drift_max)
        away = [abs(mean - middle) for mean in weeks]
        for near in ((number - 1) % BINS, (number + 1) % BINS):
            if len(others := self._weeks(state.means, near)) > 1:
                their = median(others)
                away += [abs(mean - their) for mean in others]
        between = FACTORS[len(weeks)] * median(away)
        within = median(self._weeks(state.spreads, number))
        sigma = max(sqrt(between * between + within * within), rule.sigma_min)
        return center, sigma if rule.spread_max is None or sigma <= rule.spread_max else 0.0

    def _weeks(self, kept: F32, number: int) -> list[float]:
        """What counts of a bin's weeks."""
        newest: list[float] = kept[number, -self.rule.weeks :].tolist()
        return [each for each in newest if not isnan(each)]

    def pack(self, state: WeeklyState) -> tuple[Any, ...]:
        return (*state[:-1], *limit.pack(self.limits, state.latch))

    def unpack(self, row: tuple[Any, ...]) -> WeeklyState:
        kept = (column.copy() for column in row[9:12])  # what `item` gives may look at the row itself
        columns = (*row[:9], *kept, limit.unpack(self.limits, row[12:]))
        return WeeklyState._make(columns)


class WeeklyKernel(RankKernel[WeeklyState]):
    """All weekly rules at once: readings within their hour and band glide, the first of an hour is walked. So is
    every reading that changes the latch: `tainted` never changes in a glide."""

    columns: ClassVar[tuple[str, ...]] = (
        "begin_us", "end_us", "n", "mean", "squares", "center", "sigma", "low", "high",
    )  # fmt: skip

    def __init__(self, rules: Sequence[WeeklyRule]) -> None:
        super().__init__([WeeklyMachine(rule) for rule in rules], STATE)
        self._sign: F64 = np.array([-1.0 if rule.direction == "down" else 1.0 for rule in rules], np.float64)
        self._either: Bools = np.array([rule.direction == "either" for rule in rules], np.bool_)

    def glide(self, columns: Columns, rule: I32, time_us: I64, value: F64) -> Bools:
        n, mean, squares, sigma = columns["n"], columns["mean"], columns["squares"], columns["sigma"]
        other_hour = (time_us < columns["begin_us"]) | (time_us >= columns["end_us"])
        np.add(n, 1, out=n)
        away = value - mean
        np.add(mean, away / n, out=mean)
        np.add(squares, away * (value - mean), out=squares)
        z = (value - columns["center"]) / sigma
        score = np.where(self._either[rule], np.abs(z), self._sign[rule] * z)
        moved: Bools = other_hour | ((sigma > 0) & ~((columns["low"] <= score) & (score < columns["high"])))
        return moved


class WeeklyKind:
    """Registration of the kind."""

    name = "weekly"
    model: type[Rule] = WeeklyRule
    state = STATE
    learned: tuple[str, ...] = (
        "begin_us", "end_us", "n", "mean", "squares", "tainted", "bin", "center", "sigma", "means", "spreads", "anchor",
    )  # fmt: skip
    templates = (
        "{device} 的 {metric} 偏离同一时段的常态 {value} 倍标准差，限值 {limit}，自 {since} 起。",
        "{metric} of {device} is {value} standard deviations from what is usual at this hour of the week, limit {limit}, "
        "since {since}.",
    )

    def facts(self, rule: WeeklyRule) -> dict[str, Any]:
        own = WeeklyRule.model_fields.keys() - GradedRule.model_fields.keys()
        return {
            "unit": "σ",
            "levels": dict(rule.levels),
            "hysteresis": rule.hysteresis,
            "on_delay_s": rule.on_delay_s,
            "off_delay_s": off_delay_s(rule),
            "gap_s_max": gap_s_max(rule),
            **{name: getattr(rule, name) for name in sorted(own)},
        }

    def kernel(self, rules: Sequence[WeeklyRule]) -> Kernel:
        return WeeklyKernel(rules)
