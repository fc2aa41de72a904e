"""Row 10 of the test matrix, the worst of it: a database that neither answers nor ends the connection, because it is stopped
or because something in between still answers at TCP. Ingest cuts the connection of an overdue commit. The old server process
may commit all the same, later: before anything is tried again its fate is known."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from citynet.runtime.embedded import EmbeddedMosquitto, EmbeddedPostgres
from tests.faults import load
from tests.faults.harness import CLEAN, Ledger, LedgerPeer, assert_balanced, judge, last_for, wait_logged
from tests.faults.proxy import Proxy, port_of
from tests.ingest import ingest_running, query, wait_for
from tests.patience import promptly
from tests.pipelined import holding

SHORT = {"commit_statement_timeout_s": 1.0, "commit_timeout_s": 1.5}
SLOW = 5  # number of the commit that is late
OWN_SESSION = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'citynet-ingest-%%'"

# The first try of this commit waits inside the server; that it was late must not make the second late as well. Counted are
# its own tries only: on a machine that is slow another's may be late, too.
SLOW_COMMIT = """
CREATE SEQUENCE late_commits;
CREATE FUNCTION come_late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF NEW.number = {number} AND nextval('late_commits') = 1 THEN {wait}; END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER come_late AFTER UPDATE OF number ON ingest_claim DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION come_late();
"""


@contextmanager
def stopped(find: Callable[[], list[int]]) -> Iterator[None]:
    """SIGSTOP: alive, and deaf. Looked for again until nobody new is found: ingest may have come back on another connection
    meanwhile, as it does on a machine that is slow."""
    pids: set[int] = set()
    try:
        while new := set(find()) - pids:
            pids |= new
            for pid in new:
                with suppress(ProcessLookupError):  # one that came and went, as those do that look after tables
                    os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("whole", [False, True], ids=["session", "server"])
def test_stopped_under_load(
    whole: bool, folder: Path, broker: EmbeddedMosquitto, database: EmbeddedPostgres, seed: int
) -> None:
    """Stopped at a random moment, for longer than a commit may take; nothing is acknowledged meanwhile."""
    rng = random.Random(seed)
    ledger = Ledger(folder / "gateway.ledger")
    with (
        ingest_running(folder, broker, database.dsn(), SHORT) as ingest,
        LedgerPeer(broker.port, "gw-1", ledger) as peer,
    ):
        peer.accept_until(load.plain(rng, "gas-1", 5000, load.minutes_ago(10)), rng.randrange(100, 1500))
        cuts = ingest.log.read_text().count('"commit-cut"')  # a slow machine may have made one before
        with stopped(lambda: _processes(database) if whole else _session(database)):
            wait_logged(ingest, "commit-cut", cuts + 1)
            peer.hear_out()
            peer.accept(load.plain(rng, "gas-2", 100, load.minutes_ago(10)))
            acked = peer.acked
            last_for(1.0)
            assert peer.acked == acked < len(ledger.readings)
        peer.wait_drained()
        assert ingest.log.read_text().count("broker-connected") == 1, "the broker was never left"
        assert ingest.stop() == 0, ingest.tail()
    assert judge([ledger], database.dsn()) == CLEAN
    assert_balanced(database.dsn())


def _session(database: EmbeddedPostgres) -> list[int]:
    found = wait_for(lambda: query(database.dsn(), OWN_SESSION), "ingest has a session")
    return [int(pid) for (pid,) in found]


def _processes(database: EmbeddedPostgres) -> list[int]:
    assert database.pid is not None
    return [database.pid, *(child.pid for child in psutil.Process(database.pid).children())]


# Until we let it go, without a look at who has gone meanwhile; or until it has looked.
UNTIL_RELEASED = "PERFORM set_config('client_connection_check_interval', '0', true), pg_advisory_xact_lock(4711)"


@pytest.mark.parametrize(
    ("wait", "is_done"), [(UNTIL_RELEASED, True), ("PERFORM pg_sleep(3600)", False)], ids=["done", "not-done"]
)
def test_a_commit_that_is_answered_too_late(
    wait: str, is_done: bool, folder: Path, broker: EmbeddedMosquitto, dsn: str, seed: int
) -> None:
    """COMMIT takes longer in the server than we wait. Either it is done in the end, after we have given it up, or the server
    notices that nobody waits any more, and undoes it."""
    rng = random.Random(seed)
    ledger = Ledger(folder / "gateway.ledger")
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(SLOW_COMMIT.format(number=SLOW, wait=wait).encode())
    with ingest_running(folder, broker, dsn, SHORT) as ingest, LedgerPeer(broker.port, "gw-1", ledger) as peer:
        with holding(dsn, "SELECT pg_advisory_xact_lock(4711)"):
            cuts = ingest.log.read_text().count('"commit-cut"')
            peer.accept(load.plain(rng, "gas-1", 2000, load.minutes_ago(10)))
            wait_for(lambda: query(dsn, "SELECT 1 FROM late_commits WHERE is_called"), "the commit is late")
            wait_logged(ingest, "commit-cut", cuts + 1)
        peer.wait_drained()
        assert ingest.stop() == 0, ingest.tail()
    ((tries,),) = query(dsn, "SELECT last_value FROM late_commits")
    assert tries == 1 if is_done else tries > 1, "what was done is not made again, what was undone is"
    assert query(dsn, "SELECT max(number) > %s FROM ingest_claim WHERE NOT revoked", SLOW) == [(True,)], (
        "and it goes on"
    )
    assert judge([ledger], dsn) == CLEAN
    assert_balanced(dsn)


def test_a_deaf_database_does_not_hold_up_the_end(folder: Path, broker: EmbeddedMosquitto, dsn: str, seed: int) -> None:
    """Asked to stop, ingest waits for its commit a few seconds, not for ever. Nothing was acknowledged, so nothing is lost."""
    ledger = Ledger(folder / "gateway.ledger")
    with (
        Proxy(port_of(dsn)) as proxy,
        ingest_running(folder, broker, make_conninfo(dsn, port=proxy.port)) as ingest,
        LedgerPeer(broker.port, "gw-1", ledger) as peer,
    ):
        peer.accept(load.plain(random.Random(seed), "gas-1", 2000, load.minutes_ago(10)))
        peer.wait_acked(100)
        proxy.deaf()
        # All of those may be acknowledged by now; these are when the next start has come so far.
        peer.accept(load.plain(random.Random(seed), "gas-2", 100, load.minutes_ago(10)))
        with promptly(20.0):
            assert ingest.stop() == 0, ingest.tail()
        proxy.heal()
        ingest.start()
        peer.wait_drained()
        assert ingest.stop() == 0, ingest.tail()
    assert judge([ledger], dsn) == CLEAN
