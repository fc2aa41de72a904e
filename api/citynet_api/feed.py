"""The live feed: one session watches the transitions and fans them out to every open event stream.

Transition ids become visible in ascending order, so "everything behind id N" is exact; a notification only wakes the
watcher early, and losing one costs at most the polling interval. A restarted database costs nothing: the watcher
continues behind the last id it gave out.

Each client has a bounded queue. A client whose queue is full is cut off (and counted); it resumes by id and reads from
the database what it missed, so a slow client costs neither memory nor anybody else's speed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from psycopg import AsyncConnection, Error
from psycopg.rows import DictRow

from citynet.runtime import log
from citynet_api import telemetry
from citynet_api.database import Database, fetch
from citynet_api.models import streamed
from citynet_api.problems import Problem
from citynet_api.settings import ApiSettings

LISTEN = b"LISTEN citynet_alert"
ID_MAX = 2**63 - 1
_BACKOFF_S_MIN = 0.1
_BACKOFF_S_MAX = 2.0


@dataclass(frozen=True, slots=True)
class Event:
    """A transition, ready to send."""

    id: int
    data: str


@dataclass(frozen=True, slots=True)
class Outage:
    """The watcher cannot see the database (`since`), or sees it again (`since` is None)."""

    since: datetime | None


class Subscription:
    """One client's bounded queue. `ended` says why there will be nothing more: "slow" or "stopping"."""

    def __init__(self, queue_max: int) -> None:
        self.queue: asyncio.Queue[Event | Outage | None] = asyncio.Queue(queue_max + 1)
        self.ended: str | None = None

    def offer(self, item: Event | Outage) -> bool:
        """Queue an item; False if that was one too many, which ends the subscription."""
        if self.ended is not None:
            return False
        if self.queue.qsize() < self.queue.maxsize - 1:
            self.queue.put_nowait(item)
            return True
        self.end("slow")
        return False

    def end(self, why: str) -> None:
        """Nothing more will come; what waits is dropped, for the client reads it again by id."""
        if self.ended is None:
            self.ended = why
            while not self.queue.empty():
                self.queue.get_nowait()
            self.queue.put_nowait(None)


class Feed:
    """Watches transitions and gives each to every subscription."""

    def __init__(self, database: Database, settings: ApiSettings) -> None:
        self._database = database
        self._settings = settings
        self._subscriptions: set[Subscription] = set()
        self._outage = log.OutageLog(log.get(__name__), "feed")
        self._stopping = False
        self._backoff_s = _BACKOFF_S_MIN
        self._seen_at = datetime.now(UTC)
        self.position: int | None = None  # the last id given out; None before the first look at the database

    @property
    def clients(self) -> int:
        return len(self._subscriptions)

    @property
    def outage(self) -> Outage:
        """Whether the database is in sight."""
        return Outage(self._seen_at if self._outage.failing or self.position is None else None)

    def stop(self) -> None:
        """End every stream; their clients resume elsewhere or later."""
        self._stopping = True
        for subscription in self._subscriptions:
            subscription.end("stopping")

    def check_room(self) -> None:
        """Problem 503 if there are too many streams, if we are stopping, or if the database was never in sight."""
        if self._stopping:
            raise Problem("stopping", "Connect again in a moment.", headers={"Retry-After": "2"})
        if self.position is None:
            raise Problem("database-away", "Nothing is lost; try again shortly.", headers={"Retry-After": "2"})
        if len(self._subscriptions) >= self._settings.stream_clients_max:
            limit = self._settings.stream_clients_max
            raise Problem("too-many-streams", f"At most {limit} streams at once.", headers={"Retry-After": "10"})

    @contextmanager
    def subscribe(self) -> Iterator[Subscription]:
        """A subscription to everything behind `position`; it has ended already if we are stopping."""
        subscription = Subscription(self._settings.stream_queue_max)
        if self._stopping:
            subscription.end("stopping")
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)

    def publish(self, item: Event | Outage) -> None:
        """Give an item to every subscription; a full one is cut off."""
        for subscription in self._subscriptions:
            if subscription.ended is None and not subscription.offer(item):
                telemetry.STREAMS_CUT.inc()

    async def run(self) -> None:
        """Watch for ever. An outage is told to the clients once, and its end once."""
        while True:
            try:
                async with asyncio.timeout(self._settings.connect_timeout_s + 1):
                    connection = await self._database.dedicated()
                async with connection:
                    await self._watch(connection)
            except (Error, TimeoutError, OSError) as error:
                self._lost(error)
                await asyncio.sleep(self._backoff_s)
                self._backoff_s = min(self._backoff_s * 2, _BACKOFF_S_MAX)

    async def _watch(self, connection: AsyncConnection[DictRow]) -> None:
        """Catch up, then wait for a notification or the polling interval, over and over, until the session breaks."""
        await connection.execute(LISTEN)
        await self._check_position(connection)
        while True:
            async with asyncio.timeout(self._settings.statement_timeout_s + 1):
                await self._catch_up(connection)
            self._found()
            async for _ in connection.notifies(timeout=self._settings.stream_poll_s, stop_after=1):
                pass

    async def _check_position(self, connection: AsyncConnection[DictRow]) -> None:
        """Begin at the newest transition; and begin anew if the database was put back to an older state."""
        newest = await newest_id(connection)
        if self.position is None or newest < self.position:
            self.position = newest

    async def _catch_up(self, connection: AsyncConnection[DictRow]) -> None:
        """Give out everything behind `position`, a page at a time."""
        full = True
        while full:
            rows = await page_after(connection, self.position or 0, ID_MAX, self._settings.stream_page)
            for event in rows:
                self.position = event.id
                self.publish(event)
            full = len(rows) == self._settings.stream_page

    def _found(self) -> None:
        if self._outage.failing:
            self.publish(Outage(None))
        self._outage.worked()
        self._backoff_s = _BACKOFF_S_MIN
        self._seen_at = datetime.now(UTC)

    def _lost(self, error: BaseException) -> None:
        first = not self._outage.failing
        self._outage.failed(error)
        if first:
            self.publish(self.outage)


async def newest_id(connection: AsyncConnection[DictRow]) -> int:
    """Where the transitions stand."""
    return int((await fetch(connection, "transition_newest"))[0]["id"])


async def page_after(connection: AsyncConnection[DictRow], after: int, upto: int, limit: int) -> list[Event]:
    """At most `limit` transitions with `after` < id <= `upto`, ascending."""
    rows = await fetch(connection, "transition_after", {"after": after, "upto": upto, "limit": limit})
    return [Event(int(row["t_id"]), streamed(row).model_dump_json()) for row in rows]
