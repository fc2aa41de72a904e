"""Gateways, the summary, and who I am."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from citynet_api.context import Parts, Viewer
from citynet_api.database import Row
from citynet_api.models import LEVELS, Gateway, Me, Page, Summary
from citynet_api.paging import ListQuery, by_key
from citynet_api.problems import Problem
from citynet_api.tally import Tally

router = APIRouter(prefix="/v1", tags=["city"])


class GatewayQuery(ListQuery):
    """Which gateways."""

    online: bool | None = None


@router.get("/me")
async def who_am_i(principal: Viewer) -> Me:
    """Name and role of the token."""
    return Me(name=principal.name, role=principal.role.name, expires_at=principal.expires_at)


@router.get("/gateways")
async def list_gateways(asked: Annotated[GatewayQuery, Query()], parts: Parts, _: Viewer) -> Page[Gateway]:
    """Gateways by id, and how their deliveries stand."""
    rows, cursor = await by_key(parts.database, parts.settings, "gateway_list", asked, "id", "")
    return Page[Gateway](items=[Gateway(**gateway_fields(row)) for row in rows], next=cursor)


@router.get("/summary")
async def summary(parts: Parts, _: Viewer) -> Summary:
    """Open alerts a level and domain, gateways online, readings stored in the last minute."""
    row = await parts.database.row("summary")
    if row is None:
        raise Problem("internal", "The summary is empty.")
    return Summary(**summary_fields(row, parts.tally))


def gateway_fields(row: Row) -> dict[str, Any]:
    """A row of ``gateway_list``, with what the gateway's last status says. A status is from outside: any shape may come."""
    status = row["status"] if isinstance(row["status"], dict) else {}
    used, most = _whole(status.get("spool_bytes")), _whole(status.get("spool_bytes_max"))
    return {
        **row,
        "backlog": row["backlog"] or 0,
        "version": _text(status.get("version")),
        "clock": _text(status.get("clock")),
        "full": status.get("full") if isinstance(status.get("full"), bool) else None,
        "rejected": _whole(status.get("rejected")),
        "spool_bytes": used,
        "spool_bytes_max": most,
        "spool_fill": min(used / most, 1.0) if used is not None and most else None,
    }


def summary_fields(row: Row, tally: Tally) -> dict[str, Any]:
    """The summary's row, every level named, with the tally of readings."""
    counted = tally.last_minute()
    return {
        **row,
        "open_by_level": {name: row["by_level"].get(str(level), 0) for level, name in LEVELS.items()},
        "open_by_domain": row["by_domain"],
        "readings_last_minute": counted[0] if counted else None,
        "readings_per_s": round(counted[1], 2) if counted else None,
    }


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _text(value: object) -> str | None:
    return value[:64] if isinstance(value, str) else None
