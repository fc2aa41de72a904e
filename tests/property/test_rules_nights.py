"""Kind `night_flow` over weeks of nights: the engine against its oracle, and the laws at the scale of nights."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from citynet_rules.engine import Engine, SeriesInfo, Transition
from citynet_rules.kinds.night_flow import NightFlowMachine
from citynet_rules.spec import RuleSet

from .rules_streams import SECOND, Mark, Op, Reading, apply, engine, keys, law, rule

MINUTE = 60 * SECOND
DAY = 1440 * MINUTE
RULE: Any = rule(
    "night_flow", "leak", level="yellow", from_h=1.0, to_h=2.5, utc_offset_h=8.0, baseline_nights=7, legitimate_use=1.0
)
RULES = RuleSet((RULE,))
SERIES = (SeriesInfo(7, "dma-1", "x", "gw-1"),)

Night = tuple[float, int, frozenset[int], str]
FLOWS = st.sampled_from([3.0, 3.0, 3.0, 3.0, 3.5, 3.7, 6.0, 0.0])
NIGHT = st.tuples(
    FLOWS,
    st.sampled_from([15, 15, 15, 40]),
    st.frozensets(st.integers(0, 12), max_size=2),
    st.sampled_from(["", "", "mark", "early mark"]),
)
NIGHTS = st.lists(NIGHT, min_size=9, max_size=16)


def stream(nights: list[Night]) -> list[Op]:
    """Readings from 00:45 to 03:30 local time (UTC+8) every 15 (or 40) minutes, some of them lost; then perhaps a watermark:
    after the window, or one in its middle that comes true."""
    ops: list[Op] = []
    for day, (flow, step, lost, mark) in enumerate(nights):
        night_us = (day + 1) * DAY - 8 * 60 * MINUTE
        for n, minute in enumerate(range(45, 211, step)):
            if n not in lost:
                ops.append(Reading(7, night_us + minute * MINUTE, flow + n % 3, 0))
            if mark == "early mark" and minute == 90:
                ops.append(Mark("gw-1", night_us + minute * MINUTE))
        if mark == "mark":
            ops.append(Mark("gw-1", night_us + 300 * MINUTE))
    return ops


def city() -> Engine:
    return engine(RULES, SERIES)


def oracle(ops: list[Op]) -> list[tuple[Any, ...]]:
    machine = NightFlowMachine(RULE)
    state, found = machine.initial(), []
    for op in ops:
        if isinstance(op, Mark):
            state, changes = machine.due(state, op.time_us)
        else:
            state, changes = machine.step(state, op.time_us, op.value, op.quality)
        found += [(e.change, e.time_us, e.raised_us, e.value, e.limit, e.samples) for e in changes]
    return [(change, time_us, value, limit, samples) for change, time_us, _, value, limit, samples in found]


def plain(t: Transition) -> tuple[Any, ...]:
    return (t.kind, t.time_us, t.value, t.limit, tuple((time_us, flow) for time_us, flow in t.evidence["samples"]))


@law
@given(NIGHTS, st.sets(st.integers(0, 200), max_size=20))
def test_nights_are_judged_as_the_oracle_judges_them(nights: list[Night], cuts: set[int]) -> None:
    ops = stream(nights)
    assert [plain(t) for t in apply(city(), ops, cuts)] == oracle(ops)


@law
@given(NIGHTS, st.sets(st.integers(0, 200), max_size=20), st.integers(0, 200))
def test_watermarks_cuts_and_a_crash_change_nothing(nights: list[Night], cuts: set[int], crash: int) -> None:
    """Laws 2, 5 and 6: with watermarks, reading by reading, through a snapshot; and as one piece of history."""
    ops = stream(nights)
    end = {"gw-1": 100 * DAY}
    live, history = city(), city()
    found = apply(live, ops[:crash], cuts)
    revived = city()
    revived.restore(live.snapshot())
    found += apply(revived, ops[crash:], cuts) + revived.advance(end)
    readings = [op for op in ops if isinstance(op, Reading)]
    assert keys(apply(history, readings) + history.advance(end)) == keys(found)
    assert history.snapshot() == revived.snapshot()


def test_a_leak_raises_in_its_first_night_and_clears_after_the_repair() -> None:
    """Net 2.75 for a week (the hour from 01:30 has a mean of 3.75), then 5.75: above 150 % at once. After the repair the
    mean of three nights stays above 120 % for two nights more: 4.75, 3.75, then 2.75."""
    nights = [(flow, 15, frozenset[int](), "") for flow in [3.0] * 7 + [6.0, 6.0] + [3.0] * 4]
    found = apply(city(), stream(nights))
    assert [(t.kind, t.time_us // DAY, t.value, t.limit) for t in found] == [
        ("raise", 7, 5.75, 4.125),
        ("clear", 11, 2.75, 4.125),
    ]
