"""Kind `night_flow`: a district's minimum night flow against its own nights before: leakage, once a night.

The night window is from_h..to_h local time. It is cut into quarters of an hour; the mean of every hour is the mean of
the means of four quarters in a row, each of which must have a usable reading. The night's minimum flow is the smallest
of these hours; a night without a whole hour does not count. With net = max(0, minimum − `legitimate_use`):

    baseline = max(median of the last `baseline_nights` normal nights, `baseline_min`), from 7 of them on
    alarm    = net > `ratio_night` · baseline, or mean net of the last 3 nights > `ratio_mean` · baseline

A night in alarm is none of the baseline's, so that a leak does not become the normal. The first night without alarm
clears; after a repair that takes the mean of three up to three nights. Minimum night flow is the usual measure of
leakage in a district metered area; the percentages are house practice (domain reference 2.3, status D).

A night is judged when its window has passed: by the next reading, or the watermark of the series' source; either way
the transition's time is the window's end. A reading that comes for a night already judged changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from pydantic import Field, model_validator

from citynet.batch import I64, Bools
from citynet_rules.kinds.kind import UNUSABLE, Kernel, Pairs, Progress, Segments
from citynet_rules.kinds.walk import Found, WalkKernel
from citynet_rules.rule import Colour, Rule, level_of
from citynet_rules.transition import NONE_US, Event

NIGHTS_MIN = 7
NIGHTS_MAX = 28
RECENT = 3
HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
QUARTER_US = HOUR_US // 4
QUARTERS_MAX = 24


class NightFlowRule(Rule):
    """A rule of kind `night_flow`; flows in `unit`, hours local time, in quarters."""

    level: Colour
    from_h: float = Field(2.0, ge=0, lt=24, multiple_of=0.25)
    to_h: float = Field(4.0, gt=0, le=24, multiple_of=0.25)
    utc_offset_h: float = Field(8.0, ge=-12, le=14, multiple_of=0.25)
    legitimate_use: float = Field(0.0, ge=0, allow_inf_nan=False)
    baseline_nights: int = Field(14, ge=NIGHTS_MIN, le=NIGHTS_MAX)
    baseline_min: float = Field(0.0, ge=0, allow_inf_nan=False)
    ratio_mean: float = Field(1.2, gt=1, le=100)
    ratio_night: float = Field(1.5, gt=1, le=100)

    @model_validator(mode="after")
    def _window(self) -> NightFlowRule:
        if not 1 <= self.to_h - self.from_h <= QUARTERS_MAX / 4:
            raise ValueError(
                f"from_h {self.from_h:g} to to_h {self.to_h:g}: 1 to {QUARTERS_MAX // 4} hours were expected"
            )
        return self


class NightFlowState(NamedTuple):
    """The night under way (`begin_us`, `NONE_US` if none) with sum and number of the readings of each quarter; when the
    newest judged window ended; window end and net of the last nights, nets of the normal ones, oldest first; `raised_us` as
    ever."""

    begin_us: int
    sums: tuple[float, ...]
    counts: tuple[int, ...]
    judged_us: int
    recent: tuple[tuple[int, float], ...]
    normal: tuple[float, ...]
    raised_us: int


STATE = np.dtype(
    [
        ("begin_us", "<i8"),
        ("sums", "<f8", (QUARTERS_MAX,)),
        ("counts", "<i8", (QUARTERS_MAX,)),
        ("judged_us", "<i8"),
        ("recent_us", "<i8", (RECENT,)),
        ("recent", "<f8", (RECENT,)),
        ("normal", "<f8", (NIGHTS_MAX,)),
        ("raised_us", "<i8"),
        ("level", "<i4"),
    ]
)


class NightFlowMachine:
    """One night flow rule."""

    def __init__(self, rule: NightFlowRule) -> None:
        self.rule = rule
        self.level = level_of(rule.level)
        self.quarters = round((rule.to_h - rule.from_h) * 4)
        self.length_us = self.quarters * QUARTER_US
        self.shift_us = round((rule.utc_offset_h - rule.from_h) * 4) * QUARTER_US

    def initial(self) -> NightFlowState:
        return NightFlowState(NONE_US, *self._empty(), NONE_US, (), (), NONE_US)

    def step(
        self, state: NightFlowState, time_us: int, value: float, quality: int
    ) -> tuple[NightFlowState, list[Found]]:
        state, found = self.due(state, time_us)
        into_us = (time_us + self.shift_us) % DAY_US
        begin_us = time_us - into_us
        if quality & UNUSABLE or not isfinite(value) or into_us >= self.length_us:
            return state, found
        if begin_us + self.length_us <= state.judged_us:
            return state, found
        if state.begin_us == NONE_US:
            sums, counts = self._empty()
            state = state._replace(begin_us=begin_us, sums=sums, counts=counts)
        quarter = into_us // QUARTER_US
        sums = (*state.sums[:quarter], state.sums[quarter] + value, *state.sums[quarter + 1 :])
        counts = (*state.counts[:quarter], state.counts[quarter] + 1, *state.counts[quarter + 1 :])
        return state._replace(sums=sums, counts=counts), found

    def due(self, state: NightFlowState, now_us: int) -> tuple[NightFlowState, list[Found]]:
        """No reading before `now_us` is still to come: judge the night if its window ended by then."""
        end_us = state.begin_us + self.length_us
        if state.begin_us == NONE_US or now_us < end_us:
            return state, []
        net = self._net(state)
        sums, counts = self._empty()
        state = state._replace(begin_us=NONE_US, sums=sums, counts=counts, judged_us=end_us)
        return (state, []) if net is None else self._judge(state, end_us, net)

    def _net(self, state: NightFlowState) -> float | None:
        """The night's net flow, None when it has no whole hour."""
        hours = [
            sum(s / n for s, n in zip(state.sums[q : q + 4], state.counts[q : q + 4], strict=True)) / 4
            for q in range(self.quarters - 3)
            if all(state.counts[q : q + 4])
        ]
        lowest = min(hours, default=None)
        if lowest is None or not isfinite(lowest):
            return None
        return max(0.0, lowest - self.rule.legitimate_use)

    def _judge(self, state: NightFlowState, end_us: int, net: float) -> tuple[NightFlowState, list[Found]]:
        rule, recent = self.rule, (*state.recent, (end_us, net))[-RECENT:]
        mean = sum(flow for _, flow in recent) / RECENT
        baseline = max(median(state.normal or (0.0,)), rule.baseline_min)
        night = net > rule.ratio_night * baseline
        lasting = len(recent) == RECENT and mean > rule.ratio_mean * baseline
        alarm = len(state.normal) >= NIGHTS_MIN and (night or lasting)
        normal = state.normal if alarm else (*state.normal, net)[-rule.baseline_nights :]
        state = state._replace(recent=recent, normal=normal)
        if alarm == (state.raised_us != NONE_US):
            return state, []
        by_night = night or not lasting
        value, limit = (net, rule.ratio_night * baseline) if by_night else (mean, rule.ratio_mean * baseline)
        raised_us = end_us if alarm else state.raised_us
        begin_us = end_us - self.length_us
        severity = value / (value + limit) if value > 0 else 0.0
        found = Found(
            "raise" if alarm else "clear", self.level, end_us, raised_us, value, limit, begin_us, recent, severity,
            (0.0, limit),
        )  # fmt: skip
        return state._replace(raised_us=end_us if alarm else NONE_US), [found]

    def _empty(self) -> tuple[tuple[float, ...], tuple[int, ...]]:
        return (0.0,) * QUARTERS_MAX, (0,) * QUARTERS_MAX

    def pack(self, state: NightFlowState) -> tuple[Any, ...]:
        spare = RECENT - len(state.recent)
        recent_us = (*(time_us for time_us, _ in state.recent), *(NONE_US,) * spare)
        recent = (*(flow for _, flow in state.recent), *(0.0,) * spare)
        normal = (*state.normal, *(np.nan,) * (NIGHTS_MAX - len(state.normal)))
        level = 0 if state.raised_us == NONE_US else self.level
        columns = (state.begin_us, state.sums, state.counts, state.judged_us, recent_us, recent, normal)
        return (*columns, state.raised_us, level)

    def unpack(self, row: tuple[Any, ...]) -> NightFlowState:
        begin_us, sums, counts, judged_us, recent_us, recent, normal, raised_us, _ = row
        nights = zip(recent_us.tolist(), recent.tolist(), strict=True)
        return NightFlowState(
            begin_us,
            tuple(sums.tolist()),
            tuple(counts.tolist()),
            judged_us,
            tuple((time_us, flow) for time_us, flow in nights if time_us != NONE_US),
            tuple(flow for flow in normal.tolist() if isfinite(flow)),
            raised_us,
        )


