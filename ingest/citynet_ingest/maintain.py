"""One run of maintenance: see what is there, decide, do it, tell each step as it ends."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from psycopg.sql import SQL, Identifier, Literal

from citynet.errors import CitynetError
from citynet_ingest import policies
from citynet_ingest.policies import ROW_TABLES, Outcome, Policies, Step, What
from citynet_ingest.storage_settings import StorageSettings
from citynet_ingest.store import retire, sql
from citynet_ingest.store.holds import all_holds
from citynet_ingest.store.parts import READING, Connection, Part, extent, parts
from citynet_ingest.store.server import Server

_LOCK = "SELECT pg_try_advisory_lock(hashtext('citynet.maintenance'))"
_UNLOCK = "SELECT pg_advisory_unlock(hashtext('citynet.maintenance'))"


@dataclass(frozen=True, slots=True)
class Options:
    """How a run goes about it. `actor` is written into the books."""

    actor: str
    is_dry: bool = False
    accept_large: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What is due, and the times it was measured from; oldest and newest reading."""

    clock: dt.datetime
    oldest: dt.datetime | None
    newest: dt.datetime | None
    reference: dt.datetime | None
    steps: list[Step]


def found_policies(connection: Connection) -> Policies:
    """How TimescaleDB is set."""
    jobs = connection.execute(sql.text("jobs"), {}).fetchall()
    return Policies(
        chunk=dict(connection.execute(sql.text("chunk_intervals")).fetchall()),
        columnstore={table: after for table, _, kind, after in jobs if kind == "columnstore"},
        foreign={table: after for table, _, kind, after in jobs if kind == "retention"},
    )


def plan(
    connection: Connection, server: Server, settings: StorageSettings, clock: dt.datetime, *, accept_large: bool = False
) -> Plan:
    """What a run at this time of the server's clock would do. Changes nothing."""
    steps = policies.policy_steps(settings, found_policies(connection)) if server.timescale else []
    there = parts(connection, server)
    span = extent(connection, [part for part in there if part.table == READING])
    oldest, newest = span or (None, None)
    at = policies.reference(clock, newest)
    if at is not None:
        steps += policies.drop_steps(settings, there, all_holds(connection), at, accept_large=accept_large)
        for table in ROW_TABLES:
            if (age := policies.keep(settings, table)) is not None:
                due = retire.due_rows(connection, table, at - age)
                step = policies.delete_step(settings, table, due, at - age, accept_large=accept_large)
                steps += [step] if step else []
    return Plan(clock, oldest, newest, at, steps)


def run(
    connection: Connection,
    server: Server,
    settings: StorageSettings,
    clock: dt.datetime,
    options: Options,
    tell: Callable[[Step], None] = lambda _: None,
) -> Plan:
    """Make a plan and carry it out; the steps of the answer say how each of them ended.

    A dry run changes nothing, and looks into the rollups as the real one would.

    Raises:
        CitynetError: another run is under way.
    """
    with _alone(connection, options):
        planned = plan(connection, server, settings, clock, accept_large=options.accept_large)
        how = retire.Removal(server, options.actor, settings.lock_wait_s, settings.lock_tries)
        ended = []
        for step in planned.steps:
            if step.outcome is Outcome.DUE:
                at = planned.reference or clock
                covered_by = policies.outliving(settings, step.part, at) if step.part else []
                step = _look(connection, step, covered_by) if options.is_dry else _do(connection, step, how, covered_by)  # noqa: PLW2901
            tell(step)
            ended.append(step)
        return replace(planned, steps=ended)


@contextmanager
def _alone(connection: Connection, options: Options) -> Iterator[None]:
    row = None if options.is_dry else connection.execute(_LOCK).fetchone()
    if row and not row[0]:
        raise CitynetError("another run of maintenance is under way")
    try:
        yield
    finally:
        if row and not connection.closed:
            connection.execute(_UNLOCK)


def _look(connection: Connection, step: Step, covered_by: list[str]) -> Step:
    if step.part is None:
        return step
    try:
        retire.check_covered(connection, step.part, _readings(connection, step.part, covered_by), covered_by)
    except retire.UncoveredError as error:
        return step.ended(Outcome.UNCOVERED, str(error))
    return step


def _readings(connection: Connection, part: Part, covered_by: list[str]) -> int:
    return retire.count(connection, part)[1] if covered_by else 0


def _do(connection: Connection, step: Step, how: retire.Removal, covered_by: list[str]) -> Step:
    try:
        if step.what is What.DROP and step.part:
            rows = retire.drop(connection, step.part, how, covered_by=covered_by)
            return step.ended(Outcome.DONE, f"{rows} rows")
        if step.what is What.DELETE and step.until:
            rows = retire.delete_rows(connection, step.table, step.until, how.actor)
            return step.ended(Outcome.DONE, f"{rows} rows")
        _set_policy(connection, step)
    except retire.HeldError as error:
        return step.ended(Outcome.HELD, str(error))
    except retire.UncoveredError as error:
        return step.ended(Outcome.UNCOVERED, str(error))
    except retire.BusyError as error:
        return step.ended(Outcome.BUSY, str(error))
    return step.ended(Outcome.DONE)


def _set_policy(connection: Connection, step: Step) -> None:
    table = Identifier(step.table).as_string(connection)
    with connection.transaction():
        if step.what is What.CHUNK:
            connection.execute(
                "SELECT set_chunk_time_interval(%s::text::regclass, %s::interval)", (table, step.interval)
            )
        elif step.what is What.FOREIGN:
            connection.execute("SELECT remove_retention_policy(%s::text::regclass)", (table,))
        else:
            connection.execute(SQL("CALL remove_columnstore_policy({}, if_exists => true)").format(Literal(step.table)))
            if step.interval is not None:
                add = SQL("CALL add_columnstore_policy({}, after => {}::interval)")
                connection.execute(add.format(Literal(step.table), Literal(step.interval)))
