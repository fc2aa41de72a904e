"""Kinds that turn a reading into a score and grade it: the levels, hysteresis and delays of `limit`, over the score.

The score is what the machine of `limit` sees as value; a larger one is worse. Severity is score / (score + mildest
level): 0.5 at the mildest level, towards 1 beyond.
"""

from __future__ import annotations

from itertools import pairwise
from math import isfinite

import numpy as np
from pydantic import Field, field_validator

from citynet_rules.kinds import limit
from citynet_rules.kinds.limit import Limits, LimitState
from citynet_rules.kinds.walk import Found
from citynet_rules.rule import COLOURS, Age, Colour, Delay, Rule, level_of, microseconds

GAP_S_DEFAULT = limit.GAP_S_MIN_DEFAULT
LATCH = limit.STATE.descr
"""Columns of the latch, to be put after a kind's own."""


class GradedRule(Rule):
    """Levels of a score, all above 0 and rising with the colour; times in seconds of event time."""

    levels: dict[Colour, float] = Field(min_length=1)
    hysteresis: float = Field(0.0, ge=0, allow_inf_nan=False)
    on_delay_s: Delay = 0.0
    off_delay_s: Delay | None = Field(None, description="default: 2 × on_delay_s")
    gap_s_max: Age | None = Field(None, description="default: 4 × on_delay_s, at least 900 s")

    @field_validator("levels")
    @classmethod
    def _rising(cls, levels: dict[Colour, float]) -> dict[Colour, float]:
        colours = [colour for colour in COLOURS if colour in levels]
        for colour in colours:
            if not isfinite(levels[colour]) or levels[colour] <= 0:
                raise ValueError(f"{colour} is {levels[colour]}: a number above 0 was expected")
        for mild, severe in pairwise(colours):
            if levels[severe] <= levels[mild]:
                raise ValueError(f"{severe} {levels[severe]:g} must be above {mild} {levels[mild]:g}")
        return {colour: levels[colour] for colour in colours}

    @field_validator("hysteresis")
    @classmethod
    def _narrow(cls, hysteresis: float, info: object) -> float:
        data: dict[str, object] = getattr(info, "data", {})
        levels = data.get("levels")
        thresholds = sorted(levels.values()) if isinstance(levels, dict) else []
        distance = min((b - a for a, b in pairwise([0.0, *thresholds])), default=float("inf"))
        if hysteresis >= distance:
            raise ValueError(
                f"{hysteresis:g} must be smaller than the lowest level and the distance of two, {distance:g}"
            )
        return hysteresis


def off_delay_s(rule: GradedRule) -> float:
    """As in `limit`."""
    return 2 * rule.on_delay_s if rule.off_delay_s is None else rule.off_delay_s


def gap_s_max(rule: GradedRule) -> float:
    """As in `limit`."""
    return max(4 * rule.on_delay_s, GAP_S_DEFAULT) if rule.gap_s_max is None else rule.gap_s_max


def limits_of(rule: GradedRule) -> Limits:
    """The rule's levels, ready for the machine of `limit`."""
    close = tuple(rule.levels.values())
    return Limits(
        sign=1,
        close=close,
        open=tuple(threshold - rule.hysteresis for threshold in close),
        level=tuple(level_of(colour) for colour in rule.levels),
        on_us=microseconds(rule.on_delay_s),
        off_us=microseconds(off_delay_s(rule)),
        gap_us=microseconds(gap_s_max(rule)),
    )


def grade(
    limits: Limits, latch: LimitState, time_us: int, score: float, expected: tuple[float, float] | None = None
) -> tuple[LimitState, list[Found]]:
    """Take one score, as `limit.step` takes a value; one that is no finite number is as if it were not there."""
    latch, events = limit.step(limits, latch, time_us, score, 0)
    severity = score / (score + limits.close[0]) if score > 0 else 0.0
    return latch, [Found(*event, severity, expected) for event in events]


def state_of(*own: tuple[str, str] | tuple[str, str, tuple[int, ...]]) -> np.dtype[np.void]:
    """Dtype of a graded kind's state: its own columns, then the latch's."""
    return np.dtype([*own, *LATCH])
