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

A rule that `tells` accuses no sensor and raises no alert: what it finds is a word on where the gas comes from, for the
verdict of every other alert on the series (`citynet_rules.verdict`). It holds nobody back. Its witnesses' bases, too, follow
with `tau_s` while |d| of the doubted series was `band` or more at its newest reading: else the proportion of what lasts for
days would be lost where bases are young.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from citynet.batch import I64, Bools
from citynet.ids import is_id
from citynet_rules.kinds.kind import Kernel, Pairs, Segments
from citynet_rules.kinds.walk import Found, Machine, WalkKernel
from citynet_rules.rule import Age, Colour, Delay, Rule, level_of
from citynet_rules.transition import NONE_US

CONTRADICTED, SUPPORTED = 4, 8  # what witnesses say travels as a flag of the reading that their node makes
BESIDE_MAX = 4
NEIGHBOURS_MAX = 8
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, le=1)]
Origin = Literal["biogas", "leak"]
Reason = Annotated[str, Field(max_length=200)]
TELLING_WAIT_S_MAX = 60.0


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


class Tells(BaseModel):
    """What it means that a witness moves along, and what that none does although it ought to; each with its reason in words."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    along: Origin | None = None
    along_zh: Reason = ""
    along_en: Reason = ""
    against: Origin | None = None
    against_zh: Reason = ""
    against_en: Reason = ""

    @model_validator(mode="after")
    def _says_why(self) -> Tells:
        if self.along is None and self.against is None:
            raise ValueError("needs along, against or both")
        for name in ("along", "against"):
            reasons = [getattr(self, f"{name}_{language}") for language in ("zh", "en")]
            if all(reasons) != (getattr(self, name) is not None) or any(reasons) != all(reasons):
                raise ValueError(f"{name}, {name}_zh and {name}_en go together")
        return self

    def word(self, said: int) -> tuple[Origin, str, str] | None:
        """Of what witnesses say (`SUPPORTED`, `CONTRADICTED` or neither): the word, and why in Chinese and English."""
        if said & SUPPORTED and self.along is not None:
            return self.along, self.along_zh, self.along_en
        if said & CONTRADICTED and self.against is not None:
            return self.against, self.against_zh, self.against_en
        return None


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
    tells: Tells | None = None

    @model_validator(mode="after")
    def _telling_holds_nobody_back(self) -> WitnessRule:
        if self.tells is None:
            return self
        if self.domain == "device":
            raise ValueError(
                "tells: a rule of the domain device accuses the sensor; where gas comes from is not its fault"
            )
        if self.hold_s or self.wait_s > TELLING_WAIT_S_MAX:
            raise ValueError(f"tells: nobody waits for it: hold_s must be 0, wait_s at most {TELLING_WAIT_S_MAX:g}")
        return self

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


class TellingState(NamedTuple):
    """Since when (`NONE_US`: not) the witnesses say `said`: `SUPPORTED` or `CONTRADICTED`."""

    since_us: int
    said: int


class TellingMachine:
    """One rule that tells: no alert, only words. Its state stands in the columns of a witness: `said` as the level."""

    def __init__(self, rule: WitnessRule, tells: Tells) -> None:
        self.level = level_of(rule.level)
        self.band = rule.band
        self.tells = tells

    def initial(self) -> TellingState:
        return TellingState(NONE_US, 0)

    def step(self, state: TellingState, time_us: int, value: float, quality: int) -> tuple[TellingState, list[Found]]:
        said = quality & (SUPPORTED | CONTRADICTED)
        before, now = self.tells.word(state.said), self.tells.word(said)
        if before == now:
            return (TellingState(NONE_US, 0) if now is None else state), []
        sample = ((time_us, value),)
        found = []
        if before is not None:
            found.append(
                Found("unsupport", self.level, time_us, state.since_us, value, self.band, state.since_us, sample)
            )
        if now is not None:
            more = dict(zip(("origin", "why_zh", "why_en"), now, strict=True))
            found.append(Found("support", self.level, time_us, time_us, value, self.band, time_us, sample, more=more))
        return (TellingState(NONE_US, 0) if now is None else TellingState(time_us, said)), found

    def pack(self, state: TellingState) -> tuple[Any, ...]:
        return NONE_US, state.since_us, state.said

    def unpack(self, row: tuple[Any, ...]) -> TellingState:
        return TellingState(row[1], row[2])


class WitnessKernel(WalkKernel[Any]):
    """All witness rules at once. Their nodes make a reading only where what is said changes, so every one is walked."""

    def __init__(self, rules: Sequence[WitnessRule]) -> None:
        super().__init__([_machine(rule) for rule in rules], STATE)

    def moved(self, pairs: Pairs, pair: I64, segments: Segments, position: I64) -> Bools:
        return np.ones(len(pair), np.bool_)


def _machine(rule: WitnessRule) -> Machine[Any]:
    return WitnessMachine(rule) if rule.tells is None else TellingMachine(rule, rule.tells)


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
