"""``citynet api``: serve the API and the console; manage tokens."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from citynet.runtime.command import ConfigOption, JsonOption, command, start_logging
from citynet.runtime.settings import DatabaseSettings, load
from citynet_api import server, tokens
from citynet_api.settings import ApiSettings

app = typer.Typer(no_args_is_help=True, help="Serve the API and the console; manage tokens.")
token_app = typer.Typer(no_args_is_help=True, help="Bearer tokens of the API.")
app.add_typer(token_app, name="token")


class RoleName(StrEnum):
    """Roles as the command line spells them."""

    viewer = "viewer"
    operator = "operator"
    admin = "admin"
    source = tokens.SOURCE_ROLE


@app.callback()
def _group() -> None:
    """Serve the API and the console; manage tokens."""


@app.command("run")
@command
def run(
    config: ConfigOption = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.")] = None,
) -> None:
    """Serve the API and the console until stopped."""
    settings = load(ApiSettings, config, {"host": host, "port": port})
    database = load(DatabaseSettings, config)
    start_logging(config, "api")
    server.run(settings, database.conninfo())


@token_app.command("create")
@command
def token_create(
    name: Annotated[str, typer.Argument(help="Whose token; shown with every acknowledgement.")],
    role: Annotated[RoleName, typer.Option(help="What it may do.")] = RoleName.viewer,
    source: Annotated[str | None, typer.Option(help="With the role source: who may push with it.")] = None,
    expires_days: Annotated[int | None, typer.Option(help="Days until it expires; without, never.")] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a token and print it, once; only its hash is kept."""
    with tokens.connect(_conninfo(config)) as connection:
        made = tokens.create(connection, name, role.value, expires_days, source)
    print(_json({"token": made.token, **made.row}) if as_json else made.token)


@token_app.command("list")
@command
def token_list(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List tokens; their secrets are not known any more."""
    with tokens.connect(_conninfo(config)) as connection:
        rows = tokens.listed(connection)
    if as_json:
        print(_json(rows))
        return
    print(f"{'NAME':24} {'ROLE':9} {'STATE':8} {'CREATED':20} {'EXPIRES':20} SOURCE")
    for row in rows:
        times = f"{_time(row['created_at']):20} {_time(row['expires_at']):20}"
        print(f"{row['name']:24} {row['role']:9} {row['state']:8} {times} {row['source'] or '-'}")


@token_app.command("revoke")
@command
def token_revoke(
    name: Annotated[str, typer.Argument(help="Name of the token.")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Revoke a token; the api refuses it within seconds."""
    with tokens.connect(_conninfo(config)) as connection:
        row = tokens.revoke(connection, name)
    print(_json(row) if as_json else f"{row['name']}: revoked at {_time(row['revoked_at'])}")


def _conninfo(config: Path | None) -> Mapping[str, Any]:
    return load(DatabaseSettings, config).conninfo()


def _time(at: datetime | None) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ") if at else "-"


def _json(value: object) -> str:
    return json.dumps(value, default=_time, ensure_ascii=False)
