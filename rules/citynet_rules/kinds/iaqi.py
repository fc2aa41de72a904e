"""Kind `iaqi`: the individual air quality index (IAQI) of one pollutant, graded like a `limit`.

The score is the IAQI of the reading by HJ 633 (`citynet_rules.aqi.table`), a whole number of 0 to 500. A station's AQI is
the largest of its IAQIs, so AQI ≥ x holds exactly while one pollutant's IAQI is ≥ x: one rule a pollutant raises when the
station's AQI does, names the pollutant that does it, and waits for no other. With pollutants missing an index above 100 is
published all the same, so levels above 100 need no others either.

Levels are IAQIs; which gets which of the four warning colours is the rule's decision. The six classes of the index stay
apart from them and are in the evidence. A reading must be the mean its table asks for (1 h, 8 h, 24 h): the rule does not
average. A reading that has no index (beyond a table without cap) is as if it had not been sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any, ClassVar

import numpy as np
from pydantic import model_validator

from citynet.batch import F64, I32, I64, Bools
from citynet_rules.aqi.table import CLASSES, EDITIONS
from citynet_rules.kinds import limit
from citynet_rules.kinds.graded import GradedRule, gap_s_max, grade, limits_of, off_delay_s, state_of
from citynet_rules.kinds.kind import UNUSABLE, Kernel
from citynet_rules.kinds.limit import LimitState
from citynet_rules.kinds.walk import Columns, Found, RankKernel
from citynet_rules.rule import Rule

STATE = state_of()


class IaqiRule(GradedRule):
    """A rule of kind `iaqi`: `edition` is HJ 633's, `table` one of its columns (such as ``pm2_5_24h``), the metric is in
    the table's unit; levels and hysteresis are IAQIs."""

    table: str

    @model_validator(mode="after")
    def _of_the_standard(self) -> IaqiRule:
        edition = EDITIONS.get(self.edition)
        if edition is None:
            raise ValueError(f"edition {self.edition[:40]!r}: HJ 633 has {', '.join(EDITIONS)} here")
        column = edition.columns.get(self.table)
        if column is None:
            raise ValueError(f"table {self.table[:40]!r} is unknown (known: {', '.join(edition.columns)})")
        if self.unit != column.unit:
            raise ValueError(f"unit {self.unit!r}: table {self.table} is in {column.unit}")
        top = column.index[-1]
        for colour, level in self.levels.items():
            if level != int(level) or level > top:
                raise ValueError(f"levels: {colour} {level:g} is no whole index of 1 to {top}")
        return self


class IaqiMachine:
    """One iaqi rule."""

    def __init__(self, rule: IaqiRule) -> None:
        self.limits = limits_of(rule)
        self.column = EDITIONS[rule.edition].columns[rule.table]

    def initial(self) -> LimitState:
        return limit.initial(self.limits)

    def step(self, state: LimitState, time_us: int, value: float, quality: int) -> tuple[LimitState, list[Found]]:
        if quality & UNUSABLE or not isfinite(value):
            return state, []
        return grade(self.limits, state, time_us, self.column.iaqi(value))

    def pack(self, state: LimitState) -> tuple[Any, ...]:
        return limit.pack(self.limits, state)

    def unpack(self, row: tuple[Any, ...]) -> LimitState:
        return limit.unpack(self.limits, row)


class IaqiKernel(RankKernel[LimitState]):
    """All iaqi rules at once."""

    columns: ClassVar[tuple[str, ...]] = ("low", "high")

    def __init__(self, rules: Sequence[IaqiRule]) -> None:
        machines = [IaqiMachine(rule) for rule in rules]
        super().__init__(machines, STATE)
        self._tables = [machine.column for machine in machines]

    def glide(self, columns: Columns, rule: I32, time_us: I64, value: F64) -> Bools:
        score = np.empty(len(value))
        for number in np.unique(rule).tolist():
            rows = rule == number
            score[rows] = self._tables[number].iaqis(value[rows])
        moved: Bools = ~((columns["low"] <= score) & (score < columns["high"]))
        return moved


class IaqiKind:
    """Registration of the kind."""

    name = "iaqi"
    model: type[Rule] = IaqiRule
    state = STATE
    learned: tuple[str, ...] = ()
    templates = (
        "{device} 的 {metric} 空气质量分指数为 {value}，限值 {limit}，自 {since} 起。",
        "{metric} of {device} has an individual air quality index of {value}, limit {limit}, since {since}.",
    )

    def facts(self, rule: IaqiRule) -> dict[str, Any]:
        return {
            "unit": "1",
            "direction": "high",
            "levels": dict(rule.levels),
            "hysteresis": rule.hysteresis,
            "on_delay_s": rule.on_delay_s,
            "off_delay_s": off_delay_s(rule),
            "gap_s_max": gap_s_max(rule),
            "table": rule.table,
            "classes": [[each.upto, each.name_zh, each.colour] for each in CLASSES],
        }

    def kernel(self, rules: Sequence[IaqiRule]) -> Kernel:
        return IaqiKernel(rules)
