"""`citynet bench`: every line comes about on tiny counts, with the counts it ought to have. No figure is judged."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

import pytest

# Values of every line; a number where a quick run must have handled just so many, whatever its speed.
VALUES: dict[int, dict[str, int | None]] = {
    1: {"readings_per_s": None, "ratio_to_heap_copy": None, "ratio_to_btree_copy": None},
    2: {"messages_per_s": None, "ratio_to_aiomqtt": None},
    3: {"bytes_per_reading": None, "bytes_per_reading_as_written": None, "readings": 200_000},
    # 40 batches/s for 2 s, a crossing in every fifth of them, none in the first half second
    4: {"p50_ms": None, "p99_ms": None, "offered_readings_per_s": None, "alerts": 12},
    5: {"p50_ms": None, "p95_ms": None, "offered_readings_per_s": None, "queries": None},
    6: {"peak_mb": None, "growth_while_down_mb": None},
    7: {"ratio_dearest_to_cheapest_by_series": None, "ratio_dearest_to_cheapest_by_readings": None},
    8: {"readings_per_s": None, "readings_per_cpu_s": None, "ratio_to_comparison": None},
    9: {"readings_per_s": None, "readings_per_cpu_s": None, "ratio_to_comparison": None},
    10: {"peak_mb": None, "snapshot_s": None, "restore_s": None, "pairs": None},
    11: {"readings_per_s": None, "ratio_to_plain_copy": None, "readings": 43_500},
}


def bench(dsn: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "citynet", "bench", "all", "--dsn", dsn, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.timeout(600)  # up to a dozen processes start in one
@pytest.mark.parametrize("number", list(VALUES))
def test_a_line_comes_about(server_dsn: str, number: int) -> None:
    done = bench(server_dsn, "--quick", "--json", "--only", str(number))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["quick"] is True
    assert found["machine"].keys() >= {"cores", "python", "postgresql", "timescaledb"}
    (line,) = found["lines"]
    values: dict[str, Any] = line["values"]
    assert line["line"] == number
    assert values.keys() >= VALUES[number].keys()
    assert all(values[name] == wanted for name, wanted in VALUES[number].items() if wanted is not None)
    assert all(
        value > 0 for name, value in values.items() if not re.search("growth|behind|cpu|alerts|transitions|added", name)
    )
    assert line["floor"].keys() == line["goal"].keys()
    assert line["floor"].keys() <= values.keys()
    assert (line["ok"] is None) == (not line["floor"])
    assert line["ratio"]
    assert line["baseline"] or number == 7, "line 7 is its own baseline"


def test_what_cannot_be_measured_is_an_error_and_no_figure(server_dsn: str) -> None:
    done = bench(server_dsn, "--only", "1,12")
    assert done.returncode == 2
    assert "'1,12'" in done.stderr
    nowhere = bench("postgresql://127.0.0.1:1/none", "--quick", "--json")
    assert nowhere.returncode == 1
    assert nowhere.stdout == ""
    assert nowhere.stderr.startswith("error: ")
