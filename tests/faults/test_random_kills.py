"""Row 3 of the test matrix, the server's half: random kill -9 of ingest under load, at any moment, again and again."""

from __future__ import annotations

import random
import subprocess
import time
from pathlib import Path

import pytest

from citynet.runtime.embedded import EmbeddedMosquitto
from tests.faults import load
from tests.faults.harness import CLEAN, DirectDevice, Ledger, LedgerPeer, assert_balanced, judge, wait_logged
from tests.ingest import IngestProcess, query, wait_for

LIFE_S_MAX = 2.5  # a start takes 1 to 2 s: about half of the kills hit the start and the recovery
KILLS = 7  # a number, not a time: a slow machine makes fewer in one


def outlive_kills(
    folder: Path, broker: EmbeddedMosquitto, dsn: str, seed: int, *, kills_min: int, seconds: float = 0.0
) -> None:
    """Kill ingest at random moments so often, and for so long, under load; then let it drain and judge."""
    rng = random.Random(seed)
    process = IngestProcess(folder, broker.port, dsn, {"snapshot_s": 0.5})
    gateway, device = Ledger(folder / "gateway.ledger"), Ledger(folder / "device.ledger")
    start_us, kills = load.minutes_ago(60), 0
    process.start()
    try:
        process.wait_connected()
        with LedgerPeer(broker.port, "gw-1", gateway) as peer, DirectDevice(broker.port, "lift-1", device) as lift:
            peer.accept(load.plain(rng, "gas-1", 1, start_us))
            wait_for(lambda: peer.acked > 0, "the first acknowledgement: ingest has subscribed")
            end = time.monotonic() + seconds
            while kills < kills_min or time.monotonic() < end:
                feed_for_a_while(process, rng, peer, lift, start_us)
                process.kill()
                kills += 1
                process.start()
            process.kill()
            connections = process.log.read_text().count('"broker-connected"')
            process.start()
            lift.wait_taken()
            peer.wait_drained()
            wait_logged(process, "broker-connected", connections + 1)  # all may have been stored before the last kill
            said = len(device.readings)
            wait_for(lambda: query(dsn, "SELECT 1 FROM direct_tally WHERE stored >= %s", said), "direct messages")
        assert process.stop() == 0, process.tail()
    finally:
        if process.running.poll() is None:
            process.kill()
    print(f"{kills} kills, {len(gateway.readings)} + {len(device.readings)} readings")
    assert judge([gateway, device], dsn) == CLEAN
    assert_balanced(dsn)


def feed_for_a_while(
    process: IngestProcess, rng: random.Random, peer: LedgerPeer, lift: DirectDevice, start_us: int
) -> None:
    """Feed for a random while. AssertionError if ingest ended by itself."""
    until = time.monotonic() + rng.uniform(0.1, LIFE_S_MAX)
    while time.monotonic() < until:
        behind = len(peer.ledger.readings) - peer.acked
        if behind < 2000:
            peer.accept(load.plain(rng, "gas-1", 50, start_us + len(peer.ledger.readings) * 1000))
        if lift.untaken < 100:
            lift.say(load.plain(rng, "lift-1", 5, start_us + len(lift.ledger.readings) * 1000))
        try:
            code = process.running.wait(0.05)
        except subprocess.TimeoutExpired:
            continue
        raise AssertionError(f"ingest ended by itself with {code}:\n{process.tail()}")


def test_random_kills(folder: Path, broker: EmbeddedMosquitto, dsn: str, seed: int) -> None:
    outlive_kills(folder, broker, dsn, seed, kills_min=KILLS)


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_hundreds_of_random_kills(folder: Path, broker: EmbeddedMosquitto, dsn: str, seed: int) -> None:
    seconds = load.nightly_s(600)
    outlive_kills(folder, broker, dsn, seed, kills_min=round(seconds / 3), seconds=seconds)
