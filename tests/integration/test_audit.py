"""The audit balances when all is well, and finds every way in which it is not."""

from __future__ import annotations

import json
from collections.abc import Iterator

import psycopg
import pytest
from typer.testing import CliRunner

from citynet.cli import app
from citynet_ingest import audit

SYSTEM = """
INSERT INTO stream_cursor (gateway, stream, epoch, seq, stored, dead_lettered, lost, noted, claimed)
VALUES ('gw', 'telemetry', 7, 10, 6, 1, 2, 1, 15);
INSERT INTO gateway (id, online, status)
VALUES ('gw', true, '{"claims": [{"st": "telemetry", "ep": 7, "accepted": 15, "acked": 10}]}');
INSERT INTO device (name, source) VALUES ('d', 'gw');
INSERT INTO series (device_id, metric) SELECT id, 'm' FROM device;
SELECT ensure_reading_partitions(ARRAY['2026-01-01'::date]);
INSERT INTO reading SELECT timestamptz '2026-01-01 00:00Z' + k * interval '1 s', 1, k, 0 FROM generate_series(1, 6) AS k;
INSERT INTO dead_letter (topic, seq, records, reason, place, detail, payload, digest)
VALUES ('t', 7, 1, 'r', 'p', 'd', '', '');
INSERT INTO loss (gateway, stream, epoch, first, last, reason) VALUES ('gw', 'telemetry', 7, 8, 9, 'cap');
INSERT INTO gateway_note (gateway, stream, epoch, seq, kind, body) VALUES ('gw', 'telemetry', 7, 10, 'clock', '{}');
"""


@pytest.fixture
def books(dsn: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """A small system: one gateway with 10 booked records (6 stored, 1 dead, 2 lost, 1 note) and 5 in its spool."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(SYSTEM.encode())
        yield connection


def test_balanced(books: psycopg.Connection[tuple[object, ...]]) -> None:
    result = audit.run(books)
    assert result.is_balanced
    totals = {
        "accepted": 15,
        "stored": 6,
        "dead_lettered": 1,
        "declared_lost": 2,
        "noted": 1,
        "in_spool": 5,
        "difference": 0,
    }
    assert result.totals() == totals


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM reading WHERE value = 3",
        "INSERT INTO reading SELECT * FROM reading WHERE value = 3",
        "DELETE FROM dead_letter",
        "UPDATE loss SET last = 20",
        "DELETE FROM gateway_note",
        "UPDATE stream_cursor SET stored = stored + 1, seq = seq + 1",
        """UPDATE gateway SET status = '{"claims": [{"st": "telemetry", "ep": 7, "accepted": 15, "acked": 12}]}'""",
    ],
)
def test_damage_is_found(books: psycopg.Connection[tuple[object, ...]], damage: str) -> None:
    books.execute(damage.encode())
    result = audit.run(books)
    assert not result.is_balanced
    assert result.totals()["difference"] > 0


def test_command_says_so_and_exits(
    books: psycopg.Connection[tuple[object, ...]], dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CITYNET_DATABASE_DSN", dsn)
    good = CliRunner().invoke(app, ["audit", "--json"])
    assert good.exit_code == 0, good.output
    assert json.loads(good.output)["balanced"] is True
    books.execute("DELETE FROM reading WHERE value = 3")
    bad = CliRunner().invoke(app, ["audit"])
    assert bad.exit_code == 1
    assert "NOT BALANCED" in bad.output


def test_no_database_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CITYNET_DATABASE_DSN", "postgresql://nobody@127.0.0.1:1/none")
    for command in (["audit"], ["db", "status"], ["db", "migrate"]):
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 1
        assert "error: database: " in result.stderr
        assert "Traceback" not in result.stderr
