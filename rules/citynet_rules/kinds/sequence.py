"""Kind `sequence`: first A, then B, within a time.

An object has two members. A reading of the first within `first` (lowest and highest value, both included) and after it a
reading of the second within `second`, at most `within_s` later, complete the sequence. The score is 1 up to `hold_s` after
the newest completion, 0 from then on; it is told at the readings of either member. So the alert is raised at B and
cleared at the first reading that is `hold_s` or more after the last B that followed an A. (B at the same moment as A
counts as after it.) The order of two events within a time is the simplest of the temporal patterns of complex event processing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from citynet.batch import F64, I64, Bools
from citynet_rules.colour import Age, microseconds
from citynet_rules.joint.front import Front
from citynet_rules.joint.group_rule import GroupRule
from citynet_rules.kinds.kind import Kernel
from citynet_rules.kinds.scored import STATE, ScoredKernel, graded_facts
from citynet_rules.rule import Rule

if TYPE_CHECKING:
    from citynet_rules.joint.join import Block

Value = Annotated[float, Field(allow_inf_nan=False)]


class Match(BaseModel):
    """The values that count, both ends included."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    low: Value | None = None
    high: Value | None = None

    @model_validator(mode="after")
    def _some(self) -> Match:
        if self.low is None and self.high is None:
            raise ValueError("low or high is missing")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"low {self.low:g} must not be above high {self.high:g}")
        return self

    def rows(self, value: F64) -> Bools:
        """Which values count."""
        low = -np.inf if self.low is None else self.low
        high = np.inf if self.high is None else self.high
        return np.asarray((value >= low) & (value <= high), np.bool_)


class SequenceRule(GroupRule):
    """A rule of kind `sequence`; each object has two members. `levels` has one colour, at 1."""

    first: Match
    second: Match
    within_s: Age
    hold_s: Age = 3600.0

    @model_validator(mode="after")
    def _pairs(self) -> SequenceRule:
        for name, members in self.objects.items():
            if len(members) != 2:
                raise ValueError(
                    f"object {name} has {len(members)} members: a sequence has two, the first and the second"
                )
        if list(self.levels.values()) != [1.0]:
            raise ValueError("levels: one colour at 1 was expected: a sequence happened or not")
        return self


class SequenceFront:
    """1 for `hold_s` after a completion."""

    def __init__(self, rule: SequenceRule) -> None:
        self.objects = rule.series()
        self.wait_us = microseconds(rule.wait_s)
        self._rule = rule
        self._within_us, self._hold_us = microseconds(rule.within_s), microseconds(rule.hold_s)

    def channels(self, roles: int) -> int:
        return 2  # the newest A, the newest completion

    def score(self, block: Block, at: I64) -> F64:
        rows = block.rows
        is_first = (rows.role == 0) & self._rule.first.rows(rows.value)
        is_second = (rows.role == 1) & self._rule.second.rows(rows.value)
        began_us, _ = block.latest(0, is_first, np.arange(len(rows.time_us)))
        done = is_second & (began_us >= rows.time_us - self._within_us)
        done_us, _ = block.latest(1, done, at)
        return np.where(rows.time_us[at] < done_us + self._hold_us, 1.0, 0.0)


class SequenceKind:
    """Registration of the kind."""

    name = "sequence"
    model: type[Rule] = SequenceRule
    state = STATE
    learned: tuple[str, ...] = ()
    templates = (
        "{device} 的事件序列（先甲后乙）已发生，自 {since} 起。",
        "the sequence of {device} has happened, one after the other, since {since}.",
    )

    def facts(self, rule: SequenceRule) -> dict[str, Any]:
        own = {
            "within_s": rule.within_s,
            "hold_s": rule.hold_s,
            "wait_s": rule.wait_s,
            "first": rule.first.model_dump(exclude_none=True),
            "second": rule.second.model_dump(exclude_none=True),
        }
        return {"unit": "1", **graded_facts(rule), **own, "objects": rule.members()}

    def front(self, rule: SequenceRule) -> Front:
        return SequenceFront(rule)

    def kernel(self, rules: Sequence[SequenceRule]) -> Kernel:
        return ScoredKernel(rules)
