"""The laws of the architecture as properties of the rules engine, over all kinds of rules together."""

from __future__ import annotations

from itertools import groupby, pairwise
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from citynet.quality import LATE
from citynet_rules.engine import Engine, Part, Transition
from citynet_rules.kinds.witness import WitnessRule
from citynet_rules.spec import RuleSet

from .rules_streams import (
    ALL,
    END,
    IDS,
    LOCAL,
    READING_STREAMS,
    SERIES,
    STREAMS,
    Mark,
    Op,
    Reading,
    apply,
    city,
    engine,
    feed,
    honest,
    key,
    keys,
    replayed,
    several,
)

TELLING = {rule.id for rule in ALL if isinstance(rule, WitnessRule) and rule.tells is not None}
PLACES = st.sets(st.integers(0, 60), max_size=12)


def test_the_streams_reach_every_rule_and_every_kind_of_transition() -> None:
    """Otherwise the laws below would hold for nothing happening."""
    draw = np.random.default_rng(1)
    values = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0]
    found: list[Transition] = []
    for dwell in (1, 2, 3, 5, 8, 13):
        rows = [
            Reading(series, t * 1_000_000, value, 0)
            for series in (7, 5, 3, 12, 40, 9)
            for start in range(0, 200, dwell)
            for value in [float(draw.choice(values))]
            for t in range(start, start + dwell)
        ]
        found += apply(city(), [*rows, *(Reading(series, 900_000_000, 0, 0) for series in IDS)])
    creeping = [Reading(series, t * 1_000_000, t / 10, 0) for series in IDS for t in range(60)]
    found += apply(city(), creeping)
    spoken = {rule.id for rule in ALL if rule.id not in TELLING}
    assert {t.rule for t in found} == spoken
    origins = [t.opinion.origin for t in found if t.opinion is not None and t.opinion.origin is not None]
    assert {origin["state"] for origin in origins} == {"biogas", "leak", "unknown"}
    assert {word["rule"] for origin in origins for word in origin["evidence"]} == TELLING
    for kind in ("limit", "rate", "cusum", "deviation"):
        of_kind = {rule.id for rule in ALL if rule.kind == kind}
        assert {t.kind for t in found if t.rule in of_kind} == {"raise", "escalate", "deescalate", "clear", "verdict"}
    for ident in spoken:
        assert {t.kind for t in found if t.rule == ident} >= {"raise", "clear"}


@several
@given(STREAMS, PLACES)
def test_law_2_cutting_the_input_changes_nothing(ops: list[Op], cuts: set[int]) -> None:
    whole, cut = city(), city()
    assert keys(apply(whole, ops)) == keys(apply(cut, ops, cuts))
    assert whole.snapshot() == cut.snapshot()


@several
@given(READING_STREAMS, PLACES)
def test_law_2_cutting_the_input_changes_no_quality(rows: list[Reading], cuts: set[int]) -> None:
    whole, cut = city(), city()
    expected = feed(whole, rows)[1]
    got: list[int] = []
    borders = sorted({0, len(rows), *(c for c in cuts if c < len(rows))})
    for first, last in pairwise(borders):
        got += feed(cut, rows[first:last])[1]
    assert got == expected


@several
@given(STREAMS, st.data())
def test_law_3_duplicates_of_readings_change_nothing(ops: list[Op], data: st.DataObject) -> None:
    repeated = list(ops)
    for position, op in reversed(list(enumerate(ops))):
        if isinstance(op, Reading) and data.draw(st.booleans()):
            repeated.insert(data.draw(st.integers(position + 1, len(repeated))), op)
    once, twice = city(), city()
    assert keys(apply(once, ops)) == keys(apply(twice, repeated))
    assert once.snapshot() == twice.snapshot()


@several
@given(READING_STREAMS, PLACES)
def test_law_3_repeated_watermarks_change_nothing(rows: list[Reading], places: set[int]) -> None:
    """As long as they keep their promise; one that does not is taken at its word whenever it is repeated."""
    ops = honest(rows, places)
    repeated: list[Op] = [again for op in ops for again in ([op, op] if isinstance(op, Mark) else [op])]
    old: list[Op] = [op for op in ops if isinstance(op, Mark)]
    once, twice = city(), city()
    assert keys(apply(once, ops)) == keys(apply(twice, repeated + old))
    assert once.snapshot() == twice.snapshot()


