"""Who pushes: source tokens, looked up in the database and believed for a few seconds."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from citynet import tokens
from citynet.runtime import log
from citynet_ingest.push.problems import Problem
from citynet_ingest.store import sql

_KNOWN_MAX = 1_024
_WAIT_S = 3.0
_POOL_MAX = 2
_RECONNECT_S = 2.0


class Door:
    """Tells which source a request may speak for."""

    def __init__(self, conninfo: Mapping[str, Any], cache_s: float) -> None:
        self._cache_s = cache_s
        self._known: OrderedDict[bytes, tuple[float, str]] = OrderedDict()
        self._outage = log.OutageLog(log.get("door"), "database")
        arguments = {key: value for key, value in conninfo.items() if key != "conninfo"}
        self._pool: AsyncConnectionPool[psycopg.AsyncConnection[tuple[object, ...]]] = AsyncConnectionPool(
            str(conninfo["conninfo"]),
            kwargs={"autocommit": True, "connect_timeout": 3, "application_name": "citynet push", **arguments},
            min_size=1,
            max_size=_POOL_MAX,
            timeout=_WAIT_S,
            reconnect_timeout=_RECONNECT_S,
            check=AsyncConnectionPool.check_connection,
            open=False,
            name="push",
        )

    async def open(self) -> None:
        """Start; a database that is away is no reason not to."""
        await self._pool.open(wait=False)

    async def close(self) -> None:
        await self._pool.close(timeout=1.0)

    async def source_of(self, header: str | None) -> str:
        """The source whose token an Authorization header holds. Problem 401 without one, 503 while nobody can tell."""
        token = tokens.bearer(header)
        if token is None:
            raise _stranger()
        digest, now = tokens.digest(token), time.monotonic()
        known = self._known.get(digest)
        if known is not None and now < known[0]:
            return known[1]
        source = await self._look_up(digest)
        if source is None:
            self._known.pop(digest, None)
            raise _stranger()
        self._known[digest] = (now + self._cache_s, source)
        if len(self._known) > _KNOWN_MAX:
            self._known.popitem(last=False)
        return source

    async def _look_up(self, digest: bytes) -> str | None:
        try:
            async with self._pool.connection() as connection:
                row = await (await connection.execute(sql.text("source_token"), {"digest": digest})).fetchone()
        except (psycopg.OperationalError, psycopg.InterfaceError, PoolTimeout) as error:
            self._outage.failed(error)
            raise Problem("database-away", "Nothing was taken; try again shortly.") from None
        self._outage.worked()
        return str(row[0]) if row else None


def _stranger() -> Problem:
    return Problem("unauthenticated", "Send a source token in the header: Authorization: Bearer cn_…")
