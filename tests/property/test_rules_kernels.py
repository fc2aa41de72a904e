"""Every vectorised path of the rules engine against its readable oracle."""

from __future__ import annotations

from collections.abc import Callable
from math import inf, isfinite
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from citynet.quality import LATE, OUT_OF_RANGE, STUCK, UNCERTAIN
from citynet_rules.engine import Transition
from citynet_rules.kinds import limit, stale, walk
from citynet_rules.kinds.accumulate import AccumulateMachine
from citynet_rules.kinds.count import CountMachine
from citynet_rules.kinds.cusum import CusumMachine
from citynet_rules.kinds.deviation import DeviationMachine
from citynet_rules.kinds.drift import DriftMachine
from citynet_rules.kinds.iaqi import IaqiMachine
from citynet_rules.kinds.jump import JumpMachine
from citynet_rules.kinds.kind import UNUSABLE, Pairs
from citynet_rules.kinds.limit import STATE, LimitRule, Limits
from citynet_rules.kinds.physical import RangeMachine
from citynet_rules.kinds.rate import RateMachine
from citynet_rules.kinds.spectrum import SpectrumMachine
from citynet_rules.kinds.stale import StaleRule
from citynet_rules.kinds.stuck import StuckMachine
from citynet_rules.kinds.walk import Found
from citynet_rules.late import is_late, late_rows
from citynet_rules.rule import level_of, microseconds
from citynet_rules.transition import NONE_US

from .rules_streams import (
    READING_STREAMS,
    RULES,
    RUNS,
    SERIES,
    STREAMS,
    Mark,
    Op,
    Reading,
    apply,
    engine,
    feed,
    keys,
    law,
)

TIMES = st.one_of(st.integers(0, 20), st.integers(-(2**61), 2**61))


MACHINES: dict[str, Callable[[Any], Any]] = {
    "rate": RateMachine,
    "stuck": StuckMachine,
    "range": RangeMachine,
    "jump": JumpMachine,
    "drift": DriftMachine,
    "count": CountMachine,
    "accumulate": AccumulateMachine,
    "iaqi": IaqiMachine,
    "cusum": CusumMachine,
    "deviation": DeviationMachine,
    "spectrum": SpectrumMachine,
}


class Oracle:
    """The engine, one reading and one pair at a time, with nothing but the scalar machines."""

    def __init__(self) -> None:
        self.tips: dict[int, int] = {}
        self.marks: dict[str, int] = {}
        self.limits: dict[tuple[str, int], limit.LimitState] = {}
        self.raised: dict[tuple[str, int], int] = {}
        self.machines = {rule.id: MACHINES[rule.kind](rule) for rule in RULES if rule.kind in MACHINES}
        self.states = {(r.id, info.id): self.machines[r.id].initial() for r, info in watched() if r.id in self.machines}

    def run(self, ops: list[Op]) -> list[tuple[Any, ...]]:
        found: list[tuple[Any, ...]] = []
        for op in ops:
            found += self._mark(op) if isinstance(op, Mark) else self._reading(op)
        return found

    def _reading(self, row: Reading) -> list[tuple[Any, ...]]:
        before = self.tips.get(row.series, NONE_US)
        if is_late([row.time_us], before) == [True]:
            return []
        self.tips[row.series] = row.time_us
        found: list[tuple[Any, ...]] = []
        for rule, info in watched():
            pair = (rule.id, info.id)
            if info.id != row.series:
                continue
            if isinstance(rule, LimitRule):
                limits = Limits.of(rule)
                state = self.limits.get(pair, limit.initial(limits))
                self.limits[pair], events = limit.step(limits, state, row.time_us, row.value, row.quality)
                found += [
                    (rule.id, info.device, e.change, e.level, e.time_us, e.value, e.limit, e.samples) for e in events
                ]
            elif isinstance(rule, StaleRule):
                silence = stale.StaleState(before, self.raised.get(pair, NONE_US))
                silence, gaps = stale.step(microseconds(rule.max_age_s), silence, row.time_us)
                self.raised[pair] = silence.raised_us
                found += [told(rule, info.device, gap) for gap in gaps]
            else:
                step = self.machines[rule.id].step
                self.states[pair], changes = step(self.states[pair], row.time_us, row.value, row.quality)
                found += [plain_of(rule, info.device, change) for change in changes]
        return found

    def _mark(self, mark: Mark) -> list[tuple[Any, ...]]:
        self.marks[mark.source] = max(mark.time_us, self.marks.get(mark.source, NONE_US))
        found: list[tuple[Any, ...]] = []
        for rule, info in watched():
            if isinstance(rule, StaleRule):
                pair = (rule.id, info.id)
                watermark_us = self.marks.get("" if rule.clock == "server" else info.source, NONE_US)
                silence = stale.StaleState(self.tips.get(info.id, NONE_US), self.raised.get(pair, NONE_US))
                silence, gaps = stale.due(microseconds(rule.max_age_s), silence, watermark_us)
                self.raised[pair] = silence.raised_us
                found += [told(rule, info.device, gap) for gap in gaps]
            elif hasattr(self.machines.get(rule.id), "due"):
                pair, watermark_us = (rule.id, info.id), self.marks.get(info.source, NONE_US)
                self.states[pair], changes = self.machines[rule.id].due(self.states[pair], watermark_us)
                found += [plain_of(rule, info.device, change) for change in changes]
        return found


