"""Mistakes in rules of every kind: one clear line each, with file, line and field."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from citynet.errors import ConfigError
from citynet_rules.spec import load_rules

OWN = {
    "rate": {"direction": "up", "per": "min", "levels": {"yellow": 1, "red": 2}, "over_s": 60},
    "deviation": {"levels": {"yellow": 4, "red": 8}, "alpha": 0.02, "learn_count": 50},
    "cusum": {"levels": {"yellow": 5}, "k": 0.5, "learn_count": 50, "learn_s": 3600},
    "count": {"level": "yellow", "match": "at_least", "threshold": 1, "n": 3, "window_s": 60},
    "night_flow": {"level": "yellow", "from_h": 2, "to_h": 4, "baseline_nights": 7},
    "stuck": {"level": "blue", "for_s": 3600, "count_min": 5, "tolerance": 0},
    "range": {"level": "blue", "low": 0, "high": 10},
    "weekly": {"levels": {"yellow": 4}, "time_zone": "Asia/Shanghai", "drift_max": 3, "weeks": 4, "weeks_min": 3},
    "spectrum": {
        "levels": {"yellow": 5},
        "measure": "shift",
        "rate_hz": 50,
        "low_hz": 1,
        "high_hz": 10,
        "samples": 512,
    },
    "relation": {
        "levels": {"yellow": 4},
        "learn_s": 3600,
        "unit": "m",
        "objects": {"o": ["a", "b"]},
        "operands": {
            "p": {"metric": "x", "unit": "m", "max_age_s": 60},
            "q": {"metric": "y", "unit": "m", "max_age_s": 60},
        },
    },
}


def problems(tmp_path: Path, kind: str, changes: dict[str, object]) -> list[str]:
    """What is wrong with a rule of `kind`, its own keys changed (None takes one away), one key a line."""
    words = {
        "id": "r", "version": 1, "kind": kind, "title_zh": "测", "title_en": "t", "domain": "gas", "metric": "x",
        "unit": "u", "standard": "none", "edition": "1", "status": "D",
    }  # fmt: skip
    keys = {k: v for k, v in (words | OWN[kind] | changes).items() if v is not None}
    lines = [f"{'- ' if n == 0 else '  '}{key}: {json.dumps(value)}" for n, (key, value) in enumerate(keys.items())]
    path = tmp_path / "r.yaml"
    path.write_text("rule:\n" + "\n".join(lines) + "\n", encoding="utf-8")
    try:
        load_rules([path])
    except ConfigError as error:
        return [problem.removeprefix(f"{tmp_path}/") for problem in error.problems]
    return []


@pytest.mark.parametrize("kind", OWN)
def test_each_kind_loads(tmp_path: Path, kind: str) -> None:
    assert problems(tmp_path, kind, {}) == []


@pytest.mark.parametrize(
    ("kind", "changes", "expected"),
    [
        ("rate", {"levels": {"yellow": 2, "red": 1}}, "r.yaml:15: r.levels: red 1 must be above yellow 2"),
        ("rate", {"levels": {"yellow": 0}}, "r.yaml:15: r.levels: yellow is 0.0: a number above 0 was expected"),
        ("rate", {"levels": {}}, "r.yaml:15: r.levels: dictionary should have at least 1 item"),
        ("rate", {"per": "week"}, "r.yaml:14: r.per: input should be 's', 'min', 'h' or 'd' (got 'week')"),
        ("rate", {"per": None}, "r.yaml:2: r.per: is missing"),
        (
            "rate",
            {"direction": "high"},
            "r.yaml:13: r.direction: input should be 'up', 'down' or 'either' (got 'high')",
        ),
        ("rate", {"over_s": -1}, "r.yaml:16: r.over_s: input should be greater than or equal to 0 (got '-1')"),
        ("rate", {"on_delay_s": -1}, "r.yaml:17: r.on_delay_s: input should be greater than or equal to 0 (got '-1')"),
        (
            "rate",
            {"hysteresis": 1},
            "r.yaml:17: r.hysteresis: 1 must be smaller than the lowest level and the distance",
        ),
        ("deviation", {"alpha": 0}, "r.yaml:14: r.alpha: input should be greater than 0 (got '0')"),
        ("deviation", {"alpha": 1.5}, "r.yaml:14: r.alpha: input should be less than or equal to 1 (got '1.5')"),
        ("deviation", {"learn_count": 1}, "r.yaml:15: r.learn_count: input should be greater than or equal to 2"),
        ("deviation", {"in_alarm": "stop"}, "r.yaml:16: r.in_alarm: input should be 'clip' or 'hold' (got 'stop')"),
        ("cusum", {"k": 0}, "r.yaml:14: r.k: input should be greater than 0 (got '0')"),
        ("cusum", {"sigma_min": -1}, "r.yaml:17: r.sigma_min: input should be greater than or equal to 0 (got '-1')"),
        ("count", {"n": 65}, "r.yaml:16: r.n: input should be less than or equal to 64 (got '65')"),
        ("count", {"window_s": 0}, "r.yaml:17: r.window_s: input should be greater than 0 (got '0')"),
        ("count", {"match": "any"}, "r.yaml:2: r: match any takes no threshold"),
        ("count", {"threshold": None}, "r.yaml:2: r: match at_least needs a threshold"),
        ("night_flow", {"to_h": 2.5}, "r.yaml:2: r: from_h 2 to to_h 2.5: 1 to 6 hours were expected"),
        ("night_flow", {"from_h": 2.1}, "r.yaml:14: r.from_h: input should be a multiple of 0.25 (got '2.1')"),
        (
            "night_flow",
            {"baseline_nights": 6},
            "r.yaml:16: r.baseline_nights: input should be greater than or equal to 7",
        ),
        ("weekly", {"time_zone": "Mars"}, "r.yaml:14: r.time_zone: unknown time zone 'Mars'"),
        ("weekly", {"time_zone": None}, "r.yaml:2: r.time_zone: is missing"),
        ("weekly", {"drift_max": None}, "r.yaml:2: r.drift_max: is missing"),
        ("weekly", {"weeks_min": 5}, "r.yaml:2: r: weeks_min 5 must not be above weeks 4"),
        ("weekly", {"weeks": 9}, "r.yaml:16: r.weeks: input should be less than or equal to 8 (got '9')"),
        ("weekly", {"spread_max": 1, "sigma_min": 2}, "r.yaml:2: r: spread_max 1 must be above sigma_min 2"),
        ("spectrum", {"high_hz": 30}, "r.yaml:2: r: high_hz 30 is above half of rate_hz, 25"),
        ("spectrum", {"low_hz": 1, "high_hz": 1.1}, "r.yaml:2: r: low_hz 1 to high_hz 1.1: 3 bins of 0.0976562 Hz"),
        ("spectrum", {"samples": 511}, "r.yaml:18: r.samples: input should be a multiple of 2 (got '511')"),
        (
            "spectrum",
            {"samples": 2048},
            "r.yaml:18: r.samples: input should be less than or equal to 1024 (got '2048')",
        ),
        ("spectrum", {"baseline_hz": 12}, "r.yaml:2: r: baseline_hz 12 lies outside the band"),
        ("spectrum", {"measure": "rms", "learn_windows": 3}, "r.yaml:2: r: measure rms takes no learn_windows"),
        ("relation", {"unit": "s"}, "r.yaml:2: r: unit is s, that of the first operand, p, is m"),
        ("relation", {"learn_count": 129}, "r.yaml:17: r.learn_count: input should be less than or equal to 128"),
        ("relation", {"objects": {"o": ["a"]}}, "r.yaml:2: r: object o has 1 members, there are 2 operands"),
        ("stuck", {"for_s": None}, "r.yaml:2: r.for_s: is missing"),
        ("stuck", {"count_min": 1}, "r.yaml:15: r.count_min: input should be greater than or equal to 2 (got '1')"),
        ("stuck", {"tolerance": -1}, "r.yaml:16: r.tolerance: input should be greater than or equal to 0 (got '-1')"),
        ("range", {"low": 10}, "r.yaml:2: r: low 10 must be below high 10"),
        ("range", {"low": None, "high": None}, "r.yaml:2: r: low or high is missing: a range has at least one end"),
        ("range", {"levels": {"red": 1}}, "r.yaml:16: r.levels: unknown key"),
    ],
)
def test_each_mistake_is_one_clear_line(tmp_path: Path, kind: str, changes: dict[str, object], expected: str) -> None:
    found = problems(tmp_path, kind, changes)
    assert len(found) == 1, found
    assert found[0].startswith(expected)
