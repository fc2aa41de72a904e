"""Kind `witness`: what other series say about one. It moved, and they ought to have moved with it.

Witnesses of a series are metrics of the same device that physics ties to it (`beside`: gas displaces oxygen) and the
same metric at neighbouring devices (`neighbours`, from the rule files' table ``[neighbours.METRIC]``). Each series
has a base, a slow mean:

    base ← base + (x − base) · min(1, dt / min(tau_s, time since its first reading))          d = x − base

and while |d| of the doubted series is `band` or more, its base follows with `tau_s` at once. With `smooth_s` d is that of

    y ← y + (x − y) · min(1, dt / smooth_s)

instead of x, of the doubted series and its witnesses alike, so that their proportion is kept: what is left of noise and of
the day's course decides how small a move can be told from none.

The doubted series has *moved* when |d| ≥ `band`. A witness moves *along* when its d has the sign of gain · d of the
doubted series, and at least max(its band, share · |gain · d|). Moved and a witness moves along: **supported**. Moved,
and none does although one that may contradict ought to be seen moving (|gain · d| ≥ 2 · its band; of neighbours
`count_min` must be live): **contradicted**, and an alert is raised until that is over (at three quarters of the
bands). Only a witness that has spoken since the doubted series moved can contradict. Otherwise nothing is said. While
the doubted series is silent, what was said stays. A witness is live when its newest reading is not older than
`max_age_s` and its value has changed within `alive_s`: one that is stuck says nothing.

Of each series the first reading of every stretch of `every_s` is taken. The form is that of analytical redundancy in
fault detection (a parity relation of two sensors, watched over a threshold) and of a spatial buddy check.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from citynet.batch import I64, Bools
from citynet.ids import is_id
from citynet_rules.kinds.kind import Kernel, Pairs, Segments
from citynet_rules.kinds.walk import Found, WalkKernel
from citynet_rules.rule import Age, Colour, Delay, Rule, level_of
from citynet_rules.transition import NONE_US

CONTRADICTED, SUPPORTED = 4, 8  # what witnesses say travels as a flag of the reading that their node makes
BESIDE_MAX = 4
NEIGHBOURS_MAX = 8
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, le=1)]


class Beside(BaseModel):
    """A metric of the same device: it moves by `gain` for each unit that the doubted one moves; `band` in its own unit."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    metric: str
    gain: float = Field(allow_inf_nan=False)
    band: Positive
    share: Share = 0.5
    contradicts: bool = True

    @field_validator("metric")
    @classmethod
    def _metric(cls, text: str) -> str:
        if not is_id(text):
            raise ValueError(f"{text[:80]!r} is not 1..64 of A-Z a-z 0-9 . _ -")
        return text

    @field_validator("gain")
    @classmethod
    def _gain(cls, gain: float) -> float:
        if gain == 0:
            raise ValueError("a witness with gain 0 says nothing")
        return gain


class Neighbours(BaseModel):
    """The same metric at neighbouring devices; `band` in the rule's unit."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    band: Positive
    share: Share = 0.3
    contradicts: bool = False
    count_min: int = Field(2, ge=1, le=NEIGHBOURS_MAX)


class WitnessRule(Rule):
    """A rule of kind `witness`; `band` in `unit`, times in seconds. `hold_s`: how long an alert on the doubted series is kept
    from people while its witnesses have said nothing."""

    level: Colour
    band: Positive
    beside: Annotated[tuple[Beside, ...], Field(strict=False, max_length=BESIDE_MAX)] = ()
    neighbours: Neighbours | None = None
    hold_s: Delay
    tau_s: Age = 86_400.0
    smooth_s: Delay = 0.0
    every_s: Age = 30.0
    max_age_s: Age = 180.0
    alive_s: Age = 1800.0
    wait_s: Age = 60.0

    @model_validator(mode="after")
    def _can_speak(self) -> WitnessRule:
        if self.when:
            raise ValueError("when: what witnesses say has no conditions")
        if not self.beside and self.neighbours is None:
            raise ValueError("beside or neighbours is missing: nobody would speak")
        if any(each.metric == self.metric for each in self.beside):
            raise ValueError(f"beside: {self.metric} cannot be its own witness")
        return self


class WitnessState(NamedTuple):
    """Since when the series is contradicted (`raised_us`) or supported; `NONE_US`: it is not."""

    raised_us: int
    support_us: int


STATE = np.dtype([("raised_us", "<i8"), ("support_us", "<i8"), ("level", "<i4")])


class WitnessMachine:
    """One witness rule, fed with how far the doubted series is from its base, and what its witnesses say of it."""

    def __init__(self, rule: WitnessRule) -> None:
        self.level = level_of(rule.level)
        self.band = rule.band

    def initial(self) -> WitnessState:
        return WitnessState(NONE_US, NONE_US)

    def step(self, state: WitnessState, time_us: int, value: float, quality: int) -> tuple[WitnessState, list[Found]]:
        raised_us, support_us = state
        sample = ((time_us, value),)
        found = []
        if raised_us != NONE_US and not quality & CONTRADICTED:
            found.append(Found("clear", self.level, time_us, raised_us, value, self.band, raised_us, sample, 0.0))
            raised_us = NONE_US
        if support_us != NONE_US and not quality & SUPPORTED:
            found.append(Found("unsupport", self.level, time_us, support_us, value, self.band, support_us, sample))
            support_us = NONE_US
        if raised_us == NONE_US and quality & CONTRADICTED:
            raised_us = time_us
            found.append(Found("raise", self.level, time_us, time_us, value, self.band, time_us, sample, 1.0))
        if support_us == NONE_US and quality & SUPPORTED:
            support_us = time_us
            found.append(Found("support", self.level, time_us, time_us, value, self.band, time_us, sample))
        return WitnessState(raised_us, support_us), found

    def pack(self, state: WitnessState) -> tuple[Any, ...]:
        return (*state, 0 if state.raised_us == NONE_US else self.level)

    def unpack(self, row: tuple[Any, ...]) -> WitnessState:
        return WitnessState(row[0], row[1])


class WitnessKernel(WalkKernel[WitnessState]):
    """All witness rules at once. Their nodes make a reading only where what is said changes, so every one is walked."""

    def __init__(self, rules: Sequence[WitnessRule]) -> None:
        super().__init__([WitnessMachine(rule) for rule in rules], STATE)

    def moved(self, pairs: Pairs, pair: I64, segments: Segments, position: I64) -> Bools:
        return np.ones(len(pair), np.bool_)


class WitnessKind:
    """Registration of the kind."""

    name = "witness"
    model: type[Rule] = WitnessRule
    state = STATE
    learned: tuple[str, ...] = ()
    templates = (
        "{device} 的 {metric} 偏离自身基线 {value} {unit}（判据 {limit} {unit}），而见证测点没有相应变化。",
        "{metric} of {device} is {value} {unit} off its own base (limit {limit} {unit}); its witnesses have not moved with it.",
    )

    def facts(self, rule: WitnessRule) -> dict[str, Any]:
        return {
            "hysteresis": None,
            "on_delay_s": None,
            "off_delay_s": None,
            "band": rule.band,
            "beside": [each.model_dump() for each in rule.beside],
            "neighbours": None if rule.neighbours is None else rule.neighbours.model_dump(),
            "hold_s": rule.hold_s,
            "tau_s": rule.tau_s,
            "smooth_s": rule.smooth_s,
            "every_s": rule.every_s,
        }

    def kernel(self, rules: Sequence[WitnessRule]) -> Kernel:
        return WitnessKernel(rules)
