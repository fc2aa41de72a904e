"""Kind `cusum`: a small shift that lasts, found by cumulative sums of the standardised value.

First the series is learned: mean μ and standard deviation σ of its first readings (Welford's recurrence), until there
are `learn_count` of them that span `learn_s`, and σ is above 0 (`sigma_min` is its floor). Both are frozen then. From
there, with z = (x − μ) / σ (E. S. Page, Continuous inspection schemes, Biometrika 41, 1954; two-sided, tabular form):

    hi ← min(max(0, hi + z − k), 2 H)        lo ← min(max(0, lo − z − k), 2 H)

`k` is half the shift that is to be found, in σ; levels are values of the sums (5 is usual), H is the highest of them.
The score is max(hi, lo), or one of them by `direction`. The bound 2 H is the reset rule: however long the shift
lasted, the alert ends at most 2 H / k readings after the return to μ. A silence longer than `gap_s_max` sets the sums
to 0 while nothing is in force. A rule learns anew when its version changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, sqrt
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import Field

from citynet.batch import F64, I32, I64, Bools
from citynet_rules.kinds import limit
from citynet_rules.kinds.graded import GradedRule, gap_s_max, grade, limits_of, off_delay_s, state_of
from citynet_rules.kinds.kind import UNUSABLE, Kernel
from citynet_rules.kinds.limit import LimitState
from citynet_rules.kinds.walk import Columns, Found, RankKernel
from citynet_rules.rule import Delay, Rule, microseconds
from citynet_rules.transition import NONE_US

COUNT_MAX = 1_000_000
Side = Literal["either", "up", "down"]
STATE = state_of(
    ("n", "<i8"),
    ("begin_us", "<i8"),
    ("newest_us", "<i8"),
    ("mean", "<f8"),
    ("squares", "<f8"),
    ("sigma", "<f8"),
    ("hi", "<f8"),
    ("lo", "<f8"),
)


class CusumRule(GradedRule):
    """A rule of kind `cusum`; levels and `k` in standard deviations, `sigma_min` in `unit`."""

    direction: Side = "either"
    k: float = Field(0.5, gt=0, le=100, allow_inf_nan=False)
    learn_count: int = Field(100, ge=2, le=COUNT_MAX)
    learn_s: Delay = 0.0
    sigma_min: float = Field(0.0, ge=0, allow_inf_nan=False)


class CusumState(NamedTuple):
    """`n` learned readings since `begin_us`, their `mean` and sum of squared deviations; `sigma` is 0 while learning; the
    two sums; the latch."""

    n: int
    begin_us: int
    newest_us: int
    mean: float
    squares: float
    sigma: float
    hi: float
    lo: float
    latch: LimitState


class CusumMachine:
    """One cusum rule."""

    def __init__(self, rule: CusumRule) -> None:
        self.rule = rule
        self.limits = limits_of(rule)
        self.learn_us = microseconds(rule.learn_s)
        self.cap = 2 * self.limits.close[-1]

    def initial(self) -> CusumState:
        return CusumState(0, NONE_US, NONE_US, 0.0, 0.0, 0.0, 0.0, 0.0, limit.initial(self.limits))

    def step(self, state: CusumState, time_us: int, value: float, quality: int) -> tuple[CusumState, list[Found]]:
        if quality & UNUSABLE or not isfinite(value):
            return state, []
        if state.sigma == 0:
            return self._learn(state, time_us, value), []
        k, side, mean, sigma = self.rule.k, self.rule.direction, state.mean, state.sigma
        hi, lo = state.hi, state.lo
        if not state.latch.latched and time_us - state.newest_us > self.limits.gap_us:
            hi = lo = 0.0
        z = (value - mean) / sigma
        hi = min(max(0.0, hi + z - k), self.cap)
        lo = min(max(0.0, lo - z - k), self.cap)
        score = max(hi, lo) if side == "either" else hi if side == "up" else lo
        latch, found = grade(self.limits, state.latch, time_us, score, (mean - k * sigma, mean + k * sigma))
        return state._replace(newest_us=time_us, hi=hi, lo=lo, latch=latch), found

    def _learn(self, state: CusumState, time_us: int, value: float) -> CusumState:
        n = state.n + 1
        begin_us = time_us if state.n == 0 else state.begin_us
        away = value - state.mean
        mean = state.mean + away / n
        squares = state.squares + away * (value - mean)
        sigma = 0.0
        if n >= self.rule.learn_count and time_us - begin_us >= self.learn_us:
            sigma = max(sqrt(squares / (n - 1)), self.rule.sigma_min)
            sigma = sigma if isfinite(sigma) else 0.0
        return state._replace(n=n, begin_us=begin_us, newest_us=time_us, mean=mean, squares=squares, sigma=sigma)

    def pack(self, state: CusumState) -> tuple[Any, ...]:
        return (*state[:-1], *limit.pack(self.limits, state.latch))

    def unpack(self, row: tuple[Any, ...]) -> CusumState:
        n, begin_us, newest_us, mean, squares, sigma, hi, lo = row[:8]
        latch = limit.unpack(self.limits, row[8:])
        return CusumState(n, begin_us, newest_us, mean, squares, sigma, hi, lo, latch)


class CusumKernel(RankKernel[CusumState]):
    """All cusum rules at once."""

    columns: ClassVar[tuple[str, ...]] = (
        "n", "begin_us", "newest_us", "mean", "squares", "sigma", "hi", "lo", "low", "high", "latched",
    )  # fmt: skip
    settings: ClassVar[tuple[str, ...]] = ("_k", "_cap", "_up", "_down", "_gap_us")

    def __init__(self, rules: Sequence[CusumRule]) -> None:
        machines = [CusumMachine(rule) for rule in rules]
        super().__init__(machines, STATE)
        self._k: F64 = np.array([rule.k for rule in rules], np.float64)
        self._cap: F64 = np.array([machine.cap for machine in machines], np.float64)
        self._up: Bools = np.array([rule.direction != "down" for rule in rules], np.bool_)
        self._down: Bools = np.array([rule.direction != "up" for rule in rules], np.bool_)
        self._gap_us: I64 = np.array([machine.limits.gap_us for machine in machines], np.int64)
        self._learn_us: I64 = np.array([machine.learn_us for machine in machines], np.int64)
        self._learn_count: I64 = np.array([rule.learn_count for rule in rules], np.int64)
        self._sigma_min: F64 = np.array([rule.sigma_min for rule in rules], np.float64)

    def glide(self, columns: Columns, rule: I32, time_us: I64, value: F64) -> Bools:
        learning = columns["sigma"] == 0
        moved = self._sum(columns, rule, time_us, value, ~learning)
        if learning.any():
            self._learn(columns, rule, time_us, value, learning)
        columns["newest_us"][:] = time_us
        return moved

    def _sum(self, columns: Columns, rule: I32, time_us: I64, value: F64, where: Bools) -> Bools:
        hi, lo, k, cap = columns["hi"], columns["lo"], columns["_k"], columns["_cap"]
        gap = where & (columns["latched"] == 0) & (time_us - columns["newest_us"] > columns["_gap_us"])
        hi[gap] = 0.0
        lo[gap] = 0.0
        z = (value - columns["mean"]) / columns["sigma"]
        np.copyto(hi, np.minimum(np.maximum(0.0, hi + z - k), cap), where=where)
        np.copyto(lo, np.minimum(np.maximum(0.0, lo - z - k), cap), where=where)
        score = np.maximum(np.where(columns["_up"], hi, 0.0), np.where(columns["_down"], lo, 0.0))
        moved: Bools = where & ~((columns["low"] <= score) & (score < columns["high"]))
        return moved

    def _learn(self, columns: Columns, rule: I32, time_us: I64, value: F64, where: Bools) -> None:
        n, mean, squares, begin_us = columns["n"], columns["mean"], columns["squares"], columns["begin_us"]
        np.copyto(begin_us, time_us, where=where & (n == 0))
        np.add(n, 1, out=n, where=where)
        away = value - mean
        np.add(mean, away / n, out=mean, where=where)
        np.add(squares, away * (value - mean), out=squares, where=where)
        ready = where & (n >= self._learn_count[rule]) & (time_us - begin_us >= self._learn_us[rule])
        sigma = np.maximum(np.sqrt(squares / (n - 1)), self._sigma_min[rule])
        np.copyto(columns["sigma"], sigma, where=ready & np.isfinite(sigma))


class CusumKind:
    """Registration of the kind."""

    name = "cusum"
    model: type[Rule] = CusumRule
    state = STATE
    learned: tuple[str, ...] = ("n", "begin_us", "newest_us", "mean", "squares", "sigma")
    templates = (
        "{device} 的 {metric} 持续偏离，累积和 {value}，限值 {limit}，自 {since} 起。",
        "{metric} of {device} has shifted: cumulative sum {value}, limit {limit}, since {since}.",
    )

    def facts(self, rule: CusumRule) -> dict[str, Any]:
        return {
            "unit": "σ",
            "direction": rule.direction,
            "levels": dict(rule.levels),
            "hysteresis": rule.hysteresis,
            "on_delay_s": rule.on_delay_s,
            "off_delay_s": off_delay_s(rule),
            "k": rule.k,
            "learn_count": rule.learn_count,
            "learn_s": rule.learn_s,
            "sigma_min": rule.sigma_min,
            "gap_s_max": gap_s_max(rule),
        }

    def kernel(self, rules: Sequence[CusumRule]) -> Kernel:
        return CusumKernel(rules)
