"""``citynet audit``: the conservation equation of a running system."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from citynet.runtime.command import ConfigOption, JsonOption, command
from citynet.runtime.settings import DatabaseSettings, load
from citynet_ingest import audit as audits
from citynet_ingest.cli_db import connect

app = typer.Typer(help="Check the conservation equation of a running system.")


@app.callback(invoke_without_command=True)
@command
def audit(
    config: ConfigOption = None,
    as_json: JsonOption = False,
    count: Annotated[bool, typer.Option(help="Count the readings themselves (reads the whole table).")] = True,
) -> None:
    """accepted = stored + dead-lettered + lost + noted + in spool, per stream and epoch; exit 1 if not."""
    with connect(load(DatabaseSettings, config)) as connection:
        result = audits.run(connection, count_rows=count)
    print(json.dumps(result.to_json()) if as_json else _table(result))
    if not result.is_balanced:
        raise typer.Exit(1)


def _table(result: audits.Audit) -> str:
    form = "{:<20} {:<9} {:>17} {:>12} {:>12} {:>9} {:>9} {:>7} {:>9} {:>5}"
    lines = [
        form.format("gateway", "stream", "epoch", "accepted", "stored", "dead", "lost", "noted", "in spool", "diff")
    ]
    lines += [
        form.format(
            s.gateway,
            s.stream,
            s.epoch,
            s.accepted,
            s.stored,
            s.dead_lettered,
            s.lost,
            s.noted,
            s.in_spool,
            s.difference,
        )
        for s in result.streams
    ]
    lines += [
        f"{s.name:<20} booked {s.booked:>12}  found {s.found:>12}  retired {s.retired:>12}" for s in result.shelves
    ]
    lines.append("balanced" if result.is_balanced else "NOT BALANCED")
    return "\n".join(lines)
