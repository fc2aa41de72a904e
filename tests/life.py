"""Days of readings with their rollups, for tests of the life of the data."""

from __future__ import annotations

import datetime as dt
from typing import Any

import psycopg

from citynet_ingest import maintain
from citynet_ingest.maintain import Options, Plan
from citynet_ingest.storage_settings import StorageSettings
from citynet_ingest.store.parts import parts
from citynet_ingest.store.server import probe

Connection = psycopg.Connection[Any]
SERIES = 3
PER_DAY = SERIES * 24

_CITY = """
INSERT INTO device (name, source) VALUES ('d', 'gw');
INSERT INTO series (device_id, metric) SELECT device.id, 'm' || k FROM device, generate_series(1, 3) AS k
"""
_DAY = """
INSERT INTO reading
SELECT %(day)s::date::timestamp AT TIME ZONE 'UTC' + h * interval '1 hour' + interval '5 min', s.id, h, 0
FROM series s, generate_series(0, 23) AS h
"""
_ROLLUP = """
INSERT INTO {} SELECT date_trunc('{}', time, 'UTC'), series_id, 1, 1, value, value, value, value, value, time, time
FROM reading WHERE time >= %(day)s::date::timestamp AT TIME ZONE 'UTC'
  AND time < (%(day)s::date + 1)::timestamp AT TIME ZONE 'UTC'
"""


def day(ago: int, now: dt.datetime) -> dt.date:
    return (now - dt.timedelta(days=ago)).date()


def fill(connection: Connection, days: list[dt.date], *, with_rollups: bool = True) -> None:
    """72 readings a day, booked as stored, in three series."""
    if connection.execute("SELECT count(*) FROM series").fetchone() == (0,):
        connection.execute(_CITY)
        connection.execute("INSERT INTO stream_cursor (gateway, stream, epoch, seq) VALUES ('gw', 'telemetry', 1, 0)")
    connection.execute(
        "SELECT ensure_reading_partitions(%s::date[]), ensure_rollup_partitions(%s::date[])", (days, days)
    )
    for date in days:
        connection.execute(_DAY, {"day": date})
        if with_rollups:
            connection.execute(_ROLLUP.format("rollup_minute", "minute").encode(), {"day": date})
            connection.execute(_ROLLUP.format("rollup_hour", "hour").encode(), {"day": date})
    connection.execute("UPDATE stream_cursor SET seq = seq + %s, stored = stored + %s", (PER_DAY * len(days),) * 2)


def run(connection: Connection, clock: dt.datetime, *, dry: bool = False, large: bool = False, **settings: Any) -> Plan:
    """One run of maintenance at this time of the clock."""
    options = Options("tester", is_dry=dry, accept_large=large)
    return maintain.run(connection, probe(connection), StorageSettings(**settings), clock, options)


def days_there(connection: Connection, table: str = "reading") -> list[dt.date]:
    """Days that have a part with rows in it."""
    rows = connection.execute(f"SELECT DISTINCT (time AT TIME ZONE 'UTC')::date FROM {table} ORDER BY 1".encode())
    return [date for (date,) in rows.fetchall()]


def parts_there(connection: Connection, table: str = "reading") -> list[dt.date]:
    """First days of the parts of a table."""
    return [part.from_at.date() for part in parts(connection, probe(connection)) if part.table == table]


def told(plan: Plan) -> list[tuple[str, str, str]]:
    """Steps as (table, what, outcome)."""
    return [(step.table, str(step.what), str(step.outcome)) for step in plan.steps]
