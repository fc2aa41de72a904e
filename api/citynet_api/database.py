"""The api's way to the database: a small pool of sessions that read, and one guarded door for the few writes.

Sessions are read-only by default, so a slip in a query cannot change what ingest owns. Every statement has a timeout; a
session is checked before use, because a restarted database leaves dead ones in the pool.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from psycopg import AsyncConnection, OperationalError
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool

from citynet.runtime import log
from citynet_api.queries import query
from citynet_api.settings import ApiSettings

Row = dict[str, Any]

# The first schema (number of the newest migration) that has all this room reads. Migrations only go forward, so newer is fine.
SCHEMA_MIN = 15

# A failed connection attempt of the pool ends after this; the next request starts a new one. Left at the library's five
# minutes, its doubling pauses would keep a console dark for minutes after the database is back.
_RECONNECT_S = 2.0

_SESSION = """
SELECT set_config('timezone', 'UTC', false),
       set_config('default_transaction_read_only', 'on', false),
       set_config('plan_cache_mode', 'force_custom_plan', false), -- filters are optional parameters: plan for those given
       set_config('jit', 'off', false), -- these queries are short; compiling them takes longer than running
       set_config('statement_timeout', %s, false),
       set_config('application_name', 'citynet api', false)
"""


class Database:
    """Named queries over a pool. Errors are psycopg's; `citynet_api.errors` turns them into problems."""

    def __init__(self, conninfo: Mapping[str, Any], settings: ApiSettings) -> None:
        self._conninfo = str(conninfo["conninfo"])
        self._arguments = {key: value for key, value in conninfo.items() if key != "conninfo"}
        self._settings = settings
        self._outage = log.OutageLog(log.get(__name__), "database")
        self._timeout_s = settings.statement_timeout_s + settings.connect_timeout_s
        self._pool: AsyncConnectionPool[AsyncConnection[DictRow]] = AsyncConnectionPool(
            self._conninfo,
            kwargs={**self._options(), "row_factory": dict_row},
            configure=self._prepare,
            check=AsyncConnectionPool.check_connection,
            min_size=min(settings.pool_size_min, settings.pool_size_max),
            max_size=settings.pool_size_max,
            max_waiting=settings.pool_waiting_max,
            timeout=settings.pool_wait_s,
            reconnect_timeout=_RECONNECT_S,
            open=False,
            name="api",
        )

    def _options(self) -> dict[str, Any]:
        """Keepalives let a half-open connection be noticed in about ten seconds instead of two hours."""
        return {
            "autocommit": True,
            "connect_timeout": self._settings.connect_timeout_s,
            "keepalives_idle": 5,
            "keepalives_interval": 2,
            "keepalives_count": 3,
            **self._arguments,
        }

    async def _prepare(self, connection: AsyncConnection[Any]) -> None:
        await connection.execute(_SESSION, (str(round(self._settings.statement_timeout_s * 1000)),))

    async def open(self) -> None:
        """Start the pool; a database that is away is no reason not to start."""
        await self._pool.open(wait=False)

    async def close(self) -> None:
        """End all sessions."""
        await self._pool.close(timeout=1.0)

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncConnection[DictRow]]:
        """A pooled session for several queries. OperationalError if none can be had, or the work outlasts its bound."""
        try:
            async with (
                asyncio.timeout(self._settings.pool_wait_s + self._timeout_s),
                self._pool.connection() as connection,
            ):
                yield connection
        except TimeoutError:
            raise OperationalError("the database did not answer in time") from None
        except OperationalError as error:
            if not getattr(error, "sqlstate", None):
                self._outage.failed(error)
            raise
        self._outage.worked()

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[AsyncConnection[DictRow]]:
        """A pooled session inside one read-only transaction: all of its queries see the database as the first one did."""
        async with self.session() as connection, connection.transaction():
            await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            yield connection

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection[DictRow]]:
        """A pooled session inside one transaction that may write."""
        async with self.session() as connection, connection.transaction():
            await connection.execute("SET TRANSACTION READ WRITE")
            yield connection

    async def rows(self, name: str, parameters: Mapping[str, Any] | None = None) -> list[Row]:
        """All rows of a named query, whose text bounds them."""
        async with self.session() as connection:
            return await fetch(connection, name, parameters)

    async def row(self, name: str, parameters: Mapping[str, Any] | None = None) -> Row | None:
        """The first row of a named query."""
        found = await self.rows(name, parameters)
        return found[0] if found else None

    async def dedicated(self) -> AsyncConnection[DictRow]:
        """A session outside the pool, for LISTEN; the caller closes it."""
        connection = await AsyncConnection.connect(self._conninfo, row_factory=dict_row, **self._options())
        try:
            await self._prepare(connection)
        except BaseException:
            await connection.close()
            raise
        return connection

    def stats(self) -> Mapping[str, int]:
        """Counters of the pool."""
        return self._pool.get_stats()


async def fetch(
    connection: AsyncConnection[DictRow], name: str, parameters: Mapping[str, Any] | None = None
) -> list[Row]:
    """All rows of a named query on a session that the caller holds."""
    cursor = await connection.execute(query(name), parameters or {})
    return await cursor.fetchall()
