"""Devices: heard of, registered, looked up."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import Field

from citynet.quality import describe
from citynet_api.bodies import read_body
from citynet_api.context import Admin, Parts, Viewer
from citynet_api.database import Database, Row, fetch
from citynet_api.models import Device, DeviceDetail, Latest, Page, Registered, SeriesLatest
from citynet_api.paging import ListQuery, PathName, Text, by_key
from citynet_api.problems import not_found
from citynet_api.registry import JSON_TYPE, LINES_TYPES, DeviceEntry, parse

router = APIRouter(prefix="/v1/devices", tags=["devices"])

# The body is read by hand, within its own bound and in two forms, so its documentation is written by hand too.
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            JSON_TYPE: {"schema": {"type": "array", "items": DeviceEntry.model_json_schema()}},
            LINES_TYPES[0]: {"schema": {"type": "string", "description": "one such object a line"}},
        },
    }
}


class DeviceQuery(ListQuery):
    """Which devices."""

    kind: Text = None
    district: Text = None
    gateway: Text = None
    registered: bool | None = None
    q: Text = Field(None, description="a part of the name, in any case")

    def filters(self) -> dict[str, Any]:
        return {**super().filters(), "q": contains(self.q)}


def contains(part: str | None) -> str | None:
    """The LIKE pattern for text that contains `part` literally."""
    if part is None:
        return None
    escaped = part.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"


@router.get("")
async def list_devices(asked: Annotated[DeviceQuery, Query()], parts: Parts, _: Viewer) -> Page[Device]:
    """Devices by name."""
    rows, cursor = await by_key(parts.database, parts.settings, "device_list", asked, "name", "")
    return Page[Device](items=[Device(**row) for row in rows], next=cursor)


@router.get("/{name}")
async def get_device(name: PathName, parts: Parts, _: Viewer) -> DeviceDetail:
    """One device with its series and their newest readings (at most 500 series)."""
    async with parts.database.session() as connection:
        found = await fetch(connection, "device_get", {"name": name})
        rows = await fetch(connection, "device_series", {"name": name})
    if not found:
        raise not_found("device", name)
    return DeviceDetail(**found[0], series=[SeriesLatest(**row, latest=latest(row)) for row in rows])


@router.post("", openapi_extra=_BODY)
async def register_devices(request: Request, parts: Parts, _: Admin) -> Registered:
    """Register devices and their series: all of the document or nothing. Doing it again changes nothing."""
    body = await read_body(request, parts.settings.registration_bytes_max)
    devices = parse(body, request.headers.get("content-type", ""), parts.settings.registration_devices_max)
    return await register(parts.database, devices)


async def register(database: Database, devices: list[DeviceEntry]) -> Registered:
    """Write a checked registration document in one transaction."""
    document = {"devices": json.dumps([device.model_dump() for device in devices])}
    async with database.writing() as connection:
        counted = await fetch(connection, "device_register", document)
        counted_series = await fetch(connection, "series_register", document)
    return Registered(**counted[0], **counted_series[0])


def latest(row: Row) -> Latest | None:
    """The newest reading in a row of ``device_series``; None for a series that has none."""
    if row["at"] is None:
        return None
    quality = row["quality"]
    return Latest(at=row["at"], value=row["value"], quality=quality, quality_text=describe(quality))
