"""Row 10 of the test matrix, failover: a primary dies under load, its synchronous standby is promoted, and ingest finds it
through a connection string with two hosts. What was acknowledged is on the new primary; nothing is lost or doubled."""

from __future__ import annotations

import random
from pathlib import Path

from citynet.runtime.embedded import EmbeddedMosquitto, EmbeddedPostgres
from citynet_ingest.store.migrate import migrate
from tests.faults import load
from tests.faults.harness import CLEAN, DirectDevice, Ledger, LedgerPeer, assert_balanced, judge, wait_logged
from tests.faults.outages import read_only, writable
from tests.faults.standby import Standby, dsn_of_both
from tests.ingest import IngestProcess, ingest_running, query, wait_for


def test_failover_to_a_synchronous_standby(folder: Path, broker: EmbeddedMosquitto, seed: int) -> None:
    rng = random.Random(seed)
    start_us = load.minutes_ago(10)
    gateway, device = Ledger(folder / "gateway.ledger"), Ledger(folder / "device.ledger")
    with EmbeddedPostgres(folder / "one") as primary:
        migrate(primary.dsn())
        with Standby(folder / "two", primary) as standby:
            standby.synchronise()
            with (
                ingest_running(folder, broker, dsn_of_both(primary, standby)) as ingest,
                LedgerPeer(broker.port, "gw-1", gateway) as peer,
                DirectDevice(broker.port, "lift-1", device) as lift,
            ):
                peer.accept(load.plain(rng, "gas-1", 4000, start_us))
                peer.wait_acked(rng.randrange(100, 1000))
                lift.say(load.plain(rng, "lift-1", 200, start_us))
                primary.kill()
                wait_logged(ingest, "database-lost")
                standby.promote()
                peer.accept(load.plain(rng, "gas-2", 100, start_us))
                lift.wait_taken()
                peer.wait_drained()
                wait_for(
                    lambda: query(standby.dsn(), "SELECT 1 FROM direct_tally WHERE stored >= 200"), "direct messages"
                )
                assert ingest.log.read_text().count("broker-connected") == 1, "the broker was never left"
                assert ingest.stop() == 0, ingest.tail()
            assert judge([gateway, device], standby.dsn()) == CLEAN
            assert_balanced(standby.dsn())


def test_started_while_the_database_takes_no_writes(
    folder: Path, broker: EmbeddedMosquitto, database: EmbeddedPostgres
) -> None:
    """As in the minutes of a failover: that is a reason to wait, not to end."""
    read_only(database)
    ingest = IngestProcess(folder, broker.port, database.dsn())
    ingest.start()
    try:
        wait_logged(ingest, "database-lost")
        assert ingest.running.poll() is None
        writable(database)
        ingest.wait_connected()
        assert ingest.stop() == 0, ingest.tail()
    finally:
        if ingest.running.poll() is None:
            ingest.kill()
