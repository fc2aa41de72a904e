"""Charts of any span: from raw readings or rollups, the same figures; spikes survive; bounds answer with a problem."""

from __future__ import annotations

import asyncio
import math
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.integration import api_rollup, api_seed
from tests.integration.api_harness import add_tokens, database, named, problem, running
from tests.integration.api_seed import NOW
from tests.integration.test_api_readings import Rows, oracle

DAY = timedelta(days=1)
MINUTES_3 = timedelta(minutes=3)
WAITING = b"SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


def irregular(seed: int, count: int, span: timedelta) -> Rows:
    """Readings at distinct random times before NOW: some bad, some not finite, some late."""
    chance = random.Random(seed)
    values = [1.0, 2.5, -4.0, 8.0, 0.0, float("nan"), float("-inf")]
    steps = chance.sample(range(1, int(span.total_seconds() * 10)), count)
    return [
        (NOW - timedelta(seconds=step / 10), chance.choice(values), chance.choice([0, 0, 1, 2, 3, 64, 66]))
        for step in steps
    ]


def seeded(dsn: str, *all_rows: Rows, rolled_since: datetime | None = api_rollup.EVER) -> list[int]:
    """One series for each list of readings, their rollups filled."""
    with database(dsn) as connection:
        add_tokens(connection)
        ids = []
        for k, rows in enumerate(all_rows):
            ids.append(api_seed.add_series(connection, f"gas-{k}", "ch4_lel", unit="%LEL"))
            api_seed.add_readings(connection, ids[-1], rows)
        if rolled_since is not None:
            api_rollup.fill(connection, ids, rolled_since)
    return ids


def agree(got: list[dict[str, Any]], want: list[dict[str, Any]]) -> None:
    assert [bucket["at"] for bucket in got] == [bucket["at"] for bucket in want]
    for one, other in zip(got, want, strict=True):
        mean = None if other["avg"] is None else pytest.approx(other["avg"], rel=1e-9, abs=1e-12)
        assert one == {**other, "avg": mean}


def span_of(days: float) -> dict[str, str]:
    return {"from": (NOW - timedelta(days=days)).isoformat(), "to": NOW.isoformat()}


@pytest.mark.parametrize("since", [api_rollup.EVER, NOW - timedelta(hours=31), None], ids=["all", "younger", "none"])
def test_every_width_gives_what_raw_readings_give_whatever_it_is_read_from(
    dsn: str, seed: int, since: datetime | None
) -> None:
    rows = irregular(seed, 700, 3 * DAY)
    (series,) = seeded(dsn, rows, rolled_since=since)
    sources = {"7s": "raw", "90s": "raw", "1m": "minute", "7m": "minute", "1h": "hour", "5h": "hour", "1d": "hour"}
    widths = {"7s": 7, "90s": 90, "1m": 60, "7m": 420, "1h": 3600, "5h": 18_000, "1d": 86_400}

    async def scenario() -> None:
        async with running(dsn, points_max=50_000) as client:
            for bucket, source in sources.items():
                for days in (0.02, 0.3, 1.31, 2.7):
                    asked = {**span_of(days), "bucket": bucket}
                    body = (await client.get(f"/v1/series/{series}/readings", params=asked)).json()
                    assert body["source"] == source, bucket
                    first, last = (datetime.fromisoformat(body[key]) for key in ("from_at", "to_at"))
                    assert first <= NOW - timedelta(days=days) < first + timedelta(seconds=widths[bucket])
                    assert last - timedelta(seconds=widths[bucket]) < NOW <= last
                    agree(body["buckets"], oracle([row for row in rows if first <= row[0] < last], widths[bucket]))

    asyncio.run(scenario())


