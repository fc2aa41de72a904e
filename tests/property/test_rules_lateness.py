"""Lateness bounds, series by series: what is late, what waits, and for how long. The laws: `test_rules_every_kind.py`."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from citynet.quality import LATE
from citynet_rules import reorder
from citynet_rules.engine import Engine, SeriesInfo, Transition
from citynet_rules.spec import RuleSet

from .rules_drawn import BOUNDS, HOUR, Bounds
from .rules_streams import RULES, SECOND, SERIES, STREAMS, Mark, Op, Reading, apply, feed, keys, several


def bounded(of: RuleSet, bounds: Bounds) -> Engine:
    """A fresh engine with bounds (µs, by series)."""
    fresh = Engine(of, bound_us=lambda info: bounds[info.id])
    fresh.bind(SERIES)
    return fresh


@several
@given(STREAMS, BOUNDS, st.sets(st.integers(0, 60), max_size=8))
def test_law_2_whatever_watermarks_promise(ops: list[Op], bounds: Bounds, cuts: set[int]) -> None:
    whole, cut = bounded(RULES, bounds), bounded(RULES, bounds)
    assert keys(apply(whole, ops)) == keys(apply(cut, ops, cuts))
    assert whole.snapshot() == cut.snapshot()


class Line:
    """One series, reading by reading: the oracle of what is late and what waits."""

    def __init__(self, bound_us: int) -> None:
        self.bound_us, self.tip_us, self.held = bound_us, -(1 << 62), list[int]()
        self.reach_us = self.tip_us

    def take(self, time_us: int) -> bool:
        newest_us = max([self.tip_us, *self.held])
        if time_us <= max(self.tip_us, newest_us - self.bound_us) or time_us in self.held:
            return True
        self.held.append(time_us)
        self._pass(max(newest_us, time_us) - self.bound_us)
        return False

    def _pass(self, until_us: int) -> None:
        passed = [time_us for time_us in self.held if time_us <= until_us]
        self.tip_us = max([self.tip_us, *passed])
        self.held = [time_us for time_us in self.held if time_us > until_us]

    def known_us(self) -> int:
        return self.tip_us if self.tip_us > -(1 << 62) or not self.held else max(self.held) - self.bound_us

    def mark(self, until_us: int) -> None:
        self.reach_us = max(self.reach_us, until_us - self.bound_us)
        self._pass(self.reach_us)


@several
@given(STREAMS, BOUNDS)
def test_what_is_late_and_what_waits(ops: list[Op], bounds: Bounds) -> None:
    """As the oracle has it, reading by reading, the marks of sources included."""
    live = bounded(RuleSet(()), bounds)
    lines = {info.id: Line(bounds[info.id]) for info in SERIES}
    for op in ops:
        if isinstance(op, Mark):
            live.advance({op.source: op.time_us})
            for info in SERIES:
                is_meant = op.source in ("", info.source)
                lines[info.id].mark(op.time_us - (0 if op.source else 60 * SECOND) if is_meant else -(1 << 62))
        else:
            assert bool(feed(live, [op])[1][0] & LATE) == lines[op.series].take(op.time_us)
    assert live.held[0] == sum(len(line.held) for line in lines.values())
    tips = dict(zip(*(column.tolist() for column in live.tips()), strict=True))
    assert {series: line.known_us() for series, line in lines.items()} == tips


def test_silence_on_the_servers_clock_waits_for_the_bound_too() -> None:
    """Readings that wait for their order are no silence: neither by the source's clock nor by the server's."""
    live = bounded(RULES, dict.fromkeys((info.id for info in SERIES), HOUR))
    found: list[Transition] = []
    for second in range(0, 600, 5):
        found += feed(live, [Reading(5, second * SECOND, 0.0, 0), Reading(7, second * SECOND, 0.5, 0)])[0]
        found += live.advance({"": second * SECOND, "gw-1": second * SECOND})
    assert live.held == (240, 0)
    assert not [t for t in found if "stale" in t.rule]


def test_too_many_that_wait_are_let_go_early_and_counted() -> None:
    live = bounded(RULES, dict.fromkeys((info.id for info in SERIES), 1 << 55))
    count = reorder.HELD_MAX + 10
    feed(live, [Reading(7, n * SECOND, 0.0, 0) for n in range(count)])
    assert live.held == (reorder.HELD_MAX, 10)


def test_a_series_whose_bound_is_gone_is_read_back_from_the_store() -> None:
    info = SeriesInfo(7, "a-1", "x", "gw-1")
    rows = [Reading(7, second * SECOND, 3.0, 0) for second in range(4)]
    before = Engine(RULES, bound_us=lambda _: HOUR)
    before.bind([info])
    assert feed(before, rows)[0] == []
    after = Engine(RULES, bound_us=lambda _: 0)
    after.restore(before.snapshot())
    after.bind([info])
    assert after.held == (0, 0)
    plain = Engine(RULES)
    plain.bind([info])
    assert keys(feed(after, rows)[0]) == keys(feed(plain, rows)[0]) != []
