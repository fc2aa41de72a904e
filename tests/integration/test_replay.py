"""Rules over the stored history: what ingest really stored, and raised, against what a replay makes of it."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest

from citynet.batch import SeriesBatch
from citynet.reading import Reading
from citynet.runtime.embedded import EmbeddedMosquitto
from citynet_ingest.store.history import DatabaseHistory
from citynet_ingest.store.migrate import migrate
from citynet_ingest.store.server import probe
from citynet_ingest.store.transaction import Partitions, copy_rows
from tests.ingest import GatewayPeer, IngestProcess, ingest_running, now_us, query

MINUTE = 60_000_000
HOUR = 60 * MINUTE
HEAD = 'version = 1\nstandard = "s"\nedition = "1"\nstatus = "D"\ntitle_zh = "x"\ntitle_en = "x"\nmetric = "ch4_lel"\n'
RULES = f"""
[[rule]]
id = "high"
kind = "limit"
domain = "gas"
unit = "%LEL"
direction = "high"
levels = {{ orange = 20.0, red = 50.0 }}
on_delay_s = 60
gap_s_max = 3600
{HEAD}
[[rule]]
id = "impossible"
kind = "range"
domain = "device"
unit = "%LEL"
level = "blue"
high = 100.0
{HEAD}
[[rule]]
id = "fast"
kind = "rate"
domain = "gas"
unit = "%LEL"
direction = "up"
per = "min"
levels = {{ yellow = 25.0 }}
{HEAD}
[[rule]]
id = "silent"
kind = "stale"
domain = "device"
unit = "%LEL"
level = "blue"
max_age_s = 600
{HEAD}
"""


def rules(ingest: IngestProcess, *words: str) -> Any:
    """``citynet rules … --json``: what it says."""
    command = [sys.executable, "-m", "citynet", "rules", *words, "--json", "--config", str(ingest.config)]
    done = subprocess.run(command, capture_output=True, check=False, timeout=120, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def utc(time_us: int) -> str:
    return dt.datetime.fromtimestamp(time_us / 1e6, dt.UTC).isoformat()


def story(t0_us: int) -> list[Reading]:
    """Two hours of three wells: one rises twice, one says what cannot be, one falls silent and speaks again."""
    found = []
    for k in range(120):
        at_us = t0_us + k * MINUTE
        found.append(Reading("gw-t", "gateway_uptime_s", at_us, float(k)))
        found.append(Reading("a", "ch4_lel", at_us, 60.0 if 10 <= k < 20 else 30.0 if 70 <= k < 90 else 5.0))
        found.append(Reading("b", "ch4_lel", at_us, 140.0 if k in (40, 41, 42) else 3.0))
        if not 50 <= k < 80:
            found.append(Reading("c", "ch4_lel", at_us, 1.0))
        if k == 100:  # a backlog that comes too late to be judged
            found += [Reading("a", "ch4_lel", t0_us + m * MINUTE + 7, 80.0) for m in range(60, 66)]
    return found


def test_a_history_that_was_lived(folder: Path, broker: EmbeddedMosquitto, dsn: str) -> None:
    """The story as a real worker takes it, message by message; then what replay and score make of it."""
    (folder / "rules.toml").write_text(RULES)
    settings = {"rules": [str(folder / "rules.toml")], "shipped_rules": False, "settle_s": 0}
    t0_us = now_us() - 119 * MINUTE  # the last readings are of now: nobody is silent at the end
    readings = story(t0_us)
    with ingest_running(folder, broker, dsn, settings) as ingest:
        peer = GatewayPeer(broker.port)
        try:
            for first in range(0, len(readings), 24):
                part = readings[first : first + 24]
                peer.send(first + 1, part, highest=len(readings))
                peer.wait_acked(first + len(part))
        finally:
            peer.close()
        assert ingest.stop() == 0
    _history_gives_what_it_gave_live(ingest, t0_us, dsn)
    _a_new_rule_shows_what_it_would_have_done(ingest, t0_us, folder)
    _a_span_without_readings_is_an_error(ingest, t0_us)
    _score_of_the_stored_history(ingest, t0_us, folder)


def _history_gives_what_it_gave_live(ingest: IngestProcess, t0_us: int, dsn: str) -> None:
    assert query(dsn, "SELECT count(*) FROM reading WHERE quality & 64 = 64") == [(6,)]
    live = query(dsn, "SELECT rule_id, object FROM alert ORDER BY raised_at, 1")
    assert sorted(set(live)) == [
        ("fast", "a"),
        ("fast", "b"),
        ("high", "a"),
        ("high", "b"),
        ("impossible", "b"),
        ("silent", "c"),
    ]
    span = ("--from", utc(t0_us), "--to", utc(t0_us + 3 * HOUR))
    found = rules(ingest, "replay", *span)
    assert (found["only_new"], found["only_old"], found["changed"]) == ([], [], [])
    assert found["same"] == len(live)
    assert found["readings"] == len(story(t0_us)) - 6
    # Begun in the middle of it, the warm-up brings everything into the swing.
    late = rules(ingest, "replay", "--from", utc(t0_us + HOUR), "--to", utc(t0_us + 3 * HOUR), "--warmup-h", "2")
    assert (late["only_new"], late["only_old"], late["changed"]) == ([], [], [])
    assert 0 < late["same"] < len(live)


def _a_new_rule_shows_what_it_would_have_done(ingest: IngestProcess, t0_us: int, folder: Path) -> None:
    span = ("--from", utc(t0_us), "--to", utc(t0_us + 3 * HOUR))
    new = folder / "new.toml"
    new.write_text(RULES.split("[[rule]]")[1].join(["[[rule]]", ""]).replace("orange = 20.0", "orange = 40.0"))
    found = rules(ingest, "replay", *span, "--new", str(new))
    assert [(a["rule"], a["object"], (a["raised_us"] - t0_us) // MINUTE) for a in found["only_old"]] == [
        ("high", "a", 71)
    ]
    assert (found["only_new"], found["rules"]) == ([], 4)
    alone = rules(ingest, "replay", *span, "--rules", str(new))
    assert [a["rule"] for a in alone["only_old"]] == ["high"], "the other rules' alerts are not looked at"
    assert (alone["rules"], alone["same"]) == (1, 2)
    new.write_text(new.read_text().replace("orange = 40.0", "orange = 2.0"))
    found = rules(ingest, "replay", *span, "--new", str(new))
    assert {
        (pair["old"]["rule"], pair["old"]["raised_us"] < pair["new"]["raised_us"]) for pair in found["changed"]
    } == {("high", False)}


def _a_span_without_readings_is_an_error(ingest: IngestProcess, t0_us: int) -> None:
    span = ["--from", utc(t0_us - 9 * HOUR), "--to", utc(t0_us - 8 * HOUR)]
    command = [sys.executable, "-m", "citynet", "rules", "replay", *span, "--config", str(ingest.config)]
    done = subprocess.run(command, capture_output=True, check=False, timeout=120, text=True)
    assert done.returncode == 1
    assert "no stored readings between" in done.stderr


def _score_of_the_stored_history(ingest: IngestProcess, t0_us: int, folder: Path) -> None:
    incident = {
        "id": "leak", "kind": "gas-leak", "domain": "gas", "metric": "ch4_lel", "devices": ["a"],
        "start_us": t0_us + 10 * MINUTE, "end_us": t0_us + 20 * MINUTE, "decay_s": 0, "expected_rule": "high",
        "expected_level": "red",
    }  # fmt: skip
    series = [{"metric": "ch4_lel"}]
    devices = [{"device": name, "gateway": "gw-t", "series": series} for name in "abc"]
    header = {
        "t": "header",
        "v": 1,
        "started_at_us": t0_us,
        "gateways": ["gw-t"],
        "devices": devices,
        "incidents": [incident],
    }
    (folder / "truth").write_text(json.dumps(header) + "\n")
    found = rules(ingest, "score", "--truth", str(folder / "truth"))
    high = found["rules"]["high"]
    assert (high["due"], high["found"], high["delay_median_s"]) == (1, 1, 60.0)
    assert (high["true"], high["false"]) == (1, 2)
    assert found["rules"]["fast"]["precision"] == pytest.approx(1 / 3)


@pytest.mark.parametrize("has_two", [False, True], ids=["one", "two"])
@pytest.mark.parametrize("readings_max", [50, 1_000, 1_000_000])
def test_every_reading_comes_once_in_order_whatever_the_size_of_blocks(
    dsn: str, readings_max: int, *, has_two: bool
) -> None:
    """Late ones left out; of several qualities, over gaps of days, across partitions, on either path into the store."""
    server, _ = migrate(dsn)
    day = 24 * HOUR
    t0_us = 1_767_225_600_000_000
    random = np.random.default_rng(7)
    series = np.repeat(np.arange(1, 41, dtype=np.int32), 300)
    steps = random.integers(1, 4 * MINUTE, (40, 300))
    steps[:, 150] += 3 * day
    time_us = (t0_us + np.cumsum(steps, axis=1)).ravel()
    quality = random.choice(np.array([0, 0, 0, 5, 8, 64, 72], np.uint8), len(series))
    rows = SeriesBatch(series, time_us, random.normal(size=len(series)), quality)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("INSERT INTO device (name, source) SELECT 'd' || k, 'gw' FROM generate_series(1, 40) k")
        connection.execute("INSERT INTO series (device_id, metric) SELECT id, 'm' FROM device")
        Partitions().ensure(connection, [int(d) for d in np.unique(time_us // day)])
        for half in (rows.time_us < t0_us + day, rows.time_us >= t0_us + day):
            copy_rows(connection, rows.picked(half), has_columnstore=server.timescale is not None)
        another = partial(psycopg.connect, dsn, autocommit=True) if has_two else None
        history = DatabaseHistory(connection, probe(connection), readings_max, another)
        blocks = list(history.blocks(t0_us, t0_us + 10 * day))
    kept = rows.picked((quality & 64) == 0)
    assert [block.until_us for block in blocks] == sorted(block.until_us for block in blocks)
    assert blocks[-1].until_us == t0_us + 10 * day
    start_us = t0_us
    found: list[tuple[int, int, float, int]] = []
    for block in blocks:
        batch = block.batch
        assert not len(batch) or start_us <= batch.time_us.min() <= batch.time_us.max() < block.until_us
        assert (np.lexsort((batch.time_us, batch.series)) == np.arange(len(batch))).all()
        found += batch.rows()
        start_us = block.until_us
    assert sorted(found) == sorted(kept.rows())
    assert max(len(block.batch) for block in blocks) <= max(2 * readings_max, 100)
