"""A rule that throws on data is taken out, counted and told; readings and the other rules go on, and its open alert stays."""

from __future__ import annotations

import signal
from pathlib import Path

from citynet.reading import Reading
from citynet.runtime.embedded import EmbeddedMosquitto
from tests.ingest import GatewayPeer, IngestProcess, now_us, query, stored, wait_for

RULE = """
[[rule]]
id = "{id}"
version = 1
kind = "limit"
domain = "gas"
metric = "ch4_lel"
unit = "%LEL"
direction = "high"
levels = {{ red = {limit} }}
standard = "s"
edition = "1"
status = "D"
title_zh = "x"
title_en = "x"
guidance_zh = "看"
guidance_en = "Look."
"""
ALERTS = "SELECT rule_id, object, cleared_at IS NULL FROM alert ORDER BY rule_id, object"


def test_a_rule_that_throws_is_isolated(folder: Path, broker: EmbeddedMosquitto, dsn: str) -> None:
    path = folder / "rules.toml"
    path.write_text(RULE.format(id="bad", limit=10.0) + RULE.format(id="good", limit=10.0))
    settings = {"rules": [str(path)], "shipped_rules": False, "snapshot_s": 0.2}
    worker, peer = IngestProcess(folder, broker.port, dsn, settings), GatewayPeer(broker.port)
    worker.start(mutant="throwing-rule")
    seq, said = 0, []

    def say(device: str, value: float) -> None:
        nonlocal seq
        seq += 1
        said.append((f"{device}/ch4_lel", value))
        peer.send(seq, [Reading(device, "ch4_lel", now_us(), value)])
        peer.wait_acked(seq)

    try:
        worker.wait_connected()
        say("well", 20.0)
        assert query(dsn, ALERTS) == [("bad", "well", True), ("good", "well", True)]
        say("pit", 13.0)
        assert query(dsn, ALERTS) == [("bad", "well", True), ("good", "pit", True), ("good", "well", True)]
        ((kind, rule, detail),) = query(dsn, "SELECT kind, object, detail FROM system_event")
        assert (kind, rule) == ("rule_failed", "bad")
        assert "thirteen" in detail
        say("well", 1.0)
        assert query(dsn, ALERTS) == [("bad", "well", True), ("good", "pit", True), ("good", "well", False)]
        assert query(dsn, "SELECT id FROM rule WHERE armed_at IS NOT NULL") == [("good",)]
        before = worker.log.read_text().count("rules-armed")
        worker.running.send_signal(signal.SIGHUP)
        wait_for(lambda: worker.log.read_text().count("rules-armed") > before, "rules are armed anew")
        say("well", 21.0)
        assert ("bad", "well", True) in query(dsn, ALERTS), "the reload armed it again"
        assert sorted((name, value) for name, _, value, _ in stored(dsn)) == sorted(said), "every reading, once"
        assert worker.stop() == 0, worker.tail()
    finally:
        peer.close()
        if worker.running.poll() is None:
            worker.kill()
