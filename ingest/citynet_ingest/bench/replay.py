"""Line 11: rules over stored history, from the database to the alerts."""

from __future__ import annotations

import time
from contextlib import nullcontext

import psycopg

from citynet_ingest.bench.city import START_US, City, metrics_of
from citynet_ingest.bench.pairs import resident_bytes
from citynet_ingest.bench.result import Bound, Line
from citynet_ingest.bench.stage import BenchError, Connection, Stage, cpu_s, has_columnstore, register
from citynet_ingest.copybody import days_of
from citynet_ingest.registry import Registry
from citynet_ingest.store.history import DatabaseHistory
from citynet_ingest.store.transaction import Partitions, copy_rows
from citynet_rules.proof.history import Span, replay
from citynet_rules.spec import library_paths, load_rules

_PLAIN = (
    b"COPY (SELECT time, series_id, value, quality FROM reading ORDER BY series_id, time) TO STDOUT (FORMAT binary)"
)


def replayed(stage: Stage) -> Line:
    """The shipped packs over readings that ingest stored, against reading them with a plain COPY."""
    rules = load_rules(library_paths())
    city, batches = (City(metrics_of(rules), 580), 3) if stage.is_quick else (City(metrics_of(rules)), 32)
    total = batches * city.batch
    with (
        stage.database() as dsn,
        psycopg.connect(dsn, autocommit=True) as connection,
        psycopg.connect(dsn, autocommit=True) as second,
    ):
        fill(connection, dsn, city, batches)
        plain_s = _plain(connection)
        history = DatabaseHistory(connection, stage.server, another=lambda: nullcontext(second))
        before = peak = resident_bytes("VmRSS")

        def look(_at_us: int, _readings: int) -> None:
            nonlocal peak
            peak = max(peak, resident_bytes("VmRSS"))

        started, cpu, server = time.perf_counter(), time.process_time(), _server_s(connection, second)
        span = Span(START_US, START_US + (batches * city.rounds + 1) * city.period_us)
        done = replay(rules, history, span, look)
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        server = _server_s(connection, second) - server
    if done.readings != total:
        raise BenchError(f"{done.readings} readings were replayed, {total} are stored")
    values = {
        "readings_per_s": total / seconds,
        "readings_per_cpu_s_of_the_dearer_side": total / max(cpu, server),
        "ratio_to_plain_copy": plain_s / seconds,
        "replay_cpu_us_per_reading": cpu / total * 1e6,
        "database_cpu_us_per_reading": server / total * 1e6,
        "growth_mb": (peak - before) / 1e6,
        "alerts": len(done.alerts),
        "readings": total,
    }
    bounds = (Bound("readings_per_s", 1_500_000, 2_500_000), Bound("growth_mb", 600, 400, at_most=True))
    notes = (
        f"{city.series:,} series, every shipped rule; the baseline is one COPY of the same rows in order, thrown away"
    )
    baselines = {"plain_copy_per_s": total / plain_s}
    return Line(11, "replay from the database", "readings/s", values, bounds, baselines, notes)


def fill(connection: Connection, dsn: str, city: City, batches: int) -> None:
    """Readings of a city as ingest stores them, a full commit after the other."""
    register(dsn, {f"{info.device}/{info.metric}": info.source for info in city.infos()})
    infos = Registry().load(connection)
    partitions, can = Partitions(), has_columnstore(connection)
    for batch in city.batches(batches, infos):
        partitions.ensure(connection, days_of(batch))
        with connection.transaction():
            copy_rows(connection, batch, has_columnstore=can)
    connection.execute("ANALYZE reading")


def _plain(connection: Connection) -> float:
    """Seconds to read all rows in order as everybody would, and throw them away."""
    started = time.perf_counter()
    with connection.cursor().copy(_PLAIN) as copy:
        for _ in copy:
            pass
    return time.perf_counter() - started


def _server_s(*connections: Connection) -> float:
    """Processor seconds of the server's processes; nothing where they are on another machine."""
    return sum(cpu_s(connection.info.backend_pid, "postgres") or 0.0 for connection in connections)
