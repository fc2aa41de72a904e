"""Whose lanes are whose, in a real database: locks, claims, and what is left of a claim when its lanes go."""

from __future__ import annotations

import threading
from pathlib import Path

import psycopg
import pytest

from citynet.batch import SeriesBatch
from citynet.runtime.embedded import EmbeddedMosquitto
from citynet_ingest.commit import Commit
from citynet_ingest.ownership import ShardTakenError, claim, formers, last_commit, lock
from citynet_ingest.store.fence import FencedError
from citynet_ingest.store.migrate import load, migrate, status
from citynet_ingest.store.transaction import Target, apply
from citynet_ingest.watchdog import Watchdog
from citynet_rules.spec import RuleSet
from tests.ingest import IngestProcess, now_us, query, wait_for
from tests.patience import DEADLINE_S
from tests.pipelined import NAME as PIPE
from tests.pipelined import Pipe


def commit(connection: psycopg.Connection[tuple[object, ...]], ident: int, number: int) -> None:
    snapshot = f"{ident}.{number}".encode()
    target = Target("t", ident, RuleSet(()), 1, has_columnstore=False)
    apply(connection, Commit(number, SeriesBatch.empty(), snapshot=snapshot), target)


def test_a_claim_that_lost_a_lane_commits_nothing_and_mistakes_nothing(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        old = claim(connection, range(8), "old")
        commit(connection, old, 1)
        new = claim(connection, [3], "new")
        commit(connection, new, 1)
        commit(connection, new, 2)
        with pytest.raises(FencedError):
            commit(connection, old, 2)
        with pytest.raises(FencedError):  # "number 2 is there, so mine went through" would be a loss
            last_commit(connection, old)
        assert last_commit(connection, new) == 2
        assert connection.execute("SELECT state FROM engine_snapshot ORDER BY claim").fetchall() == [
            (f"{old}.1".encode(),),
            (f"{new}.2".encode(),),
        ]


def test_a_lane_is_found_with_what_its_last_owner_left(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        for owner, lanes in (("a", range(8)), ("b", range(4)), ("c", [0])):
            commit(connection, claim(connection, lanes, owner), 1)
        found = {tuple(sorted(f.held)): (sorted(f.lanes), f.state) for f in formers(connection, range(6))}
        assert found == {
            (4, 5): (list(range(8)), b"1.1"),
            (1, 2, 3): ([0, 1, 2, 3], b"2.1"),
            (0,): ([0], b"3.1"),
        }
        claim(connection, range(1, 8), "d")
        assert {owner for (owner,) in connection.execute("SELECT owner FROM ingest_claim")} == {"c", "d"}


def test_a_taken_lane_is_refused_with_the_name_of_its_holder(dsn: str) -> None:
    with (
        psycopg.connect(dsn, autocommit=True, application_name="citynet-ingest-00-31 on host") as first,
        psycopg.connect(dsn, autocommit=True) as second,
    ):
        lock(first, range(4), 0, threading.Event(), Watchdog())
        lock(second, range(4, 8), 0, threading.Event(), Watchdog())
        with pytest.raises(ShardTakenError, match=r"shards 24-31 .*: citynet-ingest-00-31 on host, connected from"):
            lock(second, [3], 0, threading.Event(), Watchdog())
        first.close()
        lock(second, range(4), DEADLINE_S, threading.Event(), Watchdog())


def test_receipts_are_trimmed_by_lane(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        target = Target("t", claim(connection, range(8), "t"), RuleSet(()), 6, has_columnstore=False)
        for number in range(1, 6):
            digests = {0: [bytes(16)] * 4, 1: [bytes(16)]}
            apply(connection, Commit(number, SeriesBatch.empty(), digests=digests, trims=[0, 1]), target)
        found = connection.execute("SELECT lane, sum(length(hashes)) / 16 FROM direct_receipt GROUP BY 1 ORDER BY 1")
        assert found.fetchall() == [(0, 8), (1, 5)], "at least 6 of a lane, in whole rows"


def test_what_a_worker_kept_under_its_name_goes_on_as_claims(empty_dsn: str) -> None:
    server, *_ = status(empty_dsn)
    with psycopg.connect(empty_dsn, autocommit=True) as connection:
        for migration in load(server.variant)[:6]:
            connection.execute(migration.sql.encode())
        connection.execute(
            "CREATE TABLE migration (number integer PRIMARY KEY, name text NOT NULL, sha256 text NOT NULL,"
            " applied_at timestamptz NOT NULL DEFAULT now())"
        )
        for migration in load(server.variant)[:6]:
            row = (migration.number, migration.name, migration.sha256)
            connection.execute("INSERT INTO migration (number, name, sha256) VALUES (%s, %s, %s)", row)
        for worker, hour in (("00-63", 1), ("00-31", 2), ("03-09", 3)):
            connection.execute("INSERT INTO ingest_commit VALUES (%s, 5, now() + %s * interval '1 h')", (worker, hour))
            connection.execute("INSERT INTO engine_snapshot (worker, state) VALUES (%s, %s)", (worker, worker.encode()))
        connection.execute("INSERT INTO direct_receipt VALUES ('00-63', 1, 'x')")
        connection.execute("INSERT INTO direct_tally (worker, stored) VALUES ('00-63', 7)")
    migrate(empty_dsn)
    with psycopg.connect(empty_dsn, autocommit=True) as connection:
        found = {tuple(sorted(f.held)): f.state for f in formers(connection, range(8))}
    assert found == {(0, 1, 2, 3): b"00-31", (4, 5, 6, 7): b"00-63"}
    assert query(empty_dsn, "SELECT sum(stored) FROM direct_tally") == [(7,)]


def test_a_worker_that_finds_its_lanes_free_again_looks_whether_they_are_its_own(dsn: str) -> None:
    """Its next commit would tell as well, but with nothing to commit it would sit on the locks until its next snapshot."""
    zombie = Pipe(dsn, snapshot_s=3600)
    try:
        its = "datname = current_database() AND application_name = %s"
        query(dsn, f"SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE {its}", PIPE)
        Pipe(dsn).stop()  # others worked meanwhile

        def look() -> None:
            zombie.call(zombie.committer.redrive, now_us(), lambda _: None)

        with pytest.raises(FencedError):
            wait_for(look, "it looks from time to time")
    finally:
        zombie.close()


def test_a_stop_while_the_database_is_away_is_a_clean_stop(folder: Path, broker: EmbeddedMosquitto) -> None:
    process = IngestProcess(folder, broker.port, "postgresql://nobody@127.0.0.1:1/nothing")
    process.start()
    try:
        wait_for(lambda: "database-lost" in process.log.read_text(), "ingest waits for the database")
        assert process.stop() == 0, process.tail()
    finally:
        if process.running.poll() is None:
            process.kill()
