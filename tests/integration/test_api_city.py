"""Gateways, the summary, dead letters, losses, metrics; and that every query fits the schema."""

from __future__ import annotations

import asyncio
import re
from datetime import timedelta
from typing import Any

from citynet_api import queries
from tests.integration import api_seed
from tests.integration.api_harness import VIEWER, add_tokens, as_, database, pages, running
from tests.integration.api_seed import NOW


def test_gateways_tell_how_their_deliveries_stand(dsn: str) -> None:
    async def scenario() -> None:
        async with running(dsn) as client:
            one, two, three, odd = (await client.get("/v1/gateways")).json()["items"]
            assert (one["id"], one["online"], one["version"], one["clock"], one["full"]) == (
                "gw-01",
                True,
                "0.1.0",
                "synced",
                False,
            )
            assert one["backlog"] == 200
            assert two["spool_fill"] == 120 / 256
            stream = one["streams"][0]
            # 2**53 + 1, which a JavaScript number cannot hold
            assert (stream["epoch"], stream["backlog"], stream["claimed"]) == ("9007199254740993", 200, 5200)
            assert (three["online"], three["backlog"], three["streams"]) == (False, 0, [])
            assert (odd["version"], odd["spool_fill"], odd["full"], odd["spool_bytes"]) == (None, None, None, None)
            assert [item["id"] for item in (await client.get("/v1/gateways?online=false")).json()["items"]] == [
                "gw-03",
                "gw-odd",
            ]
            assert [len(page) for page in await pages(client, "/v1/gateways", limit=3)] == [3, 1]

    with database(dsn) as connection:
        add_tokens(connection)
        api_seed.seed_city(connection, NOW)
        strange: dict[str, Any] = {"version": ["x"], "spool_bytes": -1, "spool_bytes_max": 0, "full": "yes"}
        api_seed.add_gateway(connection, "gw-odd", online=False, at=NOW, status=strange)
        connection.execute(
            "INSERT INTO stream_cursor (gateway, stream, epoch, seq, stored, updated_at)"
            " SELECT 'gw-02', 'alarm', k, 1, 1, now() - k * interval '1 s' FROM generate_series(1, 40) k"
        )
    asyncio.run(scenario())


def test_only_the_most_recent_streams_are_listed_but_all_are_counted(dsn: str) -> None:
    async def scenario() -> None:
        async with running(dsn) as client:
            gateway = (await client.get("/v1/gateways")).json()["items"][0]
            assert [stream["epoch"] for stream in gateway["streams"]] == [str(k) for k in range(1, 21)]
            assert gateway["backlog"] == 40 * 4

    with database(dsn) as connection:
        add_tokens(connection)
        api_seed.add_gateway(connection, "gw-01", online=True, at=NOW)
        connection.execute(
            "INSERT INTO stream_cursor (gateway, stream, epoch, seq, stored, claimed, updated_at)"
            " SELECT 'gw-01', 'telemetry', k, 1, 1, 5, now() - k * interval '1 s' FROM generate_series(1, 40) k"
        )
    asyncio.run(scenario())


def test_the_summary_counts(dsn: str) -> None:
    async def scenario() -> None:
        async with running(dsn, token=VIEWER) as client:
            body = (await client.get("/v1/summary")).json()
            assert body["open_by_level"] == {"red": 1, "orange": 1, "yellow": 1, "blue": 1}
            assert body["open_by_domain"] == {"gas": 1, "drainage": 1, "water": 1, "device": 1}
            assert (body["unacked"], body["gateways_online"], body["gateways_total"]) == (4, 2, 3)
            assert body["last_batch_at"] == "2026-03-04T03:00:00Z"
            told = [
                (event["kind"], event["object"], event["count"], event["detail"]) for event in body["system_events"]
            ]
            assert told == [("gateway_cloned", "gw-01", 2, "newer"), ("broker_dropped", "broker", 12, "dropped")]
            gateway = (await client.get("/v1/gateways")).json()["items"][0]
            assert (gateway["id"], gateway["delay_s"], gateway["cloned_at"] is not None) == ("gw-01", 1.5, True)

    with database(dsn) as connection:
        add_tokens(connection)
        api_seed.seed_city(connection, NOW)
        connection.execute("UPDATE gateway SET delay_s = 1.5, canary_at = now() WHERE id = 'gw-01'")
        connection.execute(
            "INSERT INTO system_event (kind, object, since, last_at, count, detail) VALUES"
            " ('gateway_cloned', 'gw-01', '2026-01-01', now() - interval '2 h', 1, 'older'),"
            " ('gateway_cloned', 'gw-01', '2026-01-02', now() - interval '1 h', 1, 'newer'),"
            " ('broker_dropped', 'broker', '2026-01-01', now() - interval '3 h', 12, 'dropped'),"
            " ('broker_dropped', 'broker', '2026-01-02', now() - interval '3 days', 99, 'long ago')"
        )
    asyncio.run(scenario())


