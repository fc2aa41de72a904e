"""Alerts: listed, explained, acknowledged."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from psycopg import AsyncConnection
from psycopg.rows import DictRow
from pydantic import Field

from citynet_api.context import Operator, Parts, Viewer
from citynet_api.database import Database, fetch
from citynet_api.models import (
    Acknowledgement,
    Alert,
    AlertDetail,
    AlertPage,
    Transition,
    alert_fields,
    transition_fields,
)
from citynet_api.paging import PathName, Text, TimedQuery, by_time
from citynet_api.problems import Problem, not_found

router = APIRouter(prefix="/v1/alerts", tags=["alerts"])


class AlertQuery(TimedQuery):
    """Which alerts; `from` and `to` are about the time of the raise."""

    state: Literal["open", "cleared", "all"] = "open"
    mode: Literal["live", "shadow", "all"] = Field("live", description="shadow: those of rules on trial")
    audience: Literal["people", "maintenance", "all"] = Field("all", description="whom the verdict sends it to")
    unacked: bool | None = Field(None, description="true: only those that nobody acknowledged; false: only the others")
    level_min: int | None = Field(None, ge=1, le=4, description="1 blue, 2 yellow, 3 orange, 4 red")
    domain: Text = None
    rule: Text = None
    object: Text = Field(None, description="the device")
    district: Text = None


@router.get("")
async def list_alerts(asked: Annotated[AlertQuery, Query()], parts: Parts, _: Viewer) -> AlertPage:
    """Alerts, newest raise first, open ones unless `state` says otherwise."""
    # Read before the list: what is committed in between is in the list or behind `as_of`, perhaps both, never neither.
    newest = await parts.database.row("transition_newest")
    rows, cursor = await by_time(parts.database, parts.settings, "alert_list", asked, "raised_at", str)
    items = [Alert(**alert_fields(row)) for row in rows]
    return AlertPage(items=items, next=cursor, as_of=newest["id"] if newest else 0)


@router.get("/{alert_id}")
async def get_alert(alert_id: PathName, parts: Parts, _: Viewer) -> AlertDetail:
    """One alert with its rule, guidance, evidence and transitions (the newest 1,000)."""
    return await detail(parts.database, alert_id)


@router.post("/{alert_id}/ack")
async def acknowledge(alert_id: PathName, body: Acknowledgement, parts: Parts, operator: Operator) -> AlertDetail:
    """Take notice of an alert. The same person may repeat it and gets the same answer; anybody else gets 409."""
    async with parts.database.writing() as connection:
        await write_acknowledgement(connection, alert_id, operator.name, body.comment.strip())
    return await detail(parts.database, alert_id)


async def detail(database: Database, alert_id: str) -> AlertDetail:
    """An alert with all that explains it. Problem 404."""
    async with database.session() as connection:
        found = await fetch(connection, "alert_get", {"id": alert_id})
        rows = await fetch(connection, "alert_transitions", {"id": alert_id})
    if not found:
        raise not_found("alert", alert_id)
    transitions = [Transition(**transition_fields(row)) for row in rows]
    return AlertDetail(**alert_fields(found[0]), transitions=transitions)


async def write_acknowledgement(connection: AsyncConnection[DictRow], alert_id: str, actor: str, comment: str) -> None:
    """Acknowledge within the caller's transaction, once. Problem 404, or 409 that names who was first and when."""
    await fetch(connection, "lock_transitions")
    found = await fetch(connection, "alert_ack_look", {"id": alert_id})
    if not found:
        raise not_found("alert", alert_id)
    by, at = found[0]["acked_by"], found[0]["acked_at"]
    if by is None:
        await fetch(connection, "alert_ack", {"id": alert_id, "actor": actor, "comment": comment})
    elif by != actor:
        raise _already(by, at)


def _already(by: str, at: datetime) -> Problem:
    when = at.isoformat().replace("+00:00", "Z")
    return Problem("already-acknowledged", f"{by} acknowledged it at {when}.", more={"acked_by": by, "acked_at": when})
