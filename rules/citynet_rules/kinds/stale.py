"""Kind `stale`: no reading of a series for longer than `max_age_s`, purely in event time.

The alert is raised at (newest accepted reading + max_age) when no reading came up to then, and cleared at the next
reading. It does not matter who notices: `feed`, when the next reading shows the gap behind it (raise and clear
together), or `advance`, when the watermark has reached the deadline. Both compute the same times, hence the same alert
id.

- Any accepted reading proves life, whatever its quality. A late reading does not: it was accepted after a newer one.
- A reading exactly at the deadline is in time. A watermark W says that no reading at or before W is still to come, so W
  ≥ deadline decides.
- A series that was never seen does not raise: nobody knows that it should speak.
- `clock` chooses the watermark: "source" (the gateway's; a gateway's outage is one alert of its own, not one of each of
  its devices) or "server" (for what must be noticed although its gateway says nothing).
- A reading that breaks the watermark's promise (a backlog after an outage, for clock "server") clears at the raise time
  at the earliest, so that an alert never ends before it began.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from citynet.batch import I32, I64, Bools
from citynet_rules.kinds.kind import Kernel, Pairs, Progress, Rows, Segments
from citynet_rules.rule import Age, Colour, Rule, level_of, microseconds
from citynet_rules.transition import NONE_US, Change, Event


class StaleRule(Rule):
    """A rule of kind `stale`: colour, seconds of silence, and whose clock tells that they have passed."""

    level: Colour
    max_age_s: Age
    clock: Literal["source", "server"] = "source"


class StaleState(NamedTuple):
    """`last_us`: newest accepted reading; `raised_us`: time of the raise; each `NONE_US` when there is none."""

    last_us: int
    raised_us: int


class StaleEvent(NamedTuple):
    """Raised or cleared at `time_us`; `raised_us` names the alert, `silent_us` is how long nothing had been heard
    then."""

    change: Change
    time_us: int
    raised_us: int
    silent_us: int


def step(age_us: int, state: StaleState, time_us: int) -> tuple[StaleState, list[StaleEvent]]:
    """Take one reading, later than all before it: clear what is open, or report a gap after the fact."""
    last_us, raised_us = state
    events: list[StaleEvent] = []
    if raised_us == NONE_US and last_us != NONE_US and time_us - last_us > age_us:
        raised_us = last_us + age_us
        events.append(StaleEvent("raise", raised_us, raised_us, age_us))
    if raised_us != NONE_US:
        cleared_us = max(time_us, raised_us)
        events.append(StaleEvent("clear", cleared_us, raised_us, cleared_us - last_us))
    return StaleState(time_us, NONE_US), events


def due(age_us: int, state: StaleState, watermark_us: int) -> tuple[StaleState, list[StaleEvent]]:
    """No reading up to `watermark_us` is still to come: raise if the deadline lies there."""
    last_us, raised_us = state
    if raised_us != NONE_US or last_us == NONE_US or watermark_us < last_us + age_us:
        return state, []
    deadline_us = last_us + age_us
    return StaleState(last_us, deadline_us), [StaleEvent("raise", deadline_us, deadline_us, age_us)]


STATE = np.dtype([("raised_us", "<i8"), ("level", "<i4")])  # the newest reading is the engine's own knowledge


class StaleKernel:
    """All stale rules at once."""

    def __init__(self, rules: Sequence[StaleRule]) -> None:
        self._age_us: I64 = np.array([microseconds(rule.max_age_s) for rule in rules], np.int64)
        self._level: I32 = np.array([level_of(rule.level) for rule in rules], np.int32)
        self._server: Bools = np.array([rule.clock == "server" for rule in rules], np.bool_)

    def fresh(self, rule: I32) -> Rows:
        rows = np.zeros(len(rule), STATE)
        rows["raised_us"] = NONE_US
        return rows

    def feed(self, pairs: Pairs, segments: Segments) -> list[Event]:
        """Walk the pairs that are open or whose segment holds (or ends) a gap beyond their age."""
        pair, position = pairs.of(segments.slot)
        if not len(pair):
            return []
        gap_us = longest_gaps(segments)[position]
        open_ = pairs.state["raised_us"][pair] != NONE_US
        moved = np.flatnonzero(open_ | (gap_us > self._age_us[pairs.rule[pair]]))
        events: list[Event] = []
        for p, s in zip(pair[moved].tolist(), position[moved].tolist(), strict=True):
            events += self._walk(pairs, p, segments, s)
        return events

    def advance(self, pairs: Pairs, progress: Progress) -> list[Event]:
        """Raise what is past its deadline by its clock."""
        rule, slot = pairs.rule, pairs.slot
        last_us = progress.tip_us[slot]
        now_us = np.where(self._server[rule], progress.server_at(slot), progress.source_us[slot])
        waiting = (pairs.state["raised_us"] == NONE_US) & (last_us != NONE_US)
        events: list[Event] = []
        for p in np.flatnonzero(waiting & (now_us >= last_us + self._age_us[rule])).tolist():
            state = StaleState(int(last_us[p]), NONE_US)
            state, found = due(int(self._age_us[rule[p]]), state, int(now_us[p]))
            sample = (state.last_us, number(float(progress.tip[slot[p]])))
            events += [self._event(pairs, p, event, sample) for event in found]
            pairs.state[p] = (state.raised_us, self._level[rule[p]])
        return events

    def _walk(self, pairs: Pairs, pair: int, segments: Segments, position: int) -> list[Event]:
        age_us = int(self._age_us[pairs.rule[pair]])
        state = StaleState(int(segments.before_us[position]), int(pairs.state["raised_us"][pair]))
        sample = (state.last_us, number(float(segments.before[position])))
        events: list[Event] = []
        rows = slice(int(segments.start[position]), int(segments.stop[position]))
        for time_us, value in zip(segments.time_us[rows].tolist(), segments.value[rows].tolist(), strict=True):
            state, found = step(age_us, state, time_us)
            events += [self._event(pairs, pair, event, sample) for event in found]
            sample = (time_us, number(value))
        pairs.state[pair] = (NONE_US, 0)
        return events

    def _event(self, pairs: Pairs, pair: int, event: StaleEvent, sample: tuple[int, float | None]) -> Event:
        rule = int(pairs.rule[pair])
        return Event(
            rule=rule,
            slot=int(pairs.slot[pair]),
            change=event.change,
            level=int(self._level[rule]),
            time_us=event.time_us,
            raised_us=event.raised_us,
            value=event.silent_us / 1e6,
            limit=int(self._age_us[rule]) / 1e6,
            pending_since_us=sample[0],
            samples=(sample,),
        )


def longest_gaps(segments: Segments) -> I64:
    """Longest time without a reading in every segment, µs, the one that its first reading ended included (0: none
    before)."""
    gap_us = np.empty(len(segments.time_us), np.int64)
    np.subtract(segments.time_us[1:], segments.time_us[:-1], out=gap_us[1:])
    first = segments.start
    gap_us[first] = np.where(segments.before_us == NONE_US, 0, segments.time_us[first] - segments.before_us)
    return np.maximum.reduceat(gap_us, first)


def number(value: float) -> float | None:
    """A value for evidence: JSON knows no NaN and no infinity."""
    return value if np.isfinite(value) else None


class StaleKind:
    """Registration of the kind."""

    name = "stale"
    model: type[Rule] = StaleRule
    state = STATE
    learned: tuple[str, ...] = ()
    templates = (
        "{device} 的 {metric} 自 {since} 起已 {value} s 无数据，限 {limit} s。",
        "no {metric} from {device} for {value} s since {since}, limit {limit} s.",
    )

    def facts(self, rule: StaleRule) -> dict[str, Any]:
        return {
            "unit": "s",
            "hysteresis": None,
            "on_delay_s": None,
            "off_delay_s": None,
            "max_age_s": rule.max_age_s,
            "clock": rule.clock,
        }

    def kernel(self, rules: Sequence[StaleRule]) -> Kernel:
        return StaleKernel(rules)
