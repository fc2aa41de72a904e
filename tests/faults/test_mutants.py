"""The tests are tested: with PUBACK and acknowledgement before COMMIT the harness must see a loss, of both classes; without
the mutation, under the same kill, none."""

from __future__ import annotations

import random
from pathlib import Path

from citynet.runtime.embedded import EmbeddedMosquitto
from tests.faults import load
from tests.faults.harness import CLEAN, DirectDevice, Ledger, LedgerPeer, Report, judge
from tests.ingest import IngestProcess, query, wait_for

KILL = "ingest.before-commit:5"


def killed_before_commit(
    folder: Path, broker: EmbeddedMosquitto, dsn: str, seed: int, mutant: str
) -> tuple[Report, Report]:
    """Ingest dies between what should be COMMIT and PUBACK; the reports of class A and of class B."""
    rng = random.Random(seed)
    start_us = load.minutes_ago(10)
    gateway, device = Ledger(folder / "gateway.ledger"), Ledger(folder / "device.ledger")
    process = IngestProcess(folder, broker.port, dsn)
    process.start(failpoint=KILL, mutant=mutant)
    try:
        process.wait_connected()
        with LedgerPeer(broker.port, "gw-1", gateway) as peer, DirectDevice(broker.port, "lift-1", device) as lift:
            peer.accept(load.plain(rng, "gas-1", 1, start_us))
            wait_for(lambda: peer.acked == 1, "the first acknowledgement: ingest has subscribed")
            while process.running.poll() is None:  # both kinds are in every commit, the fatal one included
                if lift.untaken < 20 and len(peer.ledger.readings) - peer.acked < 200:
                    lift.say(load.plain(rng, "lift-1", 10, start_us + len(device.readings) * 1000))
                    peer.accept(load.plain(rng, "gas-1", 40, start_us + len(gateway.readings) * 1000))
            assert process.died() == -9, process.tail()
            process.start()
            lift.wait_taken()
            peer.wait_drained()
            lift.say(load.plain(rng, "lift-1", 1, start_us + 3_600_000_000))
            last = start_us + 3_600_000_000
            wait_for(
                lambda: query(dsn, "SELECT 1 FROM reading WHERE time = to_timestamp(%s::numeric / 1000000)", last),
                "what was queued is stored: it comes in order",
            )
            lift.wait_taken()
        assert process.stop() == 0, process.tail()
    finally:
        if process.running.poll() is None:
            process.kill()
    everything = judge([gateway, device], dsn)
    alone = judge([device], dsn)
    return Report(everything.lost - alone.lost, 0, everything.unexpected, everything.duplicated), alone


def test_the_harness_catches_puback_before_commit(
    folder: Path, broker: EmbeddedMosquitto, dsn: str, seed: int
) -> None:
    class_a, class_b = killed_before_commit(folder, broker, dsn, seed, mutant="puback-before-commit")
    assert class_b.lost > 0, "the broker was told to forget what no commit holds"
    assert class_a.lost > 0, "the gateway was told to trim what no commit holds"


def test_the_program_itself_passes_the_same_schedule(
    folder: Path, broker: EmbeddedMosquitto, dsn: str, seed: int
) -> None:
    class_a, class_b = killed_before_commit(folder, broker, dsn, seed, mutant="")
    assert class_a == CLEAN
    assert class_b.lost == 0
