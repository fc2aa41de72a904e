"""Kind `accumulate`: how much fell, flowed or was used within a sliding window, graded like a `limit`.

A reading is an amount since the reading before (`input = "amount"`: tipping buckets, pulse meters), or an intensity
that held since the reading before (`input = "rate"`, in `unit` per `per`): the amount is then value × (time − time
before). Across a silence longer than `gap_s_max` an intensity says nothing, so that step adds nothing; an amount is
what was counted and is taken whole. Negative values add nothing: an instrument at its zero swings around it.

The window is `CELLS` cells of `window_s` / `CELLS` each, aligned to 1970. An amount belongs to the cell of its
reading's time; the score at a reading is the sum of the newest `CELLS` cells, the reading's own included. So the
window seen is between 71/72 of `window_s` and all of it: a sum is never of more time than the rule says. Levels,
hysteresis and delays are those of `limit` over the score.

Source of the formula: rectangle rule with the value of the right end, as rain gauges report the mean of the interval
that ends; the cells are a house choice (status D) that bounds the state.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum, isfinite
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import model_validator

from citynet.batch import F64, I32, I64, Bools
from citynet_rules.kinds import limit
from citynet_rules.kinds.graded import GradedRule, gap_s_max, grade, limits_of, off_delay_s, state_of
from citynet_rules.kinds.kind import UNUSABLE, Kernel, Pairs, Segments
from citynet_rules.kinds.limit import LimitState
from citynet_rules.kinds.rate import PER_S
from citynet_rules.kinds.walk import Columns, Found, RankKernel
from citynet_rules.rule import Age, Rule, microseconds
from citynet_rules.transition import NONE_US

CELLS = 72
EMPTY = (0.0,) * CELLS
ROUNDING = 1e-12  # of a sum of so many cells, relative; a hundred times what it can be
STATE = state_of(("read_us", "<i8"), ("newest", "<i8"), ("total", "<f8"), ("cells", "<f8", (CELLS,)))


class AccumulateRule(GradedRule):
    """A rule of kind `accumulate`; levels are in `unit`, the metric is in `unit` (amount) or `unit` per `per` (rate)."""

    input: Literal["amount", "rate"]
    per: Literal["s", "min", "h", "d"] | None = None
    window_s: Age

    @model_validator(mode="after")
    def _complete(self) -> AccumulateRule:
        if (self.per is None) == (self.input == "rate"):
            raise ValueError(f"input {self.input} {'needs' if self.per is None else 'takes no'} per")
        if self.window_s < CELLS:
            raise ValueError(f"window_s {self.window_s:g} is too short: at least {CELLS} s were expected")
        return self


class AccumulateState(NamedTuple):
    """`read_us`: the newest usable reading (`NONE_US` before any); `newest`: number of the newest cell that holds
    something; `cells` end with it, oldest first; `total`: their sum; and the latch."""

    read_us: int
    newest: int
    total: float
    cells: tuple[float, ...]
    latch: LimitState


class AccumulateMachine:
    """One accumulate rule."""

    def __init__(self, rule: AccumulateRule) -> None:
        self.limits = limits_of(rule)
        self.is_rate = rule.input == "rate"
        self.per_us = PER_S[rule.per or "s"] * 1_000_000
        self.cell_us = microseconds(rule.window_s) // CELLS

    def initial(self) -> AccumulateState:
        return AccumulateState(NONE_US, 0, 0.0, EMPTY, limit.initial(self.limits))

    def step(
        self, state: AccumulateState, time_us: int, value: float, quality: int
    ) -> tuple[AccumulateState, list[Found]]:
        if quality & UNUSABLE or not isfinite(value):
            return state, []
        newest, total, cells = state.newest, state.total, state.cells
        amount = self._amount(state.read_us, time_us, value)
        if amount > 0 or total > 0:
            cell = time_us // self.cell_us
            cells = EMPTY if total == 0 or cell - newest >= CELLS else (*cells, *EMPTY)[cell - newest :][:CELLS]
            cells = (*cells[:-1], cells[-1] + amount)
            newest, total = cell, fsum(cells)
            if total == 0:  # dry again: one state, whenever that was
                newest, cells = 0, EMPTY
        latch, found = grade(self.limits, state.latch, time_us, total)
        return AccumulateState(time_us, newest, total, cells, latch), found

    def _amount(self, last_us: int, time_us: int, value: float) -> float:
        """What the reading adds, in the rule's unit."""
        if value <= 0:
            return 0.0
        if not self.is_rate:
            return value
        past_us = time_us - last_us
        if last_us == NONE_US or past_us > self.limits.gap_us:
            return 0.0
        return value * (past_us / self.per_us)

    def pack(self, state: AccumulateState) -> tuple[Any, ...]:
        return (*state[:4], *limit.pack(self.limits, state.latch))

    def unpack(self, row: tuple[Any, ...]) -> AccumulateState:
        return AccumulateState(row[0], row[1], row[2], tuple(row[3].tolist()), limit.unpack(self.limits, row[4:]))