@several
@given(READING_STREAMS)
def test_law_3_a_repeated_batch_is_late_as_a_whole(rows: list[Reading]) -> None:
    twice = city()
    feed(twice, rows)
    transitions, quality = feed(twice, rows)
    assert transitions == []
    assert all(code & LATE for code in quality)


@several
@given(READING_STREAMS, PLACES, st.data())
def test_law_5_a_crash_anywhere_changes_nothing(rows: list[Reading], places: set[int], data: st.DataObject) -> None:
    """The database keeps rows and transitions (each once); snapshots are taken and the engine is killed at any time."""
    ops = honest(rows, places)
    undisturbed = city()
    expected = apply(undisturbed, ops, range(len(ops))) + undisturbed.advance(END)
    live = city()
    saved = live.snapshot()
    stored: list[Reading] = []
    noted: dict[tuple[object, ...], Transition] = {}
    marks: dict[str, int] = {}

    def note(found: list[Transition]) -> None:
        noted.update((key(t), t) for t in found)

    for op in ops:
        if isinstance(op, Mark):
            marks[op.source] = op.time_us
            note(live.advance({op.source: op.time_us}))
        else:
            found, quality = feed(live, [op])
            note(found)
            stored.append(Reading(op.series, op.time_us, op.value, quality[0]))
        fate = data.draw(st.sampled_from(["", "", "", "snapshot", "crash"]))
        if fate == "snapshot":
            saved = live.snapshot()
        elif fate == "crash":
            live = revived(saved, stored, bind_first=data.draw(st.booleans()), note=noted)
            note(live.advance(marks))
    note(live.advance(END))
    assert keys(noted.values()) == keys(expected)
    assert live.snapshot() == undisturbed.snapshot()


def revived(
    saved: bytes, stored: list[Reading], *, bind_first: bool, note: dict[tuple[object, ...], Transition]
) -> Engine:
    """What a worker does after a crash: snapshot, then the stored rows above the tips without LATE, in time order."""
    fresh = Engine(ALL)
    if bind_first:
        fresh.bind(SERIES)
    fresh.restore(saved)
    fresh.bind(SERIES)
    ids, times = fresh.tips()
    tips = dict(zip(ids.tolist(), times.tolist(), strict=True))
    missed = [row for row in stored if row.time_us > tips[row.series] and not row.quality & LATE]
    missed.sort(key=lambda row: row.time_us)
    note.update((key(t), t) for t in feed(fresh, missed)[0])
    return fresh


SOURCES = sorted({info.source for info in SERIES})
DEALS = st.lists(st.tuples(st.integers(0, 60), st.lists(st.integers(0, 2), min_size=3, max_size=3)), max_size=6)


@several
@given(READING_STREAMS, PLACES, DEALS)
def test_dealing_the_sources_anew_changes_nothing(
    rows: list[Reading], places: set[int], deals: list[tuple[int, list[int]]]
) -> None:
    """Up to three engines share the sources; now and then they are dealt anew, each engine restored from its parts of the
    snapshots of all. Found together is what one engine finds, and their parts put together are its state."""
    ops = honest(rows, places)
    alone = engine(LOCAL)
    expected = apply(alone, ops, range(len(ops))) + alone.advance(END)
    hands = [engine(LOCAL) for _ in range(3)]
    holder = dict.fromkeys(SOURCES, 0)
    of_series = {info.id: info.source for info in SERIES}
    noted: dict[tuple[object, ...], Transition] = {}
    for position, op in enumerate(ops):
        for _, hand_of in (deal for deal in deals if deal[0] == position):
            hands, holder = dealt(hands, holder, dict(zip(SOURCES, hand_of, strict=True)))
        if isinstance(op, Mark):
            for hand in hands:
                noted.update((key(t), t) for t in hand.advance({op.source: op.time_us}))
        else:
            noted.update((key(t), t) for t in feed(hands[holder[of_series[op.series]]], [op])[0])
    (whole, *_), _ = dealt(hands, holder, dict.fromkeys(SOURCES, 0))
    noted.update((key(t), t) for t in whole.advance(END))
    assert keys(noted.values()) == keys(expected)
    assert whole.snapshot() == alone.snapshot()


