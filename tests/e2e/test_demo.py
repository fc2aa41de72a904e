"""The demo as a newcomer runs it, unattended and under chaos: the whole way on real parts, judged against the truth."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from tests.patience import DEADLINE_S, promptly, wait_for

RULES = """
[[override]]
rule = "gas-h2s"
author = "test"
reason = "test"
date = 2026-01-01
mode = "shadow"
"""
COMMAND = [sys.executable, "-m", "citynet", "demo"]


def children_of(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def test_chaos_demo_loses_and_doubles_nothing(seed: int) -> None:
    words = ["--seed", str(seed), "--seconds", "55", "--chaos", "--json"]
    done = subprocess.run([*COMMAND, *words], capture_output=True, check=False)
    assert done.stdout, done.stderr.decode()
    summary = json.loads(done.stdout)
    print(json.dumps(summary))
    assert done.returncode == 0, done.stderr.decode()
    assert summary["accepted"] == sum(
        summary[k] for k in ("stored", "dead_lettered", "declared_lost", "noted", "in_spool")
    )
    assert (summary["lost"], summary["duplicated"], summary["unexpected"]) == (0, 0, 0)
    assert summary["incidents_detected"] == summary["incidents"] == 2
    assert summary["kills"] >= 3
    assert summary["sent"] > 15_000


def test_ctrl_c_stops_everything_within_five_seconds(folder: Path) -> None:
    """With a rule file of the city's own, that the workers have armed."""
    rules = folder / "city.toml"
    rules.write_text(RULES, encoding="utf-8")
    kept = folder / "kept"
    with subprocess.Popen(
        [*COMMAND, "--rules", str(rules), "--keep", str(kept)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as demo:
        assert demo.stdout is not None
        seen = ""
        for line in demo.stdout:
            seen += line
            if "readings/s" in line:
                break
        assert "console  http://127.0.0.1:" in seen
        assert "token    cn_" in seen
        armed = '"shadow": 1, "event": "rules-armed"'  # the one that the city's file puts there
        wait_for(
            lambda: any(armed in path.read_text() for path in (kept / "logs").iterdir()), "the city's file is armed"
        )
        started = children_of(demo.pid)
        assert len(started) >= 7, "postgres, mosquitto, ingest, api, two gateways, sim"
        with promptly(5.0):
            demo.send_signal(signal.SIGINT)
            demo.communicate(timeout=DEADLINE_S)
        assert demo.returncode == 0
        _, alive = psutil.wait_procs(started, timeout=DEADLINE_S)
        assert [p for p in alive if p.status() != psutil.STATUS_ZOMBIE] == []


def test_nothing_survives_the_death_of_the_demo(folder: Path) -> None:
    words = ["--keep", str(folder / "kept")]  # nobody else would remove what it leaves
    with subprocess.Popen([*COMMAND, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if "readings/s" in line:
                break
        started = children_of(demo.pid)
        os.kill(demo.pid, signal.SIGKILL)
        _, alive = psutil.wait_procs(started, timeout=DEADLINE_S)
        assert [p for p in alive if p.status() != psutil.STATUS_ZOMBIE] == []
