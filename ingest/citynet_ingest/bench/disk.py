"""Line 3: bytes that a reading takes on disk, as ingest wrote it and after the server's compression."""

from __future__ import annotations

from importlib.resources import files

import psycopg

from citynet_ingest.bench.load import Fleet
from citynet_ingest.bench.result import Bound, Line
from citynet_ingest.bench.stage import Connection, Stage
from citynet_ingest.bench.throughput import send

_TABLES = ("reading", "rollup_minute", "rollup_hour")
_FLEET = Fleet(gateways=50, period_us=100_000)


def disk(stage: Stage) -> Line:
    """2,000 series at 10 Hz. Counted are the tables, their indexes and TOAST, and the rollups; not the WAL."""
    readings = 200_000 if stage.is_quick else 4_000_000
    with stage.database() as dsn:
        drained = send(stage, dsn, _FLEET, readings)
        with psycopg.connect(dsn, autocommit=True) as connection:
            total = _FLEET.total(_FLEET.turns(readings))
            fill_rollups(connection)
            written = sizes(connection, is_timescale=bool(stage.server.timescale))
            if stage.server.timescale:
                compress(connection, "reading")  # rollups stay rows: their chunks are longer than this is
            settled = sizes(connection, is_timescale=bool(stage.server.timescale))
            plain = plain_row_bytes(connection)
            partials = count(connection, "rollup_minute") + count(connection, "rollup_hour")
    values = {
        "bytes_per_reading": sum(settled.values()) / total,
        "bytes_per_reading_as_written": sum(written.values()) / total,
        "ratio_to_plain_rows": sum(settled.values()) / total / plain,
        "rollup_bytes_per_reading": (settled["rollup_minute"] + settled["rollup_hour"]) / total,
        "rollup_bytes_per_partial": (settled["rollup_minute"] + settled["rollup_hour"]) / partials,
        "readings": total,
        "written_readings_per_s": drained.rate.per_s,
    }
    bounds = (Bound("bytes_per_reading", 15, 9, at_most=True),) if stage.server.timescale else ()
    name = f"disk, {_FLEET.series:,} series at 10 Hz"
    notes = "with indexes, TOAST and rollups, without WAL; noise of two steps, times in ms with a jitter of 2 ms"
    return Line(3, name, "bytes/reading", values, bounds, {"plain_rows_with_btree_bytes": plain}, notes)


def sizes(connection: Connection, *, is_timescale: bool) -> dict[str, int]:
    """Bytes of the tables that hold readings, with all that belongs to them."""
    found: dict[str, int] = {}
    for table in _TABLES:
        measure = (
            f"SELECT hypertable_size('{table}')"
            if is_timescale
            else f"SELECT sum(pg_total_relation_size(relid)) FROM pg_partition_tree('{table}')"
        )
        row = connection.execute(measure.encode()).fetchone()
        found[table] = int(str(row[0])) if row else 0
    return found


def count(connection: Connection, table: str) -> int:
    """Rows of a table."""
    row = connection.execute(f"SELECT count(*) FROM {table}".encode()).fetchone()
    return int(str(row[0])) if row else 0


def plain_row_bytes(connection: Connection) -> float:
    """Bytes that one of these readings takes in an ordinary table with a B-tree on series and time."""
    connection.execute(statement("plain_rows"))
    row = connection.execute(
        "SELECT pg_total_relation_size('bench_rows')::float8 / count(*) FROM bench_rows"
    ).fetchone()
    connection.execute("DROP TABLE bench_rows")
    return float(str(row[0])) if row else 0.0


def compress(connection: Connection, table: str) -> None:
    """What a compression policy would do to every chunk of a table once it is old enough."""
    chunks = [str(row[0]) for row in connection.execute(f"SELECT show_chunks('{table}')::text".encode()).fetchall()]
    for chunk in chunks:
        connection.execute(statement("compress"), {"chunk": chunk})


def fill_rollups(connection: Connection) -> None:
    """Partials of every hour, and every minute of several readings, that has none yet: one a bucket, as ingest closes them."""
    connection.execute(statement("rollup_partitions"))
    for name in ("rollup_minute_fill", "rollup_hour_fill"):
        connection.execute(statement(name))


def statement(name: str) -> bytes:
    """The statement in this package's ``sql/<name>.sql``."""
    return (files("citynet_ingest.bench") / "sql" / f"{name}.sql").read_bytes()
