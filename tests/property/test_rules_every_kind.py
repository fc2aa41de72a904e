"""Laws 2 to 7 over rule sets drawn from every registered kind, with conditions and derived metrics, at every pace."""

from __future__ import annotations

from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from citynet.quality import LATE
from citynet_rules.engine import Engine, Transition
from citynet_rules.kinds import KINDS
from citynet_rules.spec import RuleSet

from .rules_drawn import BOUNDS, DAY, DRAWN, END, HOUR, UNBOUNDED, WEEK, Bounds, city, honest, readings, rules
from .rules_streams import ALL, SECOND, Mark, Op, Reading, apply, feed, key, keys, replayed, rule, several

PLACES = st.sets(st.integers(0, 1000), max_size=8)


def cuts_of(places: set[int], count: int) -> set[int]:
    """Thousandths as positions."""
    return {place * count // 1000 for place in places}


def test_every_registered_kind_is_drawn() -> None:
    """A new kind has no laws until it stands here; what the fixed city of the other laws lacks needs days."""
    assert DRAWN.keys() == KINDS.keys()
    assert {of.kind for of in ALL} == KINDS.keys() - {"night_flow", "weekly"}


@pytest.mark.parametrize("kind", ["night_flow", "weekly"])
def test_slow_kinds_raise_and_clear_here_too(kind: str) -> None:
    """Otherwise the laws would hold for nothing happening; for the others the fixed city's streams show it."""
    if kind == "night_flow":
        of = rule(kind, "slow", level="red", from_h=1.0, to_h=2.5, utc_offset_h=0, baseline_nights=7)
        flows = [3.0] * 8 + [6.0, 3.0, 3.0, 3.0]
        rows = [Reading(7, n * DAY + q * HOUR // 4, flow, 0) for n, flow in enumerate(flows) for q in range(3, 12)]
    else:
        of = rule(kind, "slow", levels={"red": 2}, time_zone="UTC", weeks_min=2, drift_max=1, sigma_min=0.25)
        values = [1.5, 2.0, 1.75, 5.0, 1.5]
        rows = [Reading(7, w * WEEK + n * 600 * SECOND, v, 0) for w, v in enumerate(values) for n in range(4)]
    live = city(RuleSet((of,)))
    assert [t.kind for t in [*apply(live, rows), *live.advance(END)]] == ["raise", "clear"]


@several
@given(rules(), readings(), BOUNDS, PLACES, PLACES)
def test_law_2_cutting_the_input(
    of: RuleSet, rows: list[Reading], bounds: Bounds, places: set[int], cuts: set[int]
) -> None:
    ops = honest(rows, places, bounds)
    whole, cut = city(of, bounds), city(of, bounds)
    assert keys(apply(whole, ops)) == keys(apply(cut, ops, cuts_of(cuts, len(ops))))
    assert whole.snapshot() == cut.snapshot()


@several
@given(rules(), readings(), BOUNDS, PLACES, st.data())
def test_law_3_duplicates(
    of: RuleSet, rows: list[Reading], bounds: Bounds, places: set[int], data: st.DataObject
) -> None:
    ops = honest(rows, places, bounds)
    repeated = list(ops)
    for place in data.draw(st.lists(st.integers(0, max(len(ops) - 1, 0)), max_size=10)) if ops else ():
        if isinstance(op := ops[place], Reading):
            repeated.insert(data.draw(st.integers(repeated.index(op) + 1, len(repeated))), op)
    once, twice = city(of, bounds), city(of, bounds)
    assert keys(apply(once, ops)) == keys(apply(twice, repeated))
    assert once.snapshot() == twice.snapshot()


@several
@given(rules(), readings(), st.randoms(use_true_random=False), PLACES)
def test_law_4_series_may_come_in_any_order(of: RuleSet, rows: list[Reading], random: object, cuts: set[int]) -> None:
    """Without watermarks on the way series need not wait for each other: each keeps its order, they mix anew."""
    turns = [row.series for row in rows]
    random.shuffle(turns)  # type: ignore[attr-defined]
    waiting = {series: [row for row in rows if row.series == series] for series in turns}
    mixed: list[Op] = [waiting[series].pop(0) for series in turns]
    one, other = city(of), city(of)
    expected = keys(apply(one, rows) + one.advance(END))
    assert keys(apply(other, mixed, cuts_of(cuts, len(mixed))) + other.advance(END)) == expected
    assert one.snapshot() == other.snapshot()


@several
@given(rules(), readings(), BOUNDS, PLACES, PLACES, st.data())
def test_law_4_order_within_the_bound_changes_nothing(
    of: RuleSet, rows: list[Reading], bounds: Bounds, places: set[int], cuts: set[int], data: st.DataObject
) -> None:
    """What comes late within its series' bound gives what it would have given in order and without a bound; none is late."""
    first = {(row.series, row.time_us): row for row in reversed(rows)}
    ordered = sorted(first.values(), key=lambda row: row.time_us)
    shares = data.draw(st.lists(st.sampled_from([0, 0, 0.1, 0.5, 0.99]), min_size=len(ordered), max_size=len(ordered)))
    delayed = [row.time_us + int(share * bounds[row.series]) for row, share in zip(ordered, shares, strict=True)]
    come = [ordered[n] for n in sorted(range(len(ordered)), key=delayed.__getitem__)]
    ops = honest(come, places, bounds)
    plain, mixed = city(of), city(of, bounds)
    expected = keys(apply(plain, ordered) + plain.advance(END))
    assert keys(apply(mixed, ops, cuts_of(cuts, len(ops))) + mixed.advance(END)) == expected
    assert mixed.open_alerts() == plain.open_alerts()
    assert [column.tolist() for column in mixed.tips()] == [column.tolist() for column in plain.tips()]
    assert not come or not any(code & LATE for code in feed(city(of, bounds), come)[1])


@several
@given(rules(), readings(), BOUNDS, PLACES, PLACES, st.booleans())
def test_law_5_crashes(
    of: RuleSet, rows: list[Reading], bounds: Bounds, places: set[int], crashes: set[int], early: bool
) -> None:
    """Killed anywhere: restored from the snapshot before the last (or, `early`, from the first), stored rows read again."""
    ops = honest(rows, places, bounds)
    undisturbed = city(of, bounds)
    expected = apply(undisturbed, ops, range(len(ops))) + undisturbed.advance(END)
    live, stored, marks = city(of, bounds), list[Reading](), dict[str, int]()
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
            live = revived(city(of, bounds), saved[0] if early else saved[-1], stored, noted)
            noted.update((key(t), t) for t in live.advance(marks))
            saved.append(live.snapshot())
    noted.update((key(t), t) for t in live.advance(END))
    assert keys(noted.values()) == keys(expected)
    assert live.snapshot() == undisturbed.snapshot()


def revived(fresh: Engine, saved: bytes, stored: list[Reading], noted: dict[tuple[object, ...], Transition]) -> Engine:
    """The snapshot, and what was stored above its tips and not late, in order of time."""
    fresh.restore(saved)
    ids, times = fresh.tips()
    tips = dict(zip(ids.tolist(), times.tolist(), strict=True))
    missed = [row for row in stored if row.time_us > tips[row.series] and not row.quality & LATE]
    missed.sort(key=lambda row: row.time_us)
    noted.update((key(t), t) for t in feed(fresh, missed)[0])
    return fresh


@several
@given(rules(), readings(), BOUNDS, PLACES, PLACES)
def test_law_6_replay_is_live(
    of: RuleSet, rows: list[Reading], bounds: Bounds, places: set[int], cuts: set[int]
) -> None:
    replayed(city(of, bounds), city(of, bounds), honest(rows, places, bounds), END, lambda count: cuts_of(cuts, count))


@several
@given(rules(), readings(), PLACES)
def test_law_7_raise_and_clear_alternate(of: RuleSet, rows: list[Reading], places: set[int]) -> None:
    live = city(of)
    found = [t for t in apply(live, honest(rows, places, UNBOUNDED)) if t.kind != "verdict"]
    found.sort(key=lambda t: (t.rule, t.object))
    still_open = set()
    for pair, of_pair in groupby(found, key=lambda t: (t.rule, t.object)):
        ident, time_us = "", -(1 << 62)
        for t in of_pair:
            assert t.time_us >= time_us
            assert (t.kind == "raise") == (ident == "")
            assert ident in ("", t.alert_id)
            ident, time_us = "" if t.kind == "clear" else t.alert_id, t.time_us
        if ident:
            still_open.add((*pair, ident))
    assert {(a.rule, a.object, a.alert_id) for a in live.open_alerts()} == still_open
