"""Devices and their registration: idempotent, all or nothing, every mistake named by its place."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from tests.integration import api_seed
from tests.integration.api_harness import ADMIN, add_tokens, database, named, pages, problem, running
from tests.integration.api_seed import NOW

LINES = {"Content-Type": "application/x-ndjson"}


def entry(name: str, **more: Any) -> dict[str, Any]:
    about = {"gateway": "gw-01", "kind": "gas_well", "district": "庐阳区", "lon": 117.2, "lat": 31.8}
    series = [{"metric": "ch4_lel", "unit": "%LEL", "low": 0, "high": 100}, {"metric": "battery_pct", "unit": "%"}]
    return {"device": name, **about, "series": series, **more}


def lines(entries: list[dict[str, Any]]) -> bytes:
    return "\n".join(json.dumps(item) for item in entries).encode()


def table(dsn: str) -> list[tuple[Any, ...]]:
    with database(dsn) as connection:
        return connection.execute(
            "SELECT d.*, s.* FROM device d LEFT JOIN series s ON s.device_id = d.id ORDER BY 1, s.id"
        ).fetchall()


def test_registering_again_changes_nothing_and_both_forms_mean_the_same(dsn: str) -> None:
    async def scenario() -> None:
        async with running(dsn, token=ADMIN) as client:
            document = [entry("gas-2"), entry("gas-1")]
            first = await client.post("/v1/devices", json=document)
            assert first.json() == {"devices": 2, "devices_new": 2, "series": 4, "series_new": 4}
            rows = table(dsn)
            for body, headers in (
                (json.dumps(document).encode(), {"Content-Type": "application/json"}),
                (lines(document) + b"\n\n", LINES),
            ):
                again = await client.post("/v1/devices", content=body, headers=headers)
                assert again.json() == {"devices": 2, "devices_new": 0, "series": 4, "series_new": 0}
                assert table(dsn) == rows
            assert (await client.post("/v1/devices", json=[])).json()["devices"] == 0

    with database(dsn) as connection:
        add_tokens(connection)
    asyncio.run(scenario())


def test_what_was_only_heard_of_becomes_registered_and_what_is_left_out_stays(dsn: str) -> None:
    async def scenario() -> None:
        async with running(dsn, token=ADMIN) as client:
            heard = (await client.get("/v1/devices/gas-1")).json()
            assert (heard["registered"], heard["kind"], heard["gateway"]) == (False, None, "gw-07")
            await client.post("/v1/devices", json=[entry("gas-1")])
            await client.post(
                "/v1/devices", json=[{"device": "gas-1", "kind": "well", "series": [{"metric": "ch4_lel", "high": 50}]}]
            )
            device = (await client.get("/v1/devices/gas-1")).json()
            assert (device["registered"], device["kind"], device["gateway"], device["district"]) == (
                True,
                "well",
                "gw-01",
                "庐阳区",
            )
            ch4 = next(series for series in device["series"] if series["metric"] == "ch4_lel")
            assert (ch4["id"], ch4["unit"], ch4["low"], ch4["high"], ch4["registered"]) == (
                known,
                "%LEL",
                0.0,
                50.0,
                True,
            )
            await client.post("/v1/devices", json=[{"device": "direct-1"}])
            assert (await client.get("/v1/devices/direct-1")).json()["gateway"] == "direct-1"

    with database(dsn) as connection:
        add_tokens(connection)
        known = api_seed.add_series(connection, "gas-1", "ch4_lel", gateway="gw-07")
    asyncio.run(scenario())


def test_every_mistake_is_named_and_nothing_is_written(dsn: str) -> None:
    bad = [
        entry("ok"),
        entry("two words"),
        entry("gas-2", lon=181, lat="north"),
        entry("gas-3", series=[{"metric": "a"}, {"metric": "b", "low": 5, "high": 5}]),
        entry("gas-4", series=[{"metric": "a"}, {"metric": "a"}]),
        entry("gas-5", colour="red"),
        {"gateway": "gw"},
        "text",
        entry("ok"),
        entry("gas-6", kind="a\0b"),
    ]
    places = [
        "[1].device",
        "[2].lon",
        "[2].lat",
        "[3].series[1]",
        "[4]",
        "[5].colour",
        "[6].device",
        "[7]",
        "[9].kind",
        "device",
    ]

    async def scenario() -> None:
        async with running(dsn, token=ADMIN) as client:
            body = problem(await client.post("/v1/devices", json=bad), 422, "invalid-request")
            assert named(body) == places
            assert "'ok' stands there twice" in body["errors"][-1]["detail"]
            good = [entry("ok"), entry("gas-2", lon=181)]
            assert named(
                problem(await client.post("/v1/devices", content=lines(good), headers=LINES), 422, "invalid-request")
            ) == ["line 2: lon"]
            broken = lines([entry("ok")]) + b"\n{"
            assert named(
                problem(await client.post("/v1/devices", content=broken, headers=LINES), 400, "unreadable-body")
            ) == ["line 2"]
            for body_bytes in (b"{", b"\xff", b"[" * 100_000):
                headers = {"Content-Type": "application/json"}
                problem(await client.post("/v1/devices", content=body_bytes, headers=headers), 400, "unreadable-body")
            problem(await client.post("/v1/devices", json={"device": "a"}), 422, "invalid-request")
            problem(
                await client.post("/v1/devices", content=b"[]", headers={"Content-Type": "text/csv"}),
                415,
                "unsupported-media-type",
            )
            for number in (b"1e999", b"NaN"):
                infinite = b'{"device": "a", "lon": ' + number + b"}"
                problem(await client.post("/v1/devices", content=infinite, headers=LINES), 422, "invalid-request")
            assert table(dsn) == []

    with database(dsn) as connection:
        add_tokens(connection)
    asyncio.run(scenario())


def test_a_document_is_bounded(dsn: str) -> None:
    async def scenario() -> None:
        async with running(dsn, token=ADMIN, registration_devices_max=2, registration_bytes_max=2000) as client:
            assert (
                "3 devices"
                in problem(
                    await client.post("/v1/devices", json=[{"device": f"d{k}"} for k in range(3)]),
                    413,
                    "body-too-large",
                )["detail"]
            )
            problem(await client.post("/v1/devices", content=b" " * 2001, headers=LINES), 413, "body-too-large")

    with database(dsn) as connection:
        add_tokens(connection)
    asyncio.run(scenario())


def test_devices_are_found_page_by_page(dsn: str) -> None:
    async def scenario() -> None:
        async with running(dsn, token=ADMIN) as client:
            many = [entry(f"gas-{k:03}", series=[]) for k in range(25)] + [entry("mh_100%", kind="manhole", series=[])]
            problem(await client.post("/v1/devices", json=many), 422, "invalid-request")
            many[-1]["device"] = "mh_1"
            await client.post("/v1/devices", json=many)
            found = await pages(client, "/v1/devices", limit=10)
            assert [len(page) for page in found] == [10, 10, 6]
            assert [item["name"] for page in found for item in page] == sorted(item["device"] for item in many)

            async def names(query: str) -> list[str]:
                return [item["name"] for item in (await client.get(f"/v1/devices?{query}")).json()["items"]]

            assert await names("q=S-00&kind=gas_well&limit=3") == ["gas-000", "gas-001", "gas-002"]
            assert await names("q=_") == ["mh_1"]
            assert await names("q=%25") == []
            assert await names("district=none") == []
            assert len(await names("gateway=gw-01&registered=true")) == 26
            assert await names("registered=false") == []
            problem(await client.get("/v1/devices/unknown"), 404, "not-found")

    with database(dsn) as connection:
        add_tokens(connection)
    asyncio.run(scenario())


def test_a_device_shows_its_newest_readings(dsn: str) -> None:
    async def scenario() -> None:
        async with running(dsn) as client:
            device = (await client.get("/v1/devices/gas-0017")).json()
            assert device["open_alerts"] == 1
            assert device["series"][0]["latest"]["value"] > 50
            with database(dsn) as writer:
                api_seed.add_readings(writer, device["series"][0]["id"], [(NOW, float("nan"), 66)])
                api_seed.add_series(writer, "gas-0017", "silent")
            device = (await client.get("/v1/devices/gas-0017")).json()
            latest = {series["metric"]: series["latest"] for series in device["series"]}
            assert latest["silent"] is None
            assert latest["ch4_lel"] == {
                "at": "2026-03-04T03:00:00Z",
                "value": None,
                "quality": 66,
                "quality_text": "bad+late",
            }
            unregistered = (await client.get("/v1/series?registered=false&device=gas-0017")).json()["items"]
            assert {series["metric"] for series in unregistered} == {"ch4_lel", "silent"}
            found = await pages(client, "/v1/series", limit=2)
            ids = [series["id"] for page in found for series in page]
            assert ids == sorted(set(ids))
            assert len(ids) == 6

    with database(dsn) as connection:
        add_tokens(connection)
        api_seed.seed_city(connection, NOW)
    asyncio.run(scenario())