def test_first_and_last_of_readings_at_one_time_do_not_depend_on_the_source(dsn: str) -> None:
    at = NOW - timedelta(seconds=30)
    rows: Rows = [(at, value, quality) for value, quality in ((2.0, 0), (7.0, 64), (1.0, 64), (3.0, 0))]
    rolled, raw = seeded(dsn, rows, rows, rolled_since=None)
    with database(dsn) as connection:
        api_seed.add_readings(connection, rolled, [(NOW, 0.0, 0)])
        api_rollup.fill(connection, [rolled])

    async def scenario() -> None:
        async with running(dsn) as client:
            for series in (rolled, raw):
                asked = {**span_of(0.01), "bucket": "1m"}
                (bucket,) = (await client.get(f"/v1/series/{series}/readings", params=asked)).json()["buckets"]
                assert (bucket["first"], bucket["last"], bucket["count"]) == (1.0, 7.0, 4)

    asyncio.run(scenario())


def test_auto_is_raw_where_readings_are_few_and_else_keeps_to_the_points_and_the_spike(dsn: str) -> None:
    dense: Rows = [(NOW - timedelta(seconds=10 * k + 5), math.sin(k / 50), 0) for k in range(3 * 8640)]
    dense[17_777] = (dense[17_777][0], 99.0, 0)
    sparse: Rows = [(NOW - timedelta(hours=4 * k + 1), float(k), 0) for k in range(18)]
    dense_id, sparse_id = seeded(dsn, dense, sparse)

    async def scenario() -> None:
        async with running(dsn) as client:
            for days, points, bucket, source in (
                *(
                    (3, 300, "15m", "minute"),
                    (3, 50, "2h", "hour"),
                    (0.1, 300, "30s", "raw"),
                    (0.1, 1000, "raw", "raw"),
                ),
                *((30, 1000, "1h", "hour"), (365, 100, "7d", "hour")),
            ):
                asked = {**span_of(days), "bucket": "auto", "points": points}
                body = (await client.get(f"/v1/series/{dense_id}/readings", params=asked)).json()
                assert (body["bucket"], body["source"]) == (bucket, source)
                assert 0 < len(body["buckets"]) + len(body["readings"]) <= points
                assert bool(body["readings"]) == (bucket == "raw")
                if days >= 3:
                    assert max(row["max"] for row in body["buckets"]) == 99.0
                    assert sum(row["count"] for row in body["buckets"]) == len(dense)
            asked = {**span_of(3), "bucket": "auto", "points": 300}
            body = (await client.get(f"/v1/series/{sparse_id}/readings", params=asked)).json()
            assert body["bucket"] == "raw"
            assert [row["value"] for row in body["readings"]] == [float(k) for k in reversed(range(18))]
            asked["points"] = 10
            assert (await client.get(f"/v1/series/{sparse_id}/readings", params=asked)).json()["bucket"] == "12h"

    asyncio.run(scenario())


def test_when_raw_readings_are_gone_auto_takes_what_is_kept(dsn: str) -> None:
    rows: Rows = [(NOW - timedelta(seconds=30 * k + 10), float(k), 0) for k in range(8400)]
    (series,) = seeded(dsn, rows)
    old = NOW - 2 * DAY
    with database(dsn) as connection:
        connection.execute("DELETE FROM reading WHERE time < %s", (old,))
        kept = [row for row in rows if row[0] >= NOW - timedelta(days=2.5)]

    async def scenario() -> None:
        async with running(dsn) as client:
            path, asked = f"/v1/series/{series}/readings", {**span_of(2.5), "bucket": "auto", "points": 5000}
            body = (await client.get(path, params=asked)).json()
            assert (body["bucket"], body["source"]) == ("1m", "minute")
            assert sum(row["count"] for row in body["buckets"]) == len(kept)
            with database(dsn) as connection:
                connection.execute("DELETE FROM rollup_minute WHERE time < %s", (old,))
            body = (await client.get(path, params=asked)).json()
            assert (body["bucket"], body["source"]) == ("1h", "hour")
            first = datetime.fromisoformat(body["from_at"])
            assert sum(row["count"] for row in body["buckets"]) == sum(at >= first for at, _, _ in rows)
            with database(dsn) as connection:  # a series that fell silent so long ago that nothing raw is left
                connection.execute("DELETE FROM reading")
            body = (await client.get(path, params=asked)).json()
            assert sum(row["count"] for row in body["buckets"]) >= len(kept) - 120

    asyncio.run(scenario())


