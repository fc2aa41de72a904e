"""Chunks of TimescaleDB and partitions of plain PostgreSQL as one thing: parts of a table that holds time."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier

from citynet_ingest.store import sql
from citynet_ingest.store.server import Server

Connection = psycopg.Connection[Any]
READING, MINUTE, HOUR = TABLES = ("reading", "rollup_minute", "rollup_hour")


@dataclass(frozen=True, slots=True)
class Part:
    """A chunk or partition; holds times in [from_at, to_at)."""

    table: str
    schema: str
    name: str
    from_at: dt.datetime
    to_at: dt.datetime
    bytes: int
    is_columnstore: bool
    rows_estimate: int

    @property
    def identifier(self) -> Identifier:
        return Identifier(self.schema, self.name)

    @property
    def span(self) -> dt.timedelta:
        return self.to_at - self.from_at


def parts(connection: Connection, server: Server) -> list[Part]:
    """All parts of the three tables, oldest first within a table."""
    rows = connection.execute(sql.text(f"parts_{server.variant}"), {}).fetchall()
    return [Part(*row) for row in rows]


def extent(connection: Connection, of: Sequence[Part]) -> tuple[dt.datetime, dt.datetime] | None:
    """Oldest and newest reading in these parts of `reading`, oldest part first; None if there is no reading."""
    oldest = next((found for part in of if (found := _extent(connection, part))), None)
    newest = next((found for part in reversed(of) if (found := _extent(connection, part))), None)
    return (oldest[0], newest[1]) if oldest and newest else None


def _extent(connection: Connection, part: Part) -> tuple[dt.datetime, dt.datetime] | None:
    statement = SQL(sql.text("extent_of_part").decode()).format(part=part.identifier)
    row = connection.execute(statement).fetchone()
    return (row[0], row[1]) if row and row[0] else None
