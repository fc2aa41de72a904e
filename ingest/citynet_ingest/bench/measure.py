"""What several lines share: COPY ceilings, the loop that people write, and our own way from MQTT to COMMIT."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import mqtt5
import numpy as np
import psycopg

from citynet import formats
from citynet.batch import SeriesBatch
from citynet.runtime import child
from citynet_ingest.bench import baseline, load
from citynet_ingest.bench.publish import open_session, publish, worker_sessions
from citynet_ingest.bench.stage import BenchError, Connection, Process, Stage, cpu_s, stored, worker, writers
from citynet_ingest.copybody import copy_body

HEAP = ""
BTREE = "CREATE INDEX ON bench_copy (series_id, time DESC)"
_COPY_ROWS = 200_000
_COPY_SERIES = 2_000
_DEADLINE_S = 300.0
_POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class Rate:
    """How many in how many seconds, from the first commit seen to the last."""

    count: int
    seconds: float

    @property
    def per_s(self) -> float:
        return self.count / self.seconds


@dataclass(frozen=True, slots=True)
class Drain:
    """A worker emptying its queue at the broker: its rate, the processor time by who took it (the database's only where it
    runs on this machine), the peak of the worker's memory."""

    rate: Rate
    cpu_s: Mapping[str, float]
    peak_bytes: int

    def cpu_us(self, per: str) -> dict[str, float]:
        """Processor time for each, as values of a line."""
        return {f"{who}_cpu_us_per_{per}": seconds / self.rate.count * 1e6 for who, seconds in self.cpu_s.items()}


def copy_ceiling(dsn: str, index: str, total: int, start_us: int) -> Rate:
    """Binary COPY of sorted blocks into a table of our columns; `index` is SQL that makes its index, or nothing."""
    ids, times, values = load.rows(_COPY_SERIES, _COPY_ROWS // _COPY_SERIES, start_us)
    quality = np.zeros(len(ids), np.uint8)
    blocks = max(1, total // _COPY_ROWS)
    seconds = 0.0
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "DROP TABLE IF EXISTS bench_copy; CREATE TABLE bench_copy (time timestamptz NOT NULL, series_id integer NOT NULL,"
            " value double precision NOT NULL, quality smallint NOT NULL)"
        )
        if index:
            connection.execute(index.encode())
        for k in range(blocks):
            body = copy_body(SeriesBatch(ids, times + k * 100_000_000, values, quality))
            started = time.perf_counter()
            with connection.cursor().copy("COPY bench_copy FROM STDIN (FORMAT binary)") as copy:
                copy.write(body)
            seconds += time.perf_counter() - started
        connection.execute("DROP TABLE bench_copy")
    return Rate(blocks * _COPY_ROWS, seconds)


def drain(
    stage: Stage, dsn: str, messages: Iterable[tuple[str, bytes]], content_type: str, total: int, workers: int = 1
) -> Drain:
    """Queue messages that hold `total` readings at the broker, start workers, watch what they commit."""
    queue(stage, messages, content_type)
    with psycopg.connect(dsn, autocommit=True) as connection, worker(stage, dsn, workers=workers) as process:
        before, first = stored(connection), dict[str, float]()

        def count() -> int:
            found = stored(connection) - before
            if 0 < found < total and not first:
                first.update(_cpu_s(stage, process, connection))
            return found

        rate = watch(count, total, process)
        spent = {who: seconds - first.get(who, 0.0) for who, seconds in _cpu_s(stage, process, connection).items()}
        return Drain(rate, spent, process.memory_bytes()[1])


def _cpu_s(stage: Stage, process: Process, connection: Connection) -> dict[str, float]:
    """Processor time used so far by the workers, the sessions they write in, and the broker."""
    backends = [cpu_s(pid, "postgres") for pid in writers(connection)]
    workers = sum(cpu_s(pid) or 0.0 for pid in process.workers())
    found = {"worker": workers, "broker": cpu_s(stage.broker.pid or 0)}
    if backends and None not in backends:
        found["database"] = sum(seconds for seconds in backends if seconds is not None)
    return {who: seconds for who, seconds in found.items() if seconds is not None}


def queue(stage: Stage, messages: Iterable[tuple[str, bytes]], content_type: str) -> None:
    """Queue messages at the broker for the worker's sessions, which are away."""
    for client_id, filters in worker_sessions():
        open_session(stage.broker.port, client_id, filters)
    publish(stage.broker.port, messages, content_type)


def watch(count: Callable[[], int], total: int, process: Process, deadline_s: float = _DEADLINE_S) -> Rate:
    """Rate from the first to the last stored reading, as the database shows them. BenchError after the deadline."""
    deadline = time.monotonic() + deadline_s
    began_s, first_count, first_s = time.perf_counter(), 0, 0.0
    while True:
        is_over = process.process.poll() is not None  # asked before: who has stored all of it may end
        now, seen = time.perf_counter(), count()
        if seen and not first_count:
            first_count, first_s = seen, now
        if seen >= total:
            if seen > total:
                raise BenchError(f"{seen} readings are stored, {total} were sent")
            if first_count == total:  # seen at one look: from the start of the process, which says less than it could
                return Rate(total, now - began_s)
            return Rate(total - first_count, now - first_s)
        if is_over:
            process.check()
        if time.monotonic() > deadline:
            raise BenchError(f"{seen} of {total} readings stored after {deadline_s:.0f} s")
        time.sleep(_POLL_S)


def peoples_way(stage: Stage, dsn: str, count: int, start_us: int) -> Rate:
    """aiomqtt and executemany, the same kind of messages, the same way of measuring."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "DROP TABLE IF EXISTS baseline_reading; CREATE TABLE baseline_reading (time timestamptz NOT NULL,"
            " device text NOT NULL, metric text NOT NULL, value double precision NOT NULL);"
            " CREATE INDEX ON baseline_reading (device, metric, time DESC)"
        )
        filters = [mqtt5.TopicFilter("citynet/v1/dev/+/+", max_qos=mqtt5.QoS.AT_LEAST_ONCE)]
        open_session(stage.broker.port, baseline.CLIENT_ID, filters)
        publish(stage.broker.port, load.json_messages(2_000, count, start_us), formats.THINGSBOARD)
        command = [sys.executable, "-m", "citynet_ingest.bench.baseline", str(stage.broker.port), dsn, str(count)]
        log = stage.folder / "baseline.log"
        with log.open("wb") as output:
            process = child.spawn(command, output)
        try:
            return watch(lambda: _count(connection), count, Process(process, log))
        finally:
            child.stop(process)
            connection.execute("DROP TABLE baseline_reading")


def _count(connection: psycopg.Connection[tuple[object, ...]]) -> int:
    row = connection.execute("SELECT count(*) FROM baseline_reading").fetchone()
    return int(str(row[0])) if row else 0
