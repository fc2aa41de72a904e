"""Server-sent events: every alert transition, once each and in order, from wherever the client left off."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from psycopg import Error
from pydantic import BaseModel, ConfigDict, Field
from sse_starlette import EventSourceResponse, ServerSentEvent
from sse_starlette.sse import SendTimeoutError
from starlette.types import Receive, Scope, Send

from citynet_api import telemetry
from citynet_api.context import Context, Parts, Viewer
from citynet_api.feed import ID_MAX, Event, Outage, Subscription, newest_id, page_after
from citynet_api.problems import Problem

router = APIRouter(prefix="/v1/alerts", tags=["alerts"])
RETRY_MS = 2000


class AlertStream(EventSourceResponse):
    """A stream whose client may stop reading: then it is cut off and counted, and that is no mistake of the server."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except SendTimeoutError:
            telemetry.STREAMS_CUT.inc()


class StreamQuery(BaseModel):
    """Where to begin; the header Last-Event-ID says the same and goes first."""

    model_config = ConfigDict(extra="forbid")

    after: int | None = Field(None, ge=0, le=ID_MAX, description="id of the last transition seen")


LastEventId = Annotated[int | None, Header(ge=0, le=ID_MAX, description="id of the last event received")]


@router.get(
    "/stream",
    response_class=EventSourceResponse,
    responses={200: {"content": {"text/event-stream": {}}, "description": "see the description of the path"}},
)
async def stream_alerts(
    request: Request, asked: Annotated[StreamQuery, Query()], parts: Parts, _: Viewer, last_event_id: LastEventId = None
) -> EventSourceResponse:
    """Alert transitions as they are committed, without end.

    Events: `ready` (first; its id is where the stream begins), `transition` (id: of the transition, data: `transition` and
    `alert`), `database` (data: `lost_at`, a time or null: since when the server cannot see its database). Comments are
    heartbeats. Without a position the stream begins now. A client that is too slow is cut off and resumes by its last id.
    """
    parts.feed.check_room()
    async with parts.database.session() as connection:
        newest = await newest_id(connection)
    asked_for = last_event_id if last_event_id is not None else asked.after
    # An id from the future belongs to a database that is no more; the client sees it by the id of `ready`.
    after = newest if asked_for is None else min(asked_for, newest)
    return AlertStream(
        events(parts, after, request.headers.get("authorization")),
        ping=parts.settings.stream_heartbeat_s,
        ping_message_factory=lambda: ServerSentEvent(comment="heartbeat"),
        send_timeout=parts.settings.stream_send_timeout_s,
        sep="\n",
    )


async def events(parts: Context, after: int, authorization: str | None) -> AsyncIterator[ServerSentEvent]:
    """Everything behind `after`: first from the database, then live. The live queue opens first, so nothing falls between."""
    with parts.feed.subscribe() as subscription:
        joined = parts.feed.position or 0
        yield ServerSentEvent(event="ready", id=str(after), data=json.dumps({"after": after}), retry=RETRY_MS)
        yield database_event(parts.feed.outage)
        sent = after
        try:
            async for event in _history(parts, after, joined):
                sent = event.id
                yield transition_event(event)
        except Error:  # the client comes back by its last id
            return
        async for event_or_outage in _live(parts, subscription, authorization):
            if isinstance(event_or_outage, Outage):
                yield database_event(event_or_outage)
            elif event_or_outage.id > sent:
                sent = event_or_outage.id
                yield transition_event(event_or_outage)
        yield ServerSentEvent(comment=f"ended: {subscription.ended or 'token'}; resume by id")


async def _history(parts: Context, after: int, upto: int) -> AsyncIterator[Event]:
    """Transitions with `after` < id <= `upto`; a page at a time, no session held while a slow client reads."""
    size = parts.settings.stream_page
    while after < upto:
        async with parts.database.session() as connection:
            page = await page_after(connection, after, upto, size)
        for event in page:
            yield event
        if len(page) < size:
            return
        after = page[-1].id


async def _live(parts: Context, subscription: Subscription, authorization: str | None) -> AsyncIterator[Event | Outage]:
    """What the feed gives out, until the subscription or the token ends."""
    loop = asyncio.get_running_loop()
    recheck_at = loop.time() + parts.settings.stream_recheck_s
    while True:
        if loop.time() >= recheck_at:
            if not await _still_allowed(parts, authorization):
                return
            recheck_at = loop.time() + parts.settings.stream_recheck_s
        try:
            async with asyncio.timeout_at(recheck_at):
                item = await subscription.queue.get()
        except TimeoutError:
            continue
        if item is None:
            return
        yield item


async def _still_allowed(parts: Context, authorization: str | None) -> bool:
    """Whether the token is still live; while the database is away, yes."""
    try:
        await parts.authenticator.verify(authorization)
    except Problem:
        return False
    except Error:
        return True
    return True


def transition_event(event: Event) -> ServerSentEvent:
    """A transition on the wire."""
    telemetry.TRANSITIONS_SENT.inc()
    return ServerSentEvent(event="transition", id=str(event.id), data=event.data)


def database_event(outage: Outage) -> ServerSentEvent:
    """Whether the server sees its database."""
    since = outage.since.isoformat().replace("+00:00", "Z") if outage.since else None
    return ServerSentEvent(event="database", data=json.dumps({"lost_at": since}))
