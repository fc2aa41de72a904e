"""Topology: what stands where and flows where; all or nothing, again and again, mistakes; the simulator's own city."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx

from citynet_sim import registration
from citynet_sim.settings import SimSettings
from citynet_sim.staging import simulation_of
from tests.integration.api_harness import ADMIN, add_tokens, database, named, pages, problem, running

PATH = "/v1/topology"


def asset(name: str, *devices: str, **more: Any) -> dict[str, Any]:
    return {"asset": name, "kind": "manhole", "lon": 117.2, "lat": 31.8, "devices": list(devices), **more}


def edge(name: str, start: str, end: str, **more: Any) -> dict[str, Any]:
    return {"edge": name, "from": start, "to": end, **more}


async def everything(client: httpx.AsyncClient) -> dict[str, list[dict[str, Any]]]:
    found = {}
    for path in ("districts", "assets", "edges"):
        rows = [item for page in await pages(client, f"/v1/{path}", limit=500) for item in page]
        found[path] = sorted(rows, key=lambda row: (row.get("network", ""), row["name"]))
    return found


def test_a_network_is_replaced_whole_and_the_rest_stays(dsn: str) -> None:
    async def scenario() -> None:
        async with running(dsn, token=ADMIN) as client:
            await client.post("/v1/devices", json=[{"device": "d1"}, {"device": "d2"}])
            ring = [[117.0, 31.0], [117.5, 31.0], [117.5, 32.0], [117.0, 31.0]]
            document = {
                "districts": [{"district": "庐阳区", "outline": ring}],
                "assets": [asset("a", "d1", district="庐阳区", label="Corner"), asset("b", "d2"), asset("c")],
                "networks": {
                    "sewer": [edge("s1", "a", "b", length_m=12.5), edge("s2", "b", "c")],
                    "gas": [edge("s1", "c", "a", line=[[117.1, 31.1], [117.2, 31.2]])],
                },
            }
            told = (await client.post(PATH, json=document)).json()
            assert told == {"districts": 1, "assets": 3, "edges": 3, "edges_removed": 0}
            before = await everything(client)
            assert before["districts"] == [{"name": "庐阳区", "label": None, "outline": ring}]
            assert before["assets"][0]["devices"] == ["d1"]
            assert [(e["network"], e["from"], e["to"], e["kind"]) for e in before["edges"]] == [
                ("gas", "c", "a", "pipe"), ("sewer", "a", "b", "pipe"), ("sewer", "b", "c", "pipe"),
            ]  # fmt: skip
            assert (await client.post(PATH, json=document)).json() == told
            assert await everything(client) == before
            # one network again, the way round; a device moves; what is left out stays
            change = {
                "assets": [{"asset": "a", "kind": "well", "devices": []}, asset("c", "d1")],
                "networks": {"sewer": [edge("s1", "b", "a")]},
            }
            assert (await client.post(PATH, json=change)).json()["edges_removed"] == 1
            after = await everything(client)
            assert [(e["network"], e["from"], e["to"]) for e in after["edges"]] == [
                ("gas", "c", "a"),
                ("sewer", "b", "a"),
            ]
            first = after["assets"][0]
            assert (first["kind"], first["label"], first["district"], first["devices"]) == (
                "well",
                "Corner",
                "庐阳区",
                [],
            )
            assert [item["name"] for item in (await client.get("/v1/assets?device=d1")).json()["items"]] == ["c"]
            assert len((await client.get("/v1/edges?network=gas&from=c&to=a")).json()["items"]) == 1
            assert (await client.post(PATH, json={"networks": {"gas": []}})).json()["edges_removed"] == 1

    with database(dsn) as connection:
        add_tokens(connection)
    asyncio.run(scenario())


def test_every_mistake_is_named_and_nothing_is_written(dsn: str) -> None:
    async def scenario() -> None:
        async with running(dsn, token=ADMIN) as client:
            await client.post("/v1/devices", json=[{"device": "d1"}])
            bad = {
                "districts": [{"district": "", "outline": [[0, 0], [1, 1], [2, 2], [3, 3]]}],
                "assets": [asset("two words"), asset("b", lon=181), asset("c", colour="red")],
                "networks": {"sewer": [edge("e", "b", "b"), {"edge": "f", "from": "b"}]},
            }
            assert named(problem(await client.post(PATH, json=bad), 422, "invalid-request")) == [
                "districts[0].district", "assets[0].asset", "assets[1].lon", "assets[2].colour",
                "networks.sewer[0]", "networks.sewer[1].to",
            ]  # fmt: skip
            twice = {"assets": [asset("a", "d1"), asset("a", "d1")], "networks": {"x": [edge("e", "a", "b")] * 2}}
            assert named(problem(await client.post(PATH, json=twice), 422, "invalid-request")) == [
                "assets", "assets.devices", "networks.x",
            ]  # fmt: skip
            unknown = {
                "assets": [asset("a", "d1", "nobody")],
                "networks": {"x": [edge("e", "a", "z"), edge("f", "y", "a")]},
            }
            body = problem(await client.post(PATH, json=unknown), 422, "invalid-request")
            assert [item["detail"] for item in body["errors"]] == [
                "'nobody' at a is no known device; register it first",
                "e.to: 'z' is no known asset",
                "f.from: 'y' is no known asset",
            ]
            problem(
                await client.post(PATH, content=b"{", headers={"Content-Type": "application/json"}),
                400,
                "unreadable-body",
            )
            text = {"Content-Type": "text/csv"}
            problem(await client.post(PATH, content=b"{}", headers=text), 415, "unsupported-media-type")
            assert not any((await everything(client)).values())

    with database(dsn) as connection:
        add_tokens(connection)
    asyncio.run(scenario())


def test_bounds_of_a_document(dsn: str) -> None:
    async def scenario() -> None:
        async with running(
            dsn, token=ADMIN, topology_bytes_max=4096, topology_items_max=2, body_bytes_max=1024
        ) as client:
            three = {"assets": [asset("a"), asset("b")], "networks": {"x": [edge("e", "a", "b")]}}
            problem(await client.post(PATH, json=three), 413, "body-too-large")
            problem(await client.post(PATH, json={"assets": [asset("a", label="x" * 5000)]}), 413, "body-too-large")
            problem(await client.post(PATH, json=[]), 422, "invalid-request")

    with database(dsn) as connection:
        add_tokens(connection)
    asyncio.run(scenario())


def test_the_simulated_city_registers_itself(dsn: str) -> None:
    """The documents of the simulator are taken as they are, twice, and the way down from any manhole ends at the outfall."""
    counts = {"water-meter": 3, "pressure-point": 2, "manhole": 8, "gas-well": 4, "bridge": 1}
    asked = {"scenario": "calm", "city": {"population": 0, "devices": counts}}
    simulation = simulation_of(SimSettings.model_validate(asked), 0)

    async def scenario() -> None:
        async with running(dsn, token=ADMIN) as client:
            document = registration.topology_of(simulation)
            answers = []
            for _ in range(2):
                assert (await client.post("/v1/devices", json=registration.devices(simulation))).status_code == 200
                answers.append((await client.post(PATH, json=document)).json())
            found = await everything(client)
            assert answers[0] == answers[1]
            assert answers[0]["edges"] == len(found["edges"]) == 8 + 3 + (44 + 3 + 2)
            assert len(found["districts"]) == 6
            assert {name for item in found["assets"] for name in item["devices"]} == {
                d.name for d in simulation.city.devices
            }
            down = {e["from"]: e["to"] for e in found["edges"] if e["network"] == "sewer"}
            for manhole in simulation.city.of_kind("manhole"):
                here, steps = manhole.name, 0
                while here in down and steps <= 8:
                    here, steps = down[here], steps + 1
                assert here == "outfall"

    with database(dsn) as connection:
        add_tokens(connection)
    asyncio.run(scenario())
