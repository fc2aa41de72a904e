"""For machines that watch this process: alive, ready, measured. No token, for nothing here is about the city."""

from __future__ import annotations

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import Response

from citynet.runtime.metrics import REGISTRY
from citynet_api import telemetry
from citynet_api.context import Parts
from citynet_api.database import SCHEMA_MIN
from citynet_api.models import Health, Ready
from citynet_api.problems import Problem

router = APIRouter(tags=["service"])


@router.get("/health")
async def health() -> Health:
    """The process lives; says nothing of the database."""
    return Health(status="alive")


@router.get("/ready")
async def ready(parts: Parts) -> Ready:
    """The database answers and has the schema this api needs; else a 503 problem that says which of the two."""
    row = await parts.database.row("schema_number")
    number = (row or {}).get("number")
    if number is None or number < SCHEMA_MIN:
        raise Problem(
            "schema-unknown", f"Migration {number or 'none'}; needed is {SCHEMA_MIN}. Run: citynet db migrate"
        )
    return Ready(status="ready", migration=number)


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(parts: Parts) -> Response:
    """Prometheus metrics."""
    telemetry.STREAMS.set(parts.feed.clients)
    telemetry.FEED_POSITION.set(parts.feed.position or 0)
    telemetry.DATABASE_IN_SIGHT.set(parts.feed.outage.since is None)
    for stat, value in parts.database.stats().items():
        telemetry.POOL.labels(stat).set(value)
    return Response(generate_latest(REGISTRY), media_type=CONTENT_TYPE_LATEST)
