"""Row 13 of the test matrix, the server's part: clocks that are wrong, at a gateway or at the server itself. Order and
exactly-once do not depend on any clock; what cannot be right is a dead letter; who speaks is not called silent for long."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from citynet import topics
from citynet.quality import LATE
from citynet.reading import Reading
from citynet.runtime.embedded import EmbeddedMosquitto
from tests.faults.harness import assert_balanced
from tests.ingest import GatewayPeer, IngestProcess, ingest_running, now_us, query, stored, wait_for

SECOND_US = 1_000_000
HOUR_US = 3_600 * SECOND_US
DAY_US = 24 * HOUR_US
PAST_US, FUTURE_US = 400 * DAY_US, HOUR_US
MARGIN_US = 60 * SECOND_US  # bounds move with the server's clock while the test runs

# What a gateway's clock is off by, from one reading to the next.
GATEWAY_CLOCKS: dict[str, list[int]] = {
    "a-year-behind": [-365 * DAY_US] * 5,
    "a-year-ahead": [365 * DAY_US] * 5,
    "right-only-later": [-now_us()] * 3 + [0] * 3,  # 1970 until the network came up
    "steps": [0, 0, -5 * SECOND_US, 0, -365 * DAY_US, 0, 2 * HOUR_US, -now_us(), 0, -HOUR_US, 0, 0],
    "leaps": [0, 0, 30 * 60 * SECOND_US, 0, 0],  # plausible, so it looks like half an hour without a reading
    "at-the-bounds": [-PAST_US + MARGIN_US, -PAST_US - MARGIN_US, FUTURE_US - MARGIN_US, FUTURE_US + MARGIN_US],
}


def stamped(device: str, offsets: list[int]) -> list[Reading]:
    """Readings a second apart by the true clock, up to now, each stamped by a clock that is off by so much."""
    first_us = now_us() - len(offsets) * SECOND_US
    return [Reading(device, "ch4_lel", first_us + k * SECOND_US + offset, float(k)) for k, offset in enumerate(offsets)]


def expected(readings: list[Reading]) -> list[tuple[str, int, float, int]]:
    """What is stored: the plausible ones, late where they are not newer than all before."""
    newest, rows = -1, []
    for reading in readings:
        if not -PAST_US <= reading.time_us - now_us() <= FUTURE_US:
            continue
        rows.append((reading.name, reading.time_us, reading.value, 0 if reading.time_us > newest else LATE))
        newest = max(newest, reading.time_us)
    return sorted(rows)


@pytest.fixture
def peers(broker: EmbeddedMosquitto) -> Iterator[dict[str, GatewayPeer]]:
    clients = {name: GatewayPeer(broker.port, f"gw-{name}") for name in GATEWAY_CLOCKS}
    yield clients
    for client in clients.values():
        client.close()


def test_clocks_of_gateways(folder: Path, broker: EmbeddedMosquitto, dsn: str, peers: dict[str, GatewayPeer]) -> None:
    """Everything is sent one by one, then all of it again: stored once or a dead letter once, acknowledged in any case."""
    with ingest_running(folder, broker, dsn) as ingest:
        said: list[Reading] = []
        wanted: list[tuple[str, int, float, int]] = []
        for name, peer in peers.items():
            readings = stamped(f"gas-{name}", GATEWAY_CLOCKS[name])
            wanted += expected(readings)
            said += readings
            for seq, reading in enumerate(readings, 1):
                peer.send(seq, [reading])
            peer.wait_acked(len(readings))
            peer.send(1, readings)
            wait_for(lambda peer=peer: any(ack.why == "duplicate" for ack in peer.acks), "the repetition is answered")
        assert stored(dsn) == sorted(wanted)
        dead = query(dsn, "SELECT reason, sum(records * times)::int FROM dead_letter GROUP BY 1")
        assert dead == [("implausible-time", len(said) - len(wanted))]
        silent = query(dsn, "SELECT object, cleared_at IS NULL FROM alert WHERE rule_id LIKE %s", "device-stale-%")
        assert "gas-steps" not in {name for name, _ in silent}, "nobody is silent because a clock was set back"
        assert {name for name, is_open in silent if is_open} == {"gas-a-year-behind"}, (
            "no news for a year, by its times"
        )
        assert ingest.stop() == 0, ingest.tail()
    assert_balanced(dsn)


def test_the_servers_own_clock_steps(
    folder: Path, broker: EmbeddedMosquitto, dsn: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It jumps a year and a half ahead, to 1970, and back to the truth, between any two batches and while a direct device
    speaks. What looks impossible meanwhile is a dead letter; every record is accounted for, and order is kept."""
    rng = random.Random(seed)
    clock = folder / "clock"
    monkeypatch.setenv("CITYNET_TEST_CLOCK", str(clock))
    steps_s = [0, 500 * 86_400, 0, -(now_us() // SECOND_US), 0, 1800, -1800, 0]
    peer = GatewayPeer(broker.port)
    set_clock(clock, 0)
    process = IngestProcess(folder, broker.port, dsn)
    process.start(mutant="stepping-clock")
    try:
        process.wait_connected()
        start_us, plausible, sent = now_us() - HOUR_US // 2, 0, 0
        for step_s in steps_s:
            set_clock(clock, step_s)
            for _ in range(3):
                count = rng.randrange(1, 50)
                peer.send(
                    sent + 1, [Reading("gas-1", "plain", start_us + (sent + k) * 1000, 1.0) for k in range(count)]
                )
                sent += count
                plausible += count if abs(step_s) <= 1800 else 0
            peer.publish(topics.dev("lift-1"), b'{"level": 1}', "")  # stamped by the server's clock
            peer.wait_acked(sent)
        wait_for(lambda: query(dsn, "SELECT 1 FROM direct_tally WHERE stored = %s", len(steps_s)), "direct readings")
        assert process.stop() == 0, process.tail()
    finally:
        peer.close()
        if process.running.poll() is None:
            process.kill()
    found = query(dsn, "SELECT seq, stored, dead_lettered FROM stream_cursor")
    assert found == [(sent, plausible, sent - plausible)]
    rows = [row for row in stored(dsn) if row[0] == "gas-1/plain"]
    assert len({time_us for _, time_us, *_ in rows}) == len(rows) == plausible
    assert not any(quality & LATE for *_, quality in rows)
    assert query(dsn, "SELECT rule_id, object FROM alert") == []
    assert_balanced(dsn)


def set_clock(clock: Path, ahead_s: int) -> None:
    """In one step: ingest reads it all the time."""
    clock.with_suffix(".new").write_text(str(ahead_s))
    os.replace(clock.with_suffix(".new"), clock)
