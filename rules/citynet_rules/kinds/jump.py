"""Kind `jump`: a change that is too fast to be true. A fault of the device, not of the city.

A jump is a change from one usable reading to the next of at least `step_min` and of more than `slew` · dt: more than
the quantity can move, or the instrument follow, in that time. Across a silence longer than `gap_s_max` there is none.
After a jump the series is *away* until a reading is nearer to the value before the jump than half of its height.

With `shape = "step"` the alert is raised at the jump, and ends `off_delay_s` after the series has come back, at the
latest `away_s_max` + `off_delay_s` after the jump: a value that stays is believed then. With `shape = "spike"` it is
raised only when the series has come back within `away_s_max`; a value that stays is believed, so that a real release
is never doubted for its speed. While an alert is in force, each jump prolongs it. Its readings are flagged UNCERTAIN.
The spike test of ocean services has the same purpose (QARTOD tests 6, spike, and 7, rate of change); here the limit
is one of physics, not of the series' own spread.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import Field

from citynet.batch import F64, I64, Bools
from citynet.quality import UNCERTAIN
from citynet_rules.kinds.kind import UNUSABLE, Kernel, Pairs, Segments
from citynet_rules.kinds.rate import PER_S
from citynet_rules.kinds.walk import Found, Readings, WalkKernel
from citynet_rules.rule import Age, Colour, Delay, Rule, level_of, microseconds
from citynet_rules.transition import NONE_US

Positive = Field(gt=0, allow_inf_nan=False)


class JumpRule(Rule):
    """A rule of kind `jump`; `slew` in `unit` per `per`, `step_min` in `unit`, times in seconds."""

    level: Colour
    shape: Literal["step", "spike"]
    slew: float = Positive
    per: Literal["s", "min", "h", "d"]
    step_min: float = Positive
    away_s_max: Age
    off_delay_s: Delay = 0.0
    gap_s_max: Age = 900.0
    hold_s: Delay = Field(0.0, description="how long an alert on the series is kept from people: it may be a spike")


class JumpState(NamedTuple):
    """The reading before; the jump the series is away from (`away_us`, `base`, `height`; `NONE_US`: none); `doubt_us`, the
    newest moment of doubt of an alert; `raised_us` as ever."""

    last_us: int
    last: float
    away_us: int
    base: float
    height: float
    doubt_us: int
    raised_us: int


STATE = np.dtype(
    [
        ("last_us", "<i8"),
        ("last", "<f8"),
        ("away_us", "<i8"),
        ("base", "<f8"),
        ("height", "<f8"),
        ("doubt_us", "<i8"),
        ("raised_us", "<i8"),
        ("level", "<i4"),
    ]
)


class JumpMachine:
    """One jump rule."""

    def __init__(self, rule: JumpRule) -> None:
        self.step_min = rule.step_min
        self.slew = rule.slew / (PER_S[rule.per] * 1_000_000)  # per µs
        self.per_us = PER_S[rule.per] * 1_000_000
        self.away_us = microseconds(rule.away_s_max)
        self.off_us = microseconds(rule.off_delay_s)
        self.gap_us = microseconds(rule.gap_s_max)
        self.is_step = rule.shape == "step"
        self.level = level_of(rule.level)

    def initial(self) -> JumpState:
        return JumpState(NONE_US, 0.0, NONE_US, 0.0, 0.0, NONE_US, NONE_US)

    def step(self, state: JumpState, time_us: int, value: float, quality: int) -> tuple[JumpState, list[Found]]:
        if quality & UNUSABLE or not isfinite(value):
            return state, []
        before, found = state, list[Found]()
        past_us = time_us - state.last_us
        height = abs(value - state.last)
        knows = state.last_us != NONE_US and past_us <= self.gap_us
        jumped = knows and height >= self.step_min and height > self.slew * past_us
        doubted = False
        if state.away_us != NONE_US:
            is_old = time_us - state.away_us > self.away_us
            if abs(value - state.base) <= state.height / 2:
                doubted = not is_old
                state = state._replace(away_us=NONE_US)
            elif is_old:
                state = state._replace(away_us=NONE_US)
        elif jumped:
            state = state._replace(away_us=time_us, base=before.last, height=height)
            doubted = self.is_step
        if doubted or (self.is_step and state.away_us != NONE_US):
            state = state._replace(doubt_us=time_us)
        state = state._replace(last_us=time_us, last=value)
        if doubted and state.raised_us == NONE_US:
            state = state._replace(raised_us=time_us)
            rate = height / max(past_us, 1) * self.per_us
            samples = ((before.last_us, before.last), (time_us, value))
            limit = self.slew * self.per_us
            found.append(Found("raise", self.level, time_us, time_us, rate, limit, before.last_us, samples, 1.0))
        elif (
            state.raised_us != NONE_US
            and not doubted
            and state.away_us == NONE_US
            and time_us - state.doubt_us >= self.off_us
        ):
            sample = ((time_us, value),)
            found.append(Found("clear", self.level, time_us, state.raised_us, None, None, state.doubt_us, sample, 0.0))
            state = state._replace(raised_us=NONE_US, doubt_us=NONE_US)
        return state, found

    def pack(self, state: JumpState) -> tuple[Any, ...]:
        return (*state, 0 if state.raised_us == NONE_US else self.level)

    def unpack(self, row: tuple[Any, ...]) -> JumpState:
        return JumpState(*row[:7])


class JumpKernel(WalkKernel[JumpState]):
    """All jump rules at once: pairs that are away or open, or whose segment has a change of `step_min`, are walked."""

    def __init__(self, rules: Sequence[JumpRule]) -> None:
        machines = [JumpMachine(rule) for rule in rules]
        super().__init__(machines, STATE)
        self._step_min: F64 = np.array([machine.step_min for machine in machines], np.float64)

    def moved(self, pairs: Pairs, pair: I64, segments: Segments, position: I64) -> Bools:
        readings = Readings.of(segments)
        start, stop = readings.start[position], readings.stop[position]
        state = pairs.state[pair]
        some = stop > start
        inside = _largest_change(readings)[position]
        first = np.where(some, start, 0)
        at_first = np.zeros(len(pair))
        known = some & (state["last_us"] != NONE_US)
        if some.any():
            at_first = np.where(known, np.abs(readings.value[first] - state["last"]), 0.0)
        busy = (state["away_us"] != NONE_US) | (state["raised_us"] != NONE_US)
        moved: Bools = some & (busy | (np.maximum(inside, at_first) >= self._step_min[pairs.rule[pair]]))
        quiet = np.flatnonzero(some & ~moved)
        last = stop[quiet] - 1
        pairs.state["last_us"][pair[quiet]] = readings.time_us[last]
        pairs.state["last"][pair[quiet]] = readings.value[last]
        return moved

    def flag_of(self, state: JumpState) -> int:
        return 0 if state.raised_us == NONE_US else UNCERTAIN


def _largest_change(readings: Readings) -> F64:
    """Largest change between neighbouring readings of each segment; 0 of fewer than two."""
    found = np.zeros(len(readings.start))
    many = np.flatnonzero(readings.stop - readings.start > 1)
    if len(many):
        change = np.append(np.abs(np.diff(readings.value)), 0.0)
        change[readings.stop[readings.stop > readings.start] - 1] = 0.0  # from one series to the next
        found[many] = np.maximum.reduceat(change, readings.start[many])
    return found


class JumpKind:
    """Registration of the kind."""

    name = "jump"
    model: type[Rule] = JumpRule
    state = STATE
    learned: tuple[str, ...] = ()
    templates = (
        "{device} 的 {metric} 以 {value} {unit} 跳变，可能的变化率上限 {limit} {unit}，疑似传感器故障。",
        "{metric} of {device} jumped by {value} {unit}, it can move by {limit} {unit}: the sensor may be faulty.",
    )

    def facts(self, rule: JumpRule) -> dict[str, Any]:
        return {
            "unit": f"{rule.unit}/{rule.per}",
            "hysteresis": None,
            "on_delay_s": None,
            "off_delay_s": rule.off_delay_s,
            "shape": rule.shape,
            "slew": rule.slew,
            "step_min": rule.step_min,
            "away_s_max": rule.away_s_max,
            "gap_s_max": rule.gap_s_max,
            "hold_s": rule.hold_s,
        }

    def kernel(self, rules: Sequence[JumpRule]) -> Kernel:
        return JumpKernel(rules)
