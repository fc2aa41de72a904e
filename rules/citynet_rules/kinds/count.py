"""Kind `count`: `n` matching readings within `window_s`.

A reading matches when its value is ≥, ≤ or = `threshold`, or always (`match = "any"`, for series that only speak when
something happens). At time t the matches in (t − window, t] count. Raised at the n-th match; cleared at the moment when
the n-th newest match leaves the window: (its time + window). Who notices does not matter: the next reading, or the
watermark of the series' source, when no reading up to then can still come. A match exactly at that moment keeps the
alert open.

A reading that breaks a watermark's promise after such a clear raises at the clear's time at the earliest, so that alerts
of one rule and object never overlap.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import Field, model_validator

from citynet.batch import F64, I64, Bools
from citynet_rules.kinds.kind import UNUSABLE, Kernel, Pairs, Progress, Segments
from citynet_rules.kinds.limit import extremes
from citynet_rules.kinds.walk import Found, WalkKernel
from citynet_rules.rule import Age, Colour, Rule, level_of, microseconds
from citynet_rules.transition import NONE_US, Change, Event

COUNT_MAX = 64
SAMPLES_MAX = 4


class CountRule(Rule):
    """A rule of kind `count`; `threshold` in `unit`, `window_s` in seconds."""

    level: Colour
    match: Literal["at_least", "at_most", "equal", "any"]
    threshold: float | None = Field(None, allow_inf_nan=False)
    n: int = Field(ge=1, le=COUNT_MAX)
    window_s: Age

    @model_validator(mode="after")
    def _complete(self) -> CountRule:
        if (self.threshold is None) != (self.match == "any"):
            need = "takes no threshold" if self.match == "any" else "needs a threshold"
            raise ValueError(f"match {self.match} {need}")
        return self


class CountState(NamedTuple):
    """`times_us`: the newest matches, at most n, oldest first; `cleared_us`: time of the newest clear, `NONE_US` if there
    was none."""

    times_us: tuple[int, ...]
    raised_us: int
    cleared_us: int


STATE = np.dtype(
    [
        ("raised_us", "<i8"),
        ("cleared_us", "<i8"),
        ("due_us", "<i8"),  # when the open alert clears by itself
        ("times_us", "<i8", (COUNT_MAX,)),
        ("level", "<i4"),
    ]
)


class CountMachine:
    """One count rule."""

    def __init__(self, rule: CountRule) -> None:
        self.n = rule.n
        self.window_us = microseconds(rule.window_s)
        self.level = level_of(rule.level)
        any_, threshold = rule.match == "any", rule.threshold or 0.0
        self.low = -np.inf if any_ or rule.match == "at_most" else threshold
        self.high = np.inf if any_ or rule.match == "at_least" else threshold

    def initial(self) -> CountState:
        return CountState((), NONE_US, NONE_US)

    def due_us(self, state: CountState) -> int:
        """When the open alert clears if no match comes; `NONE_US` when none is open."""
        return NONE_US if state.raised_us == NONE_US else state.times_us[0] + self.window_us

    def step(self, state: CountState, time_us: int, value: float, quality: int) -> tuple[CountState, list[Found]]:
        usable = not quality & UNUSABLE and isfinite(value)
        match = usable and self.low <= value <= self.high
        state, found = self.due(state, time_us - 1 if match else time_us)
        if not match:
            return state, found
        state = state._replace(times_us=(*state.times_us, time_us)[-self.n :])
        full = len(state.times_us) == self.n and time_us - state.times_us[0] < self.window_us
        if state.raised_us == NONE_US and full:
            raised_us = max(time_us, state.cleared_us)
            state = state._replace(raised_us=raised_us)
            found.append(self._found("raise", state, raised_us, self.n))
        return state, found

    def due(self, state: CountState, now_us: int) -> tuple[CountState, list[Found]]:
        """No match up to `now_us` is still to come: clear what is past its time."""
        due_us = self.due_us(state)
        if due_us == NONE_US or now_us < due_us:
            return state, []
        cleared_us = max(due_us, state.raised_us)
        found = [self._found("clear", state, cleared_us, self.n - 1)]
        return CountState(state.times_us, NONE_US, cleared_us), found

    def pack(self, state: CountState) -> tuple[Any, ...]:
        spare = (NONE_US,) * (COUNT_MAX - len(state.times_us))
        level = 0 if state.raised_us == NONE_US else self.level
        return (state.raised_us, state.cleared_us, self.due_us(state), (*state.times_us, *spare), level)

    def unpack(self, row: tuple[Any, ...]) -> CountState:
        raised_us, cleared_us, _, times_us, _ = row
        return CountState(tuple(t for t in times_us.tolist() if t != NONE_US), raised_us, cleared_us)

    def _found(self, change: Change, state: CountState, time_us: int, count: int) -> Found:
        samples = tuple((t, None) for t in state.times_us[-SAMPLES_MAX:])
        since_us = state.times_us[0]
        return Found(change, self.level, time_us, state.raised_us, float(count), float(self.n), since_us, samples)


class CountKernel(WalkKernel[CountState]):
    """All count rules at once: pairs that are open or whose segment may hold a match are walked."""

    def __init__(self, rules: Sequence[CountRule]) -> None:
        self._count_machines = [CountMachine(rule) for rule in rules]
        super().__init__(self._count_machines, STATE)
        self._low: F64 = np.array([machine.low for machine in self._count_machines], np.float64)
        self._high: F64 = np.array([machine.high for machine in self._count_machines], np.float64)

    def moved(self, pairs: Pairs, pair: I64, segments: Segments, position: I64) -> Bools:
        lowest, highest = extremes(segments)
        rule = pairs.rule[pair]
        may_match = (highest[position] >= self._low[rule]) & (lowest[position] <= self._high[rule])
        moved: Bools = may_match | (pairs.state["raised_us"][pair] != NONE_US)
        return moved

    def advance(self, pairs: Pairs, progress: Progress) -> list[Event]:
        """Clear what has left its window by the clock of the series' source."""
        due_us = pairs.state["due_us"]
        now_us = progress.source_us[pairs.slot]
        events: list[Event] = []
        for p in np.flatnonzero((due_us != NONE_US) & (now_us >= due_us)).tolist():
            rule = int(pairs.rule[p])
            machine = self._count_machines[rule]
            state, found = machine.due(machine.unpack(pairs.state[p].item()), int(now_us[p]))
            events += [Event(rule, int(pairs.slot[p]), *change) for change in found]
            pairs.state[p] = machine.pack(state)
        return events


class CountKind:
    """Registration of the kind."""

    name = "count"
    model: type[Rule] = CountRule
    state = STATE
    learned: tuple[str, ...] = ("cleared_us",)
    templates = (
        "{device} 的 {metric} 自 {since} 起出现 {value} 次，限 {limit} 次。",
        "{metric} of {device}: {value} times since {since}, limit {limit}.",
    )

    def facts(self, rule: CountRule) -> dict[str, Any]:
        return {
            "unit": "1",
            "hysteresis": None,
            "on_delay_s": None,
            "off_delay_s": None,
            "match": rule.match,
            "threshold": rule.threshold,
            "n": rule.n,
            "window_s": rule.window_s,
        }

    def kernel(self, rules: Sequence[CountRule]) -> Kernel:
        return CountKernel(rules)
