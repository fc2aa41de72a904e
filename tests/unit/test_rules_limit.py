"""The scalar machine of `limit`, sentence by sentence."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, nan
from typing import Any

import pytest

from citynet.quality import BAD, LATE, TEST, UNCERTAIN
from citynet_rules.kinds.limit import LimitEvent, LimitRule, Limits, initial, step

SECOND = 1_000_000
WORDS = {
    "id": "r", "version": "1", "kind": "limit", "title_zh": "测试", "title_en": "test", "domain": "gas", "metric": "x",
    "unit": "u", "standard": "none", "edition": "1", "status": "D",
}  # fmt: skip


def run(rows: Sequence[tuple[float, ...]], **fields: Any) -> list[tuple[str, int, float, float]]:
    """(change, level, second, limit) of every event; a row is (second, value) or (second, value, quality)."""
    return [(e.change, e.level, e.time_us / SECOND, e.limit) for e in events(rows, **fields)]


def events(rows: Sequence[tuple[float, ...]], **fields: Any) -> list[LimitEvent]:
    given = {"direction": "high", "levels": {"yellow": 10.0, "red": 20.0}, **WORDS, **fields}
    limits = Limits.of(LimitRule.model_validate(given))
    state = initial(limits)
    found: list[LimitEvent] = []
    for second, value, *quality in rows:
        state, some = step(limits, state, round(second * SECOND), value, int(quality[0]) if quality else 0)
        found += some
    return found


def test_already_true_at_the_first_reading_raises() -> None:
    """Home Assistant does not, when the condition holds at boot (#59812)."""
    assert run([(0, 12)]) == [("raise", 2, 0, 10)]


def test_at_the_threshold_is_beyond_it() -> None:
    assert run([(0, 9.999), (1, 10), (2, 20), (3, 19.999), (4, 10), (5, 9.999)]) == [
        ("raise", 2, 1, 10), ("escalate", 4, 2, 20), ("deescalate", 2, 3, 20), ("clear", 2, 5, 10),
    ]  # fmt: skip


def test_several_grades_at_once_are_one_transition() -> None:
    assert run([(0, 25), (1, 0)]) == [("raise", 4, 0, 20), ("clear", 4, 1, 10)]


def test_low_is_high_turned_around() -> None:
    rows: list[tuple[float, ...]] = [(0, 6), (1, 5), (2, 1), (3, 1.4), (4, 1.6), (5, 5.5), (6, 5.6)]
    got = run(rows, direction="low", levels={"yellow": 5.0, "red": 1.0}, hysteresis=0.5)
    assert got == [("raise", 2, 1, 5), ("escalate", 4, 2, 1), ("deescalate", 2, 4, 1), ("clear", 2, 6, 5)]


def test_hysteresis_holds_until_the_value_is_inside_it() -> None:
    assert run([(0, 10), (1, 8), (2, 7.9)], hysteresis=2) == [("raise", 2, 0, 10), ("clear", 2, 2, 10)]


def test_on_delay_runs_from_the_first_reading_beyond() -> None:
    rows = [(t, 12.0) for t in range(0, 100, 7)]
    assert run(rows, on_delay_s=30) == [("raise", 2, 35, 10)]
    assert run(rows, on_delay_s=28) == [("raise", 2, 28, 10)]


def test_one_reading_inside_starts_the_on_delay_again() -> None:
    assert run([(0, 12), (20, 12), (25, 9), (30, 12), (59, 12), (60, 12)], on_delay_s=30) == [("raise", 2, 60, 10)]


def test_each_level_has_its_own_delay() -> None:
    assert run([(0, 12), (20, 22), (30, 22), (49, 22), (50, 22)], on_delay_s=30) == [
        ("raise", 2, 30, 10),
        ("escalate", 4, 50, 20),
    ]


def test_one_old_reading_does_not_satisfy_a_duration_at_once() -> None:
    """ThingsBoard's does. Beyond `gap_s_max` the delay starts again; up to it, two readings are enough."""
    assert run([(0, 12), (3600, 12)], on_delay_s=600, gap_s_max=3599) == []
    assert run([(0, 12), (3600, 12), (4200, 12)], on_delay_s=600, gap_s_max=3599) == [("raise", 2, 4200, 10)]
    assert run([(0, 12), (3600, 12)], on_delay_s=600, gap_s_max=3600) == [("raise", 2, 3600, 10)]


def test_the_gap_is_measured_between_evaluated_readings() -> None:
    rows: list[tuple[float, ...]] = [(0, 12), (300, nan), (600, 12, BAD), (900, 12, TEST), (1000, 12)]
    assert run(rows, on_delay_s=60, gap_s_max=901) == []


def test_off_delay_runs_across_gaps_and_starts_again_outside() -> None:
    rows = [(0, 12), (10, 1), (60, 1), (69, 12), (70, 1), (129, 1), (5000, 1)]
    assert run(rows, off_delay_s=60) == [("raise", 2, 0, 10), ("clear", 2, 5000, 10)]


def test_a_level_below_is_kept_while_its_own_off_delay_runs() -> None:
    rows = [(0, 25), (10, 12), (20, 5), (70, 5), (80, 5)]
    assert run(rows, off_delay_s=60) == [("raise", 4, 0, 20), ("deescalate", 2, 70, 20), ("clear", 2, 80, 10)]


@pytest.mark.parametrize("row", [(1, nan), (1, inf), (1, -inf), (1, 0, BAD), (1, 0, 3), (1, 0, TEST)])
def test_what_cannot_be_judged_changes_nothing(row: tuple[float, ...]) -> None:
    assert run([(0, 12), row, (2, 12)], off_delay_s=0) == [("raise", 2, 0, 10)]


def test_uncertain_and_flagged_readings_are_judged() -> None:
    assert run([(0, 12, UNCERTAIN | LATE)]) == [("raise", 2, 0, 10)]


def test_the_alert_keeps_its_raise_time() -> None:
    found = events([(0, 12), (5, 22), (6, 12), (7, 0), (8, 12)])
    assert [e.raised_us // SECOND for e in found] == [0, 0, 0, 0, 8]


def test_the_samples_are_the_newest_of_the_stretch() -> None:
    (raised,) = events([(0, 1), (5, 11), (10, 12), (15, 13), (20, 14), (25, 15), (30, 16), (35, 17)], on_delay_s=30)
    assert raised.samples == tuple((s * SECOND, v) for s, v in [(20, 14), (25, 15), (30, 16), (35, 17)])
    assert raised.pending_since_us == 5 * SECOND
