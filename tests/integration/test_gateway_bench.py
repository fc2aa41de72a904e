"""``citynet bench gateway``: every line comes about on tiny counts (that of what is kept: in
`tests/faults/test_published_failures.py`). No figure is judged."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from citynet.errors import CitynetError
from citynet_gateway.bench.scene import Scene
from tests.patience import DEADLINE_S


@pytest.mark.parametrize(("part", "lines"), [("intake", 2), ("drain", 4), ("memory", 1), ("interlock", 1)])
def test_every_line_comes_about(part: str, lines: int) -> None:
    words = [sys.executable, "-m", "citynet", "bench", "gateway", "--quick", "--json", "--only", part]
    done = subprocess.run(words, capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["quick"] is True
    assert len(report["lines"]) == lines
    for line in report["lines"]:
        assert line["value"] > 0
        assert line["goal"] > 0


def test_an_unknown_part_is_a_usage_error() -> None:
    words = [sys.executable, "-m", "citynet", "bench", "gateway", "--only", "speed"]
    done = subprocess.run(words, capture_output=True, check=False, text=True, timeout=DEADLINE_S)
    assert done.returncode == 2
    assert "'speed': there are intake, kept, drain, memory, interlock" in done.stderr


def test_a_gateway_that_ends_is_not_waited_for(folder: Path) -> None:
    with Scene(folder / "scene", {"window": 0}) as scene, pytest.raises(CitynetError, match="ended with exit code 1"):
        scene.start()
