"""`citynet bench`: every line comes about on tiny counts, with the counts it ought to have. No figure is judged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

# What a quick run must have handled, whatever its speed.
COUNTS = {
    1: {"ratio_to_heap_copy", "ratio_to_btree_copy", "readings_per_s"},
    2: {"ratio_to_aiomqtt", "messages_per_s"},
    3: {"bytes_per_reading", "bytes_per_reading_as_written", "readings"},
    4: {"p50_ms", "p99_ms", "alerts", "offered_readings_per_s"},
    5: {"p50_ms", "p95_ms", "queries", "offered_readings_per_s"},
    6: {"peak_mb", "growth_while_down_mb"},
    7: {"ratio_dearest_to_cheapest_by_series", "ratio_dearest_to_cheapest_by_readings"},
}


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    given = os.environ.get("CITYNET_TEST_DSN")
    command = [sys.executable, "-m", "citynet", "bench", "all", *arguments, *(["--dsn", given] if given else [])]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def lines(only: str) -> dict[int, dict[str, Any]]:
    done = bench("--quick", "--json", "--only", only)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["quick"] is True
    assert found["machine"].keys() >= {"cores", "python", "postgresql", "timescaledb"}
    return {line["line"]: line for line in found["lines"]}


@pytest.mark.parametrize("only", ["1,2,3", "4,5", "6", "7"])
def test_lines_come_about(only: str) -> None:
    found = lines(only)
    assert list(found) == [int(number) for number in only.split(",")]
    for number, line in found.items():
        assert line.keys() >= {"name", "unit", "values", "baseline", "ratio", "floor", "goal", "ok"}
        assert line["values"].keys() >= COUNTS[number]
        assert all(value > 0 for name, value in line["values"].items() if "growth" not in name and "behind" not in name)
        assert line["floor"].keys() == line["goal"].keys()
        assert line["floor"].keys() <= line["values"].keys()
        assert (line["ok"] is None) == (not line["floor"])


def test_counts_are_those_that_were_sent() -> None:
    found = lines("3,4")
    assert found[3]["values"]["readings"] == 200_000
    # 40 batches/s for 2 s, every fifth with a crossing, none in the first half second
    assert found[4]["values"]["alerts"] == 12


def test_an_unknown_line_is_a_usage_error() -> None:
    done = bench("--only", "1,9")
    assert done.returncode == 2
    assert "'1,9'" in done.stderr
