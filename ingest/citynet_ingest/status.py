"""The state of the database for people and scripts: what is there, what is set, and what of it should worry somebody."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from citynet.ids import SHARDS
from citynet_ingest import maintain
from citynet_ingest.lanes import SHARDS_PER_LANE
from citynet_ingest.maintain import Plan
from citynet_ingest.ownership import LANE_LOCK
from citynet_ingest.policies import What
from citynet_ingest.storage_settings import StorageSettings
from citynet_ingest.store import sql
from citynet_ingest.store.holds import all_holds
from citynet_ingest.store.parts import TABLES, Connection, Part, parts
from citynet_ingest.store.server import Server

_STALE_COMMIT_S = 300.0
_STALE_READING = dt.timedelta(minutes=15)
_AHEAD = dt.timedelta(hours=1, minutes=5)  # ingest takes readings up to an hour ahead of its clock
_WAL_SMALL_BYTES = 1 << 30


@dataclass(slots=True)
class Status:
    """Parts of the answer as JSON has them; see docs/operations.md."""

    server: dict[str, object]
    schema: dict[str, object]
    settings: dict[str, str] = field(default_factory=dict)
    tables: list[dict[str, Any]] = field(default_factory=list)
    readings: dict[str, object] = field(default_factory=dict)
    city: dict[str, int] = field(default_factory=dict)
    retired: dict[str, dict[str, int]] = field(default_factory=dict)
    policies: list[dict[str, object]] = field(default_factory=list)
    holds: list[dict[str, object]] = field(default_factory=list)
    workers: list[dict[str, Any]] = field(default_factory=list)
    shards: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, object]:
        return {name: getattr(self, name) for name in self.__slots__}


def look(connection: Connection, server: Server, schema: dict[str, object], settings: StorageSettings) -> Status:
    """The state of a database whose schema is up to date. Reads only; no full scan of readings."""
    status = Status({"version": server.version, "timescale": server.timescale}, schema)
    status.settings = dict(connection.execute(sql.text("status_settings")).fetchall())
    clock = _one(connection, "SELECT now()")[0]
    there = parts(connection, server)
    status.tables = _tables(connection, there)
    status.city = _city(connection)
    status.retired = _retired(connection)
    planned = maintain.plan(connection, server, settings, clock)
    status.readings = {
        "oldest": planned.oldest.isoformat() if planned.oldest else None,
        "newest": planned.newest.isoformat() if planned.newest else None,
    }
    status.policies = [step.to_json() for step in planned.steps]
    status.holds = [hold.to_json() for hold in all_holds(connection)]
    names = ("worker", "commit", "at", "age_s")
    workers = [dict(zip(names, row, strict=True)) for row in connection.execute(sql.text("status_workers")).fetchall()]
    status.workers = [worker | {"at": worker["at"].isoformat()} for worker in workers]
    names = ("shard", "pid", "application", "client")
    held = connection.execute(sql.text("status_shards"), {"lock": LANE_LOCK, "size": SHARDS_PER_LANE}).fetchall()
    status.shards = [dict(zip(names, row, strict=True)) for row in held]
    failed = connection.execute(sql.text("status_failed_jobs")).fetchall() if server.timescale else []
    wal_bytes = _one(connection, "SELECT pg_size_bytes(current_setting('max_wal_size'))")[0]
    status.warnings = [
        *about_server(status.settings, wal_bytes),
        *about_work(status, clock, planned.newest),
        *about_policies(planned),
        *(
            f"TimescaleDB's job {job} of {table} failed: see timescaledb_information.job_errors"
            for table, job, _ in failed
        ),
    ]
    return status


def about_server(settings: Mapping[str, str], wal_bytes: int) -> list[str]:
    """Warnings about the server's settings."""
    found = [
        f"{name} is off: what is acknowledged may be lost in a power cut"
        for name in ("fsync", "full_page_writes")
        if settings.get(name) == "off"
    ]
    if settings.get("synchronous_commit") == "off":
        found.append("synchronous_commit is off for new sessions: ingest sets it for its own, other programs do not")
    if "off" in (settings.get("autovacuum"), settings.get("track_counts")):
        found.append("autovacuum is off: the books (cursors, tallies) will bloat")
    if wal_bytes < _WAL_SMALL_BYTES:
        found.append(
            f"max_wal_size is {settings.get('max_wal_size')}: checkpoints will come often; 4 GB or more is usual"
        )
    return found