def plain_of(rule: Any, device: str, e: Found) -> tuple[Any, ...]:
    """What a scalar machine tells, in the form of `plain`."""
    return (rule.id, device, e.change, e.level, e.time_us, e.value, e.limit, e.samples)


def watched() -> list[tuple[Any, Any]]:
    return [(rule, info) for rule in RULES for info in SERIES if rule.selects(info.device, info.metric)]


def told(rule: StaleRule, device: str, gap: stale.StaleEvent) -> tuple[Any, ...]:
    value = gap.silent_us / 1e6
    return (rule.id, device, gap.change, level_of(rule.level), gap.time_us, value, rule.max_age_s, None)


def plain(t: Transition) -> tuple[Any, ...]:
    """A transition as the oracle tells it; the samples of a silence are not the scalar machine's business."""
    samples = None if "max_age_s" in t.evidence else tuple((time_us, value) for time_us, value in t.evidence["samples"])
    return (t.rule, t.object, t.kind, t.level, t.time_us, t.value, t.limit, samples)


@law
@given(STREAMS, st.sets(st.integers(0, 60), max_size=8))
def test_the_engine_is_the_scalar_machines(ops: list[Op], cuts: set[int]) -> None:
    got = [plain(t) for t in apply(engine(), ops, cuts) if t.kind != "verdict"]
    assert sorted(got, key=repr) == sorted(Oracle().run(ops), key=repr)


@law
@given(
    st.one_of(STREAMS, RUNS), st.one_of(st.just(frozenset(range(61))), st.frozensets(st.integers(0, 60), max_size=8))
)
def test_gliding_by_rank_is_walking(ops: list[Op], cuts: frozenset[int]) -> None:
    """The way of large batches, taken for small ones too: the same transitions, the same state. Cut everywhere, each
    reading glides from whatever state came before."""
    walked = engine()
    expected = apply(walked, ops, cuts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(walk, "READINGS_A_RANK_MIN", 0.0)
        glided = engine()
        assert keys(apply(glided, ops, cuts)) == keys(expected)
    assert glided.snapshot() == walked.snapshot()


def low_high(rule: Any) -> tuple[float, float]:
    return (-inf if rule.low is None else rule.low), (inf if rule.high is None else rule.high)


@law
@given(READING_STREAMS, st.sampled_from([0.0, 24.0]))
def test_flags_are_what_the_machines_say(rows: list[Reading], readings_a_rank: float) -> None:
    """A reading outside its range is flagged, and every reading while its series is stuck; nothing else is."""
    oracle = Oracle()
    expected = []
    for row in rows:
        late = is_late([row.time_us], oracle.tips.get(row.series, NONE_US)) == [True]
        oracle.run([row])
        flags = LATE if late else 0
        for rule, info in watched():
            if info.id != row.series or late:
                continue
            if rule.kind in ("jump", "drift") and oracle.states[rule.id, info.id].raised_us != NONE_US:
                flags |= UNCERTAIN
            if rule.kind == "stuck" and oracle.states[rule.id, info.id].raised_us != NONE_US:
                flags |= STUCK
            usable = not row.quality & UNUSABLE and isfinite(row.value)
            if rule.kind == "range" and usable and not low_high(rule)[0] <= row.value <= low_high(rule)[1]:
                flags |= OUT_OF_RANGE | UNCERTAIN
        expected.append(row.quality & ~LATE | flags)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(walk, "READINGS_A_RANK_MIN", readings_a_rank)
        assert feed(engine(), rows)[1] == expected


VALUES = st.floats(0, 6, width=16)
RISING = st.lists(st.tuples(st.integers(1, 20), VALUES, st.sampled_from([0, 0, 0, 1, 2, 128])), max_size=40)


@law
@given(RISING)
def test_outside_the_band_is_the_only_place_where_a_limit_changes(rows: list[tuple[int, float, int]]) -> None:
    """What the fast path rests on: within the band of a state, a reading leaves the state as it is."""
    rule = RULES.rules[0]
    assert isinstance(rule, LimitRule)
    limits = Limits.of(rule)
    state, time_us = limit.initial(limits), 0
    for gap_s, value, quality in rows:
        time_us += gap_s * 1_000_000
        low, high = limit.band(limits, state)
        after, events = limit.step(limits, state, time_us, value, quality)
        if low <= limits.sign * value < high:
            assert (after, events) == (state, [])
        packed = np.array([limit.pack(limits, after)], STATE)
        assert limit.unpack(limits, packed[0].item()) == after
        state = after


@law
@given(RISING)
def test_levels_rest_on_each_other(rows: list[tuple[int, float, int]]) -> None:
    """A latch never closes before the milder one below it, nor does its stretch begin earlier."""
    rule = RULES.rules[0]
    assert isinstance(rule, LimitRule)
    limits = Limits.of(rule)
    state, time_us = limit.initial(limits), 0
    for gap_s, value, quality in rows:
        time_us += gap_s * 1_000_000
        state, events = limit.step(limits, state, time_us, value, quality)
        assert len(events) <= 1
        closing = [start if start != NONE_US else time_us + 1 for start in state.since_us[state.latched :]]
        opening = [start if start != NONE_US else time_us + 1 for start in state.since_us[: state.latched]]
        assert closing == sorted(closing)
        assert opening == sorted(opening, reverse=True)
        assert (state.raised_us == NONE_US) == (state.latched == 0)


@law
@given(
    st.lists(
        st.tuples(st.one_of(st.just(NONE_US), TIMES), st.lists(TIMES, min_size=1, max_size=12)), min_size=1, max_size=8
    )
)
def test_late_rows_are_the_definition(groups: list[tuple[int, list[int]]]) -> None:
    expected = [late for tip, times in groups for late in is_late(times, tip)]
    start = np.cumsum([0, *(len(times) for _, times in groups)])[:-1]
    time_us = np.array([t for _, times in groups for t in times], np.int64)
    got = late_rows(time_us, start.astype(np.int64), np.array([tip for tip, _ in groups], np.int64))
    assert ([False] * len(time_us) if got is None else got.tolist()) == expected


@law
@given(
    st.lists(st.lists(st.integers(0, 30), max_size=6), max_size=6),
    st.lists(st.integers(0, 35), unique=True, max_size=20),
)
def test_pairs_are_found_by_series(additions: list[list[int]], wanted: list[int]) -> None:
    pairs = Pairs(np.dtype([("raised_us", "<i8"), ("level", "<i4")]))
    for number, slots in enumerate(additions):
        empty = np.zeros(len(slots), pairs.state.dtype)
        pairs.add(np.full(len(slots), number, np.int32), np.array(slots, np.int64), empty)
        pair, position = pairs.of(np.array(wanted, np.int64))
        got = list(zip(position.tolist(), pair.tolist(), strict=True))
        have = pairs.slot.tolist()
        assert got == [(p, n) for p, slot in enumerate(wanted) for n, of_pair in enumerate(have) if of_pair == slot]


def test_unusable_grades_and_flags() -> None:
    """Grade 2 and 3 and TEST are not judged by value; uncertain, late and the other flags are."""
    assert [bool(code & UNUSABLE) for code in (0, 1, 2, 3, LATE, 128, 4 | 8 | 16 | 32)] == [
        False, False, True, True, False, True, False,
    ]  # fmt: skip
