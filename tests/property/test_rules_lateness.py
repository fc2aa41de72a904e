"""Lateness bounds, series by series: what is late, what waits, and for how long. The laws: `test_rules_every_kind.py`."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from citynet.quality import LATE
from citynet_rules import reorder
from citynet_rules.engine import Engine, SeriesInfo, Transition
from citynet_rules.spec import RuleSet

from .rules_drawn import BOUNDS, HOUR, UNBOUNDED, Bounds
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


NEVER = -(1 << 62)


class Line:
    """One series, reading by reading: the oracle of what is late and what waits."""

    def __init__(self, bound_us: int) -> None:
        self.bound_us, self.tip_us, self.held = bound_us, NEVER, list[int]()
        self.reached_us = self.heard_us = NEVER

    def take(self, time_us: int) -> bool:
        newest_us = max([self.tip_us, *self.held])
        if time_us <= max(self.tip_us, newest_us - self.bound_us) or time_us in self.held:
            return True
        self.held.append(time_us)
        self.heard_us = self.reached_us
        self._pass(max(newest_us, time_us) - self.bound_us)
        return False

    def _pass(self, until_us: int) -> None:
        passed = [time_us for time_us in self.held if time_us <= until_us]
        self.tip_us = max([self.tip_us, *passed])
        self.held = [time_us for time_us in self.held if time_us > until_us]

    def mark(self, reached_us: int) -> None:
        self.reached_us = max(self.reached_us, reached_us)
        if self.reached_us - self.bound_us >= self.heard_us:
            self._pass(self.reached_us - self.bound_us)

    def known_us(self) -> int:
        return self.tip_us if self.tip_us > NEVER or not self.held else max(self.held) - self.bound_us


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
                behind_us = {info.source: 0, "": 60 * SECOND}.get(op.source)
                lines[info.id].mark(NEVER if behind_us is None else op.time_us - behind_us)
        else:
            assert bool(feed(live, [op])[1][0] & LATE) == lines[op.series].take(op.time_us)
    assert live.held[0] == sum(len(line.held) for line in lines.values())
    tips = dict(zip(*(column.tolist() for column in live.tips()), strict=True))
    assert {series: line.known_us() for series, line in lines.items()} == tips


def test_a_slow_clock_keeps_its_order() -> None:
    """Readings of an hour ago, out of order, while its gateway's watermark is at now: nothing is late until it falls silent."""
    live, now_us = bounded(RULES, dict.fromkeys(UNBOUNDED, 30 * SECOND)), 7200 * SECOND
    live.advance({"gw-1": now_us})
    for second in (0, 20, 10, 40, 25, 50, 35):
        assert feed(live, [Reading(7, 3600 * SECOND + second * SECOND, 0.5, 0)])[1] == [0]
        assert not [t for t in live.advance({"gw-1": now_us}) if t.rule == "x-stale"]
        now_us += 5 * SECOND
    assert live.held[0] == 4
    live.advance({"gw-1": now_us + 30 * SECOND})
    assert live.held[0] == 0


def test_silence_on_the_servers_clock_waits_for_the_bound_too() -> None:
    """Readings that wait for their order are no silence: neither by the source's clock nor by the server's."""
    live = bounded(RULES, dict.fromkeys(UNBOUNDED, HOUR))
    found: list[Transition] = []
    for second in range(0, 600, 5):
        found += feed(live, [Reading(5, second * SECOND, 0.0, 0), Reading(7, second * SECOND, 0.5, 0)])[0]
        found += live.advance({"": second * SECOND, "gw-1": second * SECOND})
    assert live.held == (240, 0)
    assert not [t for t in found if "stale" in t.rule]


def test_too_many_that_wait_are_let_go_early_and_counted() -> None:
    live = bounded(RULES, dict.fromkeys(UNBOUNDED, 1 << 55))
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
