"""The newest reading of every series of an area."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from citynet.quality import describe
from citynet_api import cursors
from citynet_api.areas import BBOX, area
from citynet_api.context import Parts, Viewer
from citynet_api.database import Row
from citynet_api.models import Page, PlacedLatest
from citynet_api.paging import ListQuery, Text, cut
from citynet_api.problems import wrong
from citynet_api.routes.series import answer
from citynet_api.settings import ApiSettings

router = APIRouter(prefix="/v1/latest", tags=["series"])
_LISTING = "latest_list"


class LatestQuery(ListQuery):
    """Which series."""

    district: Text = None
    bbox: str | None = BBOX
    device: Text = None
    metric: Text = None


@router.get("", response_model=Page[PlacedLatest])
async def list_latest(asked: Annotated[LatestQuery, Query()], parts: Parts, _: Viewer) -> Response:
    """Series of an area by id, each with its newest reading, how old it is and of what quality."""
    filters = area(asked.district, asked.device, asked.metric, asked.bbox)
    size = latest_page_size(asked.limit, parts.settings)
    after = 0 if asked.cursor is None else cursors.decode(asked.cursor, _LISTING, filters, (int,))[0]
    rows = await parts.database.rows("latest_list", {**filters, "after": after, "limit": size + 1})
    page, cursor = cut(rows, size, lambda row: cursors.encode(_LISTING, filters, [row["id"]]))
    return answer(Page[PlacedLatest].model_validate({"items": [_placed(row) for row in page], "next": cursor}))


def latest_page_size(asked: int | None, settings: ApiSettings) -> int:
    """Rows of a page; larger ones than of other lists, for a map shows a whole district. Problem 422."""
    if asked is not None and asked > settings.latest_page_max:
        raise wrong("limit", f"is above {settings.latest_page_max}, the largest page (got {asked})")
    return asked or min(settings.page_size_default, settings.latest_page_max)


def _placed(row: Row) -> dict[str, Any]:
    latest = None
    if row["at"] is not None:
        latest = {key: row[key] for key in ("at", "value", "quality", "age_s")}
        latest["quality_text"] = describe(row["quality"])
    return {**row, "series_id": row["id"], "latest": latest}
