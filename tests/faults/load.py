"""Seeded load for the fault tests: readings nobody watches, and a watched stream that raises and clears alerts."""

from __future__ import annotations

import os
import random
from pathlib import Path

from citynet.reading import Reading
from tests.ingest import now_us, query

SECOND_US = 1_000_000
RULE = """\
[[rule]]
id = "test-level"
version = 1
kind = "limit"
title_zh = "测试水位"
title_en = "Test level"
domain = "drainage"
metric = "level_m"
unit = "m"
standard = "none"
edition = "1"
status = "D"
direction = "high"
levels = { blue = 1.0, yellow = 2.0, red = 4.0 }
hysteresis = 0.5
on_delay_s = 5
off_delay_s = 10
gap_s_max = 60
"""


def nightly_s(full: float) -> float:
    """How long a nightly test lasts: in full, unless CITYNET_NIGHTLY_S says otherwise (to try the test itself)."""
    return min(full, float(os.environ.get("CITYNET_NIGHTLY_S") or full))


def minutes_ago(minutes: int) -> int:
    """A moment of the past in µs since 1970, on a whole second."""
    return (now_us() // SECOND_US - 60 * minutes) * SECOND_US


def plain(rng: random.Random, device: str, count: int, start_us: int) -> list[Reading]:
    """One reading a millisecond of metric `plain`, which no rule watches."""
    return [Reading(device, "plain", start_us + k * 1000, rng.randrange(1 << 20) / 8) for k in range(count)]


def watched(rng: random.Random, devices: int, seconds: int, start_us: int) -> list[Reading]:
    """Slow random walks of `devices` gauges, a reading a second each, in order of time; they cross the limits of `RULE`.

    Whatever the seed, each one is high for a while and low at the end, so that there is a raise and a clear to compare.
    """
    level = [rng.uniform(0.0, 3.0) for _ in range(devices)]
    readings = []
    for second in range(seconds):
        for device in range(devices):
            level[device] = min(5.0, max(0.0, level[device] + rng.uniform(-0.35, 0.35)))
            if 60 <= second < 80 or second >= seconds - 30:
                level[device] = 2.5 if second < 80 else 0.0
            value = round(level[device], 3)
            readings.append(Reading(f"gauge-{device}", "level_m", start_us + second * SECOND_US, value))
    return readings


def rule_file(folder: Path) -> Path:
    path = folder / "level.toml"
    path.write_text(RULE)
    return path


def alerts(dsn: str) -> tuple[list[tuple[object, ...]], list[tuple[object, ...]]]:
    """All alerts, and all transitions with their evidence, without the times of recording."""
    found = query(
        dsn,
        "SELECT id, rule_id, object, level, level_max, raised_at, changed_at, cleared_at, value, limit_value FROM alert"
        " ORDER BY id",
    )
    moves = query(
        dsn,
        "SELECT alert_id, kind, level, at, value, limit_value, evidence::text, text_en FROM alert_transition"
        " ORDER BY alert_id, at, kind, level",
    )
    return found, moves
