"""``citynet losses``: what gateways have declared gone."""

from __future__ import annotations

import json

import psycopg
import typer
from psycopg.rows import dict_row

from citynet.runtime.command import ConfigOption, JsonOption, command
from citynet.runtime.settings import DatabaseSettings, load
from citynet_ingest.cli_db import connect
from citynet_ingest.ledger_options import (
    FIRST_PAGE,
    AfterOption,
    GatewayOption,
    LimitOption,
    ReasonOption,
    SinceOption,
    page_json,
    plain,
    since,
)
from citynet_ingest.store import sql

app = typer.Typer(no_args_is_help=True, help="Look into the loss ledger: ranges of records declared gone, and why.")


def _rows(connection: psycopg.Connection[tuple[object, ...]], name: str, **asked: object) -> list[dict[str, object]]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(sql.text(name), asked).fetchall()


@app.command("list")
@command
def list_losses(
    config: ConfigOption = None,
    gateway: GatewayOption = None,
    reason: ReasonOption = None,
    since_text: SinceOption = None,
    limit: LimitOption = 50,
    after: AfterOption = FIRST_PAGE,
    as_json: JsonOption = False,
) -> None:
    """Loss records, newest first."""
    start = since(since_text)
    with connect(load(DatabaseSettings, config)) as connection:
        rows = _rows(connection, "loss_page", before=after, gateway=gateway, reason=reason, since=start, limit=limit)
    if as_json:
        print(page_json(rows, limit))
        return
    form = "{:>8}  {:<19}  {:<20} {:<9} {:>17} {:>12} {:>12} {:>10}  {}"
    print(form.format("id", "at", "gateway", "stream", "epoch", "first", "last", "records", "reason"))
    for row in rows:
        names = ("gateway", "stream", "epoch", "first", "last", "count", "reason")
        print(form.format(str(row["id"]), str(row["at"])[:19], *(str(row[name]) for name in names)))
    if len(rows) == limit:
        print(f"more: --after {rows[-1]['id']}")


@app.command()
@command
def summary(
    config: ConfigOption = None,
    gateway: GatewayOption = None,
    reason: ReasonOption = None,
    since_text: SinceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Records lost per gateway and reason, most first."""
    start = since(since_text)
    with connect(load(DatabaseSettings, config)) as connection:
        rows = _rows(connection, "loss_summary", gateway=gateway, reason=reason, since=start)
    total = sum(int(str(row["records"])) for row in rows)
    if as_json:
        print(json.dumps({"items": rows, "records": total}, default=plain))
        return
    form = "{:<20} {:<20} {:>8} {:>12}  {:<19}  {:<19}"
    print(form.format("gateway", "reason", "losses", "records", "first", "last"))
    for row in rows:
        moments = (str(row["first_at"])[:19], str(row["last_at"])[:19])
        print(form.format(*(str(row[name]) for name in ("gateway", "reason", "losses", "records")), *moments))
    print(f"{total} records declared lost")
