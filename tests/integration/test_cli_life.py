"""``citynet db status``, ``apply-policies`` and ``hold`` as a person and a script see them."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner, Result

from citynet.cli import app
from citynet.runtime.embedded import EmbeddedMosquitto
from citynet_ingest.commit import UplinkSpan
from citynet_ingest.store import sql
from citynet_ingest.store.server import probe
from tests.ingest import GatewayPeer, ingest_running, now_us, some_readings
from tests.life import PER_DAY, Connection, day, days_there, fill

NOW = dt.datetime.now(dt.UTC)


@pytest.fixture(autouse=True)
def _settings(dsn: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CITYNET_DATABASE_DSN", dsn)
    monkeypatch.setenv("CITYNET_STORAGE_READING_KEEP_DAYS", "10")
    monkeypatch.setenv("CITYNET_STORAGE_MINUTE_KEEP_DAYS", "0")


@pytest.fixture
def connection(dsn: str) -> Iterator[Connection]:
    with psycopg.connect(dsn, autocommit=True) as opened:
        opened.execute("SET timezone = 'UTC'")
        yield opened


def db(*words: str) -> Result:
    return CliRunner().invoke(app, ["db", *words])


def db_json(*words: str, code: int = 0) -> Any:
    result = db(*words, "--json")
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def test_apply_policies(connection: Connection) -> None:
    assert db("apply-policies").stdout == "nothing to do\n"
    fill(connection, [day(ago, NOW) for ago in (13, 12, 0)])
    dry = db_json("apply-policies", "--dry-run")
    assert (dry["dry_run"], dry["outcomes"]["due"]) == (True, 2)
    (step, _) = dry["steps"]
    assert set(step) == {"table", "what", "now", "wanted", "outcome", "note", "part"}
    assert (step["table"], step["what"], step["wanted"], step["outcome"]) == ("reading", "drop", "10 d", "due")
    assert step["now"].startswith(f"{day(13, NOW)} 00:00")
    assert len(days_there(connection)) == 3
    line, _ = db("apply-policies", "--by", "anna").stdout.splitlines()
    assert line.split()[:3] == ["done", "reading", "drop"]
    assert connection.execute("SELECT DISTINCT actor FROM retired").fetchall() == [("anna",)]
    assert db("apply-policies").stdout == "nothing to do\n"


def test_what_cannot_be_done_is_exit_1(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(connection, [day(ago, NOW) for ago in (14, 13, 12, 0)], with_rollups=False)
    assert db_json("apply-policies", code=1)["outcomes"]["not in rollups"] == 3
    monkeypatch.setenv("CITYNET_STORAGE_DROP_DAYS_MAX", "2")
    assert db_json("apply-policies", "--without-rollups", code=1)["outcomes"]["too much at once"] == 1
    assert len(days_there(connection)) == 4
    assert db_json("apply-policies", "--without-rollups", "--accept-large-drop")["outcomes"]["done"] == 3


def test_holds(connection: Connection) -> None:
    fill(connection, [day(ago, NOW) for ago in (13, 12, 0)])
    assert db("hold", "list").stdout == "no holds\n"
    span = ("--from", str(day(13, NOW)), "--to", f"{day(13, NOW)}T06:00+00:00")
    held = db_json("hold", "add", *span, "--reason", "case 7", "--by", "anna")
    assert (held["id"], held["active"], held["placed_by"], held["already_gone"]) == (1, True, "anna", [])
    assert held["from_at"] == f"{day(13, NOW)}T00:00:00+00:00"
    outcomes = db_json("apply-policies")["outcomes"]
    assert (outcomes["held"], outcomes["done"]) == (1, 1)
    assert days_there(connection) == [day(13, NOW), day(0, NOW)]
    assert db("hold", "release", "2", "--reason", "x").exit_code == 1
    released = db_json("hold", "release", "1", "--reason", "closed", "--by", "bert")
    assert (released["active"], released["released_by"], released["release_reason"]) == (False, "bert", "closed")
    assert db_json("apply-policies")["outcomes"]["done"] == 1
    (listed,) = db_json("hold", "list")
    assert listed == released
    assert "was dropped before this hold" in db("hold", "add", *span, "--reason", "too late").stdout


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--from", "yesterday", "--to", "2026-01-02", "--reason", "r"], "no ISO 8601"),
        (["--from", "2026-01-02", "--to", "2026-01-02", "--reason", "r"], "--to must be after --from"),
        (["--from", "2026-01-01", "--to", "2026-01-02", "--reason", " "], "--reason must say something"),
    ],
)
def test_a_hold_that_makes_no_sense_is_a_usage_error(words: list[str], text: str) -> None:
    result = db("hold", "add", *words)
    assert result.exit_code == 2
    assert text in result.stderr


def test_status_of_a_working_city(dsn: str, folder: Path, broker: EmbeddedMosquitto, connection: Connection) -> None:
    fill(connection, [day(12, NOW), day(3, NOW)])
    assert db("hold", "add", "--from", "2020-01-01", "--to", "2020-02-01", "--reason", "r").exit_code == 0
    with ingest_running(folder, broker, dsn):
        peer = GatewayPeer(broker.port)
        peer.send(1, some_readings(10, now_us() - 10_000_000))
        peer.wait_acked(10)
        peer.close()
        found = db_json("status")
    keys = "server schema settings tables readings city retired policies holds workers shards warnings"
    assert list(found) == keys.split()
    assert found["server"] == {"version": connection.info.server_version, "timescale": probe(connection).timescale}
    assert found["schema"]["pending"] == []
    assert found["schema"]["number"] == found["schema"]["applied"][-1]["number"] >= 8
    assert found["settings"]["fsync"] == "on"
    reading = next(table for table in found["tables"] if table["name"] == "reading")
    assert reading["bytes"] > 0
    assert reading["parts"]["count"] >= 3
    assert reading["parts"]["from_at"] == f"{day(12, NOW)}T00:00:00+00:00"
    assert found["readings"]["oldest"] == f"{day(12, NOW)}T00:05:00+00:00"
    assert found["readings"]["newest"] > (NOW - dt.timedelta(minutes=5)).isoformat()
    assert found["city"]["readings_booked"] == 2 * PER_DAY + 10
    assert (found["city"]["gateways"], found["city"]["streams"], found["city"]["dead_letters"]) == (1, 2, 0)
    assert [hold["reason"] for hold in found["holds"]] == ["r"]
    assert [policy["outcome"] for policy in found["policies"]] == ["due"]
    assert len(found["shards"]) == 64
    assert found["workers"][0]["age_s"] < 60
    due = "1 steps of the policies are due: citynet db apply-policies --dry-run shows them"
    assert due in found["warnings"]
    assert not [
        text for text in found["warnings"] if "shard" in text or "newest reading" in text or "committed" in text
    ]


def test_status_warns_in_words(connection: Connection) -> None:
    fill(connection, [day(1, NOW)])
    connection.execute(
        "INSERT INTO ingest_claim (owner, lanes, number, at) VALUES ('00-63', '{0}', 7, now() - interval '1 hour')"
    )
    warnings = db_json("status")["warnings"]
    assert "no ingest worker holds a shard: nothing is being stored" in warnings
    assert [text for text in warnings if text.startswith("worker 00-63 has not committed for 36")]
    assert [text for text in warnings if text.startswith("the newest reading is of")]
    page = db("status")
    assert page.exit_code == 0
    assert "WARNING: no ingest worker holds a shard" in page.stdout
    connection.execute("DELETE FROM migration WHERE number = (SELECT max(number) FROM migration)")
    unmigrated = db_json("status")
    assert len(unmigrated["schema"]["pending"]) == 1
    assert "citynet db migrate" in unmigrated["warnings"][0]
    assert "citynet db migrate" in db("apply-policies").stderr


def test_uplinks_lists_devices_by_what_their_counters_passed_over(connection: Connection) -> None:
    assert db_json("uplinks") == []
    assert db("uplinks").stdout.splitlines() == ["DEVICE                 RECEIVED    MISSING  RESTARTS    COUNTER LAST"]
    seen = {"calm": [(1, 3)], "lossy": [(10, 12), (20, 21)], "worse": [(1, 1), (40, 40)], "anew": [(7, 9), (2, 4)]}
    for device, spans in seen.items():
        for first, last in spans:  # one commit each
            span = UplinkSpan(device, first, first)
            for counter in range(first + 1, last + 1):
                span.add(counter)
            columns = {name: [getattr(span, name)] for name in UplinkSpan.__slots__}
            connection.execute(sql.text("uplink_count"), columns)
    rows = db_json("uplinks")
    assert [(row["device"], row["received"], row["missing"], row["restarts"], row["counter"]) for row in rows] == [
        ("worse", 2, 38, 0, 40),
        ("lossy", 5, 7, 0, 21),
        ("anew", 6, 0, 1, 4),
        ("calm", 3, 0, 0, 3),
    ]
    age = dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(rows[0]["last_at"])
    assert dt.timedelta(0) <= age < dt.timedelta(minutes=10)
    head, first = db("uplinks", "--limit", "1").stdout.splitlines()
    assert head.split()[:2] == ["DEVICE", "RECEIVED"]
    assert first.split() == ["worse", "2", "38", "0", "40", rows[0]["last_at"]]
    assert db("uplinks", "--limit", "0").exit_code == 2
