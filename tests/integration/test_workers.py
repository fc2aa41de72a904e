"""``citynet ingest run --workers N``: several real workers under a supervisor."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from citynet.reading import Reading
from citynet.runtime.embedded import EmbeddedMosquitto
from citynet_ingest.lanes import lane_of
from tests.ingest import GatewayPeer, IngestProcess, now_us, query, some_readings, stored, wait_for

GATEWAYS = ["gw-1", "gw-2", "gw-3", "gw-4"]


class Supervised(IngestProcess):
    """Two workers; what the supervisor and its workers log is in one file."""

    def __init__(self, folder: Path, port: int, dsn: str, settings: dict[str, object] | None = None) -> None:
        folder.mkdir(exist_ok=True)
        super().__init__(folder, port, dsn, {"workers": 2, **(settings or {})})

    def events(self, name: str) -> list[dict[str, object]]:
        whole = self.log.read_text().rpartition("\n")[0]  # the last line may be on its way
        lines = [json.loads(line) for line in whole.splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == name]

    def wait_events(self, name: str, count: int) -> list[dict[str, object]]:
        wait_for(lambda: len(self.events(name)) >= count, f"{count} times {name}, so far:\n{self.tail()}")
        return self.events(name)


@pytest.fixture
def pair(folder: Path, broker: EmbeddedMosquitto, dsn: str) -> Iterator[Supervised]:
    process = Supervised(folder / "pair", broker.port, dsn)
    process.start()
    try:
        process.wait_events("broker-connected", 2)
        yield process
    finally:
        if process.running.poll() is None:
            process.kill()


VOTE = """
[[rule]]
id = "{ident}"
version = 1
kind = "vote"
title_zh = "表决"
title_en = "Vote"
domain = "gas"
metric = "ch4_lel"
unit = "%LEL"
standard = "none"
edition = "1"
status = "D"
direction = "high"
threshold = 10.0
within_s = 3600
wait_s = 1
levels = {{ red = 1 }}
objects = {{ {ident} = {members} }}
guidance_zh = "测试。"
guidance_en = "A test."
"""


def is_alive(pid: object) -> bool:
    try:
        os.kill(int(str(pid)), 0)
    except ProcessLookupError:
        return False
    return True


def test_two_workers_share_the_gateways_and_one_that_is_killed_comes_back(
    pair: Supervised, broker: EmbeddedMosquitto, dsn: str
) -> None:
    assert len({lane_of(gateway) // 4 for gateway in GATEWAYS}) == 2, "gateways of both workers"
    peers = [GatewayPeer(broker.port, gateway) for gateway in GATEWAYS]
    start_us = now_us() - 600_000_000
    for peer in peers:
        peer.send(1, some_readings(20, start_us, device=f"gas-{peer.gateway}"))
        peer.wait_acked(20)
    first = pair.events("worker-started")[0]
    assert first["worker"] == "0-31"
    os.kill(int(str(first["process"])), signal.SIGKILL)
    for peer in peers:
        peer.send(21, some_readings(40, start_us, device=f"gas-{peer.gateway}")[20:])
    for peer in peers:
        peer.wait_acked(40)
        peer.close()
    assert [event["worker"] for event in pair.wait_events("worker-died", 1)] == ["0-31"]
    assert [event["worker"] for event in pair.events("worker-started")] == ["0-31", "32-63", "0-31"]
    rows = [row[:3] for row in stored(dsn)]
    assert len(rows) == len(set(rows)) == 4 * 40
    assert pair.stop() == 0, pair.tail()
    assert not any(is_alive(event["process"]) for event in pair.events("worker-started"))


def test_a_worker_that_cannot_go_on_ends_them_all(
    pair: Supervised, folder: Path, broker: EmbeddedMosquitto, dsn: str
) -> None:
    second = Supervised(folder / "second", broker.port, dsn)
    second.start()
    assert second.died() == 1
    assert "owned by another ingest worker: citynet-ingest-" in second.log.read_text()
    assert not any(is_alive(event["process"]) for event in second.events("worker-started"))
    assert pair.running.poll() is None


def test_an_object_of_two_workers_is_judged_by_neither_and_both_say_so(
    folder: Path, broker: EmbeddedMosquitto, dsn: str
) -> None:
    """Half of its members would be a wrong vote. One worker has them all."""
    low, high = ([gateway for gateway in GATEWAYS if lane_of(gateway) // 4 == side] for side in (0, 1))
    objects = {"torn": [f"gas-{low[0]}", f"gas-{high[0]}"], "whole": [f"gas-{low[0]}"]}
    rules = folder / "votes.toml"
    rules.write_text("".join(VOTE.format(ident=name, members=json.dumps(of)) for name, of in objects.items()))
    settings: dict[str, object] = {"rules": [str(rules)], "shipped_rules": False}
    process = Supervised(folder / "pair", broker.port, dsn, settings)
    for turn in (1, 2):  # what is new to one worker the other learns when it starts
        process.start()
        try:
            process.wait_events("broker-connected", 2 * turn)
            for gateway in GATEWAYS:
                peer = GatewayPeer(broker.port, gateway)
                peer.send(turn, [Reading(f"gas-{gateway}", "ch4_lel", now_us(), 60.0)])
                peer.wait_acked(turn)
                peer.close()
            assert process.stop() == 0, process.tail()
        finally:
            if process.running.poll() is None:
                process.kill()
    told = {str(event["detail"]).partition(",")[0] for event in process.events("rules-spread")}
    assert told == {"rule torn: torn not evaluated"}
    assert query(dsn, "SELECT DISTINCT object FROM alert") == [("whole",)]
    events = query(dsn, "SELECT object FROM system_event WHERE kind = 'rules_spread' ORDER BY 1")
    assert events == [("worker 00-31",), ("worker 32-63",)]
