"""The tests are tested: with PUBACK and acknowledgement before COMMIT the harness must see a loss, of both classes; without
the mutation, under the same kill, none."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from citynet.reading import Reading
from citynet.runtime.embedded import EmbeddedMosquitto
from tests.faults import load
from tests.faults.harness import CLEAN, DirectDevice, Ledger, LedgerPeer, Report, judge, wait_logged
from tests.ingest import IngestProcess, query, wait_for

# For class A the broker dies as well, and forgets.
KILL = "ingest.before-commit:5"  # the start is the first, the probe the second
CLASSES = ["class-a", "class-b"]


def killed_before_commit(
    folder: Path, broker: EmbeddedMosquitto, dsn: str, seed: int, delivery: str, mutant: str = ""
) -> Report:
    """Ingest dies between what should be COMMIT and PUBACK, with nothing but readings of one class in its hands."""
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
                if delivery == "class-b" and lift.untaken < 20 and len(device.readings) < 100_000:
                    lift.say(load.plain(rng, "lift-1", 10, start_us + len(device.readings) * 1000))
                elif delivery == "class-a" and len(gateway.readings) - peer.acked < 200:
                    peer.accept(load.plain(rng, "gas-1", 40, start_us + len(gateway.readings) * 1000))
            assert process.died() == -9, process.tail()
            if delivery == "class-a":  # what the broker still has would heal it
                peer.hear_out()
                broker.kill()
                broker.start()
                process.start()
                wait_logged(process, "broker-connected", 2)
            else:
                process.start()
                # The broker keeps the order: the last to come.
                lift.say([Reading("lift-1", "plain", load.minutes_ago(1), 0.5)])
                lift.wait_taken()
                last = "SELECT 1 FROM reading WHERE value = 0.5 AND time > now() - interval '5 min'"
                wait_for(lambda: query(dsn, last), "the last message is stored")
            peer.wait_drained()
        assert process.stop() == 0, process.tail()
    finally:
        if process.running.poll() is None:
            process.kill()
    return judge([gateway, device], dsn)


@pytest.mark.parametrize("delivery", CLASSES)
def test_the_harness_catches_puback_before_commit(
    delivery: str, folder: Path, broker: EmbeddedMosquitto, dsn: str, seed: int
) -> None:
    report = killed_before_commit(folder, broker, dsn, seed, delivery, "puback-before-commit")
    assert report.lost > 0, "broker and gateway were told to forget what no commit holds"


def test_the_harness_catches_acknowledge_before_commit(
    folder: Path, broker: EmbeddedMosquitto, dsn: str, seed: int
) -> None:
    report = killed_before_commit(folder, broker, dsn, seed, "class-a", "acknowledge-before-commit")
    assert report.lost > 0, "the gateway was told to forget what no commit holds"


@pytest.mark.parametrize("delivery", CLASSES)
def test_the_program_itself_passes_the_same_schedule(
    delivery: str, folder: Path, broker: EmbeddedMosquitto, dsn: str, seed: int
) -> None:
    assert killed_before_commit(folder, broker, dsn, seed, delivery) == CLEAN
