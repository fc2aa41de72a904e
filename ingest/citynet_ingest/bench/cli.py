"""``citynet bench``: measure against baselines, in one run on this machine."""

from __future__ import annotations

import json
import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated

import psycopg
import typer
from psycopg.conninfo import make_conninfo

from citynet import formats, wire
from citynet.runtime.command import JsonOption, command
from citynet.runtime.embedded import EmbeddedMosquitto, EmbeddedPostgres
from citynet_ingest.bench import load, measure
from citynet_ingest.bench.measure import Rate
from citynet_ingest.store.migrate import migrate

app = typer.Typer(no_args_is_help=True, help="Measure against baselines, in one run on this machine.")
_BTREE = "CREATE INDEX ON bench_copy (series_id, time DESC)"
_GATEWAYS, _SERIES_EACH, _BATCH = 20, 100, 500


@app.callback()
def bench() -> None:
    """Every figure is a rate beside a ratio to a baseline of the same run; absolute figures are of this machine."""


@app.command()
@command
def ingest(
    as_json: JsonOption = False,
    dsn: Annotated[str | None, typer.Option(help="Another server than the embedded one; needs CREATEDB.")] = None,
    readings: Annotated[int, typer.Option(min=100_000, help="Readings sent in batches of 500.")] = 3_000_000,
    messages: Annotated[int, typer.Option(min=1_000, help="Messages of one reading each.")] = 60_000,
) -> None:
    """MQTT to COMMIT: batches and single messages, against COPY ceilings and the loop that people write."""
    with _stage(dsn) as (folder, broker, database):
        now_us = time.time_ns() // 1_000_000_000 * 1_000_000
        start_us = now_us - 3_600_000_000
        heap = measure.copy_ceiling(database, "", "COPY, heap without index", min(readings, 4_000_000), start_us)
        btree = measure.copy_ceiling(database, _BTREE, "COPY, B-tree, sorted", min(readings, 4_000_000), start_us)
        people = measure.peoples_way(broker, database, messages // 4, start_us)
        each = max(1, readings // (_GATEWAYS * _BATCH))
        batches_from_us = now_us - each * (_BATCH // _SERIES_EACH) * 1_000_000  # the last batch is of now
        batches = measure.our_way(
            folder, broker, database, load.batch_messages(_GATEWAYS, _SERIES_EACH, each, _BATCH, batches_from_us), wire.CBOR,
            each * _GATEWAYS * _BATCH, f"citynet, batches of {_BATCH}",
        )  # fmt: skip
        singles = measure.our_way(
            folder, broker, database, load.json_messages(2_000, messages, start_us), formats.THINGSBOARD, messages,
            "citynet, one JSON reading a message",
        )  # fmt: skip
    _print([heap, btree, people, batches, singles], _ratios(heap, btree, people, batches, singles), as_json=as_json)


def _ratios(heap: Rate, btree: Rate, people: Rate, batches: Rate, singles: Rate) -> dict[str, float]:
    return {
        "batches_to_heap_copy": round(batches.per_s / heap.per_s, 3),
        "batches_to_btree_copy": round(batches.per_s / btree.per_s, 3),
        "singles_to_people": round(singles.per_s / people.per_s, 2),
    }


def _print(rates: list[Rate], ratios: dict[str, float], *, as_json: bool) -> None:
    if as_json:
        rows = [
            {"name": r.name, "per_s": round(r.per_s), "unit": r.unit, "count": r.count, "seconds": round(r.seconds, 3)}
            for r in rates
        ]
        print(json.dumps({"rates": rows, "ratios": ratios}))
        return
    for rate in rates:
        print(f"{rate.name:<40} {rate.per_s:>12,.0f} {rate.unit}  ({rate.count:,} in {rate.seconds:.2f} s)")
    for name, value in ratios.items():
        print(f"{name:<40} {value:>12.2f}")


@contextmanager
def _stage(dsn: str | None) -> Iterator[tuple[Path, EmbeddedMosquitto, str]]:
    """A broker, a server and a database of our own; all gone afterwards."""
    with ExitStack() as stack:
        folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="citynet-bench-", ignore_cleanup_errors=True))
        )
        folder.chmod(0o711)
        server = (
            dsn or stack.enter_context(EmbeddedPostgres(folder, {"shared_buffers": "1GB", "max_wal_size": "4GB"})).dsn()
        )
        broker = stack.enter_context(EmbeddedMosquitto(folder / "broker"))
        name = f"citynet_bench_{secrets.token_hex(4)}"
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        try:
            database = make_conninfo(server, dbname=name)
            migrate(database)
            yield folder, broker, database
        finally:
            with psycopg.connect(server, autocommit=True) as connection:
                connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