class AccumulateKernel(RankKernel[AccumulateState]):
    """All accumulate rules at once. A glide's total is rounded otherwise than the machine's: where that could decide, the pair
    is walked, and what has glided gets its total anew."""

    columns: ClassVar[tuple[str, ...]] = ("read_us", "newest", "total", "cells", "low", "high")

    def __init__(self, rules: Sequence[AccumulateRule]) -> None:
        machines = [AccumulateMachine(rule) for rule in rules]
        super().__init__(machines, STATE)
        self._is_rate: Bools = np.array([machine.is_rate for machine in machines], np.bool_)
        self._per_us: F64 = np.array([machine.per_us for machine in machines], np.float64)
        self._gap_us: I64 = np.array([machine.limits.gap_us for machine in machines], np.int64)
        self._cell_us: I64 = np.array([machine.cell_us for machine in machines], np.int64)

    def glide(self, columns: Columns, rule: I32, time_us: I64, value: F64) -> Bools:
        total = columns["total"]
        amount = self._amounts(columns["read_us"], rule, time_us, value)
        wet = np.flatnonzero((amount > 0) | (total > 0))
        if len(wet):
            self._pour(columns, wet, time_us[wet] // self._cell_us[rule[wet]], amount[wet])
        np.copyto(columns["read_us"], time_us)
        error = ROUNDING * total
        quiet: Bools = (columns["low"] + error <= total) & (total < columns["high"] - error)
        return ~quiet

    def moved(self, pairs: Pairs, pair: I64, segments: Segments, position: I64) -> Bools:
        moved = super().moved(pairs, pair, segments, position)
        state = pairs.state
        wet = pair[~moved & (state["total"][pair] > 0)]
        state["total"][wet] = [fsum(cells) for cells in state["cells"][wet].tolist()]
        return moved

    def _amounts(self, last_us: I64, rule: I32, time_us: I64, value: F64) -> F64:
        """What the readings add, as the machine has it."""
        past_us = time_us - last_us
        known = (last_us != NONE_US) & (past_us <= self._gap_us[rule])
        as_rate = np.where(known, value * (past_us / self._per_us[rule]), 0.0)
        found: F64 = np.where(value > 0, np.where(self._is_rate[rule], as_rate, value), 0.0)
        return found

    def _pour(self, columns: Columns, wet: I64, cell: I64, amount: F64) -> None:
        """Move the windows of these pairs to `cell` and add what there is."""
        newest, total, cells = columns["newest"], columns["total"], columns["cells"]
        shift = np.where(total[wet] == 0, CELLS, np.minimum(cell - newest[wet], CELLS))
        (moving,) = np.nonzero(shift)
        if len(moving):
            place = np.arange(CELLS) + shift[moving, None]
            before = cells[wet[moving]]
            kept = np.take_along_axis(before, np.minimum(place, CELLS - 1), axis=1)
            cells[wet[moving]] = np.where(place < CELLS, kept, 0.0)
        cells[wet, CELLS - 1] += amount
        total[wet] = cells[wet].sum(axis=1)
        newest[wet] = np.where(total[wet] == 0, 0, cell)


class AccumulateKind:
    """Registration of the kind."""

    name = "accumulate"
    model: type[Rule] = AccumulateRule
    state = STATE
    learned: tuple[str, ...] = ("read_us", "newest", "total", "cells")
    templates = (
        "{device} 的 {metric} 累计 {value} {unit}，限值 {limit} {unit}，自 {since} 起。",
        "{metric} of {device} adds up to {value} {unit}, limit {limit} {unit}, since {since}.",
    )

    def facts(self, rule: AccumulateRule) -> dict[str, Any]:
        return {
            "unit": rule.unit,
            "direction": "high",
            "levels": dict(rule.levels),
            "hysteresis": rule.hysteresis,
            "on_delay_s": rule.on_delay_s,
            "off_delay_s": off_delay_s(rule),
            "gap_s_max": gap_s_max(rule),
            "input": rule.input,
            "per": rule.per,
            "window_s": rule.window_s,
        }

    def kernel(self, rules: Sequence[AccumulateRule]) -> Kernel:
        return AccumulateKernel(rules)
