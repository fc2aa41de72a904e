"""Kind `drift`: a change that is too slow to be an event. A fault of the device until somebody has looked, not of the city.

Of the usable readings x two means are kept, with dt the time since the reading before and age that since the first one:

    m ← m + (x − m) · min(1, dt / min(onset_s, age))          the value as of an onset ago
    b ← b + (x − b) · min(1, dt / min(tau_s, age))            the base

and while |m − b| ≥ `band`, b follows with `tau_s` at once. A reading is *sudden* when |x − m| > `step_max` ·
max(1, dt / onset_s) and x is farther from b than m is (before both are moved): no drift can do that within an onset, and
what comes back is no event. The value is *away* from the first reading with |m − b| ≥ band / 2 until it is below that
again. Drifting is a series that is away by `band` or more with nothing sudden since an onset before it went away. The
alert is raised at the first such reading, and cleared at the first one that is sudden, or with |m − b| < 3/4 · band, or
`believed_s` after its raise: what nobody has mended by then is believed, and is not doubted again until the value has
been back.

With `step_max` ≤ `band` a single event cannot pass for a drift: it would have to move the mean by the band without any
reading beyond the step. The form is that of a double exponential mean (Brown, Smoothing, Forecasting and Prediction,
1963): the two lag a ramp by their time constants, and their distance tells its slope. Readings are flagged UNCERTAIN.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any, ClassVar, NamedTuple

import numpy as np
from pydantic import Field, model_validator

from citynet.batch import F64, I32, I64, Bools
from citynet.quality import UNCERTAIN
from citynet_rules.kinds.kind import UNUSABLE, Kernel, Pairs, Segments
from citynet_rules.kinds.walk import Columns, Found, RankKernel
from citynet_rules.rule import Age, Colour, Rule, level_of, microseconds
from citynet_rules.transition import NONE_US

EASE = 0.75
Positive = Field(gt=0, allow_inf_nan=False)


class DriftRule(Rule):
    """A rule of kind `drift`; `band` and `step_max` in `unit`, times in seconds."""

    level: Colour
    band: float = Positive
    step_max: float = Positive
    onset_s: Age = 43_200.0
    tau_s: Age = 2_592_000.0
    believed_s: Age = Field(604_800.0, description="how long it is doubted at most")

    @model_validator(mode="after")
    def _tells_events(self) -> DriftRule:
        if self.step_max > self.band:
            raise ValueError(
                f"step_max {self.step_max:g} must not be above band {self.band:g}: an event would pass for a drift"
            )
        if self.tau_s <= self.onset_s:
            raise ValueError(f"tau_s {self.tau_s:g} must be above onset_s {self.onset_s:g}")
        return self


class DriftState(NamedTuple):
    """First and newest reading's time, both means; when the newest sudden reading was, since when the value is away, and
    whether that is believed; `raised_us` as ever."""

    first_us: int
    last_us: int
    mean: float
    base: float
    sudden_us: int
    away_us: int
    believed: int
    raised_us: int


STATE = np.dtype(
    [
        ("first_us", "<i8"),
        ("last_us", "<i8"),
        ("mean", "<f8"),
        ("base", "<f8"),
        ("sudden_us", "<i8"),
        ("away_us", "<i8"),
        ("raised_us", "<i8"),
        ("believed", "<i4"),
        ("level", "<i4"),
    ]
)


class DriftMachine:
    """One drift rule."""

    def __init__(self, rule: DriftRule) -> None:
        self.band, self.step_max = rule.band, rule.step_max
        self.onset_us, self.tau_us = microseconds(rule.onset_s), microseconds(rule.tau_s)
        self.believed_us = microseconds(rule.believed_s)
        self.level = level_of(rule.level)

    def initial(self) -> DriftState:
        return DriftState(NONE_US, NONE_US, 0.0, 0.0, NONE_US, NONE_US, 0, NONE_US)

    def step(self, state: DriftState, time_us: int, value: float, quality: int) -> tuple[DriftState, list[Found]]:
        if quality & UNUSABLE or not isfinite(value):
            return state, []
        if state.first_us == NONE_US:
            return state._replace(first_us=time_us, last_us=time_us, mean=value, base=value), []
        dt_us, age_us = time_us - state.last_us, time_us - state.first_us
        above, over = value - state.mean, value - state.base
        if not (isfinite(above) and isfinite(over)):
            return state, []
        if abs(above) > self.step_max * max(1.0, float(dt_us) / self.onset_us) and abs(over) > abs(
            state.mean - state.base
        ):
            state = state._replace(sudden_us=time_us)
        far = abs(state.mean - state.base) >= self.band
        base_us = self.tau_us if far else min(self.tau_us, age_us)
        mean = state.mean + above * min(1.0, float(dt_us) / float(min(self.onset_us, age_us)))
        base = state.base + over * min(1.0, float(dt_us) / float(base_us))
        state = state._replace(last_us=time_us, mean=mean, base=base)
        return self._judged(state, time_us, value, abs(mean - base))

    def _judged(self, state: DriftState, time_us: int, value: float, off: float) -> tuple[DriftState, list[Found]]:
        """What follows from the means being `off` from each other."""
        if off < self.band / 2:
            state = state._replace(away_us=NONE_US, believed=0)
        elif state.away_us == NONE_US:
            state = state._replace(away_us=time_us)
        is_slow = state.sudden_us == NONE_US or state.sudden_us < state.away_us - self.onset_us
        sample = ((time_us, value),)
        if state.raised_us == NONE_US:
            if off < self.band or not is_slow or state.believed:
                return state, []
            found = Found("raise", self.level, time_us, time_us, off, self.band, state.away_us, sample, 1.0)
            return state._replace(raised_us=time_us), [found]
        is_old = time_us - state.raised_us >= self.believed_us
        if off >= EASE * self.band and is_slow and not is_old:
            return state, []
        found = Found("clear", self.level, time_us, state.raised_us, off, self.band, state.raised_us, sample, 0.0)
        believed = int(state.away_us != NONE_US and is_old)
        return state._replace(raised_us=NONE_US, believed=max(believed, state.believed)), [found]

    def pack(self, state: DriftState) -> tuple[Any, ...]:
        first_us, last_us, mean, base, sudden_us, away_us, believed, raised_us = state
        level = 0 if raised_us == NONE_US else self.level
        return (first_us, last_us, mean, base, sudden_us, away_us, raised_us, believed, level)

    def unpack(self, row: tuple[Any, ...]) -> DriftState:
        first_us, last_us, mean, base, sudden_us, away_us, raised_us, believed, _ = row
        return DriftState(first_us, last_us, mean, base, sudden_us, away_us, believed, raised_us)


class DriftKernel(RankKernel[DriftState]):
    """All drift rules at once: pairs glide while they stay as they are, in force or not."""

    columns: ClassVar[tuple[str, ...]] = (
        "first_us",
        "last_us",
        "mean",
        "base",
        "sudden_us",
        "away_us",
        "raised_us",
        "believed",
    )

    def __init__(self, rules: Sequence[DriftRule]) -> None:
        machines = [DriftMachine(rule) for rule in rules]
        super().__init__(machines, STATE)
        self._band: F64 = np.array([machine.band for machine in machines], np.float64)
        self._step_max: F64 = np.array([machine.step_max for machine in machines], np.float64)
        self._onset_us: I64 = np.array([machine.onset_us for machine in machines], np.int64)
        self._tau_us: I64 = np.array([machine.tau_us for machine in machines], np.int64)
        self._believed_us: I64 = np.array([machine.believed_us for machine in machines], np.int64)

    def glide(self, columns: Columns, rule: I32, time_us: I64, value: F64) -> Bools:
        mean, base, away_us = columns["mean"], columns["base"], columns["away_us"]
        first = columns["first_us"] == NONE_US
        band, onset_us, tau_us = self._band[rule], self._onset_us[rule], self._tau_us[rule]
        age_us = np.where(first, 1, time_us - columns["first_us"])
        dt_us = np.where(first, 1, time_us - columns["last_us"])
        above, over = value - mean, value - base
        reach = self._step_max[rule] * np.maximum(1.0, dt_us / onset_us)
        sudden = (np.abs(above) > reach) & (np.abs(over) > np.abs(mean - base))
        np.copyto(columns["sudden_us"], time_us, where=~first & sudden)
        far = np.abs(mean - base) >= band
        base_us = np.where(far, tau_us, np.minimum(tau_us, age_us))
        wild = ~(np.isfinite(above) & np.isfinite(over))
        mean[:] = np.where(first, value, mean + above * np.minimum(1.0, dt_us / np.minimum(onset_us, age_us)))
        base[:] = np.where(first, value, base + over * np.minimum(1.0, dt_us / base_us))
        np.copyto(columns["first_us"], time_us, where=first)
        columns["last_us"][:] = time_us
        off = np.abs(mean - base)
        is_back = off < band / 2
        np.copyto(away_us, time_us, where=~is_back & (away_us == NONE_US))
        np.copyto(away_us, NONE_US, where=is_back)
        np.copyto(columns["believed"], 0, where=is_back)
        sudden_us = columns["sudden_us"]
        slow = (sudden_us == NONE_US) | (sudden_us < np.where(is_back, NONE_US, away_us - onset_us))
        open_ = columns["raised_us"] != NONE_US
        is_old = time_us - np.where(open_, columns["raised_us"], time_us) >= self._believed_us[rule]
        raises = ~open_ & (off >= band) & slow & (columns["believed"] == 0)
        clears = open_ & ((off < EASE * band) | ~slow | is_old)
        moved: Bools = raises | clears | wild
        return moved

    def moved(self, pairs: Pairs, pair: I64, segments: Segments, position: I64) -> Bools:
        moved = super().moved(pairs, pair, segments, position)
        stays = np.flatnonzero(~moved & (pairs.state["raised_us"][pair] != NONE_US))
        for s in position[stays].tolist():
            segments.flags[int(segments.start[s]) : int(segments.stop[s])] |= UNCERTAIN
        return moved

    def flag_of(self, state: DriftState) -> int:
        return 0 if state.raised_us == NONE_US else UNCERTAIN


class DriftKind:
    """Registration of the kind."""

    name = "drift"
    model: type[Rule] = DriftRule
    state = STATE
    learned: tuple[str, ...] = ("first_us", "last_us", "mean", "base")
    templates = (
        "{device} 的 {metric} 缓慢偏离自身基线 {value} {unit}（判据 {limit} {unit}），比任何真实事件都慢，疑似传感器漂移。",
        "{metric} of {device} has crept {value} {unit} away from its own base (limit {limit} {unit}), slower than any event: "
        "the sensor may drift.",
    )

    def facts(self, rule: DriftRule) -> dict[str, Any]:
        return {
            "hysteresis": None,
            "on_delay_s": None,
            "off_delay_s": None,
            "band": rule.band,
            "step_max": rule.step_max,
            "onset_s": rule.onset_s,
            "tau_s": rule.tau_s,
            "believed_s": rule.believed_s,
        }

    def kernel(self, rules: Sequence[DriftRule]) -> Kernel:
        return DriftKernel(rules)
