"""What happens at the bounds of joins: members that are silent, too many readings that wait, damaged snapshots."""

from __future__ import annotations

import numpy as np
import pytest

from citynet.batch import SeriesBatch
from citynet.errors import CitynetError
from citynet_rules.engine import Engine, SeriesInfo, Transition
from citynet_rules.joint import join
from citynet_rules.kinds import KINDS
from citynet_rules.rule import Rule
from citynet_rules.snapshot import decode, encode
from citynet_rules.spec import RuleSet

SECOND = 1_000_000
WORDS = {
    "id": "r", "version": 1, "title_zh": "测", "title_en": "t", "domain": "water", "metric": "x", "unit": "u",
    "standard": "none", "edition": "1", "status": "D",
}  # fmt: skip


def vote(**fields: object) -> Rule:
    given = {
        "kind": "vote", "direction": "high", "threshold": 1.0, "within_s": 60, "levels": {"red": 1}, "wait_s": 30,
        "objects": {"pair": ["a", "b"]},
    }  # fmt: skip
    return KINDS["vote"].model.model_validate(WORDS | given | fields)


def city(*rules: Rule) -> Engine:
    engine = Engine(RuleSet(rules))
    engine.bind([SeriesInfo(1, "a", "x", "gw-a"), SeriesInfo(2, "b", "x", "gw-b")])
    return engine


def feed(engine: Engine, series: int, seconds: list[int], value: float = 2.0) -> list[Transition]:
    count = len(seconds)
    columns = (np.full(count, series, np.int32), np.array(seconds, np.int64) * SECOND, np.full(count, value))
    return engine.feed(SeriesBatch.group(*columns, np.zeros(count, np.uint8))).transitions


def test_a_reading_waits_until_the_other_member_has_spoken() -> None:
    engine = city(vote())
    assert feed(engine, 1, [100]) == []
    assert engine.joins() == {"score r": (1, 0)}
    assert feed(engine, 2, [99], 0.0) == []
    (raised,) = feed(engine, 2, [101], 0.0)
    assert (raised.object, raised.time_us) == ("pair", 100 * SECOND)
    assert engine.joins() == {"score r": (1, 0)}


def test_a_watermark_speaks_for_a_silent_member() -> None:
    engine = city(vote())
    feed(engine, 1, [100])
    assert engine.advance({"gw-b": 99 * SECOND, "gw-a": 500 * SECOND}) == []
    assert [t.time_us for t in engine.advance({"gw-b": 100 * SECOND})] == [100 * SECOND]


def test_a_member_whose_gateway_is_away_is_waited_for_so_long_and_passed_over_after() -> None:
    engine = city(vote(levels={"yellow": 1, "red": 2}))
    feed(engine, 1, [100])
    assert engine.advance({"": 129 * SECOND}) == []
    assert [t.level for t in engine.advance({"": 130 * SECOND})] == [2]
    feed(engine, 1, [140])
    assert feed(engine, 2, [100]) == []  # promised by now: joins pass it over
    assert [t.kind for t in feed(engine, 2, [140])] == ["escalate"]


def test_the_oldest_are_let_go_where_too_many_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(join, "WAITING_MAX", 10)
    engine = city(vote())
    feed(engine, 1, list(range(15)), 0.0)
    feed(engine, 1, [20])
    assert engine.joins() == {"score r": (10, 6)}
    assert [t.time_us for t in engine.advance({"gw-b": 30 * SECOND})] == [20 * SECOND]


def test_other_rules_judge_what_waits_at_once() -> None:
    limit = KINDS["limit"].model.model_validate(
        WORDS | {"id": "l", "kind": "limit", "direction": "high", "levels": {"red": 1}}
    )
    assert [t.rule for t in feed(city(vote(), limit), 1, [100])] == ["l"]


def test_a_changed_rule_starts_afresh_and_an_unchanged_one_goes_on() -> None:
    before = city(vote())
    feed(before, 1, [100])
    for version, waiting in ((1, 1), (2, 0)):
        after = city(vote(version=version))
        after.restore(before.snapshot())
        assert after.joins() == {"score r": (waiting, 0)}


def test_a_state_waits_for_an_object_that_is_not_complete_yet() -> None:
    before = city(vote())
    feed(before, 1, [100])
    after = Engine(RuleSet((vote(),)))
    after.bind([SeriesInfo(1, "a", "x", "gw-a")])
    after.restore(before.snapshot())
    assert after.snapshot() == before.snapshot()
    after.bind([SeriesInfo(2, "b", "x", "gw-b")])
    assert [t.time_us for t in after.advance({"gw-b": 100 * SECOND})] == [100 * SECOND]


