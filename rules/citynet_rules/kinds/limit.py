"""Kind `limit`: one metric against up to four graded thresholds, with hysteresis, on-delay and off-delay in event time.

The machine, in words. Let y be the value, turned around (−value) for direction "low", so that beyond always means
above.

- Every level is a latch of its own. A latch closes when y was at or beyond its threshold (y ≥ T) at every evaluated
  reading of a stretch that lasts `on_delay_s`: at the first reading for which (its time − the stretch's first reading)
  ≥ on_delay. With no delay that is the first reading itself, so a condition that is already true at the first reading
  raises.
- It opens when y was inside (y < T − hysteresis) at every evaluated reading of a stretch that lasts `off_delay_s`.
- Because thresholds rise with severity, the closed latches are always the mildest n. The level in force is the n-th;
  raise, escalate, deescalate and clear are changes of n. Level may jump several grades at one reading: that is one
  transition.
- A reading further than `gap_s_max` from the evaluated one before it breaks every stretch towards closing: the delay
  starts again at this reading, because nobody knows what the value was in between. Stretches towards opening are not
  broken: a sensor that has gone back to its slow rhythm must still be able to clear.
- Bad, test and non-finite readings are as if they had not been sent.

`step` is that machine for one reading: the oracle. The kernel asks only whether a segment can matter at all: while no
stretch is under way nothing happens as long as y stays in the band [T(n) − hysteresis, T(n+1)), and that is one minimum
and one maximum a segment. Only the other segments are stepped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf, isfinite
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from pydantic import Field, ValidationInfo, field_validator

from citynet.batch import F64, I32, I64
from citynet_rules.kinds.kind import UNUSABLE, Kernel, Pairs, Progress, Rows, Segments
from citynet_rules.rule import COLOURS, Age, Colour, Delay, Rule, level_of, microseconds
from citynet_rules.transition import NONE_US, Change, Event

LEVELS_MAX = 4
SAMPLES_MAX = 4  # the newest evaluated readings of a stretch; they justify its outcome
GAP_S_MIN_DEFAULT = 900.0


class LimitRule(Rule):
    """A rule of kind `limit`. Thresholds and hysteresis are in `unit`; times in seconds of event time."""

    direction: Literal["high", "low"]
    levels: dict[Colour, float] = Field(min_length=1)
    hysteresis: float = Field(0.0, ge=0, allow_inf_nan=False)
    on_delay_s: Delay = 0.0
    off_delay_s: Delay | None = Field(None, description="default: 2 × on_delay_s")
    gap_s_max: Age | None = Field(None, description="default: 4 × on_delay_s, at least 900 s")

    @field_validator("levels")
    @classmethod
    def _order(cls, levels: dict[Colour, float], info: ValidationInfo) -> dict[Colour, float]:
        """Thresholds become stricter with the colour: upwards for "high", downwards for "low"."""
        for colour, threshold in levels.items():
            if not isfinite(threshold):
                raise ValueError(f"{colour} is {threshold}: a finite number was expected")
        colours = [colour for colour in COLOURS if colour in levels]
        direction = info.data.get("direction")
        if direction is None:
            return {colour: levels[colour] for colour in colours}
        sign = 1 if direction == "high" else -1
        for mild, severe in pairwise(colours):
            if sign * levels[severe] <= sign * levels[mild]:
                word = "above" if sign > 0 else "below"
                raise ValueError(
                    f"{severe} {levels[severe]:g} must be {word} {mild} {levels[mild]:g} (direction {direction})"
                )
        return {colour: levels[colour] for colour in colours}

    @field_validator("hysteresis")
    @classmethod
    def _narrow(cls, hysteresis: float, info: ValidationInfo) -> float:
        """Wider than the distance of two levels, hysteresis would let a level hold what the next one needs."""
        thresholds = sorted(info.data.get("levels", {}).values())
        distance = min((b - a for a, b in pairwise(thresholds)), default=inf)
        if hysteresis >= distance:
            raise ValueError(f"{hysteresis:g} must be smaller than the distance of two levels, {distance:g}")
        return hysteresis


@dataclass(frozen=True, slots=True)
class Limits:
    """A limit rule ready for the machine: thresholds of y = sign · value, mildest first; times in µs."""

    sign: int
    close: tuple[float, ...]  # y at or above closes the latch
    open: tuple[float, ...]  # y below opens it
    level: tuple[int, ...]
    on_us: int
    off_us: int
    gap_us: int

    @classmethod
    def of(cls, rule: LimitRule) -> Self:
        sign = 1 if rule.direction == "high" else -1
        close = tuple(sign * threshold for threshold in rule.levels.values())
        return cls(
            sign=sign,
            close=close,
            open=tuple(threshold - rule.hysteresis for threshold in close),
            level=tuple(level_of(colour) for colour in rule.levels),
            on_us=microseconds(rule.on_delay_s),
            off_us=microseconds(off_delay_s(rule)),
            gap_us=microseconds(gap_s_max(rule)),
        )


def off_delay_s(rule: LimitRule) -> float:
    """The rule's off-delay, or twice its on-delay (alarm filtering default of the domain reference, 3.4, status D)."""
    return 2 * rule.on_delay_s if rule.off_delay_s is None else rule.off_delay_s


