"""``citynet db status``: the state of the database."""

from __future__ import annotations

import json

import psycopg

from citynet.errors import CitynetError
from citynet.runtime.command import ConfigOption, JsonOption, command
from citynet.runtime.settings import DatabaseSettings, load
from citynet_ingest import status as states
from citynet_ingest.status import Status
from citynet_ingest.storage_settings import StorageSettings
from citynet_ingest.store import migrate
from citynet_ingest.store.server import Server


@command
def status(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show server, schema, tables, policies, holds, workers, and what should worry you. Exit 1 only without a database."""
    settings, storage = load(DatabaseSettings, config), load(StorageSettings, config)
    conninfo = settings.conninfo()
    dsn, more = conninfo.pop("conninfo"), {"connect_timeout": 5, **conninfo}
    try:
        server, applied, pending = migrate.status(dsn, **more)
        schema: dict[str, object] = {
            "number": applied[-1][0] if applied else 0,
            "applied": [{"number": number, "name": name, "applied_at": at} for number, name, at in applied],
            "pending": pending,
        }
        found = _unmigrated(server, schema, pending) if pending else _look(settings, server, schema, storage)
    except psycopg.Error as error:
        raise CitynetError(f"database: {str(error).strip()}") from None
    print(json.dumps(found.to_json()) if as_json else _page(found))


def _look(settings: DatabaseSettings, server: Server, schema: dict[str, object], storage: StorageSettings) -> Status:
    with psycopg.connect(autocommit=True, connect_timeout=5, **settings.conninfo()) as connection:
        connection.execute("SET timezone = 'UTC'")
        return states.look(connection, server, schema, storage)


def _unmigrated(server: Server, schema: dict[str, object], pending: list[str]) -> Status:
    """With migrations pending only the schema can be told; the rest would ask for tables that are not there."""
    found = Status({"version": server.version, "timescale": server.timescale}, schema)
    found.warnings = [f"{len(pending)} migrations are pending, from {pending[0]} on: citynet db migrate"]
    return found


def _page(found: Status) -> str:
    version = int(str(found.server["version"])) // 10_000
    lines = [f"PostgreSQL {version}, TimescaleDB {found.server['timescale'] or 'absent (plain partitions)'}"]
    lines.append(f"schema {found.schema['number']}")
    lines += [f"pending: {name}" for name in _list(found.schema["pending"])]
    if found.city:
        lines += _contents(found)
    lines += [f"WARNING: {text}" for text in found.warnings] or ["no warnings"]
    return "\n".join(lines)


def _contents(found: Status) -> list[str]:
    city = found.city
    lines = [
        "settings: " + ", ".join(f"{name} {value}" for name, value in found.settings.items()),
        f"{city['gateways']} gateways ({city['gateways_online']} online), {city['streams']} streams, "
        f"{city['devices']} devices, {city['series']} series, {city['alerts_open']} open alerts",
        f"readings: {city['readings_booked']} booked, from {found.readings['oldest']} to {found.readings['newest']}",
        f"dead letters: {city['dead_letters']} of {city['dead_letter_records']} records; "
        f"losses: {city['losses']} of {city['readings_lost']} readings",
        "",
        f"{'table':<18} {'rows, about':>14} {'MB':>10} {'parts':>6} {'in columnstore':>15}  span",
    ]
    lines += [_table(table) for table in found.tables]
    lines += [
        f"retired of {name}: {gone['rows']} rows, {gone['bytes'] / 1e6:.1f} MB" for name, gone in found.retired.items()
    ]
    lines.append("")
    lines += [f"worker {w['worker']}: commit {w['commit']}, {w['age_s']:.0f} s ago" for w in found.workers]
    lines.append(f"shards held: {len(found.shards)}")
    lines += [f"hold {h['id']}: {h['from_at']} … {h['to_at']}: {h['reason']}" for h in found.holds if h["active"]]
    lines += [f"policy {p['table']}: {p['what']}: {p['now']} → {p['wanted']} ({p['outcome']})" for p in found.policies]
    return lines


def _table(table: dict[str, object]) -> str:
    line = f"{table['name']:<18} {table['rows_estimate']:>14} {int(str(table['bytes'])) / 1e6:>10.1f}"
    parts = table["parts"]
    if not isinstance(parts, dict) or not parts["count"]:
        return line
    share = f"{parts['in_columnstore']} ({parts['columnstore_bytes'] / 1e6:.1f} MB)"
    return f"{line} {parts['count']:>6} {share:>15}  {parts['from_at'][:16]} … {parts['to_at'][:16]}"


def _list(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []
