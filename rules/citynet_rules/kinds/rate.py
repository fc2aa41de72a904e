"""Kind `rate`: change of a metric per time, graded like a `limit`.

The rate at a reading is (value − value before) / (time − time before), per `per`. "Before" is the previous usable
reading; with `over_s` it is the anchor: the newest evaluated reading, and readings less than `over_s` after it are
passed over, so that noise over short steps is not taken for a slope. Across a silence longer than `gap_s_max` there is
no rate: the reading after it becomes the anchor. The score is the rate ("up"), its negative ("down") or its amount
("either"); levels, hysteresis and delays are those of `limit` over the score.

Source of the formula: first difference; the idea of a minimum baseline is that of rate-of-change alarms in
ANSI/ISA-18.2 practice.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from citynet.batch import F64, I32, I64, Bools
from citynet_rules.kinds import limit
from citynet_rules.kinds.graded import GradedRule, gap_s_max, grade, limits_of, off_delay_s, state_of
from citynet_rules.kinds.kind import UNUSABLE, Kernel
from citynet_rules.kinds.limit import LimitState
from citynet_rules.kinds.walk import Columns, Found, RankKernel
from citynet_rules.rule import Delay, Rule, microseconds
from citynet_rules.transition import NONE_US

PER_S = {"s": 1, "min": 60, "h": 3600, "d": 86_400}
STATE = state_of(("anchor_us", "<i8"), ("anchor", "<f8"))


class RateRule(GradedRule):
    """A rule of kind `rate`; levels are in `unit` per `per`."""

    direction: Literal["up", "down", "either"]
    per: Literal["s", "min", "h", "d"]
    over_s: Delay = 0.0


class RateState(NamedTuple):
    """The reading the next one is compared with (`anchor_us` is `NONE_US` when there is none), and the latch."""

    anchor_us: int
    anchor: float
    latch: LimitState


class RateMachine:
    """One rate rule."""

    def __init__(self, rule: RateRule) -> None:
        self.limits = limits_of(rule)
        self.direction = rule.direction
        self.per_us = PER_S[rule.per] * 1_000_000
        self.over_us = microseconds(rule.over_s)

    def initial(self) -> RateState:
        return RateState(NONE_US, 0.0, limit.initial(self.limits))

    def step(self, state: RateState, time_us: int, value: float, quality: int) -> tuple[RateState, list[Found]]:
        if quality & UNUSABLE or not isfinite(value):
            return state, []
        past_us = time_us - state.anchor_us
        if state.anchor_us == NONE_US or past_us > self.limits.gap_us:
            return RateState(time_us, value, state.latch), []
        if past_us < self.over_us:
            return state, []
        rate = (value - state.anchor) / (past_us / self.per_us)
        score = abs(rate) if self.direction == "either" else rate if self.direction == "up" else -rate
        latch, found = grade(self.limits, state.latch, time_us, score)
        return RateState(time_us, value, latch), found

    def pack(self, state: RateState) -> tuple[Any, ...]:
        return (state.anchor_us, state.anchor, *limit.pack(self.limits, state.latch))

    def unpack(self, row: tuple[Any, ...]) -> RateState:
        return RateState(row[0], row[1], limit.unpack(self.limits, row[2:]))


class RateKernel(RankKernel[RateState]):
    """All rate rules at once."""

    columns: ClassVar[tuple[str, ...]] = ("anchor_us", "anchor", "low", "high")
    settings: ClassVar[tuple[str, ...]] = ("_per_us", "_over_us", "_gap_us", "_sign", "_either")

    def __init__(self, rules: Sequence[RateRule]) -> None:
        machines = [RateMachine(rule) for rule in rules]
        super().__init__(machines, STATE)
        self._per_us: F64 = np.array([machine.per_us for machine in machines], np.float64)
        self._over_us: I64 = np.array([machine.over_us for machine in machines], np.int64)
        self._gap_us: I64 = np.array([machine.limits.gap_us for machine in machines], np.int64)
        self._sign: F64 = np.array([-1.0 if rule.direction == "down" else 1.0 for rule in rules])
        self._either: Bools = np.array([rule.direction == "either" for rule in rules], np.bool_)

    def glide(self, columns: Columns, rule: I32, time_us: I64, value: F64) -> Bools:
        anchor_us, anchor = columns["anchor_us"], columns["anchor"]
        past_us = time_us - anchor_us
        known = (anchor_us != NONE_US) & (past_us <= columns["_gap_us"])
        early = known & (past_us < columns["_over_us"])
        rate = (value - anchor) / (past_us / columns["_per_us"])
        score = np.where(columns["_either"], np.abs(rate), columns["_sign"] * rate)
        outside = ~((columns["low"] <= score) & (score < columns["high"]))
        np.copyto(anchor_us, time_us, where=~early)
        np.copyto(anchor, value, where=~early)
        moved: Bools = known & ~early & outside
        return moved


class RateKind:
    """Registration of the kind."""

    name = "rate"
    model: type[Rule] = RateRule
    state = STATE
    learned: tuple[str, ...] = ()
    templates = (
        "{device} 的 {metric} 变化率为 {value} {unit}，限值 {limit} {unit}，自 {since} 起。",
        "{metric} of {device} changes by {value} {unit}, limit {limit} {unit}, since {since}.",
    )

    def facts(self, rule: RateRule) -> dict[str, Any]:
        return {
            "unit": f"{rule.unit}/{rule.per}",
            "direction": rule.direction,
            "levels": dict(rule.levels),
            "hysteresis": rule.hysteresis,
            "on_delay_s": rule.on_delay_s,
            "off_delay_s": off_delay_s(rule),
            "over_s": rule.over_s,
            "gap_s_max": gap_s_max(rule),
        }

    def kernel(self, rules: Sequence[RateRule]) -> Kernel:
        return RateKernel(rules)
