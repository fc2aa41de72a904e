"""Where things stand and what flows where: districts, assets, edges of networks."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import Field

from citynet_api.bodies import read_body
from citynet_api.context import Admin, Parts, Viewer
from citynet_api.database import Database, fetch
from citynet_api.models import Asset, District, Edge, Page, TopologyRegistered
from citynet_api.paging import ListQuery, Text, by_key
from citynet_api.problems import Fault
from citynet_api.queries import query as _named
from citynet_api.registry import JSON_TYPE
from citynet_api.topology import TopologyEntry, parse, refusal

PATH = "/v1/topology"
router = APIRouter(prefix="/v1", tags=["topology"])
_BODY = {"requestBody": {"required": True, "content": {JSON_TYPE: {"schema": TopologyEntry.model_json_schema()}}}}


class AssetQuery(ListQuery):
    """Which assets."""

    kind: Text = None
    district: Text = None
    device: Text = Field(None, description="the asset that this device stands at")


class EdgeQuery(ListQuery):
    """Which edges."""

    network: Text = None
    from_: Text = Field(None, alias="from", description="that flow from this asset")
    to: Text = Field(None, description="that flow to this asset")


@router.get("/districts")
async def list_districts(asked: Annotated[ListQuery, Query()], parts: Parts, _: Viewer) -> Page[District]:
    """Districts by name."""
    rows, cursor = await by_key(parts.database, parts.settings, "district_list", asked, "name", "")
    return Page[District](items=[District(**row) for row in rows], next=cursor)


@router.get("/assets")
async def list_assets(asked: Annotated[AssetQuery, Query()], parts: Parts, _: Viewer) -> Page[Asset]:
    """Assets by name, with the devices that stand at them."""
    rows, cursor = await by_key(parts.database, parts.settings, "asset_list", asked, "name", "")
    return Page[Asset](items=[Asset(**row) for row in rows], next=cursor)


@router.get("/edges")
async def list_edges(asked: Annotated[EdgeQuery, Query()], parts: Parts, _: Viewer) -> Page[Edge]:
    """Edges of networks, each in the direction of flow."""
    rows, cursor = await by_key(parts.database, parts.settings, "edge_list", asked, "id", 0)
    return Page[Edge](items=[Edge(**row) for row in rows], next=cursor)


@router.post("/topology", openapi_extra=_BODY)
async def register_topology(request: Request, parts: Parts, _: Admin) -> TopologyRegistered:
    """Register districts, assets and whole networks: all of the document or nothing. Doing it again changes nothing."""
    body = await read_body(request, parts.settings.topology_bytes_max)
    document = parse(body, request.headers.get("content-type", ""), parts.settings.topology_items_max)
    return await register(parts.database, document)


async def register(database: Database, document: TopologyEntry) -> TopologyRegistered:
    """Write a checked document in one transaction. Problem 422: assets or devices that nobody knows, every one."""
    values = parameters(document)
    async with database.writing() as connection:
        await fetch(connection, "topology_lock")
        await connection.execute(_named("district_register"), values)
        await connection.execute(_named("asset_register"), values)
        if unknown := await fetch(connection, "topology_unknown", values):
            raise refusal([Fault(parameter=row["place"], location="body", detail=row["detail"]) for row in unknown])
        await connection.execute(_named("asset_device_clear"), values)
        await connection.execute(_named("asset_device_register"), values)
        await connection.execute(_named("edge_register"), values)
        removed = await fetch(connection, "edge_retire", values)
    edges = sum(len(found) for found in document.networks.values())
    return TopologyRegistered(
        districts=len(document.districts), assets=len(document.assets), edges=edges, edges_removed=removed[0]["edges"]
    )


def parameters(document: TopologyEntry) -> dict[str, Any]:
    """The document as the queries take it: JSON arrays."""
    edges = [
        {"network": network, **edge.model_dump(by_alias=True)}
        for network, found in document.networks.items()
        for edge in found
    ]
    return {
        "districts": json.dumps([entry.model_dump() for entry in document.districts]),
        "assets": json.dumps([entry.model_dump() for entry in document.assets]),
        "edges": json.dumps(edges),
        "networks": json.dumps(list(document.networks)),
    }
