"""Hindsight is exactly once: killed between its findings and COMMIT it finds them again, and records them one time."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psycopg

from citynet.reading import Reading
from citynet.runtime.embedded import EmbeddedMosquitto
from citynet_ingest.hindsight import Hindsight
from citynet_ingest.store import late
from citynet_rules.spec import RuleSet, load_rules
from tests.ingest import GatewayPeer, IngestProcess, now_us, query, wait_for
from tests.integration.api_harness import add_tokens, database, running

RULE = """
[[override]]
rule = "gas-ch4-void"
author = "test"
reason = "test"
date = 2026-01-01
"""
STEPS = "SELECT t.kind, t.level FROM alert_transition t JOIN alert a ON a.id = t.alert_id WHERE a.object = 'well' ORDER BY t.id"


def said(start_us: int, first: int, last: int, value: float) -> list[Reading]:
    return [Reading("well", "ch4_lel", start_us + second * 1_000_000, value) for second in range(first, last + 1, 10)]


def test_killed_with_findings_in_hand(folder: Path, broker: EmbeddedMosquitto, dsn: str) -> None:
    rules = folder / "city.toml"
    rules.write_text(RULE)
    settings = {"rules": [str(rules)], "shipped_rules": False, "hindsight_s": 0.3}
    start_us = now_us() - 1_800_000_000
    worker, peer = IngestProcess(folder, broker.port, dsn, settings), GatewayPeer(broker.port)
    worker.start(failpoint="ingest.hindsight")
    try:
        worker.wait_connected()
        came = [*said(start_us, 0, 90, 1.0), *said(start_us, 600, 700, 1.0), *said(start_us, 200, 300, 60.0)]
        peer.send(1, came)
        assert worker.died() == -9, worker.tail()  # perhaps before the acknowledgement is out
        assert query(dsn, "SELECT count(*) FROM late_span") == [(1,)], "the look was not over"
        assert query(dsn, STEPS) == []
        worker.start()
        wait_for(lambda: not query(dsn, "SELECT 1 FROM late_span"), "hindsight looks again")
        assert query(dsn, STEPS) == [("raise", 4), ("clear", 4)]
        assert worker.stop() == 0
    finally:
        peer.close()
        if worker.running.poll() is None:
            worker.kill()
    asyncio.run(shown(dsn, start_us))


async def shown(dsn: str, start_us: int) -> None:
    """Both times are in the API: when it happened and when it was learned; it is not among what is open."""
    with database(dsn) as connection:
        add_tokens(connection)
    async with running(dsn) as client:
        assert (await client.get("/v1/alerts")).json()["items"] == []
        (alert,) = (await client.get("/v1/alerts?state=all")).json()["items"]
        detail = (await client.get(f"/v1/alerts/{alert['id']}")).json()
    assert alert["state"] == "cleared"
    assert alert["raised_at"] < alert["cleared_at"] < alert["known_at"]
    raised = detail["transitions"][0]
    assert raised["evidence"]["retrospective"] is True
    assert raised["evidence"]["known_us"] > start_us + 1_000_000_000
    assert "in hindsight: happened" in raised["text_en"]
    assert detail["rule"]["override"]["author"] == "test"


def test_more_that_came_meanwhile_is_not_forgotten(dsn: str, folder: Path) -> None:
    """A look at an old revision removes nothing and records nothing."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("INSERT INTO device (name, source) VALUES ('well', 'gw')")
        connection.execute("INSERT INTO series (device_id, metric) SELECT id, 'ch4_lel' FROM device")
        note = "INSERT INTO late_span (series_id, from_us, to_us, readings) SELECT id, 0, 0, 1 FROM series"
        connection.execute(note)
        (span,) = late.due(connection, 0.0, 0.0, 10)
        connection.execute("UPDATE late_span SET revision = revision + 1")
        assert not late.record(connection, span, None, ())
        assert late.waiting(connection) == 1
        (span,) = late.due(connection, 0.0, 0.0, 10)
        assert late.record(connection, span, None, ())
        assert late.waiting(connection) == 0


def test_one_series_that_cannot_be_judged_ends_nothing(dsn: str, folder: Path) -> None:
    rules = folder / "city.toml"
    rules.write_text(RULE)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("INSERT INTO device (name, source) VALUES ('a', 'gw'), ('b', 'gw')")
        connection.execute("INSERT INTO series (device_id, metric) SELECT id, 'ch4_lel' FROM device")
        note = "INSERT INTO late_span (series_id, from_us, to_us, readings) SELECT id, 0, 0, 1 FROM series"
        connection.execute(note)
        broken = RuleSet(load_rules([rules]).rules, derived=(None,))  # type: ignore[arg-type]
        Hindsight(lambda: connection, lambda: broken, 1e-9).look(connection)
        assert late.waiting(connection) == 0


def test_of_two_workers_one_looks_and_the_other_takes_over(dsn: str) -> None:
    """The lock is the session's: whoever loses the database loses it, and nobody looks twice."""
    first, second = (Hindsight(lambda: None, lambda: RuleSet(()), 1e-9) for _ in range(2))  # type: ignore[arg-type,return-value]
    with psycopg.connect(dsn, autocommit=True) as other:
        with psycopg.connect(dsn, autocommit=True) as connection:
            assert first._is_ours(connection)
            assert first._is_ours(connection), "and stays so"
            assert not second._is_ours(other)
        wait_for(lambda: second._is_ours(other), "the second takes over")