@pytest.mark.parametrize("is_booked", [False, True])
def test_what_minutes_left_out_and_retention_took_is_told_by_hours_only(dsn: str, is_booked: bool) -> None:
    """Of a slow series; booked: a late reading came for the time that is gone, and stands there alone."""
    rows: Rows = [(NOW - timedelta(minutes=7 * k + 1), float(k), 0) for k in range(600)]
    old = (NOW - timedelta(days=2)).replace(minute=0, second=0, microsecond=0)
    straggler = (old - timedelta(hours=9, minutes=3), 5.0, 64)
    rows += [straggler] if is_booked else []
    (series,) = seeded(dsn, rows)
    with database(dsn) as connection:
        connection.execute("DELETE FROM reading WHERE time < %s AND time <> %s", (old, straggler[0]))
        if is_booked:
            connection.execute(
                "INSERT INTO retired (actor, tbl, from_at, to_at, rows, records, bytes)"
                " VALUES ('a', 'reading', %s, %s, 9, 9, 9)",
                (old - 20 * DAY, old),
            )

    async def scenario() -> None:
        async with running(dsn) as client:
            path, asked = f"/v1/series/{series}/readings", {**span_of(2.5), "points": 5000}
            body = (await client.get(path, params={**asked, "bucket": "auto"})).json()
            assert (body["bucket"], body["source"]) == ("1h", "hour")
            first = datetime.fromisoformat(body["from_at"])
            assert sum(row["count"] for row in body["buckets"]) == sum(at >= first for at, _, _ in rows)
            refused = problem(await client.get(path, params={**asked, "bucket": "5m"}), 422, "invalid-request")
            assert named(refused) == ["bucket"]
            assert f"{old:%Y-%m-%dT%H:%MZ}" in refused["detail"]
            young = {"from": old.isoformat(), "to": NOW.isoformat(), "bucket": "15m"}
            body = (await client.get(path, params=young)).json()
            assert body["source"] == "minute"
            assert sum(row["count"] for row in body["buckets"]) == sum(at >= old for at, _, _ in rows)

    asyncio.run(scenario())


def test_hours_of_many_readings_whose_minutes_lack_some_are_bounded(dsn: str) -> None:
    """Each hour has a reading that came late, alone in its minute's partial: explicit minutes are refused, auto takes hours."""
    rows: Rows = [(NOW - timedelta(seconds=20 * k + 5), 1.0, 0) for k in range(1, 8 * 180)]
    rows += [(NOW - timedelta(hours=k, seconds=7), 2.0, 64) for k in range(8)]
    (series,) = seeded(dsn, rows)

    async def scenario() -> None:
        async with running(dsn, raw_hours_max=5) as client:
            path, asked = f"/v1/series/{series}/readings", {**span_of(0.3), "points": 100}
            assert named(problem(await client.get(path, params={**asked, "bucket": "5m"}), 422, "invalid-request")) == [
                "from"
            ]
            body = (await client.get(path, params={**asked, "bucket": "auto"})).json()
            assert body["bucket"] == "1h"
            assert sum(row["count"] for row in body["buckets"]) == len(
                [at for at, _, _ in rows if at >= datetime.fromisoformat(body["from_at"])]
            )

    asyncio.run(scenario())


