"""``citynet db``: migrate the database, show its state, and the life of the data."""

from __future__ import annotations

import json

import psycopg
import typer

from citynet.errors import CitynetError
from citynet.runtime.command import ConfigOption, JsonOption, command
from citynet.runtime.settings import DatabaseSettings, load
from citynet_ingest import cli_holds, cli_policies, cli_status
from citynet_ingest.store import migrate as migrations

app = typer.Typer(no_args_is_help=True, help="Migrate the database; show its state; the life of the data.")
app.command("status")(cli_status.status)
app.command("apply-policies")(cli_policies.apply_policies)
app.add_typer(cli_holds.app, name="hold")


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
