"""Alerts: filters, pages that neither repeat nor hide, and acknowledgement by exactly one person."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta
from typing import Any

from tests.integration import api_seed
from tests.integration.api_harness import (
    OPERATOR,
    OTHER,
    add_tokens,
    as_,
    database,
    named,
    pages,
    problem,
    running,
    until_async,
    walk,
)
from tests.integration.api_seed import NOW


def test_filters_choose(dsn: str) -> None:
    expected = {
        "": {"gas", "pond", "water", "battery"},
        "state=cleared": {"old"},
        "state=all": {"gas", "pond", "water", "battery", "old"},
        "level_min=3": {"gas", "pond"},
        "domain=water": {"water"},
        "rule=gas-ch4-void&state=all": {"gas", "old"},
        "object=mh-0042": {"pond"},
        "district=庐阳区&state=all": {"gas", "old"},
        "unacked=false": {"pond"},
        "unacked=true": {"gas", "water", "battery"},
        f"from={(NOW - timedelta(minutes=10)).isoformat().replace('+', '%2B')}": {"gas", "pond"},
        f"to={(NOW - timedelta(minutes=10)).isoformat().replace('+', '%2B')}": {"water", "battery"},
        "domain=none": set(),
    }

    async def scenario(names: dict[str, str]) -> None:
        async with running(dsn) as client:
            assert (await client.post(f"/v1/alerts/{names['pond']}/ack", json={})).status_code == 200
            for query, wanted in expected.items():
                answer = (await client.get(f"/v1/alerts?{query}")).json()
                assert {item["id"] for item in answer["items"]} == {names[name] for name in wanted}, query

    with database(dsn) as connection:
        add_tokens(connection)
        names = api_seed.seed_city(connection, NOW)
    asyncio.run(scenario(names))


def test_pages_are_complete_and_stable_while_alerts_arrive(dsn: str, seed: int) -> None:
    chance = random.Random(seed)

    def some(connection: api_seed.Connection, count: int) -> list[str]:
        # Few distinct times, so that ties cross the edges of pages.
        return [
            api_seed.add_alert(connection, "gas-ch4-void", f"g-{chance.random()}", series, chance.randint(1, 4),
                               NOW - timedelta(seconds=10 * chance.randrange(12)))
            for _ in range(count)
        ]  # fmt: skip

    async def scenario(before: list[str]) -> None:
        async with running(dsn) as client:
            seen: list[dict[str, Any]] = []
            async for page in walk(client, "/v1/alerts", limit=7):
                seen += page["items"]
                with database(dsn) as writer:
                    some(writer, 3)
            ids = [item["id"] for item in seen]
            assert len(ids) == len(set(ids))
            assert set(before) <= set(ids)
            order = [(item["raised_at"], item["id"]) for item in seen]
            assert order == sorted(order, reverse=True)

    with database(dsn) as connection:
        add_tokens(connection)
        api_seed.add_rules(connection)
        series = api_seed.add_series(connection, "gas-0001", "ch4_lel")
        before = some(connection, 40)
    asyncio.run(scenario(before))


def test_a_cursor_belongs_to_its_list_and_filters(dsn: str) -> None:
    async def scenario() -> None:
        async with running(dsn) as client:
            cursor = (await client.get("/v1/alerts?limit=1")).json()["next"]
            for path in ("/v1/alerts?level_min=2&", "/v1/devices?", "/v1/losses?", "/v1/dead-letters?"):
                assert named(problem(await client.get(f"{path}cursor={cursor}"), 422, "invalid-request")) == ["cursor"]
            for tampered in (cursor[:-3], cursor[::-1], "A" * 1024):
                problem(await client.get(f"/v1/alerts?cursor={tampered}"), 422, "invalid-request")
            assert len(await pages(client, "/v1/alerts", limit=1)) == 4

    with database(dsn) as connection:
        add_tokens(connection)
        api_seed.seed_city(connection, NOW)
    asyncio.run(scenario())


def test_one_alert_explains_itself(dsn: str) -> None:
    async def scenario(names: dict[str, str]) -> None:
        async with running(dsn) as client:
            alert = (await client.get(f"/v1/alerts/{names['gas']}")).json()
            assert alert["level_name"] == "red"
            assert alert["state"] == "open"
            assert (alert["value"], alert["limit_value"], alert["unit"]) == (55.2, 50.0, "%LEL")
            assert (alert["standard"], alert["edition"], alert["standard_status"]) == ("CJJ 51", "2016", "C")
            assert (alert["lon"], alert["lat"], alert["district"], alert["gateway"]) == (
                117.2272,
                31.8206,
                "庐阳区",
                "gw-01",
            )
            assert "emergency crew" in alert["rule"]["guidance_en"]
            assert [step["kind"] for step in alert["transitions"]] == ["raise"]
            assert alert["transitions"][0]["evidence"]["on_delay_s"] == 30
            old = (await client.get(f"/v1/alerts/{names['old']}")).json()
            assert [step["kind"] for step in old["transitions"]] == ["raise", "clear"]
            assert (old["state"], old["cleared_at"]) == ("cleared", "2026-03-03T22:50:00Z")

    with database(dsn) as connection:
        add_tokens(connection)
        names = api_seed.seed_city(connection, NOW)
    asyncio.run(scenario(names))


def test_values_that_json_cannot_hold_are_null_and_silence_is_in_seconds(dsn: str) -> None:
    async def scenario() -> None:
        async with running(dsn) as client:
            items = {item["object"]: item for item in (await client.get("/v1/alerts")).json()["items"]}
            assert (items["nan"]["value"], items["nan"]["limit_value"]) == (None, None)
            assert (items["quiet"]["unit"], items["quiet"]["rule_kind"], items["quiet"]["value"]) == (
                "s",
                "stale",
                900.0,
            )

    with database(dsn) as connection:
        add_tokens(connection)
        api_seed.add_rules(connection)
        connection.execute("UPDATE rule SET body = body || '{\"kind\": \"stale\"}' WHERE id = 'device-battery-low'")
        series = api_seed.add_series(connection, "any", "ch4_lel", unit="%LEL")
        api_seed.add_alert(connection, "gas-ch4-void", "nan", series, 4, NOW, value=float("nan"), limit=float("inf"))
        api_seed.add_alert(connection, "device-battery-low", "quiet", series, 2, NOW, value=900.0, limit=900.0)
    asyncio.run(scenario())


def test_acknowledging_twice_is_once_and_a_second_person_is_told_who_was_first(dsn: str) -> None:
    async def scenario(alert: str) -> None:
        async with running(dsn) as client:
            path = f"/v1/alerts/{alert}/ack"
            first = (await client.post(path, json={"comment": "  crew is on the way "})).json()
            assert (first["acked_by"], first["ack_comment"]) == ("olga", "crew is on the way")
            assert [step["kind"] for step in first["transitions"]] == ["raise", "ack"]
            note = first["transitions"][1]
            assert (note["actor"], note["comment"], note["level"]) == ("olga", "crew is on the way", 4)
            assert note["at"] == first["acked_at"]
            again = await client.post(path, json={"comment": "something else"})
            assert again.status_code == 200
            assert again.json() == first
            refused = problem(await client.post(path, json={}, headers=as_(OTHER)), 409, "already-acknowledged")
            assert (refused["acked_by"], refused["acked_at"]) == ("olga", first["acked_at"])
            assert "olga" in refused["detail"]
            assert (await client.get(f"/v1/alerts/{alert}")).json() == first

    with database(dsn) as connection:
        add_tokens(connection)
        alert = api_seed.seed_city(connection, NOW)["gas"]
    asyncio.run(scenario(alert))


def test_of_many_at_once_exactly_one_person_acknowledges(dsn: str) -> None:
    async def scenario(alert: str) -> None:
        async with running(dsn) as client:
            path = f"/v1/alerts/{alert}/ack"
            answers = await asyncio.gather(
                *(client.post(path, json={"comment": str(k)}, headers=as_((OPERATOR, OTHER)[k % 2])) for k in range(16))
            )
            winners = {answer.json()["acked_by"] for answer in answers if answer.status_code == 200}
            assert len(winners) == 1
            assert sorted(answer.status_code for answer in answers) == [200] * 8 + [409] * 8
        with database(dsn) as reader:
            rows = reader.execute("SELECT actor, comment FROM alert_transition WHERE kind = 'ack'").fetchall()
            kept = reader.execute("SELECT acked_by, ack_comment FROM alert WHERE id = %s", (alert,)).fetchall()
        assert rows == kept
        assert {row[0] for row in rows} == winners

    with database(dsn) as connection:
        add_tokens(connection)
        alert = api_seed.seed_city(connection, NOW)["gas"]
    asyncio.run(scenario(alert))


def test_an_acknowledgement_waits_for_ingest_and_keeps_the_order_of_ids(dsn: str) -> None:
    """While ingest holds the lock of transitions, no acknowledgement can slip an id in before its rows are visible."""

    async def scenario(alert: str) -> None:
        async with running(dsn) as client:
            with database(dsn) as ingest, ingest.transaction():
                ingest.execute("SELECT lock_transitions()")
                pending = asyncio.create_task(client.post(f"/v1/alerts/{alert}/ack", json={}))
                here = "database = (SELECT oid FROM pg_database WHERE datname = current_database())"
                waiting = f"SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND {here}"
                await until_async(lambda: ingest.execute(waiting).fetchone() is not None, "the acknowledgement waits")
                mine = api_seed.add_transition(ingest, alert, "escalate", 4, NOW, 60.0, 50.0, {})
            steps = (await pending).json()["transitions"]
            assert [step["kind"] for step in steps] == ["raise", "escalate", "ack"]
            assert steps[2]["id"] > mine

    with database(dsn) as connection:
        add_tokens(connection)
        alert = api_seed.seed_city(connection, NOW)["gas"]
    asyncio.run(scenario(alert))