@pytest.mark.parametrize("part", ["state", "waiting", "past"])
def test_a_damaged_state_is_refused_and_nothing_is_changed(part: str) -> None:
    engine = city(vote())
    feed(engine, 1, [100])
    snapshot = decode(engine.snapshot())
    (table,) = snapshot.joins
    fields = {name: getattr(table, name) for name in table.__struct_fields__}
    broken = type(table)(**{**fields, part: getattr(table, part) + b"\x00"})
    kept = {name: getattr(snapshot, name) for name in snapshot.__struct_fields__}
    before = engine.snapshot()
    with pytest.raises(CitynetError, match="do not fit their index"):
        engine.restore(encode(type(snapshot)(**{**kept, "joins": [broken]})))
    assert engine.snapshot() == before


# --- members whose readings come to another worker ---


def half(*rules: Rule) -> Engine:
    """An engine that is given the readings of gateway gw-a only."""
    engine = Engine(RuleSet(rules), lambda info: info.source == "gw-a")
    engine.bind([SeriesInfo(n, name, "x", f"gw-{name[0]}") for n, name in enumerate(("a", "b", "a2"), start=1)])
    return engine


def test_an_object_with_members_elsewhere_is_not_judged_by_halves_and_told() -> None:
    rule = vote(objects={"torn": ["a", "b"], "whole": ["a2"]}, levels={"red": 1})
    engine = half(rule)
    assert feed(engine, 1, [100]) == []
    assert [t.object for t in feed(engine, 3, [100])] == ["whole"]
    assert engine.advance({"gw-a": 500 * SECOND, "": 500 * SECOND}) == []
    (told,) = engine.spread()
    assert (told.rule, told.objects, told.device) == ("r", ("torn",), "b")
    assert str(told) == "rule r: torn not evaluated, b is elsewhere"
    assert city(rule).spread() == []


@pytest.mark.parametrize("unknown", ["met", "unmet"])
def test_a_condition_elsewhere_is_unknown_at_once_and_told(unknown: str) -> None:
    given = {
        "kind": "limit", "direction": "high", "levels": {"red": 1.0}, "devices": ["a"], "when_unknown": unknown,
        "when": [{"metric": "x", "device": "b", "at_least": 5.0, "max_age_s": 60}],
    }  # fmt: skip
    rule = KINDS["limit"].model.model_validate(WORDS | given)
    engine = half(rule)
    raised = feed(engine, 1, [100])
    assert [t.kind for t in raised] == (["raise"] if unknown == "met" else []), "without waiting for what never comes"
    (told,) = engine.spread()
    assert (told.rule, told.objects, told.device) == ("r", (), "b")
    assert str(told) == "rule r: its conditions on b are unknown here"


def test_a_rule_that_watches_nothing_here_is_not_told_of() -> None:
    given = {
        "kind": "limit", "direction": "high", "levels": {"red": 1.0}, "devices": ["b"],
        "when": [{"metric": "x", "device": "b", "at_least": 5.0, "max_age_s": 60}],
    }  # fmt: skip
    assert half(KINDS["limit"].model.model_validate(WORDS | given), vote(objects={"far": ["b"]})).spread() == []


def test_neighbours_elsewhere_are_told_of() -> None:
    """Each doubted device here that has one; the rule goes on with those that are here."""
    given = {
        "kind": "witness", "domain": "device", "level": "blue", "band": 1.0, "hold_s": 30, "neighbours": {"band": 1.0},
    }  # fmt: skip
    rule = KINDS["witness"].model.model_validate(WORDS | given)
    near = {"x": {"a": ("b",), "a2": ("a", "b"), "b": ("a",)}}
    for is_joined, expected in (
        (lambda info: info.source == "gw-a", ["rule r: neighbours of 2 devices are not heard here, such as b"]),
        (lambda info: True, []),
    ):
        engine = Engine(RuleSet((rule,), neighbours=near), is_joined)
        engine.bind([SeriesInfo(n, name, "x", f"gw-{name[0]}") for n, name in enumerate(("a", "b", "a2"), start=1)])
        assert [str(told) for told in engine.spread()] == expected


def test_a_relation_that_is_none_is_told_of() -> None:
    """Two sensors that have nothing to do with each other: it learns again and again, and says how often."""
    operand = {"metric": "x", "unit": "m", "max_age_s": 60}
    given = {
        "kind": "relation", "unit": "m", "levels": {"red": 4}, "learn_s": 16, "learn_count": 16, "follow_min": 1.0,
        "objects": {"o": ["a", "b"]}, "operands": {"p": operand, "q": operand},
    }  # fmt: skip
    rule = KINDS["relation"].model.model_validate(WORDS | given)
    engine, restored = city(rule), city(rule)
    assert engine.unlearned() == {}
    draw = np.random.default_rng(1)
    for second in range(40):
        feed(engine, 1, [second], float(draw.normal() * 100 ** draw.integers(0, 3)))
        feed(engine, 2, [second], float(draw.normal()))
    assert engine.unlearned() == {"r": (1, 2)}
    restored.restore(engine.snapshot())
    assert restored.unlearned() == {"r": (1, 2)}
