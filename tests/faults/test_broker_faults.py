"""Row 7 of the test matrix: the broker dies without having kept anything; the broker's queue overflows.

What holds, and what does not: class A loses nothing, because a gateway keeps what was not acknowledged. Class B has only the
broker's word, so a broker that dies or overflows may lose what it took; that is reported (a `session-lost` warning and
metric; the broker's own counter of dropped messages), and nothing is invented or doubled.
"""

from __future__ import annotations

import random
import re
import urllib.request
from pathlib import Path

from citynet.runtime.child import free_port
from citynet.runtime.embedded import EmbeddedMosquitto
from citynet_ingest.lanes import LANES
from tests.faults import load
from tests.faults.broker_watch import DROPPED, BrokerWatch
from tests.faults.harness import CLEAN, DirectDevice, Ledger, LedgerPeer, Report, assert_balanced, judge, wait_logged
from tests.ingest import ingest_running, query, stored, wait_for

KILLS = 3


def test_broker_killed_under_load(folder: Path, broker: EmbeddedMosquitto, dsn: str, seed: int) -> None:
    rng = random.Random(seed)
    ledger = Ledger(folder / "gateway.ledger")
    with ingest_running(folder, broker, dsn) as ingest, LedgerPeer(broker.port, "gw-1", ledger, window=8) as peer:
        for kill in range(1, KILLS + 1):
            peer.accept_until(load.plain(rng, f"gas-{kill}", 3000, load.minutes_ago(10)), rng.randrange(200, 1500))
            broker.kill()
            broker.start()
            wait_logged(ingest, "broker-connected", kill + 1)
        peer.wait_drained()
        assert ingest.stop() == 0, ingest.tail()
        assert ingest.log.read_text().count('"session-lost"') == KILLS, "a lost session is said once each time"
    assert judge([ledger], dsn) == CLEAN
    assert_balanced(dsn)


def test_session_lost_while_ingest_was_down_is_reported(folder: Path, broker: EmbeddedMosquitto, dsn: str) -> None:
    """Nobody was connected when the broker forgot the session; the next start must notice all the same."""
    with ingest_running(folder, broker, dsn) as ingest:
        assert "session-lost" not in ingest.log.read_text(), "the very first session has nothing to lose"
        assert ingest.stop() == 0
        broker.kill()
        broker.start()
        ingest.start()
        wait_for(lambda: ingest.log.read_text().count("broker-connected") == 2, "ingest connects again")
        wait_for(lambda: '"session-lost"' in ingest.log.read_text(), "the lost session is reported")
        assert ingest.stop() == 0, ingest.tail()


def test_a_broker_that_loses_its_sessions(folder: Path, broker: EmbeddedMosquitto, dsn: str, seed: int) -> None:
    """Ingest is away, the broker takes messages for it and restarts without persistence: the gateway's come again, the
    device's are gone. Ingest says so in its log and in a counter."""
    rng = random.Random(seed)
    start_us = load.minutes_ago(10)
    gateway, device = Ledger(folder / "gateway.ledger"), Ledger(folder / "device.ledger")
    port = free_port()
    with (
        ingest_running(folder, broker, dsn, {"metrics_port": port}) as ingest,
        LedgerPeer(broker.port, "gw-1", gateway) as peer,
        DirectDevice(broker.port, "lift-1", device) as lift,
    ):
        peer.accept(load.plain(rng, "gas-1", 100, start_us))
        lift.say(load.plain(rng, "lift-1", 10, start_us))
        lift.wait_taken()
        peer.wait_drained()
        wait_for(lambda: len(stored(dsn)) == 110, "ingest takes both kinds")
        assert lost_sessions(port) == 0
        assert ingest.stop() == 0, ingest.tail()
        peer.accept(load.plain(rng, "gas-1", 500, start_us + 1_000_000))
        lift.say(load.plain(rng, "lift-1", 50, start_us + 1_000_000))
        lift.wait_taken()
        broker.stop()
        broker.start()
        ingest.start()
        peer.wait_drained()
        wait_logged(ingest, "session-lost")  # counted by then; the gateway's lane may be there before the others
        assert lost_sessions(port) == LANES
        assert ingest.stop() == 0, ingest.tail()
        assert ingest.log.read_text().count('"session-lost"') == 1
    assert judge([gateway], dsn).lost == 0
    assert judge([gateway, device], dsn) == Report(lost=50, recovered=0, unexpected=0, duplicated=0)
    assert_balanced(dsn)


def lost_sessions(port: int) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        text = answer.read().decode()
    return float(re.search(r"^citynet_ingest_sessions_lost_total (\S+)$", text, re.M)[1])  # type: ignore[index]


def test_queue_overflow(folder: Path, dsn: str, seed: int) -> None:
    """While ingest is down the broker keeps 50 messages; a gateway's loss is healed by its resending, a device's is final."""
    rng = random.Random(seed)
    start_us = load.minutes_ago(10)
    gateway, device = Ledger(folder / "gateway.ledger"), Ledger(folder / "device.ledger")
    with (
        EmbeddedMosquitto(folder / "broker", queued_max=50) as broker,
        ingest_running(folder, broker, dsn) as ingest,
        BrokerWatch(broker.port) as watch,
        LedgerPeer(broker.port, "gw-1", gateway, window=40, batch=5) as peer,
        DirectDevice(broker.port, "lift-1", device) as lift,
    ):
        peer.accept(load.plain(rng, "gas-1", 5, start_us))
        lift.say(load.plain(rng, "lift-1", 5, start_us))
        peer.wait_drained()
        wait_for(lambda: len(stored(dsn)) == 10, "ingest takes both kinds")
        wait_for(
            lambda: query(dsn, "SELECT value FROM broker_counter") == [(0,)], "ingest knows where the counter stands"
        )
        ingest.kill()
        lift.say(load.plain(rng, "lift-1", 200, start_us + 1_000_000))
        peer.accept(load.plain(rng, "gas-1", 1000, start_us + 1_000_000))
        lift.wait_taken()
        wait_for(lambda: watch.values.get(DROPPED, 0) > 0, "the broker counts what it drops")
        ingest.start()
        peer.wait_drained()
        watch.wait_settled()
        wait_for(
            lambda: query(dsn, "SELECT value FROM broker_counter") == [(watch.values[DROPPED],)],
            "the counter is read again",
        )
        # What the broker kept of the device came before what the gateway sent after the restart.
        assert ingest.stop() == 0, ingest.tail()
        dropped = watch.values[DROPPED]
    assert judge([gateway], dsn).lost == 0
    report = judge([gateway, device], dsn)
    print(f"{report}, the broker says that it dropped {dropped}")
    assert 0 < report.lost <= dropped, "a loss of class B, and never more than the broker's own counter says"
    told = query(dsn, "SELECT sum(count) FROM system_event WHERE kind = 'broker_dropped'")
    assert told == [(dropped,)], "people are told of exactly what the broker counts, although ingest was down meanwhile"
    assert '"broker-dropped"' in ingest.log.read_text()
    assert (report.duplicated, report.unexpected) == (0, 0)
    assert_balanced(dsn)
