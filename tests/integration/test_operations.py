"""What operators see of a running ingest: stages, canaries, the loss ledger."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from citynet import wire
from citynet.notes import LossNote
from citynet.reading import Reading
from citynet.runtime import child
from citynet.runtime.embedded import EmbeddedMosquitto
from tests.ingest import GatewayPeer, ingest_running, now_us, query, some_readings, wait_for
from tests.patience import DEADLINE_S


@pytest.fixture
def peer(broker: EmbeddedMosquitto) -> Iterator[GatewayPeer]:
    client = GatewayPeer(broker.port)
    yield client
    client.close()


def measured(port: int) -> dict[str, float]:
    """The metrics of a process."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=DEADLINE_S) as answer:
        lines = answer.read().decode().splitlines()
    return {
        name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if not line.startswith("#"))
    }


def test_stages_and_canaries_are_measured(folder: Path, broker: EmbeddedMosquitto, peer: GatewayPeer, dsn: str) -> None:
    port = child.free_port()
    with ingest_running(folder, broker, dsn, {"metrics_port": port}):
        peer.send(1, some_readings(5, now_us()))
        peer.wait_acked(5)
        assert query(dsn, "SELECT canary_at, delay_s FROM gateway") == [(None, None)]
        accepted_us = now_us() - 90_000_000
        uptime = [Reading("gw-t", "gateway_uptime_s", accepted_us - k * 10_000_000, 100.0 - k) for k in (1, 0)]
        peer.send(1, uptime, stream=wire.ALARM)
        peer.wait_acked(2, stream=wire.ALARM)
        peer.send(6, some_readings(5, now_us()))
        peer.wait_acked(10)
        at_us, delay_s = query(
            dsn, "SELECT (extract(epoch FROM canary_at) * 1000000)::bigint, delay_s FROM gateway WHERE id = 'gw-t'"
        )[0]
        assert at_us == accepted_us, "the newest one counts, and a batch without any leaves it"
        assert 90 <= delay_s <= 90 + (now_us() - accepted_us) / 1e6
        # An answer is counted as given once it is on its way: the gateway may have it first.
        acks = 'citynet_ingest_stage_seconds_count{stage="ack"}'
        found = wait_for(lambda: (seen := measured(port))[acks] >= 3 and seen, "the answers are counted")
    assert found["citynet_ingest_canary_delay_seconds_count"] == 1
    assert found["citynet_ingest_canary_delay_seconds_sum"] >= 90
    commits = found["citynet_ingest_commits_total"]
    for stage in ("wait", "decode", "plan", "commit"):
        assert found[f'citynet_ingest_stage_seconds_count{{stage="{stage}"}}'] >= 3, stage
    assert found['citynet_ingest_stage_seconds_count{stage="wait"}'] == commits, "one observation a commit"


def losses(config: Path, *words: str) -> Any:
    command = [sys.executable, "-m", "citynet", "losses", *words, "--json", "--config", str(config)]
    done = subprocess.run(command, capture_output=True, check=True, timeout=DEADLINE_S)
    return json.loads(done.stdout)


def test_the_loss_ledger(folder: Path, broker: EmbeddedMosquitto, peer: GatewayPeer, dsn: str) -> None:
    with ingest_running(folder, broker, dsn) as ingest:
        spans = [(1, 4, "segment_damaged"), (5, 5, "segment_damaged"), (6, 15, "spool_regression")]
        for first, last, reason in spans:
            peer.send(first, [], notes=[(0, LossNote(first, last, reason))])
        peer.wait_acked(15)
        wait_for(lambda: len(query(dsn, "SELECT 1 FROM loss")) == 3, "three losses")
        config = ingest.config
    page = losses(config, "list", "--gateway", "gw-t", "--limit", "2")
    assert [(item["first"], item["last"], item["count"]) for item in page["items"]] == [(6, 15, 10), (5, 5, 1)]
    rest = losses(config, "list", "--after", str(page["next"]))
    assert ([item["first"] for item in rest["items"]], rest["next"]) == ([1], None)
    assert losses(config, "list", "--since", "2000-01-01", "--reason", "spool_regression")["items"][0]["count"] == 10
    assert losses(config, "list", "--gateway", "gw-other")["items"] == []
    found = losses(config, "summary")
    assert found["records"] == 15
    assert [(item["reason"], item["losses"], item["records"]) for item in found["items"]] == [
        ("spool_regression", 1, 10),
        ("segment_damaged", 2, 5),
    ]
