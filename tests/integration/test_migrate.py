"""Schema migrations against a real server."""

from __future__ import annotations

import threading
from pathlib import Path

import psycopg
import pytest

from citynet_ingest.store import migrate as migrations
from citynet_ingest.store.migrate import Migration, MigrationError, check, load, migrate, status


def test_migrates_once_and_says_what_it_did(empty_dsn: str) -> None:
    server, first = migrate(empty_dsn)
    _, second = migrate(empty_dsn)
    assert [name[:4] for name in first] == [f"{number:04d}" for number in range(1, len(first) + 1)]
    assert second == []
    assert status(empty_dsn)[2] == []
    assert load(server.variant)[-1].name == first[-1]


def test_concurrent_migrations_do_not_collide(empty_dsn: str) -> None:
    done: list[list[str]] = []
    threads = [threading.Thread(target=lambda: done.append(migrate(empty_dsn)[1])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(len(names) for names in done)[:3] == [0, 0, 0]
    assert max(len(names) for names in done) > 0


def test_changed_migration_is_refused(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("UPDATE migration SET sha256 = 'edited' WHERE number = 3")
    with pytest.raises(MigrationError, match=r"0003_delivery.sql was changed after it was applied"):
        migrate(dsn)


def test_newer_database_is_refused() -> None:
    known = [Migration(1, "0001_a.sql", "SELECT 1")]
    with pytest.raises(MigrationError, match="it is newer"):
        check([(1, "0001_a.sql", known[0].sha256), (2, "0002_b.sql", "x")], known)


def test_gap_in_numbers_is_refused(tmp_path: Path) -> None:
    (tmp_path / "0001_a.sql").write_text("SELECT 1")
    (tmp_path / "0003_c.sql").write_text("SELECT 1")
    with pytest.raises(MigrationError, match="0002 was expected"):
        migrations.load("plain", tmp_path)


def test_the_database_enforces_conservation(dsn: str) -> None:
    with (
        psycopg.connect(dsn) as connection,
        pytest.raises(psycopg.errors.CheckViolation, match="conservation"),
    ):
        connection.execute(
            "INSERT INTO stream_cursor (gateway, stream, epoch, seq, stored) VALUES ('gw', 'telemetry', 1, 10, 9)"
        )
