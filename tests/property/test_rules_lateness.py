"""Law 4 within a bound: order of arrival changes nothing, for rules of every kind; laws 2, 3 and 5 with a bound."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from citynet.quality import LATE
from citynet_rules import reorder
from citynet_rules.engine import Engine, SeriesInfo, Transition
from citynet_rules.spec import RuleSet

from .rules_drawn import END, HOUR, city, readings, rules
from .rules_streams import ALL, RULES, SECOND, SERIES, STREAMS, Mark, Op, Reading, apply, feed, key, keys, several

Bounds = dict[int, int]
BOUNDS = st.fixed_dictionaries({info.id: st.sampled_from([0, 3, 20, 3600]) for info in SERIES}).map(
    lambda bounds: {series: bound * SECOND for series, bound in bounds.items()}
)
PLACES = st.sets(st.integers(0, 1000), max_size=8)


def bounded(of: RuleSet, bounds: Bounds, *, bind: bool = True) -> Engine:
    """A fresh engine with bounds (µs, by series)."""
    fresh = Engine(of, bound_us=lambda info: bounds[info.id])
    if bind:
        fresh.bind(SERIES)
    return fresh


def in_order(rows: list[Reading]) -> list[Reading]:
    """By time, one reading a series and time."""
    found: dict[tuple[int, int], Reading] = {}
    for row in rows:
        found.setdefault((row.series, row.time_us), row)
    return sorted(found.values(), key=lambda row: row.time_us)


@st.composite
def arrivals(draw: st.DrawFn, bounds: Bounds) -> tuple[list[Reading], list[Reading]]:
    """(readings in order, the same as they arrive: each of them delayed by less than its series' bound)."""
    rows = in_order(draw(readings()))
    shares = draw(st.lists(st.sampled_from([0.0, 0.0, 0.1, 0.5, 0.99]), min_size=len(rows), max_size=len(rows)))
    delayed = {id(row): row.time_us + int(share * bounds[row.series]) for row, share in zip(rows, shares, strict=True)}
    return rows, sorted(rows, key=lambda row: delayed[id(row)])


def honest(rows: list[Reading], bounds: Bounds, places: set[int]) -> list[Op]:
    """`rows` with watermarks behind some: what still comes is at most its series' bound behind them."""
    ops: list[Op] = []
    chosen = {place * len(rows) // 1000 for place in places}
    of_series = {info.id: info.source for info in SERIES}
    newest_us = max((row.time_us for row in rows), default=0)
    for position, row in enumerate(rows):
        ops.append(row)
        for source in ("", *sorted(set(of_series.values()))) if position in chosen else ():
            coming = [r.time_us + bounds[r.series] for r in rows[position + 1 :] if source in ("", of_series[r.series])]
            ops.append(Mark(source, min(coming, default=newest_us) - 1))
    return ops


def cuts_of(places: set[int], count: int) -> set[int]:
    return {place * count // 1000 for place in places}


@several
@given(rules(), BOUNDS, PLACES, PLACES, st.data())
def test_law_4_order_within_the_bound_changes_nothing(
    of: RuleSet, bounds: Bounds, places: set[int], cuts: set[int], data: st.DataObject
) -> None:
    """What arrives within its bounds gives what it would have given in order without any; and nothing of it is late."""
    rows, come = data.draw(arrivals(bounds))
    plain, straight, mixed = city(of), bounded(of, bounds), bounded(of, bounds)
    expected = keys(apply(plain, list(rows)) + plain.advance(END))
    ops = honest(come, bounds, places)
    assert keys(apply(mixed, ops, cuts_of(cuts, len(ops))) + mixed.advance(END)) == expected
    assert keys(apply(straight, list(rows)) + straight.advance(END)) == expected
    assert mixed.snapshot() == straight.snapshot()
    again = bounded(of, bounds)
    assert not any(code & LATE for code in feed(again, come)[1]) if come else True


@several
@given(rules(), BOUNDS, PLACES, PLACES, st.booleans(), st.data())
def test_law_5_crashes_with_readings_that_wait(
    of: RuleSet, bounds: Bounds, places: set[int], crashes: set[int], early: bool, data: st.DataObject
) -> None:
    """Every reading is stored as it is accepted; after a crash what is above the snapshot's tips is read again."""
    rows, come = data.draw(arrivals(bounds))
    ops = honest(come, bounds, places)
    undisturbed = bounded(of, bounds)
    expected = apply(undisturbed, ops, range(len(ops))) + undisturbed.advance(END)
    live, stored, marks = bounded(of, bounds), list[Reading](), dict[str, int]()
    saved = [live.snapshot()]
    noted: dict[tuple[object, ...], Transition] = {}
    for position, op in enumerate(ops):
        if isinstance(op, Mark):
            marks[op.source] = max(op.time_us, marks.get(op.source, op.time_us))
            found = live.advance({op.source: op.time_us})
        else:
            found, quality = feed(live, [op])
            stored.append(Reading(op.series, op.time_us, op.value, quality[0]))
        noted.update((key(t), t) for t in found)
        if position in cuts_of(crashes, len(ops)):
            live = bounded(of, bounds, bind=data.draw(st.booleans()))
            live.restore(saved[0] if early else saved[-1])
            live.bind(SERIES)
            noted.update((key(t), t) for t in feed(live, missed(live, stored))[0])
            noted.update((key(t), t) for t in live.advance(marks))
            saved.append(live.snapshot())
    noted.update((key(t), t) for t in live.advance(END))
    assert keys(noted.values()) == keys(expected)
    assert live.snapshot() == undisturbed.snapshot()


def missed(engine: Engine, stored: list[Reading]) -> list[Reading]:
    """What recovery reads again: above the tips and not late, by series and time."""
    tips = dict(zip(*(column.tolist() for column in engine.tips()), strict=True))
    rows = [row for row in stored if row.time_us > tips[row.series] and not row.quality & LATE]
    return sorted(rows, key=lambda row: (row.series, row.time_us))


@several
@given(STREAMS, BOUNDS, PLACES)
def test_law_2_with_a_bound(ops: list[Op], bounds: Bounds, places: set[int]) -> None:
    """However readings come, and whatever watermarks promise."""
    whole, cut = bounded(ALL, bounds), bounded(ALL, bounds)
    assert keys(apply(whole, ops)) == keys(apply(cut, ops, cuts_of(places, len(ops))))
    assert whole.snapshot() == cut.snapshot()


@several
@given(STREAMS, BOUNDS, st.data())
def test_law_3_with_a_bound(ops: list[Op], bounds: Bounds, data: st.DataObject) -> None:
    repeated = list(ops)
    for place in data.draw(st.lists(st.integers(0, max(len(ops) - 1, 0)), max_size=10)) if ops else ():
        if isinstance(op := ops[place], Reading):
            repeated.insert(data.draw(st.integers(repeated.index(op) + 1, len(repeated))), op)
    once, twice = bounded(ALL, bounds), bounded(ALL, bounds)
    assert keys(apply(once, ops)) == keys(apply(twice, repeated))
    assert once.snapshot() == twice.snapshot()


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
    assert {series: line.tip_us for series, line in lines.items()} == tips


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
