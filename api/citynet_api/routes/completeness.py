"""Completeness: readings expected against readings received, by series, district, metric or device."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response

from citynet_api import completeness, cursors
from citynet_api.areas import BBOX, area
from citynet_api.context import Context, Parts, Viewer
from citynet_api.database import fetch
from citynet_api.models import Completeness
from citynet_api.paging import Text, TimedQuery, cut, page_size
from citynet_api.problems import wrong
from citynet_api.routes.series import answer

router = APIRouter(prefix="/v1/completeness", tags=["series"])
DEFAULT_SPAN = timedelta(days=1)
_LISTING = "completeness_series"


class CompletenessQuery(TimedQuery):
    """Which series, over which range, and added up by what."""

    by: Literal["series", "district", "metric", "device"] = "series"
    district: Text = None
    bbox: str | None = BBOX
    device: Text = None
    metric: Text = None


@router.get("", response_model=Completeness)
async def get_completeness(asked: Annotated[CompletenessQuery, Query()], parts: Parts, _: Viewer) -> Response:
    """Readings expected against received in [`from`, `to`), the last day by default.

    Expected is the range by the series' registered `interval_s`, or by an estimate from its readings, marked as such.
    """
    now = datetime.now(UTC)
    end = asked.to or now
    start = asked.from_ or end - DEFAULT_SPAN
    if end - start > timedelta(days=parts.settings.completeness_days_max):
        raise wrong("from", f"makes more than {parts.settings.completeness_days_max} days")
    first, last = completeness.cut_range(start, end, now)
    filters = area(asked.district, asked.device, asked.metric, asked.bbox)
    if asked.by == "series":
        found = await by_series(parts, asked, filters, first, last)
    else:
        found = await by_group(parts, asked, filters, first, last)
    return answer(Completeness.model_validate({"from_at": first, "to_at": last, "by": asked.by, **found}))


async def by_series(
    parts: Context, asked: CompletenessQuery, filters: dict[str, Any], start: datetime, end: datetime
) -> dict[str, Any]:
    """A page of series."""
    size = page_size(asked.limit, parts.settings)
    # A cursor carries the range, so that all pages are about the same one although time goes on.
    after = 0
    if asked.cursor is not None:
        key = cursors.decode(asked.cursor, _LISTING, filters, (int, str, str))
        after, start, end = key[0], _time(key[1]), _time(key[2])
    async with parts.database.session() as connection:
        rows = await fetch(connection, "completeness_series", {**filters, "after": after, "limit": size + 1})
        key_end = [start.isoformat(), end.isoformat()]
        page, cursor = cut(rows, size, lambda row: cursors.encode(_LISTING, filters, [row["id"], *key_end]))
        counts = await completeness.count(connection, parts.settings, page, start, end)
    return {
        "from_at": start,
        "to_at": end,
        "series": [count.fields() for count in counts],
        "groups": [],
        "total": completeness.group(None, counts),
        "next": cursor,
    }


async def by_group(
    parts: Context, asked: CompletenessQuery, filters: dict[str, Any], start: datetime, end: datetime
) -> dict[str, Any]:
    """All groups. Problem 422 if they have more series than are added up at once."""
    if asked.cursor is not None or asked.limit is not None:
        raise wrong("cursor" if asked.cursor else "limit", "belongs to by=series; groups come all at once")
    most = parts.settings.completeness_series_max
    async with parts.database.session() as connection:
        rows = await fetch(connection, "completeness_series", {**filters, "after": 0, "limit": most + 1})
        if len(rows) > most:
            raise wrong(
                "by", f"{asked.by} adds up at most {most} series; narrow down by district, bbox, device or metric"
            )
        counts = await completeness.count(connection, parts.settings, rows, start, end)
    return {
        "series": [],
        "groups": completeness.grouped(counts, asked.by),
        "total": completeness.group(None, counts),
        "next": None,
    }


def _time(text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise wrong("cursor", "is not a cursor of this list") from None
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)