def test_dead_letters_and_losses_are_listed(dsn: str) -> None:
    async def scenario() -> None:
        async with running(dsn) as client:
            found = [item for page in await pages(client, "/v1/dead-letters", limit=4) for item in page]
            assert [item["detail"] for item in found] == [f"n{k}" for k in reversed(range(10))]
            assert found[0]["payload_start"] == "\\xff{" + "x" * 198
            assert (found[0]["payload_bytes"], found[0]["epoch"]) == (502, str(2**62))
            query = "reason=bad-cbor&source=gw-01"
            assert len((await client.get(f"/v1/dead-letters?{query}")).json()["items"]) == 5
            losses = [item for page in await pages(client, "/v1/losses", limit=2, gateway="gw-01") for item in page]
            assert [(item["first"], item["last"], item["count"]) for item in losses] == [
                (31, 40, 10),
                (21, 30, 10),
                (11, 20, 10),
            ]
            assert losses[0]["epoch"] == str(2**62)

    with database(dsn) as connection:
        add_tokens(connection)
        reasons = ("bad-cbor", "bad-time")
        for k in range(10):
            connection.execute(
                "INSERT INTO dead_letter (at, topic, source, stream, epoch, seq, reason, place, detail, payload, digest)"
                " VALUES (%s, 't', 'gw-01', 'telemetry', %s, %s, %s, 'dt', %s, %s, '')",
                (
                    NOW + timedelta(seconds=k // 3),
                    2**62,
                    k,
                    reasons[k % 2],
                    f"n{k}",
                    b"\xff{" + b"x" * 500,
                ),
            )
        for k in (1, 2, 3):
            connection.execute(
                "INSERT INTO loss (gateway, stream, epoch, first, last, reason)"
                " VALUES ('gw-01', 'telemetry', %s, %s, %s, 'cap')",
                (2**62, 10 * k + 1, 10 * k + 10),
            )
    asyncio.run(scenario())


def test_metrics_name_routes_by_template_only(dsn: str) -> None:
    async def scenario() -> None:
        async with running(dsn, token=None) as client:
            for path in ("/v1/alerts/abc", "/v1/alerts/def", "/wp-login.php", "/console/none.js", "/ready"):
                await client.get(path, headers=as_(VIEWER))
            await client.request("BREW", "/v1/alerts")
            text = (await client.get("/metrics")).text
            assert 'citynet_api_requests_total{method="GET",route="/v1/alerts/{alert_id}",status="404"}' in text
            assert 'route="none",status="404"' in text
            assert 'method="other"' in text
            assert not re.search(r"abc|def|wp-login|none\.js|BREW", text)
            assert 'citynet_api_pool{stat="pool_size"}' in text

    with database(dsn) as connection:
        add_tokens(connection)
    asyncio.run(scenario())


def test_every_query_fits_the_schema(dsn: str) -> None:
    """The schema is the contract with ingest: each query is planned against it, so a change of a column shows here."""
    with database(dsn) as connection:
        for name in queries.names():
            text = queries.query(name).decode()
            parameters = dict.fromkeys(re.findall(r"%\((\w+)\)s", text))
            explained = re.sub(r"^(--.*\n)*", "", text)
            connection.execute(b"EXPLAIN " + explained.encode(), parameters)
