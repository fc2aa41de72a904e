"""Kind `residual`: one series against others, by a law that is known: balance, redundancy, a curve.

`expression` is what should be zero: for a balance in − out − change of storage, for redundant sensors a − b, for a pump the
measured head less its curve. The names in it are `operands`, in the order in which every object lists its members; units are
checked, the residual r is in `unit`. The score is |r|, r or −r by `direction`, or its ratio to `per`, a second expression
that says what it is relative to (a share of the inflow, of the noise). Levels grade the score. An operand counts as long as
its newest usable reading is not older than its `max_age_s`. Residuals of balances and of parity relations are the classical
way of fault detection (J. Gertler, Fault Detection and Diagnosis in Engineering Systems, 1998).

The values of `delta`, `mean` and `lag` are those of derived metrics: compute them there and use the derived metric as a
member.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import ValidationInfo, field_validator, model_validator

from citynet.batch import F64, I64
from citynet_rules import unit
from citynet_rules.colour import microseconds
from citynet_rules.derived import Operand, units_of
from citynet_rules.evaluate import evaluate, named
from citynet_rules.expression import Formula, Name, Past, compile_, parse
from citynet_rules.joint.front import Front
from citynet_rules.joint.group_rule import OperandRule
from citynet_rules.kinds.kind import Kernel
from citynet_rules.kinds.scored import STATE, ScoredKernel, graded_facts
from citynet_rules.rule import Rule

if TYPE_CHECKING:
    from citynet_rules.joint.join import Block


class ResidualRule(OperandRule):
    """A rule of kind `residual`; levels in `unit`, or bare numbers where there is a `per`."""

    expression: str
    per: str | None = None
    direction: Literal["either", "up", "down"] = "either"

    @field_validator("expression", "per")
    @classmethod
    def _compiles(cls, text: str | None, info: ValidationInfo) -> str | None:
        operands, result = info.data.get("operands"), info.data.get("unit")
        if text is None:
            return text
        if operands is None or result is None:  # those have mistakes of their own
            parse(text)
        else:
            cls._formula(text, operands, result)
        return text

    @model_validator(mode="after")
    def _complete(self) -> ResidualRule:
        used = {name for formula in self.formulas for name in formula.names}
        if idle := sorted(self.operands.keys() - used):
            raise ValueError(f"operand {', '.join(idle)} is not used")
        return self

    @cached_property
    def formulas(self) -> tuple[Formula, ...]:
        """The checked expressions: the residual, and what it is relative to."""
        texts = [self.expression, *([] if self.per is None else [self.per])]
        return tuple(self._formula(text, self.operands, self.unit) for text in texts)

    @staticmethod
    def _formula(text: str, operands: dict[str, Operand], result: str) -> Formula:
        formula = compile_(text, units_of(operands), unit.parse(result))
        if formula.pasts:
            raise ValueError(f"column {formula.pasts[0].at}: {formula.pasts[0].function} belongs into a derived metric")
        return formula


class ResidualFront:
    """The residual at each time at which all operands are known."""

    def __init__(self, rule: ResidualRule) -> None:
        self.objects = rule.series()
        self.wait_us = microseconds(rule.wait_s)
        self._rule = rule
        self._names = list(rule.operands)
        self._units = list(units_of(rule.operands).values())
        self._age_us = [microseconds(operand.max_age_s) for operand in rule.operands.values()]

    def channels(self, roles: int) -> int:
        return roles

    def score(self, block: Block, at: I64) -> F64:
        rows, rule = block.rows, self._rule
        known = np.ones(len(at), np.bool_)
        values: dict[Name | Past, F64] = {}
        for role, (name, of, age_us) in enumerate(zip(self._names, self._units, self._age_us, strict=True)):
            time_us, value = block.latest(role, rows.role == role, at)
            known &= time_us >= rows.time_us[at] - age_us
            values[named(name)] = value * float(of.factor) + float(of.offset)
        residual, *per = [evaluate(formula.node, values, len(at)) for formula in rule.formulas]
        with np.errstate(all="ignore"):
            score = residual / (np.abs(per[0]) if per else float(unit.parse(rule.unit).factor))
        score = np.abs(score) if rule.direction == "either" else score if rule.direction == "up" else -score
        return np.where(known, score, np.nan)


class ResidualKind:
    """Registration of the kind."""

    name = "residual"
    model: type[Rule] = ResidualRule
    state = STATE
    learned: tuple[str, ...] = ()
    templates = (
        "{device} 的残差为 {value} {unit}，限值 {limit} {unit}，自 {since} 起：各测点之间不再相符。",
        "residual of {device} is {value} {unit}, limit {limit} {unit}, since {since}: its series no longer agree.",
    )

    def facts(self, rule: ResidualRule) -> dict[str, Any]:
        return {
            "unit": rule.unit if rule.per is None else "1",
            "direction": rule.direction,
            **graded_facts(rule),
            "expression": rule.expression,
            "per": rule.per,
            "wait_s": rule.wait_s,
            "objects": rule.members(),
        }

    def front(self, rule: ResidualRule) -> Front:
        return ResidualFront(rule)

    def kernel(self, rules: Sequence[ResidualRule]) -> Kernel:
        return ScoredKernel(rules)