def dealt(hands: list[Engine], before: dict[str, int], after: dict[str, int]) -> tuple[list[Engine], dict[str, int]]:
    """Engines that hold the sources as in `after`, restored from what the holders `before` knew of them."""
    saved = [hand.snapshot() for hand in hands]
    fresh = [engine(LOCAL) for _ in hands]
    for number, hand in enumerate(fresh):
        parts = []
        for old, state in enumerate(saved):
            sources = frozenset(s for s in SOURCES if (before[s], after[s]) == (old, number))
            ids = np.array([info.id for info in SERIES if info.source in sources], np.int32)
            parts.append(Part(state, ids, sources))
        hand.restore_parts(parts)
    return fresh, after


@several
@given(READING_STREAMS, PLACES, PLACES)
def test_law_6_replay_of_history_gives_what_live_gave(rows: list[Reading], places: set[int], cuts: set[int]) -> None:
    replayed(city(), city(), honest(rows, places), END, lambda _: cuts)


@several
@given(STREAMS, PLACES)
def test_law_7_raise_and_clear_alternate(ops: list[Op], cuts: set[int]) -> None:
    """Also when watermarks break their promise: at most one alert is open a rule and object, and time never runs back. A
    verdict is about an alert in force at its time, and changes nothing of that."""
    whole = city()
    every = apply(whole, ops, cuts)
    verdicts = [t for t in every if t.kind == "verdict"]
    found = [t for t in every if t.kind != "verdict"]
    for verdict in verdicts:
        of_alert = [t for t in found if t.alert_id == verdict.alert_id]
        assert [t.level for t in of_alert if t.time_us <= verdict.time_us][-1] == verdict.level
        assert all(t.time_us > verdict.time_us for t in of_alert if t.kind == "clear")
    found.sort(key=lambda t: (t.rule, t.object))
    still_open = set()
    for (rule, device), of_pair in groupby(found, key=lambda t: (t.rule, t.object)):
        level, ident, time_us = 0, "", -1
        for t in of_pair:
            assert t.time_us >= time_us
            if t.kind == "raise":
                assert level == 0
                assert t.alert_id != ident
                level, ident = t.level, t.alert_id
            else:
                assert level > 0
                assert t.alert_id == ident
                assert {"escalate": t.level > level, "deescalate": t.level < level, "clear": t.level == level}[t.kind]
                level = 0 if t.kind == "clear" else t.level
            time_us = t.time_us
        if level:
            still_open.add((rule, device, ident, level))
    assert {(a.rule, a.object, a.alert_id, a.level) for a in whole.open_alerts()} == still_open


@several
@given(READING_STREAMS)
def test_what_tells_the_origin_changes_nothing_else(rows: list[Reading]) -> None:
    """No level, no time, no state of a verdict and nobody's audience."""

    def heard(rules: RuleSet) -> tuple[list[Any], list[Any]]:
        found = apply(engine(rules, SERIES), [*rows, *(Mark(source, time_us) for source, time_us in END.items())])
        plain = sorted((t.time_us, t.alert_id, t.kind, t.level, t.value, t.limit) for t in found if t.kind != "verdict")
        graded: dict[str, list[Any]] = {}
        for t in sorted((t for t in found if t.opinion is not None), key=lambda t: t.time_us):
            assert t.opinion is not None
            words = (t.opinion.state, t.opinion.audience)
            steps = graded.setdefault(t.alert_id, [])
            if not steps or steps[-1][1] != words:
                steps.append((t.time_us, words))
        return plain, sorted(graded.items())

    without = RuleSet(
        tuple(rule for rule in ALL if rule.id not in TELLING), derived=ALL.derived, neighbours=ALL.neighbours
    )
    assert heard(ALL) == heard(without)


@several
@given(READING_STREAMS)
def test_transitions_of_one_feed_are_sorted(rows: list[Reading]) -> None:
    transitions, _ = feed(city(), rows)
    order = [(t.time_us, t.rule, t.object) for t in transitions]
    assert order == sorted(order)
