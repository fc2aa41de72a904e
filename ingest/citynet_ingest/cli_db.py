"""``citynet db``: migrate the database, show its state."""

from __future__ import annotations

import json
from typing import Annotated

import psycopg
import typer

from citynet.errors import CitynetError
from citynet.runtime.command import ConfigOption, JsonOption, command
from citynet.runtime.settings import DatabaseSettings, load
from citynet_ingest.store import migrate as migrations
from citynet_ingest.store import sql

app = typer.Typer(no_args_is_help=True, help="Migrate the database; show its state.")


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
def status(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show the server, the applied and the pending migrations. Exit 1 while some are pending."""
    dsn, more = _arguments(load(DatabaseSettings, config))
    try:
        server, applied, pending = migrations.status(dsn, **more)
    except psycopg.OperationalError as error:
        raise CitynetError(f"database: {str(error).strip()}") from None
    if as_json:
        rows = [{"number": number, "name": name, "applied_at": at} for number, name, at in applied]
        print(
            json.dumps({"version": server.version, "timescale": server.timescale, "applied": rows, "pending": pending})
        )
    else:
        print(f"PostgreSQL {server.version // 10_000}, TimescaleDB {server.timescale or 'absent (plain partitions)'}")
        print(
            "\n".join(
                [
                    *(f"{at[:19]}  {name}" for _, name, at in applied),
                    *(f"pending              {name}" for name in pending),
                ]
            )
        )
    if pending:
        raise typer.Exit(1)
