"""A worker's knowledge at the size of a large city: memory, its snapshot into the database, its restore. A process of its own.

    python -m citynet_ingest.bench.pairs DSN SERIES

The database has the series of `city.City(…)` already. Prints one JSON object. What is measured is the committer of a worker, as
it runs, without a broker: readings are given to its engine and its rollups as planning gives them.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from pathlib import Path

import psycopg

from citynet_ingest import checkpoint
from citynet_ingest.bench.city import City, metrics_of, watermarks
from citynet_ingest.committer import Committer
from citynet_ingest.lanes import LANES
from citynet_ingest.ownership import formers
from citynet_ingest.recovery import parts_of
from citynet_ingest.registry import Registry
from citynet_ingest.settings import IngestSettings
from citynet_ingest.state import State
from citynet_ingest.store.transaction import Connection
from citynet_ingest.watermarks import Watermarks
from citynet_rules.engine import Engine
from citynet_rules.spec import RuleSet, library_paths, load_rules

_BATCHES = 3
_AGO_US = 600_000_000  # buckets of long ago would be closed with the snapshot
_LANES = range(LANES)


def connect(dsn: str) -> Connection:
    return psycopg.connect(dsn, autocommit=True)


def run(dsn: str, series: int) -> dict[str, float]:
    """Bytes and seconds by name."""
    rules = load_rules(library_paths())
    city = City(metrics_of(rules), series=series, rounds=1, start_us=time.time_ns() // 1000 - _AGO_US)
    with connect(dsn) as connection:
        infos = Registry().load(connection)
    batches = list(city.batches(_BATCHES, infos))
    marks = [watermarks(infos, batch) for batch in batches]
    del infos  # the worker has its own
    gc.collect()
    before = resident_bytes("VmRSS")
    committer = Committer(lambda: connect(dsn), IngestSettings.model_validate({}), rules, Watermarks(0, 0))
    committer.recover()
    state = committer.state
    for batch, mark in zip(batches, marks, strict=True):
        state.engine.feed(batch)
        state.engine.advance(mark)
        state.rollup.feed(batch)
    armed = resident_bytes("VmRSS")
    started, cpu = time.perf_counter(), time.process_time()
    committer.flush()
    found = {
        "pairs": state.engine.pairs,
        "before_bytes": before,
        "armed_bytes": armed,
        "snapshot_s": time.perf_counter() - started,
        "snapshot_cpu_s": time.process_time() - cpu,
        "peak_bytes": resident_bytes("VmHWM"),
        "plain_insert_s": _inserted(dsn, state),
    }
    committer.close()
    return found | _restored(dsn, rules, state.engine.snapshot())


def _inserted(dsn: str, state: State) -> float:
    """Seconds to make the same state bytes and store them as nobody deflated them."""
    with connect(dsn) as connection:
        connection.execute("CREATE TABLE bench_snapshot (state bytea)")
        started = time.perf_counter()
        body = state.engine.snapshot() + state.rollup.snapshot()
        connection.execute("INSERT INTO bench_snapshot VALUES (%s)", (body,))
        return time.perf_counter() - started


def _restored(dsn: str, rules: RuleSet, wanted: bytes) -> dict[str, float]:
    """Seconds to read what the worker left and to be where it was; binding the series, which a start does anyhow, apart."""
    state = State(Engine(rules), {}, Watermarks(0, 0))
    with connect(dsn) as connection:
        infos = Registry().load(connection)
    started = time.perf_counter()
    state.engine.bind(infos)
    bound = time.perf_counter()
    cpu = time.process_time()
    with connect(dsn) as connection:
        parts = parts_of(formers(connection, _LANES), infos, _LANES)
    checkpoint.restore(state, parts)
    found = {
        "bind_s": bound - started,
        "restore_s": time.perf_counter() - bound,
        "restore_cpu_s": time.process_time() - cpu,
        "snapshot_bytes": sum(len(part.state) for part in parts),
    }
    if state.engine.snapshot() != wanted:
        raise AssertionError("what was restored is not what was kept")
    return found


def resident_bytes(name: str) -> int:
    """Resident memory of this process (``VmRSS``), or its peak (``VmHWM``)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(name)


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[1], int(sys.argv[2]))))  # noqa: T201
