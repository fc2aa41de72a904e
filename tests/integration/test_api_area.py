"""What holds for the series of an area: newest readings, and completeness against what is due."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from citynet_api.sources import floor
from tests.integration import api_rollup, api_seed
from tests.integration.api_harness import ADMIN, add_tokens, as_, database, named, pages, problem, running, walk

HOUR = timedelta(hours=1)


def test_newest_readings_by_area_in_pages(dsn: str) -> None:
    now = datetime.now(UTC)
    with database(dsn) as connection:
        add_tokens(connection)
        for k in range(30):
            where = {"district": f"区{k % 3}", "lon": 117.0 + k / 100, "lat": 31.0, "kind": "gas_well", "unit": "%LEL"}
            series = api_seed.add_series(connection, f"gas-{k:02}", ("ch4_lel", "battery_pct")[k % 2], **where)
            rows = [(now - timedelta(minutes=5 * j + 1), float(100 * k + j), 64 if j == 0 else 0) for j in range(3)]
            api_seed.add_readings(connection, series, rows if k else [])

    async def scenario() -> None:
        async with running(dsn) as client:
            for limit in (1, 7, 500):
                items = [item for page in await pages(client, "/v1/latest", limit=limit) for item in page]
                assert [item["device"] for item in items] == [f"gas-{k:02}" for k in range(30)]
            assert items[0]["latest"] is None
            newest = items[7]["latest"]
            assert (newest["value"], newest["quality"], newest["quality_text"]) == (700.0, 64, "good+late")
            assert 60 <= newest["age_s"] <= (datetime.now(UTC) - now).total_seconds() + 60
            assert datetime.fromisoformat(newest["at"]) == now - timedelta(minutes=1)
            assert (items[7]["district"], items[7]["unit"], items[7]["kind"]) == ("区1", "%LEL", "gas_well")
            for query, wanted in (
                ("district=区2", {k for k in range(30) if k % 3 == 2}),
                ("metric=ch4_lel&district=区0", {0, 6, 12, 18, 24}),
                ("device=gas-11", {11}),
                ("bbox=117.095,30.9,117.125,31", {10, 11, 12}),
                ("bbox=117.1,31,117.1,31", {10}),
                ("bbox=117,31.01,118,32", set()),
            ):
                items = (await client.get(f"/v1/latest?{query}")).json()["items"]
                assert {int(item["device"][4:]) for item in items} == wanted, query
            for query, wrong in (
                *(
                    ("bbox=1,2,3", "bbox"),
                    ("bbox=a,b,c,d", "bbox"),
                    ("bbox=118,31,117,32", "bbox"),
                    ("bbox=0,0,0,91", "bbox"),
                ),
                *(("bbox=nan,0,1,1", "bbox"), ("limit=5001", "limit"), ("cursor=xx", "cursor"), ("zone=1", "zone")),
            ):
                assert named(problem(await client.get(f"/v1/latest?{query}"), 422, "invalid-request")) == [wrong], query

    asyncio.run(scenario())


def city(dsn: str, now: datetime) -> dict[str, int]:
    """Series with different faults over the thirty hours before the full hour `now`."""
    every: dict[str, tuple[str, int, Any]] = {
        # name: district, seconds between readings, whether the reading of an age in seconds is there
        "whole": ("east", 60, lambda age: True),
        "half": ("east", 60, lambda age: age > 12 * 3600),
        "dead": ("west", 600, lambda age: age > 26 * 3600),
        "slow": ("west", 4 * 3600, lambda age: True),
        "gappy": ("west", 300, lambda age: (age // 300) % 4 != 0),
        "surplus": ("west", 30, lambda age: True),
    }
    ids = {}
    with database(dsn) as connection:
        add_tokens(connection)
        for name, (district, step, there) in every.items():
            ids[name] = api_seed.add_series(connection, name, "m", district=district)
            ages = [age for age in range(step // 2, 30 * 3600, step) if there(age)]
            api_seed.add_readings(connection, ids[name], [(now - timedelta(seconds=age), 1.0, 0) for age in ages])
        ids["never"] = api_seed.add_series(connection, "never", "n")
        connection.execute("UPDATE series SET interval_s = 60 WHERE id = %s", (ids["surplus"],))
        connection.execute("UPDATE series SET interval_s = 300 WHERE id = %s", (ids["gappy"],))
        connection.execute("UPDATE series SET first_seen_at = %s", (now - 40 * HOUR,))
    return ids


WANTED = {
    "whole": (1440, 1440, 60.0, "estimated"),
    "half": (720, 1440, 60.0, "estimated"),
    "dead": (0, 144, 600.0, "estimated"),
    "slow": (6, 6, 14_400.0, "estimated"),
    "gappy": (216, 288, 300.0, "registered"),
    "surplus": (2880, 1440, 60.0, "registered"),
    "never": (0, None, None, None),
}


@pytest.mark.parametrize("rolled", [True, False], ids=["rollups", "raw"])
def test_completeness_is_what_is_there_of_what_is_due(dsn: str, rolled: bool) -> None:
    now = floor(datetime.now(UTC), HOUR)
    ids = city(dsn, now)
    if rolled:
        with database(dsn) as connection:
            api_rollup.fill(connection, list(ids.values()))
    span = {"from": (now - 24 * HOUR).isoformat(), "to": (now + timedelta(minutes=5)).isoformat()}

    async def scenario() -> None:
        async with running(dsn, raw_hours_max=200) as client:
            found = {}
            async for page in walk(client, "/v1/completeness", **span, limit=2):
                assert datetime.fromisoformat(page["to_at"]) == now
                found |= {item["device"]: item for item in page["series"]}
            for name, (received, due, interval_s, origin) in WANTED.items():
                item = found[name]
                assert (item["received"], item["expected"], item["interval_from"]) == (received, due, origin), name
                assert item["interval_s"] == (None if interval_s is None else pytest.approx(interval_s))
                assert item["completeness"] == (None if due is None else pytest.approx(min(1, received / due)))
            body = (await client.get("/v1/completeness", params={**span, "by": "district"})).json()
            assert [(group["group"], group["series"], group["unknown"]) for group in body["groups"]] == [
                *(("east", 2, 0), ("west", 4, 0), (None, 1, 1)),
            ]
            assert body["groups"][0]["completeness"] == 0.75
            # What `surplus` has too much does not make up for what `dead` lacks.
            assert body["groups"][1]["completeness"] == pytest.approx((0 + 6 + 216 + 1440) / (144 + 6 + 288 + 1440))
            assert (body["groups"][1]["estimated"], body["groups"][2]["completeness"]) == (2, None)
            assert body["total"]["received"] == sum(received for received, _, _, _ in WANTED.values())
            one = (await client.get("/v1/completeness", params={**span, "by": "metric", "device": "half"})).json()
            assert [(group["group"], group["expected"]) for group in one["groups"]] == [("m", 1440)]

    asyncio.run(scenario())


def test_nothing_is_due_before_a_series_was_there(dsn: str) -> None:
    now = floor(datetime.now(UTC), HOUR)
    ids = city(dsn, now)
    with database(dsn) as connection:
        connection.execute("UPDATE series SET first_seen_at = %s, interval_s = 60", (now - 2 * HOUR,))
        api_rollup.fill(connection, list(ids.values()))

    async def scenario() -> None:
        async with running(dsn) as client:
            asked = {"from": (now - 24 * HOUR).isoformat(), "to": now.isoformat()}
            body = (await client.get("/v1/completeness", params=asked)).json()
            found = {item["device"]: item for item in body["series"]}
            assert (found["never"]["received"], found["never"]["expected"]) == (0, 120)
            assert found["half"]["expected"] == 1440  # its readings are older than its first message: they were due

    asyncio.run(scenario())


def test_bounds_of_completeness_are_named(dsn: str) -> None:
    now = floor(datetime.now(UTC), HOUR)
    city(dsn, now)

    async def scenario() -> None:
        async with running(dsn, completeness_series_max=3) as client:
            for query, wrong in (
                *(("by=district", "by"), ("by=colour", "by"), ("by=metric&limit=3", "limit"), ("limit=501", "limit")),
                *(("from=2020-01-01T00:00Z", "from"), ("from=2999-01-01T00:00Z&to=2999-01-02T00:00Z", "from")),
                ("cursor=xx", "cursor"),
            ):
                answer = await client.get(f"/v1/completeness?{query}")
                assert named(problem(answer, 422, "invalid-request")) == [wrong], query
            assert (await client.get("/v1/completeness?by=district&district=east")).status_code == 200

    asyncio.run(scenario())


def test_an_interval_is_registered_with_its_series(dsn: str) -> None:
    with database(dsn) as connection:
        add_tokens(connection)

    async def scenario() -> None:
        async with running(dsn) as client:
            entry: dict[str, Any] = {"device": "gas-1", "series": [{"metric": "ch4_lel", "interval_s": 2.5}]}
            for _ in range(2):
                assert (await client.post("/v1/devices", json=[entry], headers=as_(ADMIN))).status_code == 200
                series = (await client.get("/v1/devices/gas-1")).json()["series"]
                assert [item["interval_s"] for item in series] == [2.5]
                entry["series"][0].pop("interval_s", None)  # what is absent stays as it was
            assert (await client.get("/v1/series")).json()["items"][0]["interval_s"] == 2.5
            for bad in (0, -1, 1e12, "often"):
                entry["series"][0]["interval_s"] = bad
                refused = await client.post("/v1/devices", json=[entry], headers=as_(ADMIN))
                assert "interval_s" in problem(refused, 422, "invalid-request")["detail"]

    asyncio.run(scenario())
