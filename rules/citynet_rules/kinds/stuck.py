"""Kind `stuck`: readings keep coming, but their value no longer changes. A fault of the device, not of the city.

A run begins at a reading that differs by more than `tolerance` from the first reading of the run before it. The alert
is raised at the first reading for which (its time − the run's first reading) ≥ `for_s` and the run has `count_min`
readings; it is cleared at the first reading of the next run. Comparing with the first reading of the run, not with the
one before, keeps a slow drift within the sensor's own quantisation from looking stuck for ever: it leaves the tolerance
sooner or later. While nothing is in force, a silence longer than `gap_s_max` begins a run anew. Rows are flagged STUCK
from the raise up to the clear.

`for_s` and `tolerance` must be chosen with the sensor's resolution in mind: a level that moves 1 mm an hour is not
stuck after ten equal readings of a sensor that resolves 1 cm. The flat-line test of ocean and weather services has the
same form (QARTOD test 8: flat line, by repetition count and tolerance).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any, ClassVar, NamedTuple

import numpy as np
from pydantic import Field

from citynet.batch import F64, I32, I64, Bools
from citynet.quality import STUCK
from citynet_rules.kinds.kind import UNUSABLE, Kernel, Pairs, Segments
from citynet_rules.kinds.walk import Columns, Found, RankKernel
from citynet_rules.rule import Age, Colour, Rule, level_of, microseconds
from citynet_rules.transition import NONE_US, Change

COUNT_MAX = 100_000


class StuckRule(Rule):
    """A rule of kind `stuck`; `tolerance` in `unit`, times in seconds."""

    level: Colour
    for_s: Age
    count_min: int = Field(4, ge=2, le=COUNT_MAX)
    tolerance: float = Field(0.0, ge=0, allow_inf_nan=False)
    gap_s_max: Age | None = Field(None, description="default: for_s")


def gap_s_max(rule: StuckRule) -> float:
    """Longest silence inside a run."""
    return rule.for_s if rule.gap_s_max is None else rule.gap_s_max


class StuckState(NamedTuple):
    """The run under way: its first reading (`first_us` is `NONE_US` before any), its newest one's time, how many readings
    it has, `seen` (counted up to `count_min`); `raised_us` as ever."""

    first_us: int
    first: float
    last_us: int
    seen: int
    raised_us: int


STATE = np.dtype(
    [
        ("first_us", "<i8"),
        ("first", "<f8"),
        ("last_us", "<i8"),
        ("raised_us", "<i8"),
        ("seen", "<i4"),
        ("level", "<i4"),
    ]
)


class StuckMachine:
    """One stuck rule."""

    def __init__(self, rule: StuckRule) -> None:
        self.for_us = microseconds(rule.for_s)
        self.gap_us = microseconds(gap_s_max(rule))
        self.count_min = rule.count_min
        self.tolerance = rule.tolerance
        self.level = level_of(rule.level)

    def initial(self) -> StuckState:
        return StuckState(NONE_US, 0.0, NONE_US, 0, NONE_US)

    def step(self, state: StuckState, time_us: int, value: float, quality: int) -> tuple[StuckState, list[Found]]:
        if quality & UNUSABLE or not isfinite(value):
            return state, []
        begin = StuckState(time_us, value, time_us, 1, NONE_US)
        if state.first_us == NONE_US:
            return begin, []
        if abs(value - state.first) > self.tolerance:
            return begin, [] if state.raised_us == NONE_US else [self._found("clear", state, time_us, value)]
        if state.raised_us == NONE_US and time_us - state.last_us > self.gap_us:
            return begin, []
        state = state._replace(last_us=time_us, seen=min(state.seen + 1, self.count_min))
        if state.raised_us != NONE_US or state.seen < self.count_min or time_us - state.first_us < self.for_us:
            return state, []
        state = state._replace(raised_us=time_us)
        return state, [self._found("raise", state, time_us, value)]

    def pack(self, state: StuckState) -> tuple[Any, ...]:
        level = 0 if state.raised_us == NONE_US else self.level
        return (state.first_us, state.first, state.last_us, state.raised_us, state.seen, level)

    def unpack(self, row: tuple[Any, ...]) -> StuckState:
        first_us, first, last_us, raised_us, seen, _ = row
        return StuckState(first_us, first, last_us, seen, raised_us)

    def _found(self, change: Change, state: StuckState, time_us: int, value: float) -> Found:
        samples = ((state.first_us, state.first), (time_us, value))
        unchanged_s = ((state.last_us if change == "clear" else time_us) - state.first_us) / 1e6
        return Found(
            change,
            self.level,
            time_us,
            state.raised_us,
            unchanged_s,
            self.for_us / 1e6,
            state.first_us,
            samples,
        )


class StuckKernel(RankKernel[StuckState]):
    """All stuck rules at once. A pair is walked when it raises or clears; one that stays stuck glides."""

    columns: ClassVar[tuple[str, ...]] = ("first_us", "first", "last_us", "seen", "raised_us")
    settings: ClassVar[tuple[str, ...]] = ("_for_us", "_gap_us", "_count_min", "_tolerance")

    def __init__(self, rules: Sequence[StuckRule]) -> None:
        machines = [StuckMachine(rule) for rule in rules]
        super().__init__(machines, STATE)
        self._for_us: I64 = np.array([machine.for_us for machine in machines], np.int64)
        self._gap_us: I64 = np.array([machine.gap_us for machine in machines], np.int64)
        self._count_min: I32 = np.array([rule.count_min for rule in rules], np.int32)
        self._tolerance: F64 = np.array([rule.tolerance for rule in rules], np.float64)

    def glide(self, columns: Columns, rule: I32, time_us: I64, value: F64) -> Bools:
        first_us, last_us, seen = columns["first_us"], columns["last_us"], columns["seen"]
        open_ = columns["raised_us"] != NONE_US
        unknown = first_us == NONE_US
        changed = np.abs(value - columns["first"]) > columns["_tolerance"]
        begins = unknown | changed | (~open_ & (time_us - last_us > columns["_gap_us"]))
        np.copyto(first_us, time_us, where=begins)
        np.copyto(columns["first"], value, where=begins)
        last_us[:] = time_us
        seen[:] = np.where(begins, 1, np.minimum(seen + 1, columns["_count_min"]))
        raises = ~begins & (seen >= columns["_count_min"]) & (time_us - first_us >= columns["_for_us"])
        moved: Bools = np.where(open_, changed, raises)
        return moved

    def moved(self, pairs: Pairs, pair: I64, segments: Segments, position: I64) -> Bools:
        moved = super().moved(pairs, pair, segments, position)
        stays = np.flatnonzero(~moved & (pairs.state["raised_us"][pair] != NONE_US))
        for s in position[stays].tolist():
            segments.flags[int(segments.start[s]) : int(segments.stop[s])] |= STUCK
        return moved

    def flag_of(self, state: StuckState) -> int:
        return 0 if state.raised_us == NONE_US else STUCK


class StuckKind:
    """Registration of the kind."""

    name = "stuck"
    model: type[Rule] = StuckRule
    state = STATE
    learned: tuple[str, ...] = ()
    templates = (
        "{device} 的 {metric} 自 {since} 起 {value} s 无变化，限 {limit} s，疑似传感器卡死。",
        "{metric} of {device} has not changed for {value} s since {since}, limit {limit} s: the sensor may be stuck.",
    )

    def facts(self, rule: StuckRule) -> dict[str, Any]:
        return {
            "unit": "s",
            "hysteresis": None,
            "on_delay_s": rule.for_s,
            "off_delay_s": None,
            "count_min": rule.count_min,
            "tolerance": rule.tolerance,
            "gap_s_max": gap_s_max(rule),
        }

    def kernel(self, rules: Sequence[StuckRule]) -> Kernel:
        return StuckKernel(rules)
