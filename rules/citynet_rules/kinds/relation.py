"""Kind `relation`: one series against others, by a linear relation that was learned.

The residual against a law that is known is `residual`; here the law is found in the readings of a learning time:

    y = b₀ + b₁ x₁ + … + bₖ xₖ        y is the first operand, x₁ … xₖ the others, each in its own unit
    z = (y − ŷ) / σ                   the score is |z|, z or −z by `direction`; levels are values of it

An object's instants are the times of its members' readings at which every operand is known (its newest usable reading is not
older than its `max_age_s`). Every instant that is `learn_s` / `learn_count` or more after the one kept before is kept, until
`learn_count` are: about `learn_s`, longer where there are gaps. Then the relation is fitted by least trimmed squares with
reweighted steps (`citynet_rules.robust`), which almost half of the samples cannot mislead, σ = max(their scale, `sigma_min`),
and both are frozen: a leak is never learned. A relation that less than `follow_min` of the samples follow, or whose σ is 0, is
none, and learning begins anew: so what is wrong in more than 1 − `follow_min` of the learning time is not learned, and where
there is no such relation nothing is judged. A new version of the rule learns anew. Learning does not ask for conditions
(`when`).

The evidence names the relation, and as expected band that of the residual y − ŷ: ± σ · mildest level.

State: `learn_count` values of every operand an object, at most 5.2 KB.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from citynet.batch import F64, I64, Bools
from citynet_rules import robust
from citynet_rules.colour import Age, microseconds
from citynet_rules.joint.front import Front
from citynet_rules.joint.group_rule import OperandRule
from citynet_rules.kinds.kind import Kernel, Rows
from citynet_rules.kinds.scored import STATE, ScoredKernel, graded_facts
from citynet_rules.rule import Rule

if TYPE_CHECKING:
    from citynet_rules.joint.join import Block

SAMPLES_MAX = 128
OPERANDS_MAX = 5


class RelationRule(OperandRule):
    """A rule of kind `relation`; levels in σ, `sigma_min` in `unit`, which is the first operand's."""

    direction: Literal["either", "up", "down"] = "either"
    learn_s: Age
    learn_count: int = Field(64, ge=16, le=SAMPLES_MAX)
    sigma_min: float = Field(0.0, ge=0, allow_inf_nan=False)
    follow_min: float = Field(0.75, ge=0.5, le=1)

    @model_validator(mode="after")
    def _complete(self) -> RelationRule:
        if not 2 <= len(self.operands) <= OPERANDS_MAX:
            raise ValueError(f"{len(self.operands)} operands: 2 to {OPERANDS_MAX} were expected")
        name, first = next(iter(self.operands.items()))
        if first.unit != self.unit:
            raise ValueError(f"unit is {self.unit}, that of the first operand, {name}, is {first.unit}")
        return self


