"""What the rules of other platforms are known to get wrong, as tests that ours pass: one line of docs/writing-rules.md a test.

The issues are those of the projects named. What needs a whole worker is a story in tests/e2e/stories.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from citynet.quality import LATE
from citynet_ingest.store import sql
from citynet_ingest.store.arming import arm, retire_outlived
from citynet_rules.engine import Engine, SeriesInfo, Transition
from citynet_rules.kinds import KINDS
from citynet_rules.rule import Rule
from citynet_rules.spec import RuleSet, library_paths, load_rules
from tests.integration.api_harness import database
from tests.property.rules_streams import SECOND, Reading, feed, limit_rule
from tests.property.rules_streams import rule as rule_of

DAY = 86_400
INFO = SeriesInfo(7, "a-1", "x", "gw-1")
HIGH = limit_rule("high", levels={"red": 4.0}, on_delay_s=600)
NOW = limit_rule("now", levels={"red": 4.0})


def city(*rules: Rule) -> Engine:
    engine = Engine(RuleSet(rules))
    engine.bind([INFO])
    return engine


def said(engine: Engine, *rows: tuple[float, float]) -> list[tuple[str, float]]:
    """(change, second) of what comes of (second, value), all in one batch."""
    found, _ = feed(engine, [Reading(INFO.id, round(second * SECOND), value, 0) for second, value in rows])
    return [(t.kind, t.time_us / SECOND) for t in found]


# --- ThingsBoard ---


def test_thingsboard_one_old_reading_satisfies_a_duration_at_once() -> None:
    """A reading that is ten minutes old is one moment, and no ten minutes; nor does a day pass between two of them."""
    engine = city(HIGH)
    assert said(engine, (0, 9.0)) == []
    assert engine.advance({"": 1_000 * SECOND, INFO.source: 1_000 * SECOND}) == [], "time alone proves nothing"
    assert said(engine, (DAY, 9.0)) == [], "nobody knows what it was in between"
    assert said(engine, *((DAY + second, 9.0) for second in range(60, 601, 60))) == [("raise", DAY + 600)]


def test_thingsboard_a_month_old_reading_raises_a_live_critical_alarm() -> None:
    engine = city(NOW)
    assert said(engine, (30 * DAY, 1.0)) == []
    found, quality = feed(engine, [Reading(INFO.id, second * SECOND, 99.0, 0) for second in (5, 6, 7)])
    assert (found, quality) == ([], [LATE, LATE, LATE])
    assert engine.open_alerts() == []


def test_thingsboard_duplicate_open_alarms(dsn: str) -> None:
    """#15583: for ThingsBoard a known trade. Here the database allows one open alert a rule and object, whoever writes."""
    with database(dsn) as connection:
        ids(connection)
        for second in (10, 20):
            record(connection, raised(second))
        assert connection.execute("SELECT id, cleared_at IS NULL FROM alert ORDER BY raised_at").fetchall() == [
            ("alert-10", False), ("alert-20", True),
        ]  # fmt: skip
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute("UPDATE alert SET cleared_at = NULL")


# --- Home Assistant ---

# Settings with which the first reading of all, or the first that can be judged, is beyond.
AT_ONCE: dict[str, dict[str, Any]] = {
    "limit": {"levels": {"red": 4.0}, "direction": "high"},
    "range": {"level": "blue", "high": 4.0},
    "count": {"level": "blue", "match": "at_least", "threshold": 4.0, "n": 1, "window_s": 60},
    "iaqi": {"table": "co_24h", "edition": "2026", "unit": "mg/m3", "levels": {"blue": 51}},
    "stuck": {"level": "blue", "for_s": 20, "count_min": 2, "tolerance": 0.5},
    "accumulate": {"input": "amount", "window_s": 72, "levels": {"blue": 5}},
}


@pytest.mark.parametrize("kind", sorted(AT_ONCE))
def test_home_assistant_no_alert_when_it_is_already_true_at_boot(kind: str) -> None:
    """#59812. No change of value is waited for: it raises as soon as its times have passed."""
    engine = city(rule_of(kind, "first", **AT_ONCE[kind]))
    changes = said(engine, *((float(second), 90.0) for second in range(0, 41, 10)))
    assert [change for change, _ in changes][:1] == ["raise"], changes


def test_home_assistant_a_rule_armed_while_it_is_already_true() -> None:
    """#59812, for a rule that is new instead of a machine."""
    before = city(NOW)
    said(before, (0, 9.0))
    after = city(NOW, HIGH)
    after.restore(before.snapshot())
    assert said(after, *((second, 9.0) for second in range(60, 661, 60))) == [("raise", 660.0)]
    assert [alert.rule for alert in after.open_alerts()] == ["high", "now"]


# --- Phoebus ---


