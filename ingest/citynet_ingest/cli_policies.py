"""``citynet db apply-policies``: chunk interval, columnstore and retention as the settings want them."""

from __future__ import annotations

import datetime as dt
import getpass
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import psycopg
import typer

from citynet.errors import CitynetError
from citynet.runtime.command import ConfigOption, JsonOption, command
from citynet.runtime.settings import DatabaseSettings, load
from citynet_ingest import maintain
from citynet_ingest.maintain import Options, Plan
from citynet_ingest.policies import Outcome, Step
from citynet_ingest.storage_settings import StorageSettings
from citynet_ingest.store import migrate
from citynet_ingest.store.parts import Connection
from citynet_ingest.store.server import Server, probe

ByOption = Annotated[str | None, typer.Option("--by", help="Who does it, for the books; default: the login name.")]


@contextmanager
def migrated(settings: DatabaseSettings) -> Iterator[tuple[Connection, Server]]:
    """A connection to a database whose schema is up to date; what the database refuses is one clear line."""
    try:
        with psycopg.connect(autocommit=True, connect_timeout=5, **settings.conninfo()) as connection:
            connection.execute("SET timezone = 'UTC'")
            server = probe(connection)
            if pending := migrate.pending(connection, server):
                raise CitynetError(f"the schema lacks {pending[0]}: citynet db migrate")
            yield connection, server
    except psycopg.Error as error:
        raise CitynetError(f"database: {str(error).strip()}") from None


def actor(by: str | None) -> str:
    """Who is at work: what was said, else the login name."""
    if by is not None:
        return by
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return "unknown"


@command
def apply_policies(
    config: ConfigOption = None,
    dry_run: Annotated[bool, typer.Option(help="Show what would be done; change nothing.")] = False,
    without_rollups: Annotated[bool, typer.Option(help="Drop readings that no rollup has, too.")] = False,
    accept_large_drop: Annotated[
        bool, typer.Option(help="Drop more than storage.drop_days_max in this run. Look at --dry-run first.")
    ] = False,
    by: ByOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bring chunk interval, columnstore and retention to what [storage] says; safe to repeat.

    Exit 1 when something that is due could not be done: too much at once, not in rollups, or no lock.
    """
    settings = load(StorageSettings, config, {"require_rollups": False if without_rollups else None})
    options = Options(actor(by), is_dry=dry_run, accept_large=accept_large_drop)
    with migrated(load(DatabaseSettings, config)) as (connection, server):
        row = connection.execute("SELECT now()").fetchone()
        clock = row[0] if row else dt.datetime.now(dt.UTC)
        done = maintain.run(connection, server, settings, clock, options, (lambda _: None) if as_json else _tell)
    if as_json:
        print(json.dumps(to_json(done, is_dry=dry_run)))
    elif not done.steps:
        print("nothing to do")
    if any(step.outcome.is_failure for step in done.steps):
        raise typer.Exit(1)


def to_json(done: Plan, *, is_dry: bool) -> dict[str, object]:
    """The answer of a run: the times it measured from, every step, and how many are of which outcome."""
    return {
        "dry_run": is_dry,
        "clock": done.clock.isoformat(),
        "newest_reading": done.newest.isoformat() if done.newest else None,
        "reference": done.reference.isoformat() if done.reference else None,
        "steps": [step.to_json() for step in done.steps],
        "outcomes": {str(kind): sum(step.outcome is kind for step in done.steps) for kind in Outcome},
    }


def _tell(step: Step) -> None:
    what = f"{step.what} {step.part.name}" if step.part else str(step.what)
    note = f"  ({step.note})" if step.note else ""
    print(f"{step.outcome:<16} {step.table:<14} {what}: {step.now} → {step.wanted}{note}", flush=True)
