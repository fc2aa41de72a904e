"""Kind `range`: a value that cannot be. Outside low..high the sensor is at fault, not the city.

Raised at the first usable reading with value < `low` or value > `high`, without delay; cleared at the first reading for
which every reading of a stretch of `off_delay_s` was inside. Every usable reading outside is flagged UNCERTAIN and
OUT_OF_RANGE; it is still judged by the other rules. low..high is what the sensor or physics allows (a depth is not
negative, 100 %LEL is the scale's end), not what is wanted: that is a `limit`. The gross range test of QARTOD (test 4)
is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, isfinite
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import Field, model_validator

from citynet.batch import F64, I64, Bools
from citynet.quality import OUT_OF_RANGE, UNCERTAIN
from citynet_rules.kinds.kind import UNUSABLE, Kernel, Pairs, Segments
from citynet_rules.kinds.limit import extremes
from citynet_rules.kinds.walk import Found, WalkKernel
from citynet_rules.rule import Colour, Delay, Rule, level_of, microseconds
from citynet_rules.transition import NONE_US

Bound = Field(None, allow_inf_nan=False)


class RangeRule(Rule):
    """A rule of kind `range`; `low` and `high` in `unit`, at least one of them.

    `high_is` says what a value above `high` makes the series' other alerts: doubtful, or (danger) nothing, because an
    instrument may report more than its scale in a real release.
    """

    level: Colour
    low: float | None = Bound
    high: float | None = Bound
    high_is: Literal["fault", "danger"] = "fault"
    off_delay_s: Delay = 0.0

    @model_validator(mode="after")
    def _ordered(self) -> RangeRule:
        if self.low is None and self.high is None:
            raise ValueError("low or high is missing: a range has at least one end")
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError(f"low {self.low:g} must be below high {self.high:g}")
        return self


class RangeState(NamedTuple):
    """`raised_us` as ever; `inside_us`: first reading of the stretch inside, while an alert is open."""

    raised_us: int
    inside_us: int


STATE = np.dtype([("raised_us", "<i8"), ("inside_us", "<i8"), ("level", "<i4")])


class RangeMachine:
    """One range rule."""

    def __init__(self, rule: RangeRule) -> None:
        self.low = -inf if rule.low is None else rule.low
        self.high = inf if rule.high is None else rule.high
        self.off_us = microseconds(rule.off_delay_s)
        self.level = level_of(rule.level)

    def initial(self) -> RangeState:
        return RangeState(NONE_US, NONE_US)

    def step(self, state: RangeState, time_us: int, value: float, quality: int) -> tuple[RangeState, list[Found]]:
        if quality & UNUSABLE or not isfinite(value):
            return state, []
        raised_us, inside_us = state
        sample = ((time_us, value),)
        if value < self.low or value > self.high:
            if raised_us != NONE_US:
                return RangeState(raised_us, NONE_US), []
            beyond = self.low if value < self.low else self.high
            return RangeState(time_us, NONE_US), [
                Found("raise", self.level, time_us, time_us, value, beyond, time_us, sample, 1.0)
            ]
        if raised_us == NONE_US:
            return state, []
        inside_us = time_us if inside_us == NONE_US else inside_us
        if time_us - inside_us < self.off_us:
            return RangeState(raised_us, inside_us), []
        nearest = self.low if value - self.low < self.high - value else self.high
        cleared = Found("clear", self.level, time_us, raised_us, value, nearest, inside_us, sample, 0.0)
        return RangeState(NONE_US, NONE_US), [cleared]

    def pack(self, state: RangeState) -> tuple[Any, ...]:
        return (*state, 0 if state.raised_us == NONE_US else self.level)

    def unpack(self, row: tuple[Any, ...]) -> RangeState:
        return RangeState(row[0], row[1])


class RangeKernel(WalkKernel[RangeState]):
    """All range rules at once: pairs that are open or whose segment leaves the range are walked."""

    def __init__(self, rules: Sequence[RangeRule]) -> None:
        machines = [RangeMachine(rule) for rule in rules]
        super().__init__(machines, STATE)
        self._low: F64 = np.array([machine.low for machine in machines], np.float64)
        self._high: F64 = np.array([machine.high for machine in machines], np.float64)

    def moved(self, pairs: Pairs, pair: I64, segments: Segments, position: I64) -> Bools:
        lowest, highest = extremes(segments)
        low, high = self._low[pairs.rule[pair]], self._high[pairs.rule[pair]]
        outside = (lowest[position] < low) | (highest[position] > high)
        for n in np.flatnonzero(outside).tolist():
            rows = slice(int(segments.start[position[n]]), int(segments.stop[position[n]]))
            flagged = (segments.value[rows] < low[n]) | (segments.value[rows] > high[n])
            if segments.usable is not None:
                flagged &= segments.usable[rows]
            segments.flags[rows][flagged] |= UNCERTAIN | OUT_OF_RANGE
        moved: Bools = outside | (pairs.state["raised_us"][pair] != NONE_US)
        return moved


class RangeKind:
    """Registration of the kind."""

    name = "range"
    model: type[Rule] = RangeRule
    state = STATE
    learned: tuple[str, ...] = ()
    templates = (
        "{device} 的 {metric} 为 {value} {unit}，物理界限 {limit} {unit}，疑似设备故障。",
        "{metric} of {device} is {value} {unit}, physical limit {limit} {unit}: the device may be faulty.",
    )

    def facts(self, rule: RangeRule) -> dict[str, Any]:
        return {
            "hysteresis": None,
            "on_delay_s": None,
            "off_delay_s": rule.off_delay_s,
            "low": rule.low,
            "high": rule.high,
        }

    def kernel(self, rules: Sequence[RangeRule]) -> Kernel:
        return RangeKernel(rules)
