"""The judge must be able to condemn: every kind of damage to the stored readings is seen."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from citynet.demo.judge import Incident, ReadingKey, Truth, detected, judge, read_truth

HEADER: dict[str, Any] = {
    "t": "header",
    "incidents": [
        {
            "id": "leak-1",
            "expected_rule": "gas-ch4-void",
            "expected_level": "red",
            "devices": ["gas-1", "gas-2"],
            "start_us": 100,
        }
    ],
}


def message(number: int, device: str = "gas-1") -> dict[str, Any]:
    return {
        "t": "msg",
        "n": number,
        "gateway": "gw",
        "device": device,
        "readings": [["a", number, 1.5], ["b", number, 2.5]],
    }


def truth_of(folder: Path, *lines: dict[str, Any], torn: str = "") -> Truth:
    path = folder / "truth.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in (HEADER, *lines)) + torn)
    return read_truth(path)


def rows(*numbers: int) -> list[ReadingKey]:
    return [("gas-1", metric, number, value) for number in numbers for metric, value in (("a", 1.5), ("b", 2.5))]


@pytest.fixture
def truth(tmp_path: Path) -> Truth:
    """Messages 1..5: 1 and 2 acknowledged, 3 acknowledged out of order, 4 unknown, 5 never handed over."""
    lines = [message(n) for n in range(1, 6)]
    return truth_of(
        tmp_path, *lines, {"t": "ack", "upto": 2, "also": [3]}, {"t": "loss", "n": [5], "reason": "stopped"}
    )


def test_what_is_late_or_not_acknowledged_is_owed(tmp_path: Path, truth: Truth) -> None:
    assert [until for until in range(8) if truth.owes(until)] == [5, 6, 7], "4 is under way, and nothing came after 5"
    lines = [message(1), message(2), {"t": "ack", "upto": 2}]
    assert [until for until in range(5) if truth_of(tmp_path, *lines).owes(until)] == [3, 4]
    assert truth_of(tmp_path).owes(1)


def test_clean(truth: Truth) -> None:
    verdict = judge(truth, rows(1, 2, 3))
    assert verdict.is_clean
    assert (verdict.sent, verdict.recovered) == (8, 0)


def test_unknown_messages_may_be_there(truth: Truth) -> None:
    verdict = judge(truth, rows(1, 2, 3, 4))
    assert verdict.is_clean
    assert verdict.recovered == 2


@pytest.mark.parametrize(
    ("damage", "lost", "duplicated", "unexpected"),
    [
        (lambda: rows(1, 3), 2, 0, 0),
        (lambda: rows(1, 2, 3)[1:], 1, 0, 0),
        (lambda: rows(1, 2, 3, 3), 0, 2, 0),
        (lambda: rows(1, 2, 3, 4, 4), 0, 2, 0),
        (lambda: rows(1, 2, 3, 5), 0, 0, 2),
        (lambda: [*rows(1, 2, 3), ("gas-1", "a", 1, 9.9)], 0, 0, 1),
        (lambda: [*rows(1, 2), *(("gas-1", m, t + 1000, v) for _, m, t, v in rows(3))], 2, 0, 2),
        (list, 6, 0, 0),
    ],
)
def test_damage_is_seen(
    truth: Truth, damage: Callable[[], list[ReadingKey]], lost: int, duplicated: int, unexpected: int
) -> None:
    verdict = judge(truth, damage())
    assert (verdict.lost, verdict.duplicated, verdict.unexpected) == (lost, duplicated, unexpected)
    assert not verdict.is_clean


def test_handed_over_twice_may_be_stored_twice(tmp_path: Path) -> None:
    truth = truth_of(tmp_path, message(1), {"t": "again", "n": [1]}, {"t": "ack", "upto": 1})
    assert judge(truth, rows(1, 1)).is_clean
    assert judge(truth, rows(1, 1, 1)).duplicated == 2


def test_a_torn_last_line_is_not_written(tmp_path: Path) -> None:
    truth = truth_of(tmp_path, message(1), torn='{"t":"msg","n":2')
    assert set(truth.messages) == {1}
    assert not truth.is_complete


def test_an_incident_counts_when_every_device_raised_the_expected_alert(truth: Truth) -> None:
    incident = truth.incidents[0]
    assert incident == Incident("leak-1", "gas-ch4-void", 4, ("gas-1", "gas-2"), 100)
    good = [("gas-ch4-void", "gas-1", 4, 150), ("gas-ch4-void", "gas-2", 4, 160)]
    assert detected(incident, good)
    assert not detected(incident, good[:1])
    assert not detected(incident, [good[0], ("gas-ch4-void", "gas-2", 3, 160)])
    assert not detected(incident, [good[0], ("gas-h2s", "gas-2", 4, 160)])
    assert not detected(incident, [good[0], ("gas-ch4-void", "gas-2", 4, 99)])
