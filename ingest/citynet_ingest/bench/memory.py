"""Line 6: resident memory of a worker at full load, and while the database is down."""

from __future__ import annotations

import time

import psycopg

from citynet import wire
from citynet.runtime.embedded import EmbeddedPostgres
from citynet_ingest.bench import load
from citynet_ingest.bench.load import Fleet
from citynet_ingest.bench.measure import queue, watch
from citynet_ingest.bench.result import Bound, Line
from citynet_ingest.bench.stage import (
    POSTGRES_OPTIONS,
    Process,
    Stage,
    fresh_database,
    now_us,
    register,
    stored,
    worker,
)
from citynet_ingest.bench.throughput import send

_FLEET = Fleet(gateways=500)
_SETTLED = 6  # growth counts from this part of the outage on: one sixth
_POLL_S = 0.2


def memory(stage: Stage) -> Line:
    """The peak of a drain at full speed on the measured server; then an outage of an embedded one, which may be stopped."""
    fleet, readings, outage_s = (Fleet(20), 40_000, 2.0) if stage.is_quick else (_FLEET, 3_000_000, 60.0)
    with stage.database() as dsn:
        idle = _idle(stage, dsn)
        full = send(stage, dsn, fleet, readings).peak_bytes
    stage.say(f"   a server of its own goes away for {outage_s:.0f} s")
    with EmbeddedPostgres(stage.folder / "outage", POSTGRES_OPTIONS) as server, fresh_database(server.dsn()) as dsn:
        growth, peak = _outage(stage, server, dsn, fleet, readings, outage_s)
    values = {
        "peak_mb": max(full, peak) / 1e6,
        "peak_full_load_mb": full / 1e6,
        "ratio_to_idle": max(full, peak) / idle,
        "peak_outage_mb": peak / 1e6,
        "growth_while_down_mb": growth / 1e6,
        "outage_s": outage_s,
    }
    bounds = (Bound("peak_mb", 400, 250, at_most=True), Bound("growth_while_down_mb", 20, 10, at_most=True))
    notes = "peaks are the kernel's; growth is of the outage's last five sixths; everything was stored once afterwards"
    return Line(6, "resident memory of a worker", "MB", values, bounds, {"idle_mb": idle / 1e6}, notes)


def _idle(stage: Stage, dsn: str) -> int:
    """Resident bytes of a worker that has connected and has nothing to do."""
    queue(stage, [], wire.CBOR)
    with worker(stage, dsn) as process:
        process.wait_for("broker-connected")
        return process.memory_bytes()[0]


def _outage(
    stage: Stage, server: EmbeddedPostgres, dsn: str, fleet: Fleet, readings: int, outage_s: float
) -> tuple[int, int]:
    """(growth while the database was down, peak of the whole run) in bytes, in the middle of a drain."""
    register(dsn, fleet.sources())
    turns = fleet.turns(readings)
    start_us = now_us() - turns * fleet.rounds * fleet.period_us
    queue(stage, load.batch_messages(fleet, turns, start_us), wire.CBOR)
    total = fleet.total(turns)
    with worker(stage, dsn) as process:
        with psycopg.connect(dsn, autocommit=True) as connection:
            watch(lambda: min(stored(connection), total // 4), total // 4, process)
        server.stop()
        growth = _growth(process, outage_s)
        server.start()
        with psycopg.connect(dsn, autocommit=True) as connection:
            watch(lambda: stored(connection), total, process)
        return growth, process.memory_bytes()[1]


def _growth(process: Process, outage_s: float) -> int:
    """Resident bytes at most in the settled part of an outage, beyond those at its beginning."""
    started = time.monotonic()
    base = peak = 0
    while (gone_s := time.monotonic() - started) < outage_s:
        process.check()
        now, _ = process.memory_bytes()
        if gone_s < outage_s / _SETTLED:
            base = peak = now
        peak = max(peak, now)
        time.sleep(_POLL_S)
    return peak - base