def test_phoebus_an_acknowledgement_is_lost_at_restart(dsn: str, folder: Path) -> None:
    """#3078. A worker that starts arms its rules again and finds again what it found before the crash."""
    with database(dsn) as connection:
        ids(connection)
        armed(connection, folder)
        record(connection, raised(10))
        acknowledge(connection)
        armed(connection, folder)
        record(connection, raised(10))
        assert retire_outlived(connection) == 0
        assert alerts(connection) == [("alert-10", True, "li")]
        assert connection.execute("SELECT count(*) FROM alert_transition WHERE kind = 'raise'").fetchone() == (1,)


def test_phoebus_editing_a_rule_clears_a_latched_alarm(dsn: str, folder: Path) -> None:
    """#2520. Edited, the rule's open alert stays; the one that takes its place has its acknowledgement."""
    with database(dsn) as connection:
        ids(connection)
        armed(connection, folder)
        record(connection, raised(10))
        acknowledge(connection)
        armed(connection, folder, 'levels = { red = 60.0 }\nunit = "%LEL"\n')
        assert alerts(connection) == [("alert-10", True, "li")]
        record(connection, raised(20))
        assert alerts(connection) == [("alert-10", False, "li"), ("alert-20", True, "li")]


def test_phoebus_editing_the_words_of_a_rule_starts_nothing_afresh(dsn: str) -> None:
    engine = city(NOW)
    said(engine, (0, 9.0))
    edited = city(KINDS["limit"].model.model_validate({**NOW.model_dump(exclude={"override"}), "title_en": "other"}))
    edited.restore(engine.snapshot())
    assert [a.alert_id for a in edited.open_alerts()] == [a.alert_id for a in engine.open_alerts()]


# --- clocks ---


@pytest.mark.parametrize("step_s", [-365 * DAY, -3_600, 3_600, 365 * DAY])
def test_a_step_of_a_devices_clock_fires_no_duration(step_s: int) -> None:
    """Forward beyond `gap_s_max` the duration begins anew; backward its readings are late until the clock has caught up."""
    engine = city(HIGH)
    begin = 400 * DAY
    assert said(engine, (begin, 9.0), (begin + 60, 9.0)) == []
    assert said(engine, (begin + 120 + step_s, 9.0)) == []
    assert said(engine, *((begin + 120 + step_s + second, 9.0) for second in range(60, 540, 60))) == []


@pytest.mark.parametrize("step_s", [-365 * DAY, 365 * DAY])
def test_a_step_of_the_servers_clock_fires_no_duration(step_s: int) -> None:
    engine = city(HIGH)
    said(engine, (1_000, 9.0), (1_060, 9.0))
    assert engine.advance({"": (1_060 + step_s) * SECOND}) == []
    assert engine.open_alerts() == []


def ids(connection: psycopg.Connection[Any]) -> None:
    connection.execute("INSERT INTO device (name, source) VALUES ('a-1', 'gw-1')")
    connection.execute("INSERT INTO series (device_id, metric) SELECT id, 'ch4_lel' FROM device")


def armed(connection: psycopg.Connection[Any], folder: Path, settings: str = "") -> None:
    """The shipped rules with an override of one."""
    path = folder / "city.toml"
    head = '[[override]]\nrule = "gas-ch4-void"\nauthor = "li"\nreason = "r"\ndate = 2026-01-01\n'
    path.write_text(head + settings, encoding="utf-8")
    arm(connection, load_rules([*library_paths(), path]), "w")


def raised(second: int) -> Transition:
    words = {"text_zh": "", "text_en": "", "evidence": {}, "value": 60.0, "limit": 50.0}
    facts = {"rule": "gas-ch4-void", "version": "1", "object": "a-1", "series": 1, "kind": "raise", "level": 4}
    return Transition(alert_id=f"alert-{second}", time_us=second * SECOND, **facts, **words)  # type: ignore[arg-type]


def record(connection: psycopg.Connection[Any], t: Transition) -> None:
    row = {
        "alert_id": t.alert_id,
        "rule": t.rule,
        "version": t.version,
        "domain": "gas",
        "object": t.object,
        "kind": t.kind,
    }
    words = dict.fromkeys(("title_zh", "title_en", "text_zh", "text_en"), "")
    (series,) = connection.execute("SELECT id FROM series").fetchone() or (0,)
    at = connection.execute("SELECT to_timestamp(%s)", (t.time_us / SECOND,)).fetchone()
    assert at is not None
    row |= words | {"series": series, "level": t.level, "at": at[0], "value": t.value, "limit": t.limit, "mode": "live"}
    connection.execute(sql.text("transition_record"), row | {"evidence": Jsonb(t.evidence)})


def acknowledge(connection: psycopg.Connection[Any]) -> None:
    connection.execute("UPDATE alert SET acked_at = now(), acked_by = 'li' WHERE cleared_at IS NULL")


def alerts(connection: psycopg.Connection[Any]) -> list[tuple[Any, ...]]:
    return connection.execute("SELECT id, cleared_at IS NULL, acked_by FROM alert ORDER BY raised_at").fetchall()
