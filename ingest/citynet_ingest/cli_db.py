"""``citynet db``: migrate the database, show its state, the life of the data, rollups anew."""

from __future__ import annotations

import datetime as dt
import json
import sys
from dataclasses import asdict
from typing import Annotated

import psycopg
import typer

from citynet.errors import CitynetError
from citynet.runtime.command import ConfigOption, JsonOption, command, moment
from citynet.runtime.settings import DatabaseSettings, load
from citynet_ingest import cli_holds, cli_policies, cli_status
from citynet_ingest.store import migrate as migrations
from citynet_ingest.store import sql
from citynet_ingest.store.rebuild import rebuild

app = typer.Typer(no_args_is_help=True, help="Migrate the database; show its state; the life of the data.")
app.command("status")(cli_status.status)
app.command("apply-policies")(cli_policies.apply_policies)
app.add_typer(cli_holds.app, name="hold")


@app.command()
@command
def uplinks(
    config: ConfigOption = None,
    as_json: JsonOption = False,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many devices, most missing first.")] = 100,
) -> None:
    """List devices by the uplinks that their frame counters passed over."""
    with connect(load(DatabaseSettings, config)) as connection:
        rows = connection.execute(sql.text("uplink_list"), {"limit": limit}).fetchall()
    names = ("device", "received", "missing", "restarts", "counter", "last_at")
    if as_json:
        print(json.dumps([dict(zip(names, row, strict=True)) for row in rows]))
        return
    print(f"{'DEVICE':20} {'RECEIVED':>10} {'MISSING':>10} {'RESTARTS':>9} {'COUNTER':>10} LAST")
    for device, received, missing, restarts, counter, last_at in rows:
        print(f"{device:20} {received:>10} {missing:>10} {restarts:>9} {counter:>10} {last_at}")


def connect(settings: DatabaseSettings) -> psycopg.Connection[tuple[object, ...]]:
    """A connection, or one clear line about why there is none."""
    try:
        return psycopg.connect(autocommit=True, connect_timeout=5, **settings.conninfo())
    except psycopg.OperationalError as error:
        raise CitynetError(f"database: {str(error).strip()}") from None


def _arguments(settings: DatabaseSettings) -> tuple[str, dict[str, object]]:
    arguments = settings.conninfo()
    return arguments.pop("conninfo"), {"connect_timeout": 5, **arguments}


@app.command()
@command
def migrate(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Bring the schema up to date; safe to call at any time, from several machines at once."""
    dsn, more = _arguments(load(DatabaseSettings, config))
    try:
        server, applied = migrations.migrate(dsn, **more)
    except psycopg.OperationalError as error:
        raise CitynetError(f"database: {str(error).strip()}") from None
    if as_json:
        print(json.dumps({"version": server.version, "timescale": server.timescale, "applied": applied}))
    else:
        print("\n".join([*(f"applied {name}" for name in applied), "the schema is up to date"]))


@app.command()
@command
def rollup(
    start: Annotated[str, typer.Option("--from", help="Begin, ISO 8601 with a time zone: 2026-11-01T00:00Z.")],
    stop: Annotated[str, typer.Option("--to", help="End, not included.")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compute the rollups of a span anew from the readings. Safe while ingest runs, and as often as wanted."""
    first, last = moment("--from", start), moment("--to", stop)
    if first >= last:
        raise typer.BadParameter(f"{stop} is not after --from {start}", param_hint="--to")

    def progress(done: dt.datetime) -> None:
        print(f"{done:%Y-%m-%d %H:%M} UTC, {min(1, (done - first) / (last - first)):.0%}", file=sys.stderr)

    with connect(load(DatabaseSettings, config)) as connection:
        found = rebuild(connection, first, last, progress)
    print(
        json.dumps(asdict(found))
        if as_json
        else f"{found.minutes} minutes and {found.hours} hours were computed anew"
        + (f"; {found.retired_hours} hours were left, their readings are gone" if found.retired_hours else "")
    )
