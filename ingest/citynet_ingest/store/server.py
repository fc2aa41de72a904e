"""What a database server can do: the only place that asks, so that the rest of the code need not care."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg

from citynet.errors import CitynetError

VERSION_MIN = 150_000


class ServerError(CitynetError):
    """The database server cannot be used as it is; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Server:
    """Capabilities of a server: `variant` names the migration files that fit it."""

    version: int
    timescale: str | None

    @property
    def variant(self) -> str:
        return "timescale" if self.timescale else "plain"


def probe(connection: psycopg.Connection[tuple[object, ...]]) -> Server:
    """Ask a server what it is, and create the TimescaleDB extension where it is installed.

    Raises:
        ServerError: older than PostgreSQL 15, or fsync or full_page_writes is off (the guarantee needs them; what it needs
            of synchronous_commit a session sets for itself).
    """
    version = connection.info.server_version
    if version < VERSION_MIN:
        raise ServerError(f"PostgreSQL {version // 10_000} is too old; 15 or newer is needed")
    for setting in ("fsync", "full_page_writes"):
        if _show(connection, setting) == "off":
            raise ServerError(f"the database runs with {setting} = off; citynet's guarantee needs it on")
    preloaded = "timescaledb" in _show(connection, "shared_preload_libraries")
    row = connection.execute(
        "SELECT default_version FROM pg_available_extensions WHERE name = 'timescaledb'"
    ).fetchone()
    if row is None or not preloaded:
        return Server(version, None)
    connection.execute("CREATE EXTENSION IF NOT EXISTS timescaledb")
    row = connection.execute("SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'").fetchone()
    return Server(version, str(row[0]) if row else None)


def _show(connection: psycopg.Connection[tuple[object, ...]], setting: str) -> str:
    row = connection.execute("SELECT current_setting(%s, true)", (setting,)).fetchone()
    return str(row[0] or "") if row else ""
