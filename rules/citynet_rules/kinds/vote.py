"""Kind `vote`: k of n. The score is how many members of an object vote, so levels are numbers of votes.

A member votes at time t when its newest usable reading that is beyond `threshold` (≥ for "high", ≤ for "low") is from
(t − within_s, t]; with `hold = false` only when that is its newest usable reading at all: one that has gone back no longer
votes. Votes are counted at the readings of any member. Two of three is the usual way of protection systems to survive one
failing sensor (IEC 61511 writes it 2oo3); with n neighbours and some minutes it tells an event from a single sensor's
fault (domain reference 2.1, status D).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from citynet.batch import F64, I64, Bools
from citynet_rules.colour import Age, microseconds
from citynet_rules.joint.front import Front
from citynet_rules.joint.group_rule import GroupRule
from citynet_rules.kinds.kind import Kernel
from citynet_rules.kinds.scored import STATE, ScoredKernel, graded_facts
from citynet_rules.rule import Rule

if TYPE_CHECKING:
    from citynet_rules.joint.join import Block


class VoteRule(GroupRule):
    """A rule of kind `vote`; `threshold` in `unit`, levels in votes."""

    direction: Literal["high", "low"]
    threshold: float = Field(allow_inf_nan=False)
    within_s: Age
    hold: bool = True

    @model_validator(mode="after")
    def _reachable(self) -> VoteRule:
        fewest = min(len(members) for members in self.objects.values())
        most = max(self.levels.values())
        if most > fewest:
            raise ValueError(f"{most:g} votes of an object with {fewest} members: never reached")
        return self


class VoteFront:
    """Votes of the members."""

    def __init__(self, rule: VoteRule) -> None:
        self.objects = rule.series()
        self.wait_us = microseconds(rule.wait_s)
        self._rule = rule
        self._within_us = microseconds(rule.within_s)

    def channels(self, roles: int) -> int:
        return roles

    def score(self, block: Block, at: I64) -> F64:
        rows = block.rows
        votes: F64 = np.zeros(len(at))
        beyond = self._beyond(rows.value)
        for role in range(block.join.roles):
            mine = rows.role == role
            time_us, value = block.latest(role, mine & beyond if self._rule.hold else mine, at)
            votes += (time_us > rows.time_us[at] - self._within_us) & self._beyond(value)
        return votes

    def _beyond(self, value: F64) -> Bools:
        threshold = self._rule.threshold
        beyond: Bools = value >= threshold if self._rule.direction == "high" else value <= threshold
        return beyond


class VoteKind:
    """Registration of the kind."""

    name = "vote"
    model: type[Rule] = VoteRule
    state = STATE
    learned: tuple[str, ...] = ()
    templates = (
        "{device} 有 {value} 个测点的 {metric} 同时越限，限 {limit} 个，自 {since} 起。",
        "{value} members of {device} are beyond in {metric}, limit {limit}, since {since}.",
    )

    def facts(self, rule: VoteRule) -> dict[str, Any]:
        own = {name: getattr(rule, name) for name in ("direction", "threshold", "within_s", "hold", "wait_s")}
        return {"unit": "1", **graded_facts(rule), **own, "objects": rule.members()}

    def front(self, rule: VoteRule) -> Front:
        return VoteFront(rule)

    def kernel(self, rules: Sequence[VoteRule]) -> Kernel:
        return ScoredKernel(rules)
