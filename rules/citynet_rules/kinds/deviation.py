"""Kind `deviation`: a value far from its own recent baseline.

Baseline m and mean absolute deviation s are exponentially weighted (S. W. Roberts, Technometrics 1, 1959), one step a
usable reading, with d = x − m:

    σ = max(1.2533 s, sigma_min)      z = d / σ      (√(π/2) = 1.2533: a normal value's σ over its mean |d|)
    d ← d clipped to ±`clip` σ        s ← s + α (|d| − s)        m ← m + α d

The score is |z|, z or −z by `direction`; levels are values of it. Clipping makes the baseline robust: one wild reading
moves it by at most α · clip · σ. The first `learn_count` readings are learned with weight 1/n where that is above α,
unclipped, and not graded; nor is anything while σ is 0. While an alert is in force, the baseline goes on with clipped
steps (`in_alarm = "clip"`: a new normal is accepted in time) or stands still ("hold": only the return to the old one
clears).

The expected band in the evidence is m ± σ · (mildest level), before the reading.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import Field

from citynet.batch import F64, I32, I64, Bools
from citynet_rules.kinds import limit
from citynet_rules.kinds.graded import GradedRule, gap_s_max, grade, limits_of, off_delay_s, state_of
from citynet_rules.kinds.kind import UNUSABLE, Kernel
from citynet_rules.kinds.limit import LimitState
from citynet_rules.kinds.walk import Columns, Found, RankKernel
from citynet_rules.rule import Rule

SIGMA_OF_MEAN_DEVIATION = 1.2533141373155003
COUNT_MAX = 1_000_000
STATE = state_of(("n", "<i8"), ("mean", "<f8"), ("spread", "<f8"))


class DeviationRule(GradedRule):
    """A rule of kind `deviation`; levels and `clip` in standard deviations, `sigma_min` in `unit`."""

    direction: Literal["either", "up", "down"] = "either"
    alpha: float = Field(0.01, gt=0, le=1)
    learn_count: int = Field(100, ge=2, le=COUNT_MAX)
    sigma_min: float = Field(0.0, ge=0, allow_inf_nan=False)
    clip: float = Field(3.0, gt=0, le=100, allow_inf_nan=False)
    in_alarm: Literal["clip", "hold"] = "clip"


class DeviationState(NamedTuple):
    """`n` learned readings (counted up to `learn_count`), baseline, mean absolute deviation, latch."""

    n: int
    mean: float
    spread: float
    latch: LimitState


class DeviationMachine:
    """One deviation rule."""

    def __init__(self, rule: DeviationRule) -> None:
        self.rule = rule
        self.limits = limits_of(rule)

    def initial(self) -> DeviationState:
        return DeviationState(0, 0.0, 0.0, limit.initial(self.limits))

    def step(
        self, state: DeviationState, time_us: int, value: float, quality: int
    ) -> tuple[DeviationState, list[Found]]:
        if quality & UNUSABLE or not isfinite(value):
            return state, []
        n, mean, spread, latch = state
        if n == 0:
            return DeviationState(1, value, 0.0, latch), []
        rule, found = self.rule, list[Found]()
        away = value - mean
        if not isfinite(away):
            return state, []
        alpha = max(rule.alpha, 1 / (n + 1))
        if n >= rule.learn_count:
            alpha = rule.alpha
            sigma = max(SIGMA_OF_MEAN_DEVIATION * spread, rule.sigma_min)
            if sigma > 0:
                z = away / sigma
                score = abs(z) if rule.direction == "either" else z if rule.direction == "up" else -z
                reach = self.limits.close[0] * sigma
                latch, found = grade(self.limits, latch, time_us, score, (mean - reach, mean + reach))
                away = min(max(away, -rule.clip * sigma), rule.clip * sigma)
        if latch.latched and rule.in_alarm == "hold":
            return DeviationState(n, mean, spread, latch), found
        spread += alpha * (abs(away) - spread)
        return DeviationState(min(n + 1, rule.learn_count), mean + alpha * away, spread, latch), found

    def pack(self, state: DeviationState) -> tuple[Any, ...]:
        return (state.n, state.mean, state.spread, *limit.pack(self.limits, state.latch))

    def unpack(self, row: tuple[Any, ...]) -> DeviationState:
        return DeviationState(row[0], row[1], row[2], limit.unpack(self.limits, row[3:]))


class DeviationKernel(RankKernel[DeviationState]):
    """All deviation rules at once."""

    columns: ClassVar[tuple[str, ...]] = ("n", "mean", "spread", "low", "high", "latched")
    settings: ClassVar[tuple[str, ...]] = ("_alpha", "_learn_count", "_sigma_min", "_clip", "_sign", "_either", "_hold")

    def __init__(self, rules: Sequence[DeviationRule]) -> None:
        super().__init__([DeviationMachine(rule) for rule in rules], STATE)
        self._alpha: F64 = np.array([rule.alpha for rule in rules], np.float64)
        self._learn_count: I64 = np.array([rule.learn_count for rule in rules], np.int64)
        self._sigma_min: F64 = np.array([rule.sigma_min for rule in rules], np.float64)
        self._clip: F64 = np.array([rule.clip for rule in rules], np.float64)
        self._sign: F64 = np.array([-1.0 if rule.direction == "down" else 1.0 for rule in rules], np.float64)
        self._either: Bools = np.array([rule.direction == "either" for rule in rules], np.bool_)
        self._hold: Bools = np.array([rule.in_alarm == "hold" for rule in rules], np.bool_)

    def glide(self, columns: Columns, rule: I32, time_us: I64, value: F64) -> Bools:
        n, mean, spread = columns["n"], columns["mean"], columns["spread"]
        first = n == 0
        away = np.where(first, 0.0, value - mean)
        learned = n >= columns["_learn_count"]
        sigma = np.maximum(SIGMA_OF_MEAN_DEVIATION * spread, columns["_sigma_min"])
        graded = learned & (sigma > 0)
        z = away / sigma
        score = np.where(columns["_either"], np.abs(z), columns["_sign"] * z)
        moved: Bools = graded & ~((columns["low"] <= score) & (score < columns["high"])) | ~np.isfinite(away)
        bound = columns["_clip"] * sigma
        away = np.where(graded, np.minimum(np.maximum(away, -bound), bound), away)
        alpha = np.where(learned, columns["_alpha"], np.maximum(columns["_alpha"], 1 / (n + 1)))
        goes = ~first & ~(columns["_hold"] & (columns["latched"] > 0))
        np.add(spread, alpha * (np.abs(away) - spread), out=spread, where=goes)
        np.add(mean, alpha * away, out=mean, where=goes)
        np.copyto(mean, value, where=first)
        np.copyto(n, np.minimum(n + 1, columns["_learn_count"]), where=first | goes)
        return moved


class DeviationKind:
    """Registration of the kind."""

    name = "deviation"
    model: type[Rule] = DeviationRule
    state = STATE
    learned: tuple[str, ...] = ("n", "mean", "spread")
    templates = (
        "{device} 的 {metric} 偏离自身基线 {value} 倍标准差，限值 {limit}，自 {since} 起。",
        "{metric} of {device} is {value} standard deviations from its own baseline, limit {limit}, since {since}.",
    )

    def facts(self, rule: DeviationRule) -> dict[str, Any]:
        return {
            "unit": "σ",
            "direction": rule.direction,
            "levels": dict(rule.levels),
            "hysteresis": rule.hysteresis,
            "on_delay_s": rule.on_delay_s,
            "off_delay_s": off_delay_s(rule),
            "alpha": rule.alpha,
            "learn_count": rule.learn_count,
            "sigma_min": rule.sigma_min,
            "clip": rule.clip,
            "in_alarm": rule.in_alarm,
            "gap_s_max": gap_s_max(rule),
        }

    def kernel(self, rules: Sequence[DeviationRule]) -> Kernel:
        return DeviationKernel(rules)
