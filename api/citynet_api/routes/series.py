"""Series and their readings, raw or in buckets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, Field

from citynet_api import cursors, history
from citynet_api.buckets import width_s
from citynet_api.context import Context, Parts, Viewer
from citynet_api.database import Row
from citynet_api.models import Page, Readings, Series
from citynet_api.paging import ListQuery, Text, TimedQuery, by_key, check_time, cut, iso, page_size
from citynet_api.problems import not_found, wrong
from citynet_api.settings import ApiSettings
from citynet_api.sources import Source

router = APIRouter(prefix="/v1/series", tags=["series"])
DEFAULT_SPAN = timedelta(hours=1)
_INT4_MAX = 2**31 - 1

SeriesId = Annotated[int, Path(ge=1, le=_INT4_MAX)]


class SeriesQuery(ListQuery):
    """Which series."""

    device: Text = None
    metric: Text = None
    registered: bool | None = Field(None, description="false: heard of but not registered")


class ReadingsQuery(TimedQuery):
    """Which readings, and how."""

    bucket: Annotated[str, Field(max_length=16)] = Field("raw", description="raw, auto, or a width such as 10s, 1m, 1h")
    points: int | None = Field(None, ge=1, description="how many points `auto` aims at")


@router.get("")
async def list_series(asked: Annotated[SeriesQuery, Query()], parts: Parts, _: Viewer) -> Page[Series]:
    """Series by id."""
    rows, cursor = await by_key(parts.database, parts.settings, "series_list", asked, "id", 0)
    return Page[Series](items=[Series(**row) for row in rows], next=cursor)


@router.get("/{series_id}")
async def get_series(series_id: SeriesId, parts: Parts, _: Viewer) -> Series:
    """One series."""
    return await find(parts, series_id)


@router.get("/{series_id}/readings", response_model=Readings)
async def list_readings(
    series_id: SeriesId, asked: Annotated[ReadingsQuery, Query()], parts: Parts, _: Viewer
) -> Response:
    """Readings in [`from`, `to`), the last hour by default: raw a page at a time, or buckets, only those with readings.

    `auto` answers raw if there are no more readings than points, else buckets of the finest width that keeps to them.
    """
    series = await find(parts, series_id)
    start, end = span(asked, datetime.now(UTC))
    if asked.bucket == "raw":
        return await raw(parts, series, asked, start, end)
    return await bucketed(parts, series, asked, start, end)


async def find(parts: Context, series_id: int) -> Series:
    """A series by its id. Problem 404."""
    row = await parts.database.row("series_get", {"id": series_id})
    if row is None:
        raise not_found("series", series_id)
    return Series(**row)


def span(asked: TimedQuery, now: datetime) -> tuple[datetime, datetime]:
    """The time range asked for; the open ends are the hour before, or after."""
    if asked.from_ is not None:
        return asked.from_, asked.to or max(now, asked.from_ + DEFAULT_SPAN)
    end = asked.to or now + timedelta(seconds=1)
    return end - DEFAULT_SPAN, end


def points_wanted(asked: int | None, settings: ApiSettings) -> int:
    """The points that `auto` aims at. Problem 422 if more are asked for than an answer may have."""
    if asked is not None and asked > settings.points_max:
        raise wrong("points", f"is above {settings.points_max} (got {asked})")
    return asked or min(settings.points_default, settings.points_max)


async def bucketed(parts: Context, series: Series, asked: ReadingsQuery, start: datetime, end: datetime) -> Response:
    """The range fitted to a number of points."""
    if asked.cursor is not None or asked.limit is not None:
        raise wrong("cursor" if asked.cursor else "limit", "belongs to bucket=raw; buckets come all at once")
    points = points_wanted(asked.points, parts.settings)
    wanted = history.Span(start, end, asked.bucket, points)
    async with parts.database.snapshot() as connection:
        found = await history.read(connection, parts.settings, [series.id], wanted)
    readings = [history.reading(row) for row in found.readings.get(series.id, [])]
    return answer(
        Readings.model_validate(
            {
                **ranged(found),
                "series": series,
                "readings": readings,
                "buckets": found.buckets.get(series.id, []),
                "next": None,
            }
        )
    )


async def raw(parts: Context, series: Series, asked: ReadingsQuery, start: datetime, end: datetime) -> Response:
    """One page of raw readings."""
    listing = f"readings/{series.id}"
    size = page_size(asked.limit, parts.settings)
    behind = Place(start, None, 0, 0)
    if asked.cursor is not None:
        key = cursors.decode(asked.cursor, listing, {}, (str, str, int, int, str))
        behind, end = Place.from_key(key), _time(key[4])
    rows = await parts.database.rows(
        "reading_raw", {"id": series.id, "to": end, "limit": size + 1, **behind.parameters()}
    )
    page, cursor = cut(rows, size, lambda _: cursors.encode(listing, {}, [*behind.after(rows[:size]).key(), iso(end)]))
    found = history.History(start, end, "raw", Source.RAW, {}, {})
    readings = [history.reading(row) for row in page]
    return answer(
        Readings.model_validate(
            {**ranged(found), "series": series, "readings": readings, "buckets": [], "next": cursor}
        )
    )


def ranged(found: history.History) -> Mapping[str, Any]:
    """The fields of `Ranged`."""
    return {
        "from_at": found.start,
        "to_at": found.end,
        "bucket": found.bucket,
        "bucket_s": None if found.bucket == "raw" else width_s(found.bucket),
        "source": found.source.value,
    }


def answer(body: BaseModel) -> Response:
    """A checked answer as JSON. Returned as a model it would be checked a second time, which thousands of points feel."""
    return Response(body.model_dump_json(), media_type="application/json")


class Place:
    """Where a page of raw readings goes on: at rows (time, value, quality), `skip` equal ones of which were shown."""

    def __init__(self, at: datetime, value: float | None, quality: int, skip: int) -> None:
        self.at, self.value, self.quality, self.skip = at, value, quality, skip

    @classmethod
    def from_key(cls, key: Sequence[Any]) -> Place:
        """The place in a cursor. Problem 422 if it was tampered with."""
        try:
            value = float(key[1])
        except ValueError:
            raise wrong("cursor", "is not a cursor of this list") from None
        if not (0 <= key[2] <= 255 and 0 <= key[3] <= _INT4_MAX):
            raise wrong("cursor", "is not a cursor of this list")
        return cls(_time(key[0]), value, key[2], key[3])

    def after(self, page: Sequence[Row]) -> Place:
        """The place behind a page that began here."""
        last = page[-1]
        equal = [row for row in page if _same(row, last)]
        shown_before = self.skip if self.value is not None and _same(last, self._row()) else 0
        return Place(last["at"], last["value"], last["quality"], shown_before + len(equal))

    def key(self) -> list[str | int]:
        return [iso(self.at), repr(self.value), self.quality, self.skip]

    def parameters(self) -> dict[str, Any]:
        return {"at": self.at, "value": self.value, "quality": self.quality, "skip": self.skip}

    def _row(self) -> Row:
        return {"at": self.at, "value": self.value, "quality": self.quality}


def _same(one: Row, other: Row) -> bool:
    """Whether the database holds these rows for equal: there, NaN equals NaN."""
    values = one["value"] == other["value"] or (math.isnan(one["value"]) and math.isnan(other["value"]))
    return bool(values and one["at"] == other["at"] and one["quality"] == other["quality"])


def _time(text: str) -> datetime:
    check_time(text)
    at = datetime.fromisoformat(text)
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)
