"""The application: its parts, its paths, and their life from start to stop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version
from importlib.resources import files
from typing import Any

from fastapi import FastAPI
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles

from citynet.runtime import log
from citynet_api import errors, tally
from citynet_api.auth import Authenticator, Principal, Role
from citynet_api.bodies import BodyLimit
from citynet_api.context import Context
from citynet_api.database import Database
from citynet_api.feed import Feed
from citynet_api.headers import SecurityHeaders
from citynet_api.problems import KINDS, MEDIA_TYPE, URN, ProblemBody
from citynet_api.routes import (
    alerts,
    city,
    completeness,
    delivery,
    devices,
    latest,
    readings,
    series,
    service,
    stream,
    topology,
)
from citynet_api.settings import ApiSettings
from citynet_api.telemetry import RequestMetrics

_CANCEL_AGAIN_S = 0.5
_ABOUT = """
Show, acknowledge, explain: the alerts of a city's lifelines, the devices and readings behind them.

* Every path below `/v1` needs `Authorization: Bearer cn_…` (`citynet api token create NAME --role viewer`). Roles:
  viewer < operator < admin. A token in a URL is never accepted.
* Lists come in pages: pass `next` of one page as `cursor` of the following, with the same filters. Rows that arrive
  meanwhile neither repeat nor hide another.
* Times are UTC, ISO 8601; a time in a request needs an offset or Z.
* Every error is a problem document (RFC 9457, `application/problem+json`); its `type` is stable: {types}.
"""


def create_app(
    settings: ApiSettings, conninfo: Mapping[str, Any], on_end: Callable[[str], None] = lambda _: None
) -> FastAPI:
    """The application over the database that `conninfo` (keyword arguments of psycopg's connect) names. `on_end` hears of a
    watcher that ended by itself: without it the streams would go on, and say nothing for ever."""
    database = Database(conninfo, settings)
    parts = Context(
        settings=settings,
        database=database,
        authenticator=Authenticator(token_lookup(database), settings.token_cache_s, time.monotonic),
        feed=Feed(database, settings),
        tally=tally.Tally(time.monotonic),
    )
    app = FastAPI(
        title="citynet API",
        version=version("citynet"),
        description=_ABOUT.format(types=", ".join(f"`{URN}{kind}`" for kind in KINDS)),
        lifespan=partial(_lifespan, on_end=on_end),
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        responses={"default": {"description": "a problem (RFC 9457)", "content": {MEDIA_TYPE: {"schema": _problem()}}}},
    )
    app.state.context = parts
    errors.install(app)
    # stream before alerts: /v1/alerts/stream must not be taken for the alert "stream".
    for module in (stream, alerts, devices, series, readings, latest, completeness, city, topology, delivery, service):
        app.include_router(module.router)
    _serve_console(app)
    app.add_middleware(
        BodyLimit, bytes_max=settings.body_bytes_max, own_bound=frozenset({devices.router.prefix, topology.PATH})
    )
    app.add_middleware(RequestMetrics)
    app.add_middleware(SecurityHeaders)
    return app


def token_lookup(database: Database) -> Any:
    """Finds the owner of a token in the database."""

    async def lookup(digest: bytes) -> Principal | None:
        row = await database.row("token_find", {"digest": digest})
        return Principal(row["name"], Role[row["role"]], row["expires_at"]) if row else None

    return lookup


def parts_of(app: FastAPI) -> Context:
    """The parts of an application."""
    parts: Context = app.state.context
    return parts


def _problem() -> dict[str, Any]:
    return ProblemBody.model_json_schema(ref_template="#/components/schemas/{model}")


def _serve_console(app: FastAPI) -> None:
    folder = str(files("citynet_api").joinpath("console"))

    @app.get("/", include_in_schema=False)
    async def console() -> FileResponse:
        return FileResponse(f"{folder}/index.html")

    app.mount("/console", StaticFiles(directory=folder))


@asynccontextmanager
async def _lifespan(app: FastAPI, on_end: Callable[[str], None]) -> AsyncIterator[None]:
    """Open the pool, watch the feed and the tally; at the end stop all three."""
    parts = parts_of(app)
    await parts.database.open()
    watchers = [
        asyncio.create_task(parts.feed.run(), name="feed"),
        asyncio.create_task(tally.watch(parts.database, parts.tally), name="tally"),
    ]
    ended = partial(_ended, on_end)
    for watcher in watchers:
        watcher.add_done_callback(ended)
    try:
        yield
    finally:
        for watcher in watchers:
            watcher.remove_done_callback(ended)
        parts.feed.stop()
        await end(watchers)
        await parts.database.close()


def _ended(on_end: Callable[[str], None], watcher: asyncio.Task[None]) -> None:
    if not watcher.cancelled() and (error := watcher.exception()) is not None:
        log.get(__name__).error("watcher-failed", exc_info=(type(error), error, error.__traceback__))
    on_end(watcher.get_name())


async def end(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel tasks until they have ended: `asyncio.wait_for`, by which psycopg waits, may lose a cancellation before 3.12."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_CANCEL_AGAIN_S)
