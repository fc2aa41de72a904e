"""Removing old data for good: a chunk or partition at a time, or old rows, each booked in the transaction that removes it.

TimescaleDB's retention job knows neither holds nor books, so it is not used. A drop must not stop ingest: the count needs a
lock of the part alone; the table's own lock is held for milliseconds and waited for briefly, because everybody who comes
later queues behind the wait.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Sequence
from dataclasses import dataclass

import psycopg
from psycopg.sql import SQL, Identifier

from citynet.errors import CitynetError
from citynet_ingest.store import sql
from citynet_ingest.store.holds import all_holds, keeping, why_held
from citynet_ingest.store.parts import READING, Connection, Part
from citynet_ingest.store.server import Server

_PAUSE_S = 0.5
_LOCKED = (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected)


class BusyError(CitynetError):
    """Somebody uses the table without a pause; nothing was removed."""


class HeldError(CitynetError):
    """A hold keeps the part."""


class UncoveredError(CitynetError):
    """Readings of the part are in no rollup that outlives it."""


@dataclass(frozen=True, slots=True)
class Removal:
    """How parts are removed: on what server, by whom, how patiently."""

    server: Server
    actor: str
    lock_wait_s: float
    lock_tries: int


def drop(connection: Connection, part: Part, how: Removal, *, covered_by: Sequence[str] = ()) -> int:
    """Drop a part and book it.

    Args:
        covered_by: rollup tables that must have all readings of the part.

    Returns:
        How many rows it had.

    Raises:
        HeldError, UncoveredError, BusyError: it is still there.
    """
    for left in reversed(range(how.lock_tries)):
        try:
            return _try_drop(connection, part, how, covered_by)
        except _LOCKED as error:
            if not left:
                raise BusyError(f"no lock in {how.lock_tries} tries: {str(error).splitlines()[0]}") from None
            time.sleep(_PAUSE_S)
    raise AssertionError("unreachable")


def _try_drop(connection: Connection, part: Part, how: Removal, covered_by: Sequence[str]) -> int:
    with connection.transaction():
        connection.execute(f"SET LOCAL lock_timeout = {int(how.lock_wait_s * 1000)}".encode())
        # From here on nobody writes into this part, so the count stays right.
        connection.execute(SQL("LOCK TABLE {} IN SHARE MODE").format(part.identifier))
        rows, readings = count(connection, part)
        check_covered(connection, part, readings, covered_by)
        _check_held(connection, part)
        _remove(connection, part, how.server)
        booked = {
            "actor": how.actor,
            "tbl": part.table,
            "part": part.name,
            "from_at": part.from_at,
            "to_at": part.to_at,
        }
        connection.execute(sql.text("retired_add"), booked | {"rows": rows, "records": readings, "bytes": part.bytes})
    return rows


def _remove(connection: Connection, part: Part, server: Server) -> None:
    """Without a writer anywhere in the table nobody can be about to write into what goes. On plain PostgreSQL a partition
    leaves its table only without readers, too."""
    mode = "EXCLUSIVE" if server.timescale else "ACCESS EXCLUSIVE"
    connection.execute(SQL(f"LOCK TABLE ONLY {{}} IN {mode} MODE").format(Identifier(part.table)))
    if not server.timescale:
        connection.execute(SQL("DROP TABLE {}").format(part.identifier))
        return
    dropped = connection.execute(
        sql.text("drop_chunk"), {"tbl": part.table, "from_at": part.from_at, "to_at": part.to_at}
    ).fetchall()
    if len(dropped) != 1:
        raise CitynetError(
            f"{part.name}: TimescaleDB would drop {len(dropped)} chunks instead of one; nothing was dropped"
        )


def count(connection: Connection, part: Part) -> tuple[int, int]:
    """(rows, readings in them) of a part."""
    readings = SQL("count(*)") if part.table == READING else SQL("coalesce(sum(n), 0)::bigint")
    row = connection.execute(SQL("SELECT count(*), {} FROM {}").format(readings, part.identifier)).fetchone()
    return (int(row[0]), int(row[1])) if row else (0, 0)


def check_covered(connection: Connection, part: Part, readings: int, covered_by: Sequence[str]) -> None:
    """UncoveredError unless each of these rollup tables has as many readings of the span as were ever stored of it."""
    span = {"from_at": part.from_at, "to_at": part.to_at}
    for table in covered_by if readings else ():
        gone = connection.execute(sql.text("retired_between"), span | {"tbl": READING}).fetchone()
        needed = readings + (int(gone[0]) if gone else 0)
        statement = SQL(sql.text("rolled_up").decode()).format(rollup=Identifier(table))
        found = connection.execute(statement, span).fetchone()
        missing = needed - (int(found[0]) if found else 0)
        if missing > 0:
            raise UncoveredError(f"{missing} of {needed} readings are not in {table}")


def _check_held(connection: Connection, part: Part) -> None:
    """HeldError if a hold keeps the part; to the end of the transaction no hold can be placed."""
    connection.execute("LOCK TABLE legal_hold IN SHARE MODE")
    if holds := keeping(all_holds(connection), part.from_at, part.to_at):
        raise HeldError(why_held(holds))


def due_rows(connection: Connection, table: str, until: dt.datetime) -> tuple[int, int]:
    """Rows of ``dead_letter`` or ``gateway_note`` from before `until` that no hold keeps, and on how many days they came."""
    row = connection.execute(sql.text(f"{table}_due"), {"until": until}).fetchone()
    return (int(row[0]), int(row[1])) if row else (0, 0)


def delete_rows(connection: Connection, table: str, until: dt.datetime, actor: str) -> int:
    """Delete and book them; how many there were."""
    with connection.transaction():
        connection.execute("LOCK TABLE legal_hold IN SHARE MODE")
        row = connection.execute(sql.text(f"{table}_retire"), {"until": until, "actor": actor}).fetchone()
    return int(row[0]) if row else 0