def about_work(status: Status, clock: dt.datetime, newest: dt.datetime | None) -> list[str]:
    """Warnings about ingest and what it stored, by the server's clock."""
    found = []
    held = {row["shard"] for row in status.shards}
    if not held:
        found.append("no ingest worker holds a shard: nothing is being stored")
    elif len(held) < SHARDS:
        found.append(f"{SHARDS - len(held)} of {SHARDS} shards have no worker: {_ranges(set(range(SHARDS)) - held)}")
    found += [
        f"worker {worker['worker']} has not committed for {worker['age_s']:.0f} s"
        for worker in status.workers
        if worker["age_s"] > _STALE_COMMIT_S
    ]
    if newest is not None and clock - newest > _STALE_READING:
        found.append(
            f"the newest reading is of {newest:%Y-%m-%d %H:%M} UTC, {_age(clock - newest)} before the server's clock"
        )
    if newest is not None and newest - clock > _AHEAD:
        found.append(f"the newest reading is {_age(newest - clock)} ahead of the server's clock: one of them is wrong")
    return found


def about_policies(planned: Plan) -> list[str]:
    """Warnings about policies that are not in force."""
    found = [
        f"{step.table} has a retention job of TimescaleDB, which knows no holds: citynet db apply-policies removes it"
        for step in planned.steps
        if step.what is What.FOREIGN
    ]
    found += [f"{step.table}: {step.what}: {step.note}" for step in planned.steps if step.outcome.is_failure]
    due = sum(not step.outcome.is_failure and step.outcome == "due" for step in planned.steps)
    if due:
        found.append(f"{due} steps of the policies are due: citynet db apply-policies --dry-run shows them")
    return found


def _tables(connection: Connection, there: Sequence[Part]) -> list[dict[str, Any]]:
    plain = connection.execute(sql.text("status_tables"), {"parted": list(TABLES)}).fetchall()
    tables: list[dict[str, Any]] = [
        {"name": name, "rows_estimate": rows, "bytes": size, "parts": None} for name, rows, size in plain
    ]
    for name in TABLES:
        its = [part for part in there if part.table == name]
        columnstore = [part for part in its if part.is_columnstore]
        about = {
            "count": len(its),
            "in_columnstore": len(columnstore),
            "columnstore_bytes": sum(part.bytes for part in columnstore),
            "from_at": min(part.from_at for part in its).isoformat() if its else None,
            "to_at": max(part.to_at for part in its).isoformat() if its else None,
        }
        rows, size = sum(part.rows_estimate for part in its), sum(part.bytes for part in its)
        tables.append({"name": name, "rows_estimate": rows, "bytes": size, "parts": about})
    return sorted(tables, key=lambda table: -table["bytes"])


def _city(connection: Connection) -> dict[str, int]:
    names = (
        "gateways", "gateways_online", "devices", "series", "streams", "readings_booked", "dead_letters",
        "dead_letter_records", "losses", "readings_lost", "alerts_open",
    )  # fmt: skip
    row = connection.execute(sql.text("status_books")).fetchone() or ()
    return {name: int(value) for name, value in zip(names, row, strict=True)}


def _retired(connection: Connection) -> dict[str, dict[str, int]]:
    rows = connection.execute(
        "SELECT tbl, sum(rows)::bigint, sum(records)::bigint, sum(bytes)::bigint FROM retired GROUP BY 1"
    )
    return {
        table: {"rows": count, "records": records, "bytes": size} for table, count, records, size in rows.fetchall()
    }


def _one(connection: Connection, statement: str) -> tuple[Any, ...]:
    row = connection.execute(statement.encode()).fetchone()
    assert row is not None  # noqa: S101  (a SELECT without FROM gives one row)
    return tuple(row)


def _ranges(numbers: set[int]) -> str:
    """``0-3, 7``: whole numbers as ranges."""
    starts = sorted(n for n in numbers if n - 1 not in numbers)
    ends = sorted(n for n in numbers if n + 1 not in numbers)
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True))


def _age(span: dt.timedelta) -> str:
    hours = span / dt.timedelta(hours=1)
    return (
        f"{span / dt.timedelta(minutes=1):.0f} min"
        if hours < 2
        else f"{hours:.0f} h"
        if hours < 48
        else f"{hours / 24:.0f} d"
    )