def gap_s_max(rule: LimitRule) -> float:
    """Longest distance of two readings that still counts as "continuously"."""
    return max(4 * rule.on_delay_s, GAP_S_MIN_DEFAULT) if rule.gap_s_max is None else rule.gap_s_max


class LimitState(NamedTuple):
    """State of one (rule, series).

    Attributes:
        latched: how many levels are in force, counted from the mildest.
        raised_us: time of the raise, `NONE_US` when nothing is in force.
        since_us: per level, first reading of the stretch towards its change (closing if open, opening if closed), or
            `NONE_US`.
        last_us: time of the newest evaluated reading while a stretch is under way, else `NONE_US`.
        samples: the newest evaluated readings while a stretch is under way, at most `SAMPLES_MAX`, oldest first.
    """

    latched: int
    raised_us: int
    since_us: tuple[int, ...]
    last_us: int
    samples: tuple[tuple[int, float], ...]


class LimitEvent(NamedTuple):
    """A change of level; `level` is the one in force afterwards, for a clear the one before."""

    change: Change
    level: int
    time_us: int
    raised_us: int
    value: float
    limit: float
    pending_since_us: int
    samples: tuple[tuple[int, float], ...]


def initial(limits: Limits) -> LimitState:
    """Nothing in force, nothing under way."""
    return LimitState(0, NONE_US, (NONE_US,) * len(limits.close), NONE_US, ())


def step(
    limits: Limits, state: LimitState, time_us: int, value: float, quality: int
) -> tuple[LimitState, list[LimitEvent]]:
    """Take one reading, later than all before it. See the module for what happens.

    Returns:
        The new state and at most one event.
    """
    if quality & UNUSABLE or not isfinite(value):
        return state, []
    since = _stretches(limits, state, time_us, limits.sign * value)
    samples = (*state.samples, (time_us, value))[-SAMPLES_MAX:]
    latched = _latched(limits, state.latched, since, time_us)
    raised_us = state.raised_us
    events: list[LimitEvent] = []
    if latched != state.latched:
        raised_us = raised_us if state.latched else time_us
        events.append(_event(limits, state.latched, latched, since, raised_us, samples))
        low, high = sorted((latched, state.latched))
        since = (*since[:low], *(NONE_US,) * (high - low), *since[high:])
    if not latched:
        raised_us = NONE_US
    if since.count(NONE_US) == len(since):
        return LimitState(latched, raised_us, since, NONE_US, ()), events
    return LimitState(latched, raised_us, since, time_us, samples), events


def _stretches(limits: Limits, state: LimitState, time_us: int, y: float) -> tuple[int, ...]:
    """Per level: where the stretch that this reading belongs to began."""
    torn = state.last_us != NONE_US and time_us - state.last_us > limits.gap_us
    found = []
    for number, start in enumerate(state.since_us):
        closed = number < state.latched
        if not (y < limits.open[number] if closed else y >= limits.close[number]):
            found.append(NONE_US)
        elif start == NONE_US or (torn and not closed):
            found.append(time_us)
        else:
            found.append(start)
    return tuple(found)


def _latched(limits: Limits, latched: int, since: tuple[int, ...], time_us: int) -> int:
    """How many latches are closed after this reading. One reading cannot both close and open: y is above or below."""
    for number in range(latched):
        if since[number] != NONE_US and time_us - since[number] >= limits.off_us:
            return number
    while latched < len(since) and since[latched] != NONE_US and time_us - since[latched] >= limits.on_us:
        latched += 1
    return latched


def _event(
    limits: Limits,
    before: int,
    after: int,
    since: tuple[int, ...],
    raised_us: int,
    samples: tuple[tuple[int, float], ...],
) -> LimitEvent:
    change: Change
    if after > before:
        change, deciding = ("escalate" if before else "raise"), after - 1
    else:
        change, deciding = ("deescalate" if after else "clear"), after
    time_us, value = samples[-1]
    level = limits.level[(after or before) - 1]
    limit = limits.sign * limits.close[deciding]
    return LimitEvent(change, level, time_us, raised_us, value, limit, since[deciding], samples)


# One pair's state. `low` and `high` bound the band of y in which nothing can happen: empty while a stretch is
# under way.
STATE = np.dtype(
    [
        ("low", "<f8"),
        ("high", "<f8"),
        ("raised_us", "<i8"),
        ("last_us", "<i8"),
        ("since_us", "<i8", (LEVELS_MAX,)),
        ("sample_us", "<i8", (SAMPLES_MAX,)),
        ("sample", "<f8", (SAMPLES_MAX,)),
        ("latched", "<i4"),
        ("level", "<i4"),
    ]
)


