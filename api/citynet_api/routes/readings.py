"""Readings of many series at once, over one range and in buckets of one width."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic import Field

from citynet_api import history
from citynet_api.buckets import choose
from citynet_api.context import Context, Parts, Viewer
from citynet_api.database import Row, fetch
from citynet_api.models import ManyReadings
from citynet_api.paging import TimedQuery
from citynet_api.problems import not_found, wrong
from citynet_api.routes.series import answer, points_wanted, ranged, span
from citynet_api.settings import ApiSettings

router = APIRouter(prefix="/v1/readings", tags=["series"])
_INT4_MAX = 2**31 - 1


class ManyQuery(TimedQuery):
    """Which series, and how."""

    series: str = Field(max_length=12_000, description="ids, separated by commas, each once")
    bucket: Annotated[str, Field(max_length=16)] = Field("auto", description="auto, or a width such as 10s, 1m, 1h")
    points: int | None = Field(None, ge=1, description="how many points a series `auto` aims at")


@router.get("", response_model=ManyReadings)
async def list_many_readings(asked: Annotated[ManyQuery, Query()], parts: Parts, _: Viewer) -> Response:
    """Readings of many series in [`from`, `to`), the last hour by default.

    `auto` answers raw if no series has more readings than points, else all in buckets of the finest width that fits.
    """
    if asked.cursor is not None or asked.limit is not None:
        raise wrong("cursor" if asked.cursor else "limit", "is not known here; this answer comes all at once")
    if asked.bucket == "raw":
        raise wrong("bucket", "raw comes a series at a time: /v1/series/{id}/readings")
    ids = series_ids(asked.series, parts.settings.series_max)
    start, end = span(asked, datetime.now(UTC))
    each = points_each(asked.points, len(ids), parts.settings)
    if asked.bucket != "auto":
        choose(
            asked.bucket, start, end, each, min(parts.settings.points_max, parts.settings.points_total_max // len(ids))
        )
    return answer(await many(parts, ids, history.Span(start, end, asked.bucket, each)))


def series_ids(text: str, most: int) -> list[int]:
    """The ids of ``1,2,3``. Problem 422 that names the one that is wrong."""
    found: list[int] = []
    for part in text.split(","):
        word = part.strip()
        if not (word.isascii() and word.isdigit() and 1 <= int(word) <= _INT4_MAX):
            raise wrong("series", f"is a list of ids such as 1,2,3 (got {word[:20]!r})")
        found.append(int(word))
    if len(found) > most:
        raise wrong("series", f"at most {most} at once (got {len(found)})")
    if len(set(found)) < len(found):
        twice = next(number for number in found if found.count(number) > 1)
        raise wrong("series", f"{twice} stands there twice")
    return found


def points_each(asked: int | None, count: int, settings: ApiSettings) -> int:
    """Points a series. Problem 422 if all of them together are more than an answer may have."""
    each = points_wanted(asked, settings)
    most = settings.points_total_max // count
    if asked is not None and asked > most:
        raise wrong("points", f"{asked} for each of {count} series is above {settings.points_total_max} in all")
    return min(each, most)


async def many(parts: Context, ids: list[int], wanted: history.Span) -> ManyReadings:
    """The answer. Problem 404 that names a series that does not exist."""
    async with parts.database.snapshot() as connection:
        known = {row["id"]: row for row in await fetch(connection, "series_some", {"ids": ids})}
        missing = [number for number in ids if number not in known]
        if missing:
            raise not_found("series", missing[0])
        found = await history.read(connection, parts.settings, ids, wanted)
    return ManyReadings.model_validate({**ranged(found), "items": [_item(known[number], found) for number in ids]})


def _item(series: Row, found: history.History) -> dict[str, Any]:
    number = series["id"]
    return {
        "series": series,
        "readings": [history.reading(row) for row in found.readings.get(number, [])],
        "buckets": found.buckets.get(number, []),
    }