def test_many_series_are_each_what_they_are_alone(dsn: str, seed: int) -> None:
    each = [irregular(seed + k, 60 * (k + 1), (k + 1) * timedelta(hours=9)) for k in range(4)]
    ids = seeded(dsn, *each, [])
    order = [ids[3], ids[0], ids[4], ids[2], ids[1]]

    async def scenario() -> None:
        async with running(dsn) as client:
            asked = {**span_of(2), "series": ",".join(map(str, order))}
            for bucket, days in (("auto", 2), ("45s", 0.5), ("10m", 2), ("2h", 2)):
                wanted = {**asked, **span_of(days), "bucket": bucket}
                body = (await client.get("/v1/readings", params=wanted)).json()
                assert [item["series"]["id"] for item in body["items"]] == order
                alone = {"bucket": body["bucket"], "from": body["from_at"], "to": body["to_at"]}
                for item in body["items"]:
                    single = await client.get(f"/v1/series/{item['series']['id']}/readings", params=alone)
                    assert item["buckets"] == single.json()["buckets"]
                    assert body["source"] == single.json()["source"]
            few = (await client.get("/v1/readings", params={**asked, "points": 240})).json()
            assert few["bucket"] == "raw"
            assert [len(item["readings"]) for item in few["items"]] == [240, 60, 0, 180, 120]

    asyncio.run(scenario())


def test_what_is_too_much_is_refused_with_a_reason(dsn: str) -> None:
    rows: Rows = [(NOW - timedelta(minutes=k), 1.0, 0) for k in range(1, 6000)]
    old, new = seeded(dsn, rows, rows, rolled_since=None)
    with database(dsn) as connection:
        api_rollup.fill(connection, [new])

    async def scenario() -> None:
        async with running(dsn, points_max=10_000, points_total_max=12_000, series_max=3) as client:
            path = f"/v1/series/{old}/readings"
            refused = problem(await client.get(path, params={**span_of(4), "bucket": "90s"}), 422, "invalid-request")
            assert named(refused) == ["bucket"]
            assert "whole minutes" in refused["detail"]
            refused = problem(await client.get(path, params={**span_of(4), "bucket": "1h"}), 422, "invalid-request")
            assert named(refused) == ["from"]
            assert "citynet db rollup" in refused["detail"]
            answer = await client.get(f"/v1/series/{new}/readings", params={**span_of(4), "bucket": "1h"})
            assert sum(row["count"] for row in answer.json()["buckets"]) == 5760
            for query, wrong in (
                *((f"series={new},{new}", "series"), ("series=", "series"), ("series=1,-2", "series")),
                *(("series=1,2,3,4", "series"), (f"series={new}&bucket=raw", "bucket"), ("series=%C2%B2", "series")),
                *((f"series={old},{new}&points=9000", "points"), (f"series={new}&limit=5", "limit")),
                *((f"series={new}&points=99999", "points"), (f"series={new},{old}&bucket=0s", "bucket")),
                (f"series={new},{old}&bucket=1s&from=2026-03-04T00:00Z&to=2026-03-04T02:00Z", "bucket"),
            ):
                assert named(problem(await client.get(f"/v1/readings?{query}"), 422, "invalid-request")) == [wrong]
            assert "999999" in problem(await client.get("/v1/readings?series=999999"), 404, "not-found")["detail"]
            late = {"from": "9999-12-31T23:00:00Z", "to": "9999-12-31T23:59:59Z", "bucket": "7d"}
            problem(await client.get(path, params=late), 422, "invalid-request")

    asyncio.run(scenario())


def test_a_value_at_the_edge_of_a_double_spoils_no_chart(dsn: str) -> None:
    rows: Rows = [(NOW - timedelta(seconds=10 * k + 1), 1.7e308, 0) for k in range(40)]
    raw, rolled = seeded(dsn, rows, [], rolled_since=None)
    with database(dsn) as connection:
        connection.execute("SELECT ensure_rollup_partitions(%s)", ([NOW.astimezone(UTC).date()],))
        for k in range(2):  # as numpy sums: infinity instead of an error
            at = NOW - timedelta(minutes=5)
            connection.execute(
                "INSERT INTO rollup_minute VALUES (%s, %s, 6, 6, %s, 1.7e308, 1.7e308, 1.7e308, 1.7e308, %s, %s)",
                (at, rolled, [math.inf, 1.7e308][k], at, at),
            )

    async def scenario() -> None:
        async with running(dsn) as client:
            for series in (raw, rolled):
                asked = {**span_of(0.01), "bucket": "2m"}
                body = (await client.get(f"/v1/series/{series}/readings", params=asked)).json()
                assert {(row["max"], row["avg"]) for row in body["buckets"]} == {(1.7e308, None)}

    asyncio.run(scenario())


