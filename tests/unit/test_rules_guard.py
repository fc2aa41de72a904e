"""A rule that throws on data: it is found among its like, and a rule set without it needs nothing of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from citynet_rules.derived import Derived
from citynet_rules.engine import Engine, SeriesInfo
from citynet_rules.guard import RuleFailedError, users_of, without
from citynet_rules.kinds import KINDS
from citynet_rules.kinds.kind import Kernel, Pairs, Progress, Rows, Segments
from citynet_rules.kinds.limit import LimitKind
from citynet_rules.rule import Rule
from citynet_rules.spec import RuleSet
from citynet_rules.transition import Event
from tests.property.rules_streams import SECOND, Reading, feed, limit_rule


class Thrower:
    """The kernel of `limit`, but that rules whose id begins with "bad" cannot bear a 13, nor a watermark of 13 s."""

    def __init__(self, inner: Kernel, rules: Sequence[Rule]) -> None:
        self._inner = inner
        self._bad = np.array([rule.id.startswith("bad") for rule in rules])

    def fresh(self, rule: Any) -> Rows:
        return self._inner.fresh(rule)

    def feed(self, pairs: Pairs, segments: Segments) -> list[Event]:
        pair, position = pairs.of(segments.slot)
        for at in position[self._bad[pairs.rule[pair]]].tolist():
            if 13.0 in segments.value[segments.start[at] : segments.stop[at]]:
                raise ZeroDivisionError("thirteen")
        return self._inner.feed(pairs, segments)

    def advance(self, pairs: Pairs, progress: Progress) -> list[Event]:
        if self._bad.any() and progress.server_us == 13 * SECOND:
            raise ZeroDivisionError("thirteen o'clock")
        return self._inner.advance(pairs, progress)


class ThrowingKind(LimitKind):
    """Kind `limit` with that kernel."""

    def kernel(self, rules: Sequence[Any]) -> Kernel:
        return Thrower(super().kernel(rules), rules)


@pytest.fixture(autouse=True)
def _throwing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, "limit", ThrowingKind())


RULES = RuleSet(
    (
        limit_rule("good"),
        limit_rule("bad-b", devices=["b-*"]),
        limit_rule("bad-a", devices=["a-*"]),
        limit_rule("trial", mode="shadow"),
    )
)


def city(rules: RuleSet = RULES) -> Engine:
    engine = Engine(rules)
    engine.bind([SeriesInfo(1, "a-1", "x", "gw"), SeriesInfo(2, "b-1", "x", "gw")])
    return engine


def test_the_one_that_throws_is_named() -> None:
    with pytest.raises(RuleFailedError, match="bad-a: failed on data: ZeroDivisionError") as caught:
        feed(city(), [Reading(1, SECOND, 13.0, 0), Reading(2, SECOND, 5.0, 0)])
    assert caught.value.rules == ("bad-a",)


def test_time_that_throws_names_all_that_cannot_bear_it() -> None:
    with pytest.raises(RuleFailedError) as caught:
        city().advance({"": 13 * SECOND})
    assert caught.value.rules == ("bad-a", "bad-b")


def test_the_others_run_on_from_a_snapshot() -> None:
    before = city()
    feed(before, [Reading(1, SECOND, 5.0, 0)])
    state = before.snapshot()
    failed = []
    with pytest.raises(RuleFailedError) as caught:
        feed(before, [Reading(1, 2 * SECOND, 13.0, 0)])
    failed += caught.value.rules
    after = city(without(RULES, failed))
    after.restore(state)
    assert [t.kind for t in feed(after, [Reading(1, 2 * SECOND, 13.0, 0)])[0]] == []
    assert {alert.rule for alert in after.open_alerts()} == {"good", "trial"}


def derived(name: str, metric: str) -> Derived:
    operand = {"metric": metric, "unit": "1", "max_age_s": 60}
    return Derived.model_validate({"name": name, "unit": "1", "operands": {"n": operand}, "expression": "n + 1"})


def test_a_rule_over_several_series_is_named_as_well() -> None:
    when = [{"metric": "y", "at_least": 0, "max_age_s": 60}]
    rules = RuleSet((limit_rule("good", when=when), limit_rule("bad-if", when=when)))
    engine = city(rules)
    engine.bind([SeriesInfo(3, "a-1", "y", "gw")])
    with pytest.raises(RuleFailedError) as caught:
        feed(engine, [Reading(3, SECOND, 1.0, 0), Reading(1, SECOND, 13.0, 0)])
    assert caught.value.rules == ("bad-if",)


def test_derived_metrics_go_with_the_rules_that_need_them() -> None:
    metrics = (derived("deep", "mid"), derived("mid", "x"), derived("other", "x"))
    rules = RuleSet((limit_rule("a", metric="deep"), limit_rule("b", metric="other")), derived=metrics)
    assert users_of("mid", rules, metrics) == ["a"]
    assert users_of("other", rules, metrics) == ["b"]
    assert {each.name for each in without(rules, ["a"]).derived} == {"other"}
    assert without(rules, []) is rules
