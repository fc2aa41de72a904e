"""Kinds over several series whose score is graded as `limit` grades a value; the score is made by the kind's front."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from citynet.batch import F64, I64, Bools
from citynet_rules.kinds import limit
from citynet_rules.kinds.graded import GradedRule, gap_s_max, grade, limits_of, off_delay_s
from citynet_rules.kinds.kind import UNUSABLE, Pairs, Segments
from citynet_rules.kinds.limit import STATE, Limits, LimitState
from citynet_rules.kinds.walk import Found, WalkKernel

__all__ = ["STATE", "ScoredKernel", "ScoredMachine", "graded_facts"]


class ScoredMachine:
    """One rule's levels over its score."""

    def __init__(self, rule: GradedRule) -> None:
        self.limits: Limits = limits_of(rule)

    def initial(self) -> LimitState:
        return limit.initial(self.limits)

    def step(self, state: LimitState, time_us: int, value: float, quality: int) -> tuple[LimitState, list[Found]]:
        if quality & UNUSABLE or not np.isfinite(value):
            return state, []
        return grade(self.limits, state, time_us, value)

    def pack(self, state: LimitState) -> tuple[Any, ...]:
        return limit.pack(self.limits, state)

    def unpack(self, row: tuple[Any, ...]) -> LimitState:
        return limit.unpack(self.limits, row)


class ScoredKernel(WalkKernel[LimitState]):
    """All rules of a kind at once: pairs whose scores leave their band are walked."""

    def __init__(self, rules: Sequence[GradedRule]) -> None:
        super().__init__([ScoredMachine(rule) for rule in rules], STATE)

    def moved(self, pairs: Pairs, pair: I64, segments: Segments, position: I64) -> Bools:
        lowest, highest = limit.extremes(segments)
        low: F64 = pairs.state["low"][pair]
        high: F64 = pairs.state["high"][pair]
        moved: Bools = (lowest[position] < low) | (highest[position] >= high)
        return moved


def graded_facts(rule: GradedRule) -> dict[str, Any]:
    """What every graded kind adds to the evidence."""
    return {
        "levels": dict(rule.levels),
        "hysteresis": rule.hysteresis,
        "on_delay_s": rule.on_delay_s,
        "off_delay_s": off_delay_s(rule),
        "gap_s_max": gap_s_max(rule),
    }