class NightFlowKernel(WalkKernel[NightFlowState]):
    """All night flow rules at once: pairs whose readings reach the end of a night window are walked, those within one are added
    up."""

    def __init__(self, rules: Sequence[NightFlowRule]) -> None:
        self._night_machines = [NightFlowMachine(rule) for rule in rules]
        super().__init__(self._night_machines, STATE)
        self._length_us: I64 = np.array([machine.length_us for machine in self._night_machines], np.int64)
        self._shift_us: I64 = np.array([machine.shift_us for machine in self._night_machines], np.int64)

    def moved(self, pairs: Pairs, pair: I64, segments: Segments, position: I64) -> Bools:
        rule = pairs.rule[pair]
        length_us, begin_us = self._length_us[rule], pairs.state["begin_us"][pair]
        first_us = segments.time_us[segments.start][position]
        last_us = segments.time_us[segments.stop - 1][position]
        into_us = (first_us + self._shift_us[rule]) % DAY_US
        by_day = into_us >= length_us
        end_us = first_us - into_us + length_us + np.where(by_day, DAY_US, 0)
        passes: Bools = (last_us >= end_us) | ((begin_us != NONE_US) & (last_us >= begin_us + length_us))
        night = np.flatnonzero(~passes & (~by_day | (last_us >= end_us - length_us)))
        if len(night):
            self._add_up(pairs, pair[night], segments, position[night])
        return passes

    def _add_up(self, pairs: Pairs, pair: I64, segments: Segments, position: I64) -> None:
        """Readings of which none reaches the end of a window: no night is judged, and those in the window are of one night."""
        count = (segments.stop - segments.start)[position]
        of = np.repeat(np.arange(len(pair)), count)
        row = np.arange(len(of)) - np.repeat(np.cumsum(count) - count - segments.start[position], count)
        if segments.usable is not None:
            of, row = of[segments.usable[row]], row[segments.usable[row]]
        rule, time_us = pairs.rule[pair[of]], segments.time_us[row]
        into_us = (time_us + self._shift_us[rule]) % DAY_US
        begin_us, length_us = time_us - into_us, self._length_us[rule]
        state = pairs.state
        taken = (into_us < length_us) & (begin_us + length_us > state["judged_us"][pair[of]])
        at, quarter = pair[of[taken]], into_us[taken] // QUARTER_US
        state["begin_us"][at] = begin_us[taken]
        with np.errstate(over="ignore", invalid="ignore"):
            np.add.at(
                state["sums"], (at, quarter), segments.value[row[taken]]
            )  # one after the other, as the machine does
        np.add.at(state["counts"], (at, quarter), 1)

    def advance(self, pairs: Pairs, progress: Progress) -> list[Event]:
        """Judge the nights whose window has passed by the clock of the series' source."""
        begin_us = pairs.state["begin_us"]
        now_us = progress.source_us[pairs.slot]
        passed = (begin_us != NONE_US) & (now_us >= begin_us + self._length_us[pairs.rule])
        events: list[Event] = []
        for p in np.flatnonzero(passed).tolist():
            rule = int(pairs.rule[p])
            machine = self._night_machines[rule]
            state, found = machine.due(machine.unpack(pairs.state[p].item()), int(now_us[p]))
            events += [Event(rule, int(pairs.slot[p]), *change) for change in found]
            pairs.state[p] = machine.pack(state)
        return events


class NightFlowKind:
    """Registration of the kind."""

    name = "night_flow"
    model: type[Rule] = NightFlowRule
    state = STATE
    learned: tuple[str, ...] = ("judged_us", "recent_us", "recent", "normal")
    templates = (
        "{device} 的 {metric} 夜间最小净流量为 {value} {unit}，限值 {limit} {unit}，疑似漏损。",
        "minimum night {metric} of {device} is {value} {unit} net, limit {limit} {unit}: a leak is likely.",
    )

    def facts(self, rule: NightFlowRule) -> dict[str, Any]:
        own = NightFlowRule.model_fields.keys() - Rule.model_fields.keys() - {"level"}
        settings = {name: getattr(rule, name) for name in sorted(own)}
        return {"hysteresis": None, "on_delay_s": None, "off_delay_s": None, **settings}

    def kernel(self, rules: Sequence[NightFlowRule]) -> Kernel:
        return NightFlowKernel(rules)
