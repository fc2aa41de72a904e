"""Lines 1, 2 and 7: readings a second in batches and one by one, and how the cost grows with readings and with series."""

from __future__ import annotations

import os
from collections.abc import Sequence

from citynet import formats, wire
from citynet_ingest.bench import load
from citynet_ingest.bench.load import Fleet
from citynet_ingest.bench.measure import BTREE, HEAP, Drain, copy_ceiling, drain, peoples_way
from citynet_ingest.bench.result import Bound, Line
from citynet_ingest.bench.stage import Stage, now_us, register

_FLEET, _FLEET_QUICK = Fleet(gateways=500), Fleet(gateways=20)
_DEVICES = 2_000
_COST = "cost is processor time of worker, broker and database sessions, the lower of two rounds"
_SPREAD = (1.5, 1.25)  # dearest to cheapest: floor and goal of "flat"


def batches(stage: Stage, readings: int | None = None) -> Line:
    """Line 1: batches of 1,000 readings of 20,000 series, rules on, MQTT to COMMIT, against COPY in the same run.

    A worker a core, as such a machine would be run; with one worker beside it.
    """
    count = readings or (60_000 if stage.is_quick else 6_000_000)
    fleet = _FLEET_QUICK if stage.is_quick else _FLEET
    workers = min(2, len(os.sched_getaffinity(0)))
    with stage.database() as dsn:
        start_us = now_us() - 3_600_000_000
        heap = copy_ceiling(dsn, HEAP, count, start_us)
        btree = copy_ceiling(dsn, BTREE, count, start_us)
        found = send(stage, dsn, fleet, count, workers)
    values = {
        "readings_per_s": found.rate.per_s,
        "ratio_to_heap_copy": found.rate.per_s / heap.per_s,
        "ratio_to_btree_copy": found.rate.per_s / btree.per_s,
        **found.cpu_us("reading"),
        "readings": found.rate.count,
        "workers": workers,
    }
    if workers > 1 and not stage.is_quick:
        with stage.database() as dsn:
            values["readings_per_s_of_one_worker"] = send(stage, dsn, fleet, count).rate.per_s
    bounds = (
        (Bound("readings_per_s", 700_000, 1_000_000), Bound("ratio_to_heap_copy", 0.35, 0.5))
        if stage.server.timescale
        else (Bound("ratio_to_btree_copy", 0.6, 0.8),)
    )
    name = f"batches of {fleet.batch:,} readings, {fleet.series:,} series, rules on, MQTT to COMMIT"
    baselines = {"heap_copy_readings_per_s": heap.per_s, "btree_copy_readings_per_s": btree.per_s}
    notes = f"a batch is {fleet.rounds} readings of each of {fleet.series_each} series"
    return Line(1, name, "readings/s", values, bounds, baselines, notes)


def singles(stage: Stage, messages: int | None = None) -> Line:
    """Line 2: one JSON reading a message, QoS 1, one worker, against aiomqtt and executemany in the same run."""
    count = messages or (2_000 if stage.is_quick else 100_000)
    with stage.database() as dsn:
        start_us = now_us() - 3_600_000_000
        people = peoples_way(stage, dsn, max(500, count // 6), start_us)
        found = drain(stage, dsn, load.json_messages(_DEVICES, count, start_us), formats.THINGSBOARD, count)
    values = {
        "messages_per_s": found.rate.per_s,
        "ratio_to_aiomqtt": found.rate.per_s / people.per_s,
        **found.cpu_us("message"),
        "messages": found.rate.count,
    }
    bounds = (Bound("messages_per_s", 25_000, 40_000), Bound("ratio_to_aiomqtt", 3.0, 3.0))
    baselines = {"aiomqtt_executemany_messages_per_s": people.per_s}
    return Line(2, "one JSON reading a message, QoS 1, one worker", "messages/s", values, bounds, baselines)


def straight(stage: Stage) -> Line:
    """Line 7: the cost of a million readings with more series and with more readings; both ought to be level.

    All runs twice, one round after the other, and of each the cheaper: a ratio of two costs is no steadier than the machine in
    the minute between them, and what else it does only adds to a cost.
    """
    full = 40_000 if stage.is_quick else 5_000_000
    middle = 10 if stage.is_quick else 500
    runs = [(Fleet(gateways), full) for gateways in (middle // 10, middle, middle * 10)]
    runs += [(Fleet(middle), full // part) for part in (2, 4)]
    values: dict[str, float] = {}
    found = [min(pair, key=_cost_s) for pair in zip(*(_each(stage, runs) for _ in range(2)), strict=True)]
    costs = [_cost_s(drained) for drained in found]
    for (fleet, readings), cost, drained in zip(runs, costs, found, strict=True):
        where = f"at_{fleet.series}_series" if readings == full else f"of_{readings}_readings"
        values[f"cost_s_per_million_{where}"] = cost
        values[f"s_per_million_{where}"] = drained.rate.seconds / drained.rate.count * 1e6
    of_series, of_readings = costs[:3], [costs[1], *costs[3:]]
    values["ratio_dearest_to_cheapest_by_series"] = max(of_series) / min(of_series)
    values["ratio_dearest_to_cheapest_by_readings"] = max(of_readings) / min(of_readings)
    bounds = tuple(
        Bound(f"ratio_dearest_to_cheapest_by_{what}", *_SPREAD, at_most=True) for what in ("series", "readings")
    )
    notes = f"{full:,} readings at each number of series, {middle * 40:,} series at each number of readings; {_COST}"
    return Line(7, "cost in a straight line", "seconds per million readings", values, bounds, notes=notes)


def _each(stage: Stage, runs: Sequence[tuple[Fleet, int]]) -> list[Drain]:
    drained = []
    for fleet, readings in runs:
        stage.say(f"   {fleet.series:,} series, {readings:,} readings")
        with stage.database() as dsn:
            drained.append(send(stage, dsn, fleet, readings))
    return drained


def _cost_s(found: Drain) -> float:
    """Processor time of a million readings, of all who took part; seconds on the clock where the database is elsewhere."""
    seconds = sum(found.cpu_s.values()) if "database" in found.cpu_s else found.rate.seconds
    return seconds / found.rate.count * 1e6


def send(stage: Stage, dsn: str, fleet: Fleet, readings: int, workers: int = 1) -> Drain:
    """Workers drain about so many readings of a fleet whose series are registered; the newest are of now."""
    register(dsn, fleet.sources())
    turns = fleet.turns(readings)
    start_us = now_us() - turns * fleet.rounds * fleet.period_us
    return drain(stage, dsn, load.batch_messages(fleet, turns, start_us), wire.CBOR, fleet.total(turns), workers)