def band(limits: Limits, state: LimitState) -> tuple[float, float]:
    """[low, high) of y within which a reading leaves `state` as it is; empty while a stretch is under way."""
    if state.last_us != NONE_US:
        return inf, -inf
    low = limits.open[state.latched - 1] if state.latched else -inf
    high = limits.close[state.latched] if state.latched < len(limits.close) else inf
    return low, high


def pack(limits: Limits, state: LimitState) -> tuple[Any, ...]:
    """`state` as one row of `STATE`."""
    low, high = band(limits, state)
    spare = SAMPLES_MAX - len(state.samples)
    return (
        low,
        high,
        state.raised_us,
        state.last_us,
        (*state.since_us, *(NONE_US,) * (LEVELS_MAX - len(state.since_us))),
        (*(time_us for time_us, _ in state.samples), *(NONE_US,) * spare),
        (*(value for _, value in state.samples), *(0.0,) * spare),
        state.latched,
        limits.level[state.latched - 1] if state.latched else 0,
    )


def unpack(limits: Limits, row: tuple[Any, ...]) -> LimitState:
    """The state that `pack` wrote; `row` is `numpy.void.item()`: a tuple whose sub-arrays are arrays."""
    _, _, raised_us, last_us, since_us, sample_us, sample, latched, _ = row
    samples = tuple((t, v) for t, v in zip(sample_us.tolist(), sample.tolist(), strict=True) if t != NONE_US)
    return LimitState(latched, raised_us, tuple(since_us[: len(limits.close)].tolist()), last_us, samples)


class LimitKernel:
    """All limit rules at once."""

    def __init__(self, rules: Sequence[LimitRule]) -> None:
        self._limits = [Limits.of(rule) for rule in rules]
        self._low_direction = np.array([limits.sign < 0 for limits in self._limits], np.bool_)
        self._fresh = np.array([pack(limits, initial(limits)) for limits in self._limits], STATE)

    def fresh(self, rule: I32) -> Rows:
        return self._fresh[rule]

    def feed(self, pairs: Pairs, segments: Segments) -> list[Event]:
        """Step the pairs whose segment leaves their band; the others keep their state."""
        pair, position = pairs.of(segments.slot)
        if not len(pair):
            return []
        lowest, highest = extremes(segments)
        low_direction = self._low_direction[pairs.rule[pair]]
        y_min = np.where(low_direction, -highest[position], lowest[position])
        y_max = np.where(low_direction, -lowest[position], highest[position])
        state = pairs.state
        moved = np.flatnonzero((y_min < state["low"][pair]) | (y_max >= state["high"][pair]))
        events: list[Event] = []
        for p, s in zip(pair[moved].tolist(), position[moved].tolist(), strict=True):
            events += self._walk(pairs, p, segments, s)
        return events

    def advance(self, pairs: Pairs, progress: Progress) -> list[Event]:
        """A limit changes at readings only: without one, nobody knows the value."""
        return []

    def _walk(self, pairs: Pairs, pair: int, segments: Segments, position: int) -> list[Event]:
        rule = int(pairs.rule[pair])
        limits = self._limits[rule]
        state = unpack(limits, pairs.state[pair].item())
        rows = slice(int(segments.start[position]), int(segments.stop[position]))
        columns = (segments.time_us[rows], segments.value[rows], segments.quality[rows])
        events: list[Event] = []
        slot = int(pairs.slot[pair])
        low, high = band(limits, state)
        for time_us, value, quality in zip(*(column.tolist() for column in columns), strict=True):
            if low <= limits.sign * value < high:
                continue
            state, found = step(limits, state, time_us, value, quality)
            events += [Event(rule, slot, *event) for event in found]
            low, high = band(limits, state)
        pairs.state[pair] = pack(limits, state)
        return events


def extremes(segments: Segments) -> tuple[F64, F64]:
    """Lowest and highest usable value of every segment; +inf and −inf where there is none."""
    if segments.usable is None:
        low = high = segments.value
    else:
        low = np.where(segments.usable, segments.value, inf)
        high = np.where(segments.usable, segments.value, -inf)
    start: I64 = segments.start
    return np.minimum.reduceat(low, start), np.maximum.reduceat(high, start)


class LimitKind:
    """Registration of the kind."""

    name = "limit"
    model: type[Rule] = LimitRule
    state = STATE
    learned: tuple[str, ...] = ()
    templates = (
        "{device} 的 {metric} 为 {value} {unit}，限值 {limit} {unit}，自 {since} 起。",
        "{metric} of {device} is {value} {unit}, limit {limit} {unit}, since {since}.",
    )

    def facts(self, rule: LimitRule) -> dict[str, Any]:
        return {
            "direction": rule.direction,
            "levels": dict(rule.levels),
            "hysteresis": rule.hysteresis,
            "on_delay_s": rule.on_delay_s,
            "off_delay_s": off_delay_s(rule),
            "gap_s_max": gap_s_max(rule),
        }

    def kernel(self, rules: Sequence[LimitRule]) -> Kernel:
        return LimitKernel(rules)
