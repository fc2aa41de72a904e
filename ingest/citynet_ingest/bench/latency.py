"""Lines 4 and 5: from the sensor to a committed alert, and a chart while readings come in."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import numpy as np
import psycopg

from citynet.batch import SeriesBatch
from citynet.runtime import child
from citynet_ingest.bench import load
from citynet_ingest.bench.disk import fill_rollups, statement
from citynet_ingest.bench.load import Fleet
from citynet_ingest.bench.measure import queue
from citynet_ingest.bench.paced import Offer, Report, offer
from citynet_ingest.bench.result import Bound, Line, percentile
from citynet_ingest.bench.stage import (
    RULES,
    BenchError,
    Connection,
    Stage,
    has_columnstore,
    now_us,
    register,
    role,
    settings_file,
    worker,
)
from citynet_ingest.copybody import days_of
from citynet_ingest.store.transaction import Partitions, copy_rows

_STEADY, _STEADY_QUICK = Fleet(gateways=500, period_us=200_000), Fleet(gateways=20, rounds=5, period_us=100_000)
_CROSSING_EVERY = 5  # batches
_CALM_S = 3.0
_OFFERED_MIN = 0.95  # of what was planned, else the load was not what the line says
_GRACE_S = 20.0
_READY_S = 60.0
_DAY_S = 86_400
_POINTS = 1_000
_THINK_S = 0.02
_NOTIFIED = 50
_RAW_RUNS = 3


def alerts(stage: Stage) -> Line:
    """Line 4: publish of a reading's batch to its alert, visible to a client that listens, under a steady load."""
    fleet, seconds, calm_s = (_STEADY_QUICK, 2.0, 0.5) if stage.is_quick else (_STEADY, 18.0, _CALM_S)
    with steady_worker(stage, fleet) as (dsn, _), psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("LISTEN citynet_alert")
        notified_ms = _notified_ms(connection, dsn)
        with offer(stage, fleet, seconds, crossing_every=_CROSSING_EVERY, calm_s=calm_s) as load_process:
            seen = _listen(connection, load_process)
            report = load_process.report()
    waits_ms = [(seen[device, time_us] - sent_ns) / 1e6 for device, time_us, sent_ns in report.crossings]
    values = {
        "p50_ms": percentile(waits_ms, 50),
        "p99_ms": percentile(waits_ms, 99),
        "max_ms": max(waits_ms),
        "ratio_p50_to_notify": percentile(waits_ms, 50) / notified_ms,
        "alerts": len(waits_ms),
        **_offered(report, fleet, stage),
    }
    bounds = (Bound("p99_ms", 500, 250, at_most=True),)
    notes = f"batches of {fleet.batch:,} readings; a rule without delays; commit seen by LISTEN and a query"
    return Line(4, "sensor to committed alert", "ms", values, bounds, {"insert_and_notify_p50_ms": notified_ms}, notes)


def chart(stage: Stage) -> Line:
    """Line 5: a day of a 1 Hz series for a chart, over HTTP, under a steady load."""
    fleet, seconds, series = (_STEADY_QUICK, 2.0, 2) if stage.is_quick else (_STEADY, 15.0, 10)
    with (
        steady_worker(stage, fleet, history_series=series) as (dsn, start_us),
        _api(stage, dsn) as ask,
        offer(stage, fleet, seconds) as load_process,
    ):
        waits_ms, buckets = _ask_charts(ask, load_process, series, start_us)
        report = load_process.report()
        raw_ms = _raw_ms(dsn, start_us)
    values = {
        "p50_ms": percentile(waits_ms, 50),
        "p95_ms": percentile(waits_ms, 95),
        "max_ms": max(waits_ms),
        "ratio_p50_to_sql_on_raw": percentile(waits_ms, 50) / raw_ms,
        "queries": len(waits_ms),
        "buckets_min": buckets,
        **_offered(report, fleet, stage),
    }
    bounds = (Bound("p95_ms", 100, 40, at_most=True),)
    notes = f"GET /v1/series/ID/readings?bucket=auto&points={_POINTS}, one client, {series} series in turn"
    name = "chart of 24 h of a 1 Hz series, under ingest load"
    return Line(5, name, "ms", values, bounds, {"sql_on_raw_at_rest_ms": raw_ms}, notes)


