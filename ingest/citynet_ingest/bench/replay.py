"""Line 11: rules over stored history, from the database to the alerts."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from citynet_ingest.bench.city import START_US, City, metrics_of
from citynet_ingest.bench.result import Bound, Line
from citynet_ingest.bench.stage import BenchError, Connection, Stage, cpu_s, has_columnstore, register
from citynet_ingest.copybody import days_of
from citynet_ingest.registry import Registry
from citynet_ingest.store.history import DatabaseHistory
from citynet_ingest.store.server import probe
from citynet_ingest.store.transaction import Partitions, copy_rows
from citynet_rules.proof.history import Span, replay
from citynet_rules.spec import RuleSet, library_paths, load_rules

_PLAIN = b"COPY (SELECT time, series_id, value, quality FROM reading ORDER BY series_id, time) TO STDOUT (FORMAT binary)"
_LOOK_S = 0.02


def fill(dsn: str, city: City, batches: int) -> int:
    """Readings of a city as ingest stores them, a full commit after the other; returns how many."""
    register(dsn, {f"{info.device}/{info.metric}": info.source for info in city.infos()})
    partitions = Partitions()
    with psycopg.connect(dsn, autocommit=True) as connection:
        infos = Registry().load(connection)
        can = has_columnstore(connection)
        for batch in city.batches(batches, infos):
            partitions.ensure(connection, days_of(batch))
            with connection.transaction():
                copy_rows(connection, batch, has_columnstore=can)
        connection.execute("VACUUM ANALYZE reading")
    return batches * city.batch
