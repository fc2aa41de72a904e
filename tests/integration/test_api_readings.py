"""Readings of a series: pages that are exact across ties, and buckets that agree with the readable way to compute them."""

from __future__ import annotations

import asyncio
import math
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.integration import api_seed
from tests.integration.api_harness import add_tokens, database, named, problem, running, walk
from tests.integration.api_seed import NOW

Rows = list[tuple[datetime, float, int]]


def some_readings(seed: int, count: int) -> Rows:
    """Readings with many ties in time, some of them equal in all, some not finite, some bad."""
    chance = random.Random(seed)
    values = [1.0, 2.5, -3.0, float("nan"), float("inf"), 0.0]
    return [
        (NOW - timedelta(seconds=chance.randrange(1, 60)), chance.choice(values), chance.choice([0, 0, 2, 66]))
        for _ in range(count)
    ]


def as_json(rows: Rows) -> list[tuple[str, float | None, int]]:
    """What the api should say of them, in its order: NaN sorts last among the values of one time, as in the database."""

    def place(row: tuple[datetime, float, int]) -> tuple[datetime, bool, float, int]:
        at, value, quality = row
        return at, math.isnan(value), 0.0 if math.isnan(value) else value, quality

    return [
        (at.isoformat().replace("+00:00", "Z"), value if math.isfinite(value) else None, quality)
        for at, value, quality in sorted(rows, key=place)
    ]


def setup(dsn: str, rows: Rows) -> int:
    with database(dsn) as connection:
        add_tokens(connection)
        series = api_seed.add_series(connection, "gas-1", "ch4_lel", unit="%LEL")
        other = api_seed.add_series(connection, "gas-2", "ch4_lel", unit="%LEL")
        api_seed.add_readings(connection, series, rows)
        api_seed.add_readings(connection, other, [(at, 99.0, 0) for at, _, _ in rows[:20]])
    return series


def test_raw_pages_are_exact_for_every_page_size(dsn: str, seed: int) -> None:
    rows = some_readings(seed, 150)
    series = setup(dsn, rows)
    span = {"from": (NOW - timedelta(minutes=5)).isoformat(), "to": NOW.isoformat()}

    async def scenario() -> None:
        async with running(dsn) as client:
            for limit in (1, 2, 7, 150, 500):
                found: list[tuple[str, float | None, int]] = []
                async for page in walk(client, f"/v1/series/{series}/readings", **span, limit=limit):
                    assert len(page["readings"]) <= limit
                    found += [(row["at"], row["value"], row["quality"]) for row in page["readings"]]
                assert found == as_json(rows), limit

    asyncio.run(scenario())


def test_a_page_keeps_its_place_while_readings_arrive(dsn: str) -> None:
    rows: Rows = [(NOW - timedelta(seconds=30), 1.0, 0)] * 5 + [(NOW - timedelta(seconds=20), 2.0, 0)] * 5
    series = setup(dsn, rows)

    async def scenario() -> None:
        async with running(dsn) as client:
            path = f"/v1/series/{series}/readings"
            span = {"from": (NOW - timedelta(minutes=5)).isoformat(), "to": NOW.isoformat(), "limit": 7}
            first = (await client.get(path, params=span)).json()
            with database(dsn) as writer:  # late readings, before the place where the page ended
                api_seed.add_readings(
                    writer, series, [(NOW - timedelta(seconds=40), 7.0, 64), (NOW - timedelta(seconds=20), 1.5, 64)]
                )
            rest = (await client.get(path, params={**span, "cursor": first["next"]})).json()
            assert [row["value"] for row in first["readings"] + rest["readings"]] == [1.0] * 5 + [2.0] * 5
            assert rest["next"] is None

    asyncio.run(scenario())


def test_words_for_quality_and_null_for_nan(dsn: str) -> None:
    series = setup(dsn, [(NOW, float("nan"), 2), (NOW + timedelta(seconds=1), 4.5, 65)])

    async def scenario() -> None:
        async with running(dsn) as client:
            query = {"from": NOW.isoformat(), "to": (NOW + timedelta(hours=1)).isoformat()}
            body = (await client.get(f"/v1/series/{series}/readings", params=query)).json()
            assert body["readings"] == [
                {"at": "2026-03-04T03:00:00Z", "value": None, "quality": 2, "quality_text": "bad"},
                {"at": "2026-03-04T03:00:01Z", "value": 4.5, "quality": 65, "quality_text": "uncertain+late"},
            ]
            assert (body["bucket"], body["bucket_s"], body["buckets"], body["series"]["unit"]) == (
                "raw",
                None,
                [],
                "%LEL",
            )

    asyncio.run(scenario())


