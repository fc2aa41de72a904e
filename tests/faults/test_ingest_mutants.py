"""The tests are tested, the server's part: ingest with one step of its protocol broken must be caught by the harness, and the
program itself must pass the same schedule. The schedule: ingest dies after a COMMIT and before the broker hears of it, so
everything of that commit comes again."""

from __future__ import annotations

import random
from pathlib import Path

import psycopg
import pytest

from citynet.runtime.embedded import EmbeddedMosquitto
from citynet_ingest import audit
from tests.faults import load
from tests.faults.harness import CLEAN, DirectDevice, Ledger, LedgerPeer, Report, judge, wait_logged
from tests.ingest import IngestProcess, query, wait_for

KILL = "ingest.after-commit:6"  # the start is the first, the probe the second
Verdict = tuple[Report, bool, bool]  # the four counters, whether the books balance, whether ingest survived to the end


def killed_after_commit(
    folder: Path, broker: EmbeddedMosquitto, dsn: str, seed: int, delivery: str, mutant: str = ""
) -> Verdict:
    """Readings of one class, or both, under load; after the kill the same program goes on with what comes again."""
    rng = random.Random(seed)
    start_us = load.minutes_ago(30)
    gateway, device = Ledger(folder / "gateway.ledger"), Ledger(folder / "device.ledger")
    process = IngestProcess(folder, broker.port, dsn)
    process.start(failpoint=KILL, mutant=mutant)
    try:
        process.wait_connected()
        with LedgerPeer(broker.port, "gw-1", gateway) as peer, DirectDevice(broker.port, "lift-1", device) as lift:
            peer.accept(load.plain(rng, "gas-1", 1, start_us))
            peer.wait_acked(1)  # ingest has subscribed
            while process.running.poll() is None:
                if delivery != "class-a" and lift.untaken < 20:
                    lift.say(load.plain(rng, "lift-1", 10, start_us + len(device.readings) * 1000))
                if delivery != "class-b" and len(gateway.readings) - peer.acked < 400:
                    peer.accept(load.plain(rng, "gas-1", 40, start_us + len(gateway.readings) * 1000))
            assert process.died() == -9, process.tail()
            process.start(mutant=mutant)
            lift.wait_taken()
            wait_logged(process, "broker-connected", 2)
            survived = settle(process, peer, dsn, len(device.readings))
    finally:
        if process.running.poll() is None:
            process.kill()
    with psycopg.connect(dsn, autocommit=True) as connection:
        is_balanced = audit.run(connection).is_balanced
    return judge([gateway, device], dsn), is_balanced, survived


def settle(process: IngestProcess, peer: LedgerPeer, dsn: str, said: int) -> bool:
    """Until everything is acknowledged and heard, or ingest has given up."""
    heard = "SELECT 1 FROM direct_tally WHERE stored + duplicates >= %s"
    wait_for(
        lambda: process.running.poll() is not None or (peer.is_drained and (not said or query(dsn, heard, said))),
        "both classes are taken, or ingest gives up",
    )
    return process.running.poll() is None and process.stop() == 0


MUTANTS = {
    "skip-the-cursor-step": "class-a",
    "cursor-in-another-transaction": "class-a",
    "receipts-in-another-transaction": "class-b",
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_harness_catches(mutant: str, folder: Path, broker: EmbeddedMosquitto, dsn: str, seed: int) -> None:
    report, is_balanced, survived = killed_after_commit(folder, broker, dsn, seed, MUTANTS[mutant], mutant)
    print(report, f"balanced: {is_balanced}, survived: {survived}")
    assert report.duplicated > 0, "what was committed came again and was taken for new"


def test_the_program_itself_passes_the_same_schedule(
    folder: Path, broker: EmbeddedMosquitto, dsn: str, seed: int
) -> None:
    assert killed_after_commit(folder, broker, dsn, seed, "both") == (CLEAN, True, True)
