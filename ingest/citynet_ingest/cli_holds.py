"""``citynet db hold``: spans that retention must not touch."""

from __future__ import annotations

import datetime as dt
import json
from typing import Annotated

import typer

from citynet.runtime.command import ConfigOption, JsonOption, command
from citynet.runtime.settings import DatabaseSettings, load
from citynet_ingest.cli_policies import ByOption, actor, migrated
from citynet_ingest.store import holds
from citynet_ingest.store.holds import Hold

app = typer.Typer(no_args_is_help=True, help="Legal holds: spans that retention must not touch.")


def _instant(text: str) -> dt.datetime:
    try:
        found = dt.datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is no ISO 8601 date or time, such as 2026-03-01 or 2026-03-01T06:00Z"
        ) from None
    return found if found.tzinfo else found.replace(tzinfo=dt.UTC)


FromOption = Annotated[
    dt.datetime, typer.Option("--from", parser=_instant, metavar="TIME", help="Beginning, ISO 8601; without zone UTC.")
]
ToOption = Annotated[
    dt.datetime, typer.Option("--to", parser=_instant, metavar="TIME", help="End, not included, in the same form.")
]


@app.command()
@command
def add(
    from_at: FromOption,
    to_at: ToOption,
    reason: Annotated[str, typer.Option(help="Why: a case number, an order.")],
    config: ConfigOption = None,
    by: ByOption = None,
    as_json: JsonOption = False,
) -> None:
    """Hold a span of time. Every chunk or partition that it touches is kept whole, and dead letters and notes of its time."""
    if to_at <= from_at:
        raise typer.BadParameter("--to must be after --from")
    if not reason.strip():
        raise typer.BadParameter("--reason must say something")
    with migrated(load(DatabaseSettings, config)) as (connection, _):
        hold = holds.place(connection, from_at, to_at, reason=reason.strip(), actor=actor(by))
        gone = holds.already_gone(connection, hold)
    if as_json:
        lost = [
            {"table": table, "part": part, "from_at": start.isoformat(), "to_at": end.isoformat()}
            for table, part, start, end in gone
        ]
        print(json.dumps(hold.to_json() | {"already_gone": lost}))
        return
    print(_line(hold))
    for table, part, start, end in gone:
        print(f"warning: {table} {part} ({start:%Y-%m-%d %H:%M} … {end:%Y-%m-%d %H:%M}) was dropped before this hold")


@app.command("list")
@command
def list_(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """All holds, released ones too."""
    with migrated(load(DatabaseSettings, config)) as (connection, _):
        found = holds.all_holds(connection)
    if as_json:
        print(json.dumps([hold.to_json() for hold in found]))
    else:
        print("\n".join(_line(hold) for hold in found) or "no holds")


@app.command()
@command
def release(
    number: Annotated[int, typer.Argument(help="Number of the hold.")],
    reason: Annotated[str, typer.Option(help="Why it may end.")],
    config: ConfigOption = None,
    by: ByOption = None,
    as_json: JsonOption = False,
) -> None:
    """End a hold; who, when and why stay in its row. What it kept goes with the next run of apply-policies."""
    if not reason.strip():
        raise typer.BadParameter("--reason must say something")
    with migrated(load(DatabaseSettings, config)) as (connection, _):
        hold = holds.release(connection, number, reason=reason.strip(), actor=actor(by))
    print(json.dumps(hold.to_json()) if as_json else _line(hold))


def _line(hold: Hold) -> str:
    span = f"{hold.from_at:%Y-%m-%d %H:%M} … {hold.to_at:%Y-%m-%d %H:%M}"
    line = f"{hold.id:>4}  {span}  {hold.reason}  (placed {hold.placed_at:%Y-%m-%d %H:%M} by {hold.placed_by})"
    if hold.released_at is None:
        return line
    return f"{line}  released {hold.released_at:%Y-%m-%d %H:%M} by {hold.released_by}: {hold.release_reason}"
