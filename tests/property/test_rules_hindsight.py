"""Law 4 beyond the bound: what came late is judged in hindsight; it adds what in-order evaluation would have said, once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from citynet.batch import SeriesBatch
from citynet.quality import LATE
from citynet_rules.engine import SeriesInfo, Transition
from citynet_rules.proof.alerts import Alert, AlertBook
from citynet_rules.retrospect import BOUNDED, MEMORY_US, NEW_MAX, Hindsight, Known, judge, memory_us, rejudged
from citynet_rules.rule import Rule
from citynet_rules.spec import RuleSet, library_paths, load_rules
from citynet_rules.transition import alert_id
from tests.property.rules_streams import ALL, RULES, SECOND, Reading, engine, feed, law, limit_rule, rule, stale_rule

WELL = SeriesInfo(7, "a-1", "x", "gw-1")
HIGH = limit_rule("high", levels={"yellow": 2.0, "red": 4.0}, on_delay_s=20, off_delay_s=20)
SILENT = stale_rule("silent", max_age_s=30)
KNOWN_US = 10_000 * SECOND


@dataclass
class Day:
    """Readings (second, value) that came in time and such that came late, as a worker took them."""

    on_time: list[tuple[float, float]]
    late: list[tuple[float, float]]

    def rows(self) -> SeriesBatch:
        both = [(second, value, LATE) for second, value in self.late] + [(s, v, 0) for s, v in self.on_time]
        series = np.full(len(both), WELL.id, np.int32)
        times = np.array([round(s * SECOND) for s, _, _ in both], np.int64)
        flags = np.array([flag for *_, flag in both], np.uint8)
        return SeriesBatch(series, times, np.array([v for _, v, _ in both], np.float64), flags)

    def live(self, *rules: Rule) -> list[Known]:
        """What was recorded as it happened."""
        return [Known(alert_id(a.rule, a.object, a.raised_us), a) for a in played(rules, sorted(self.on_time))]

    def judged(self, *rules: Rule, known: list[Known] | None = None) -> Hindsight:
        return judge(rules, WELL, self.rows(), self.live(*rules) if known is None else known, KNOWN_US)


def played(rules: tuple[Rule, ...], readings: list[tuple[float, float]]) -> list[Alert]:
    """The alerts of readings in order of time."""
    city, book = engine(RuleSet(rules), [WELL]), AlertBook()
    rows = [Reading(WELL.id, round(second * SECOND), value, 0) for second, value in readings]
    book.take(feed(city, rows)[0])
    newest = max((row.time_us for row in rows), default=0)
    book.take(city.advance({"": newest, WELL.source: newest}))
    return book.alerts()


def told(transitions: list[Transition]) -> list[tuple[str, int, float]]:
    return [(t.kind, t.level, t.time_us / SECOND) for t in transitions]


def quiet(first: int, last: int) -> list[tuple[float, float]]:
    return [(second, 1.0) for second in range(first, last + 1, 10)]


def test_what_was_missed_is_raised_as_it_happened() -> None:
    day = Day([*quiet(0, 100), *quiet(300, 500)], [(second, 5.0) for second in range(150, 251, 10)])
    found = day.judged(HIGH)
    (transitions,) = found.raised
    assert told(transitions) == [("raise", 4, 170.0), ("clear", 4, 320.0)]
    assert found.revised == []
    evidence = transitions[0].evidence
    assert (evidence["retrospective"], evidence["known_us"]) == (True, KNOWN_US)
    assert "happened 1970-01-01T00:02:50Z, learned 1970-01-01T02:46:40Z" in transitions[0].text_en
    assert "1970-01-01T00:02:50Z 发生，1970-01-01T02:46:40Z 获知" in transitions[0].text_zh


def test_what_was_missed_has_its_verdict_and_ends_with_its_clear() -> None:
    """Readings beyond the scale came late: the alert they raise is the device's, until the scale's own alert has lingered."""
    scale = rule("range", "scale", domain="device", level="blue", high=8.0)
    late = [(second, 9.0 if second < 200 else 5.0) for second in range(150, 451, 10)]
    found = Day([*quiet(0, 100), *quiet(500, 700)], late).judged(HIGH, scale)
    (of_high,) = [each for each in found.raised if each[0].rule == HIGH.id]
    assert [t.kind for t in of_high] == ["raise", "verdict", "clear"]
    assert [t.opinion and (t.opinion.state, t.opinion.audience) for t in of_high] == [
        ("device", "maintenance"), ("undecided", "people"), None,
    ]  # fmt: skip


def test_what_is_still_true_at_the_newest_reading_says_so() -> None:
    day = Day([*quiet(0, 100), (300, 5.0)], [(second, 5.0) for second in range(150, 291, 10)])
    found = day.judged(HIGH)
    assert [told(each) for each in found.raised] == [[("raise", 4, 170.0)]]
    assert found.until_us == 300 * SECOND


def test_an_alert_that_began_earlier_is_revised_and_not_doubled() -> None:
    day = Day([*quiet(0, 100), *((s, 5.0) for s in range(400, 601, 10)), *quiet(610, 700)],
              [(second, 5.0) for second in range(200, 391, 10)])  # fmt: skip
    found = day.judged(HIGH)
    assert found.raised == []
    (revision,) = found.revised
    (known,) = day.live(HIGH)
    assert (revision.ident, revision.raised_us // SECOND, revision.withdrawn) == (known.ident, 220, False)
    assert known.alert.raised_us // SECOND == 420
    assert "raised 1970-01-01T00:03:40Z" in revision.text_en
    assert "learned 1970-01-01T02:46:40Z" in revision.text_en


def test_a_silence_that_was_none_is_withdrawn() -> None:
    day = Day([*quiet(0, 100), *quiet(300, 400)], quiet(110, 290))
    found = day.judged(SILENT)
    (known,) = day.live(SILENT)
    assert found.raised == []
    assert [(each.ident, each.withdrawn) for each in found.revised] == [(known.ident, True)]
    assert "would not have been raised" in found.revised[0].text_en


def test_an_alert_that_nobody_recorded_is_not_revised() -> None:
    """The rule was armed since: what it would have said without the late readings is no finding of theirs."""
    day = Day([*quiet(0, 100), *quiet(300, 400)], quiet(110, 290))
    assert day.judged(SILENT, known=[]) == Hindsight([], [], 400 * SECOND)
    loud = Day([*((s, 5.0) for s in range(0, 101, 10)), *quiet(110, 200)], [(105, 1.0)])
    assert loud.judged(HIGH, known=[]).raised == []


def test_a_minute_more_or_less_is_no_news() -> None:
    day = Day([*quiet(0, 100), *((s, 5.0) for s in range(200, 601, 10)), *quiet(610, 700)], [(150, 5.0), (195, 5.0)])
    assert day.judged(HIGH).revised == []
    earlier = Day(day.on_time, [(s, 5.0) for s in range(110, 200, 10)])
    assert len(earlier.judged(HIGH).revised) == 1


def test_of_two_readings_of_one_time_the_one_that_was_judged_counts() -> None:
    day = Day(quiet(0, 200), [(float(second), 9.0) for second in range(0, 201, 10)])
    assert day.judged(HIGH) == Hindsight([], [], 200 * SECOND)


def test_a_value_that_flaps_is_bounded_and_counted() -> None:
    now = limit_rule("now", levels={"red": 4.0})
    count = NEW_MAX + 7
    late = [(k * 100.0 + offset, value) for k in range(count) for offset, value in ((10, 9.0), (20, 1.0))]
    found = Day([(k * 100.0, 1.0) for k in range(count + 1)], late).judged(now)
    assert (len(found.raised), found.dropped) == (NEW_MAX, 7)


def test_nothing_stored_is_nothing() -> None:
    assert Day([], []).judged(HIGH) == Hindsight([], [], 0)


def test_which_rules_are_judged_again() -> None:
    rules = RuleSet(
        (HIGH, SILENT, stale_rule("server", clock="server"), rule("cusum", "learned", levels={"blue": 1}),
         limit_rule("other", metric="y"), limit_rule("elsewhere", devices=["b-*"]),
         limit_rule("if", when=[{"metric": "y", "at_least": 1, "max_age_s": 9}]))
    )  # fmt: skip
    assert [each.id for each in rejudged(rules, WELL)] == ["high", "silent"]
    assert {each.kind for each in rejudged(ALL, WELL)} <= BOUNDED


def test_how_far_back_a_rule_remembers() -> None:
    least, most = MEMORY_US
    assert memory_us([HIGH]) == least
    library = {each.id: each for each in load_rules(library_paths())}
    assert memory_us([library["drainage-rain-12h"]]) >= 12 * 3_600 * SECOND
    assert memory_us(library.values()) <= most


SECONDS = st.integers(0, 60).map(float)
VALUES = st.sampled_from([1.0, 1.0, 1.0, 2.0, 3.0, 5.0])
PLAIN = tuple(each for each in rejudged(RULES, WELL) if each.kind in {"limit", "rate", "range", "count"})


@settings(law, max_examples=80)
@given(st.dictionaries(SECONDS, st.tuples(VALUES, st.booleans()), min_size=2, max_size=40))
def test_live_and_hindsight_together_say_what_order_would_have(readings: dict[float, tuple[float, bool]]) -> None:
    """Every alert of the readings in order was recorded live, or touches one that was, or is raised in hindsight with the very
    same times; hindsight raises no other; and looking a second time raises nothing."""
    on_time = [(s, v) for s, (v, is_late) in sorted(readings.items()) if not is_late]
    late = [(s, v) for s, (v, is_late) in readings.items() if is_late]
    day = Day(on_time, late)
    live = day.live(*PLAIN)
    found = day.judged(*PLAIN)
    in_order = played(PLAIN, sorted(on_time + late))
    spans = {
        (each[0].rule, each[0].time_us, each[-1].time_us if each[-1].kind == "clear" else None) for each in found.raised
    }
    wanted = {(a.rule, a.raised_us, a.cleared_us) for a in in_order}
    assert spans <= wanted
    for alert in in_order:
        end = alert.cleared_us or 1 << 62
        touched = any(
            k.alert.rule == alert.rule
            and k.alert.raised_us <= end
            and alert.raised_us <= (k.alert.cleared_us or 1 << 62)
            for k in live
        )
        paired = any(each.raised_us == alert.raised_us for each in found.revised)
        near = any(k.alert.rule == alert.rule and abs(k.alert.raised_us - end) <= 61 * SECOND for k in live)
        assert touched or paired or near or (alert.rule, alert.raised_us, alert.cleared_us) in spans
    book = AlertBook()
    book.take(t for each in found.raised for t in each)
    again = [Known(alert_id(a.rule, a.object, a.raised_us), a) for a in book.alerts()]
    assert day.judged(*PLAIN, known=live + again).raised == []


@pytest.mark.parametrize("kind", sorted(BOUNDED))
def test_every_kind_that_is_judged_again_exists(kind: str) -> None:
    assert any(each.kind == kind for each in RULES)