@pytest.mark.parametrize("late_s", [None, 17, 140, 3700], ids=["none", "open minute", "open hour", "closed hour"])
def test_the_open_hour_of_a_fast_series_with_and_without_a_late_reading(dsn: str, late_s: int | None) -> None:
    """Its minutes are taken as far as they have partials, unless one of them is of a late reading, alone or one of a pair."""
    newest = NOW.replace(minute=0, second=0, microsecond=0) + timedelta(minutes=42, seconds=31)
    gap = newest - timedelta(minutes=5)
    rows: Rows = [(newest - timedelta(seconds=12 * k), float(k), 0) for k in range(900)]
    rows = [row for row in rows if not gap - timedelta(minutes=2) < row[0] < gap]
    if late_s is not None:
        rows += [(newest - timedelta(seconds=late_s + k), 50.0, 64) for k in range(2)]
        rows += [(newest - timedelta(seconds=late_s + 60), 60.0, 64)]
    (series,) = seeded(dsn, rows)

    async def scenario() -> None:
        async with running(dsn) as client:
            for start, end in (
                (newest - timedelta(hours=2.5), newest),
                (newest - timedelta(minutes=30), newest - MINUTES_3),
            ):
                asked = {"from": start.isoformat(), "to": end.isoformat(), "bucket": "1m"}
                body = (await client.get(f"/v1/series/{series}/readings", params=asked)).json()
                assert body["source"] == "minute"
                first, last = (datetime.fromisoformat(body[key]) for key in ("from_at", "to_at"))
                agree(body["buckets"], oracle([row for row in rows if first <= row[0] < last], 60))

    asyncio.run(scenario())


@pytest.mark.parametrize("path", ["/v1/series/{id}/readings", "/v1/readings"])
def test_a_chart_is_of_one_moment_although_it_takes_several_queries(dsn: str, path: str) -> None:
    """Between two of its queries a reading is committed: the answer has it everywhere or, as here, nowhere."""
    rows = [(NOW - timedelta(minutes=minute), float(minute), 0) for minute in range(1, 30)]
    (series,) = seeded(dsn, rows)
    asked = {"from": (NOW - timedelta(hours=1)).isoformat(), "to": (NOW + MINUTES_3).isoformat(), "bucket": "90s"}
    asked |= {} if "{id}" in path else {"series": str(series)}

    def readings(body: dict[str, Any]) -> int:
        buckets = body["items"][0]["buckets"] if "items" in body else body["buckets"]
        return sum(bucket["count"] for bucket in buckets)

    async def scenario() -> None:
        async with running(dsn) as client:
            with database(dsn) as holder, database(dsn) as writer:
                with holder.transaction():
                    holder.execute("LOCK TABLE rollup_hour IN ACCESS EXCLUSIVE MODE")
                    coming = asyncio.create_task(client.get(path.format(id=series), params=asked))
                    while not writer.execute(WAITING).fetchall():
                        assert not coming.done(), "it was to wait for the lock"
                        await asyncio.sleep(0.01)
                    api_seed.add_readings(writer, series, [(NOW, 77.0, 0)])
                body = (await coming).json()
            assert readings(body) == len(rows)
            assert readings((await client.get(path.format(id=series), params=asked)).json()) == len(rows) + 1

    asyncio.run(scenario())