class RelationFront:
    """Learns, and then the score at each instant."""

    def __init__(self, rule: RelationRule) -> None:
        self.objects = rule.series()
        self.wait_us = microseconds(rule.wait_s)
        self._rule = rule
        self._age_us = [microseconds(operand.max_age_s) for operand in rule.operands.values()]
        self._apart_us = max(microseconds(rule.learn_s) // rule.learn_count, 1)
        width = len(rule.operands)
        self.memory: Sequence[tuple[Any, ...]] = (
            ("kept_us", "<i8"),
            ("kept", "<i8"),
            ("fits", "<i8"),
            ("learned_us", "<i8"),
            ("sigma", "<f8"),
            ("coefficient", "<f8", (width,)),
            ("sample", "<f8", (rule.learn_count, width)),
        )

    def channels(self, roles: int) -> int:
        return roles

    def score(self, block: Block, at: I64) -> F64:
        rows, state = block.rows, block.join.state
        known = np.ones(len(at), np.bool_)
        values = np.empty((len(at), len(self._age_us)))
        for role, age_us in enumerate(self._age_us):
            when_us, values[:, role] = block.latest(role, rows.role == role, at)
            known &= when_us >= rows.time_us[at] - age_us
        time_us, owner = rows.time_us[at], rows.object[at].astype(np.int64)
        for number in np.unique(owner[known & (state["sigma"][owner] == 0)]).tolist():
            mine = np.flatnonzero(known & (owner == number))
            self.learn(state[number : number + 1], time_us[mine], values[mine])
        with np.errstate(all="ignore"):
            z = _residual(state["coefficient"][owner], values) / state["sigma"][owner]
        judged: Bools = known & (state["sigma"][owner] > 0) & (time_us > state["learned_us"][owner])
        direction = self._rule.direction
        score = np.abs(z) if direction == "either" else z if direction == "up" else -z
        return np.where(judged, score, np.nan)

    def learn(self, state: Rows, time_us: I64, values: F64) -> None:
        """Keep of one object's instants (values: one column an operand) what belongs to the sample, up to the one that ends
        the learning; `state` is the object's row."""
        place = self._next(state, time_us) if state["kept"][0] or state["fits"][0] else 0
        while place < len(time_us) and state["sigma"][0] == 0:
            kept, now_us = int(state["kept"][0]), int(time_us[place])
            state["sample"][0, kept] = values[place]
            state["kept_us"], state["kept"] = now_us, kept + 1
            if kept + 1 == self._rule.learn_count:
                self._fit(state, now_us)
            place = self._next(state, time_us)

    def _next(self, state: Rows, time_us: I64) -> int:
        """The first instant that is far enough from the one that was kept."""
        return int(np.searchsorted(time_us, int(state["kept_us"][0]) + self._apart_us, side="left"))

    def _fit(self, state: Rows, now_us: int) -> None:
        sample = state["sample"][0, : int(state["kept"][0])].copy()
        with np.errstate(all="ignore"):
            found = robust.fit(sample[:, 1:], sample[:, 0])
        sigma = max(found.sigma, self._rule.sigma_min)
        state["kept"], state["sample"], state["fits"] = 0, 0.0, state["fits"] + 1
        if found.followed >= self._rule.follow_min and 0 < sigma < np.inf and np.isfinite(found.coefficient).all():
            state["coefficient"], state["sigma"], state["learned_us"] = found.coefficient, sigma, now_us

    def tries(self, state: Rows) -> I64:
        found: I64 = np.where(state["sigma"] == 0, state["fits"], 0)
        return found

    def explain(self, state: Rows) -> tuple[tuple[float, float] | None, dict[str, Any]]:
        coefficient, sigma = state["coefficient"][0].tolist(), float(state["sigma"][0])
        first, *others = self._rule.operands
        terms = [f"{b:+.6g} {name}" for b, name in zip(coefficient[1:], others, strict=True)]
        reach = sigma * min(self._rule.levels.values())
        return (-reach, reach), {
            "relation": " ".join([f"{first} = {coefficient[0]:.6g}", *terms]),
            "coefficients": dict(zip(["constant", *others], coefficient, strict=True)),
            "sigma": sigma,
            "learned_us": int(state["learned_us"][0]),
        }


def _residual(coefficient: F64, values: F64) -> F64:
    """y − ŷ, summed in the order of the operands, so that it is the same one by one and in columns."""
    expected: F64 = coefficient[:, 0].copy()
    for number in range(1, values.shape[1]):
        expected = expected + coefficient[:, number] * values[:, number]
    rest: F64 = values[:, 0] - expected
    return rest


class RelationKind:
    """Registration of the kind."""

    name = "relation"
    model: type[Rule] = RelationRule
    state = STATE
    learned: tuple[str, ...] = ()
    templates = (
        "{device} 偏离已学习的线性关系 {value} 倍标准差，限值 {limit}，自 {since} 起。",
        "{device} is {value} standard deviations from the relation that was learned, limit {limit}, since {since}.",
    )

    def facts(self, rule: RelationRule) -> dict[str, Any]:
        own = {name: getattr(rule, name) for name in ("direction", "learn_s", "learn_count", "sigma_min", "wait_s")}
        return {"unit": "σ", **graded_facts(rule), **own, "objects": rule.members()}

    def front(self, rule: RelationRule) -> Front:
        return RelationFront(rule)

    def kernel(self, rules: Sequence[RelationRule]) -> Kernel:
        return ScoredKernel(rules)
