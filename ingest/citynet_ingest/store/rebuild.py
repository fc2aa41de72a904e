"""Rollups computed anew from the stored readings: for data from before there were rollups, and after a mishap with them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass

import psycopg

from citynet.errors import CitynetError
from citynet_ingest.store import sql

Connection = psycopg.Connection[tuple[object, ...]]
_LOCK = "SELECT pg_try_advisory_lock(hashtext('citynet.rollup.rebuild'))"
_UNLOCK = "SELECT pg_advisory_unlock(hashtext('citynet.rollup.rebuild'))"
_SERIES = 500  # a statement; with an hour of 10 Hz that is 18 million readings
_HOUR = dt.timedelta(hours=1)
_DAY = dt.timedelta(days=1)
_TIMEOUT = "600s"
# Columns of a hypertable's compressed chunk are decompressed to be deleted; by default only so many in a transaction.
_UNBOUNDED = "SET LOCAL timescaledb.max_tuples_decompressed_per_dml_transaction = 0"


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """How many buckets were written anew, in how many transactions, and how many hours were left alone because retention
    has taken their readings: what came late since then is not all of them."""

    minutes: int
    hours: int
    steps: int
    retired_hours: int


def rebuild(
    connection: Connection, start: dt.datetime, stop: dt.datetime, progress: Callable[[dt.datetime], None]
) -> Rebuilt:
    """Replace the partials of every bucket in the whole hours (UTC) that [start, stop) touches by one partial each.

    Safe beside running workers, and as often as wanted. Buckets without readings, each series' newest, and
    hours whose readings retention has taken stay as they are.
    A transaction takes an hour of at most 500 series; `progress` is told each day that is done.

    Raises:
        CitynetError: another rebuild is running.
    """
    row = connection.execute(_LOCK).fetchone()
    if not (row and row[0]):
        raise CitynetError("rollups are being computed anew by another process; two would double them")
    try:
        return _rebuild(connection, start, stop, progress)
    finally:
        connection.execute(_UNLOCK)


def _rebuild(
    connection: Connection, start: dt.datetime, stop: dt.datetime, progress: Callable[[dt.datetime], None]
) -> Rebuilt:
    series = [int(str(sid)) for (sid,) in connection.execute("SELECT id FROM series ORDER BY id").fetchall()]
    hour = start.astimezone(dt.UTC).replace(minute=0, second=0, microsecond=0)
    gone = _retired(connection, hour, stop)
    minutes = hours = steps = left = 0
    while hour < stop:
        day, day_end = hour, min(hour.replace(hour=0) + _DAY, stop)
        if not _has_readings(connection, day, day_end):
            hour = day_end
        else:
            connection.execute("SELECT ensure_rollup_partitions(%s::date[])", ([day.date()],))
        while hour < day_end:
            if any(hour < to_at and hour + _HOUR > from_at for from_at, to_at in gone):
                left += 1
                hour += _HOUR
                continue
            for first in range(0, len(series), _SERIES):
                made = _step(connection, hour, series[first : first + _SERIES])
                minutes, hours, steps = minutes + made[0], hours + made[1], steps + 1
            hour += _HOUR
        progress(day_end)
    return Rebuilt(minutes, hours, steps, left)


def _retired(connection: Connection, start: dt.datetime, stop: dt.datetime) -> list[tuple[dt.datetime, dt.datetime]]:
    """Spans within [start, stop) whose readings retention has taken."""
    rows = connection.execute(sql.text("retired_readings"), {"from_at": start, "to_at": stop + _HOUR}).fetchall()
    return [
        (from_at, to_at)
        for from_at, to_at in rows
        if isinstance(from_at, dt.datetime) and isinstance(to_at, dt.datetime)
    ]


def _has_readings(connection: Connection, start: dt.datetime, stop: dt.datetime) -> bool:
    span = (start, stop + _HOUR)  # the last hour may be cut by `stop`
    row = connection.execute("SELECT EXISTS (SELECT FROM reading WHERE time >= %s AND time < %s)", span).fetchone()
    return bool(row and row[0])


def _step(connection: Connection, hour: dt.datetime, series: list[int]) -> tuple[int, int]:
    with connection.transaction():
        connection.execute(f"SET LOCAL statement_timeout = '{_TIMEOUT}'")
        connection.execute(_UNBOUNDED)
        span = {"series": series, "start": hour, "stop": hour + _HOUR}
        row = connection.execute(sql.text("rollup_rebuild"), span).fetchone() or (0, 0)
    return int(str(row[0])), int(str(row[1]))