@contextmanager
def steady_worker(stage: Stage, fleet: Fleet, history_series: int = 0) -> Iterator[tuple[str, int]]:
    """A worker at rest that knows the fleet and the bench's rule: (database, start of the history in µs since 1970)."""
    with stage.database() as dsn:
        start_us = (now_us() // 3_600_000_000 - 24) * 3_600_000_000
        if history_series:
            register(dsn, {f"history-{k:03d}/level_m": "bench-history" for k in range(history_series)})
            _history(dsn, history_series, start_us)
        register(dsn, fleet.sources())
        queue(stage, [], "")  # an empty session
        with worker(stage, dsn, [RULES]) as process:
            process.wait_for("broker-connected")
            yield dsn, start_us


def _offered(report: Report, fleet: Fleet, stage: Stage) -> dict[str, float]:
    """The load as it was; BenchError if it fell behind what the line claims."""
    found, planned = report.readings / report.seconds, fleet.series / (fleet.period_us / 1e6)
    if found < _OFFERED_MIN * planned and not stage.is_quick:
        raise BenchError(f"the load fell behind: {found:,.0f} of {planned:,.0f} readings/s")
    return {"offered_readings_per_s": found, "load_behind_ms_max": report.behind_s_max * 1e3}


# --- line 4 ---


def _notified_ms(connection: Connection, dsn: str) -> float:
    """Median of what no alert can beat: one row committed with a notification, until the listener has read it, at rest."""
    waits_ms = []
    with psycopg.connect(dsn, autocommit=True) as writer:
        writer.execute("CREATE TABLE bench_notify (at bigint)")
        for number in range(_NOTIFIED):
            started = time.perf_counter()
            with writer.transaction():
                writer.execute("INSERT INTO bench_notify VALUES (%s)", (number,))
                writer.execute("SELECT pg_notify('citynet_alert', '')")
            for _ in connection.notifies(timeout=5.0, stop_after=1):
                pass
            connection.execute("SELECT at FROM bench_notify WHERE at = %s", (number,)).fetchall()
            waits_ms.append((time.perf_counter() - started) * 1e3)
    return percentile(waits_ms, 50)


def _listen(connection: Connection, load_process: Offer) -> dict[tuple[str, int], int]:
    """When each raise became visible (monotonic, ns), by device and time of the reading. BenchError if some do not."""
    seen: dict[tuple[str, int], int] = {}
    newest, deadline, wanted = 0, 0.0, -1
    while len(seen) != wanted:
        for _ in connection.notifies(timeout=0.2, stop_after=1):
            pass
        rows = connection.execute(statement("raises"), {"after": newest}).fetchall()
        at_ns = time.monotonic_ns()
        for number, device, time_us in rows:
            newest = int(str(number))
            seen[str(device), int(str(time_us))] = at_ns
        if load_process.is_over():
            wanted = len(load_process.report().crossings)
            deadline = deadline or time.monotonic() + _GRACE_S
            if time.monotonic() > deadline:
                raise BenchError(f"{len(seen)} of {wanted} alerts after {_GRACE_S:.0f} s")
    return seen


# --- line 5 ---


def _history(dsn: str, series: int, start_us: int) -> None:
    """A day of readings at 1 Hz of series 1 to `series`, written the way ingest writes, with the rollups of it."""
    ids, times, values = load.rows(series, _DAY_S, start_us)
    batch = SeriesBatch(ids, times, values, np.zeros(len(ids), np.uint8))
    with psycopg.connect(dsn, autocommit=True) as connection:
        Partitions().ensure(connection, days_of(batch))
        with connection.transaction():
            copy_rows(connection, batch, has_columnstore=has_columnstore(connection))
        fill_rollups(connection)
        connection.execute("VACUUM ANALYZE reading, rollup_minute, rollup_hour")


def _raw_ms(dsn: str, start_us: int) -> float:
    """The same chart by one SQL statement on raw readings, without a load: the best of a few runs."""
    bounds = {"from_s": start_us / 1e6, "to_s": start_us / 1e6 + _DAY_S, "bucket_s": _DAY_S / _POINTS}
    best_ms = float("inf")
    with psycopg.connect(dsn, autocommit=True) as connection:
        for _ in range(_RAW_RUNS):
            started = time.perf_counter()
            connection.execute(statement("chart_raw"), bounds).fetchall()
            best_ms = min(best_ms, (time.perf_counter() - started) * 1e3)
    return best_ms


class Asker:
    """One client of the API with one connection."""

    def __init__(self, port: int, token: str) -> None:
        self._link = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self._headers = {"Authorization": f"Bearer {token}"}

    def get(self, path: str) -> tuple[float, bytes]:
        """(seconds until the last byte, body). BenchError for any answer but 200."""
        started = time.perf_counter()
        self._link.request("GET", path, headers=self._headers)
        answer = self._link.getresponse()
        body = answer.read()
        seconds = time.perf_counter() - started
        if answer.status != http.client.OK:
            raise BenchError(f"GET {path}: {answer.status} {body[:300].decode(errors='replace')}")
        return seconds, body


@contextmanager
def _api(stage: Stage, dsn: str) -> Iterator[Asker]:
    """The API as its own process, and a client with a token."""
    port = child.free_port()
    table = [f"[api]\nport = {port}"]
    config = settings_file(stage, dsn, "api", table)
    command = [sys.executable, "-m", "citynet", "api", "token", "create", "bench", "--config", str(config)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if made.returncode != 0:
        raise BenchError(f"no token: {made.stderr[-500:]}")
    with role(stage, dsn, "api", ["api", "run"], table) as process:
        deadline = time.monotonic() + _READY_S
        while not child.listens(port):
            process.check()
            if time.monotonic() > deadline:
                raise BenchError(f"the api does not listen after {_READY_S:.0f} s")
            time.sleep(0.05)
        yield Asker(port, made.stdout.strip())


def _ask_charts(ask: Asker, load_process: Offer, series: int, start_us: int) -> tuple[list[float], int]:
    """(milliseconds of every query while the load lasts, fewest buckets of an answer); every answer must hold the whole day."""
    first, last = (datetime.fromtimestamp(start_us / 1e6 + s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") for s in (0, _DAY_S))
    waits_ms: list[float] = []
    fewest, number = _POINTS, 0
    while not load_process.is_over() or not waits_ms:
        path = f"/v1/series/{number % series + 1}/readings?from={first}&to={last}&bucket=auto&points={_POINTS}"
        seconds, body = ask.get(path)
        buckets = json.loads(body)["buckets"]
        count = sum(bucket["count"] for bucket in buckets)
        if count != _DAY_S:
            raise BenchError(f"the chart holds {count} readings of {_DAY_S}")
        number += 1
        if number > series:  # every series once before: what is measured is not the first touch
            waits_ms.append(seconds * 1e3)
        fewest = min(fewest, len(buckets))
        time.sleep(_THINK_S)
    return waits_ms, fewest