def oracle(rows: Rows, width_s: int) -> list[dict[str, Any]]:
    """Buckets computed the readable way; each time occurs once, so first and last are without doubt."""
    origin = datetime(2001, 1, 1, tzinfo=UTC)
    groups: dict[datetime, Rows] = {}
    for row in sorted(rows):
        start = origin + timedelta(seconds=(row[0] - origin) // timedelta(seconds=width_s) * width_s)
        groups.setdefault(start, []).append(row)
    found = []
    for start, members in groups.items():
        values = [value for _, value, quality in members if math.isfinite(value) and quality & 3 < 2]
        found.append(
            {
                "at": start.isoformat().replace("+00:00", "Z"),
                "count": len(members),
                "usable": len(values),
                "min": min(values, default=None),
                "max": max(values, default=None),
                "avg": sum(values) / len(values) if values else None,
                "first": values[0] if values else None,
                "last": values[-1] if values else None,
            }
        )
    return found


def test_buckets_agree_with_the_readable_way(dsn: str, seed: int) -> None:
    chance = random.Random(seed)
    values = [1.0, 2.5, -4.0, 8.0, float("nan"), float("-inf")]
    times = chance.sample(range(7200), 300)
    rows = [(NOW - timedelta(seconds=t + 0.5), chance.choice(values), chance.choice([0, 1, 2, 3, 64])) for t in times]
    rows.append((NOW - timedelta(seconds=7100.25), float("nan"), 2))
    series = setup(dsn, rows)
    span = {"from": (NOW - timedelta(hours=2, seconds=1)).isoformat(), "to": NOW.isoformat()}

    async def scenario() -> None:
        async with running(dsn) as client:
            for bucket, width_s in (("10s", 10), ("1m", 60), ("7m", 420), ("1h", 3600), ("1d", 86_400)):
                body = (await client.get(f"/v1/series/{series}/readings", params={**span, "bucket": bucket})).json()
                assert body["bucket_s"] == width_s
                wanted = oracle(rows, width_s)
                assert len(body["buckets"]) == len(wanted)
                for got, want in zip(body["buckets"], wanted, strict=True):
                    assert got.pop("avg") == (None if want["avg"] is None else approximately(want["avg"]))
                    want.pop("avg")
                    assert got == want, bucket
            automatic = (
                await client.get(f"/v1/series/{series}/readings", params={**span, "bucket": "auto", "points": 100})
            ).json()
            assert automatic["bucket"] == "2m"
            assert len(automatic["buckets"]) <= 62

    asyncio.run(scenario())


def approximately(value: float) -> Any:
    return pytest.approx(value, rel=1e-12)


def test_ranges_and_limits(dsn: str) -> None:
    series = setup(dsn, [(NOW + timedelta(seconds=k), 1.0, 0) for k in range(60)])

    async def scenario() -> None:
        async with running(dsn, points_max=50) as client:
            path = f"/v1/series/{series}/readings"
            body = (await client.get(path)).json()
            assert datetime.fromisoformat(body["to_at"]) - datetime.fromisoformat(body["from_at"]) == timedelta(hours=1)
            month = {"from": "2026-03-01T00:00Z", "to": "2026-04-01T00:00Z"}
            too_fine = problem(await client.get(path, params={**month, "bucket": "1h"}), 422, "invalid-request")
            assert "take 1d or coarser" in too_fine["detail"]
            assert (await client.get(path, params={**month, "bucket": "auto"})).json()["bucket"] == "1d"
            ages = {"from": "1970-01-01T00:00Z", "to": "2026-04-01T00:00Z", "bucket": "auto"}
            assert named(problem(await client.get(path, params=ages), 422, "invalid-request")) == ["from"]
            problem(
                await client.get(path, params={"from": "2026-04-01T00:00Z", "to": "2026-03-01T00:00Z"}),
                422,
                "invalid-request",
            )
            problem(await client.get("/v1/series/999999/readings"), 404, "not-found")

    asyncio.run(scenario())
