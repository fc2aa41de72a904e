"""Lines 8 to 10: the rules engine at the size of a city: its speed, its memory, its snapshot and restore."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from citynet.batch import SeriesBatch
from citynet_ingest.bench import load
from citynet_ingest.bench.city import City, metrics_of, watermarks
from citynet_ingest.bench.result import Bound, Line
from citynet_ingest.bench.stage import BenchError, Stage, register
from citynet_rules.engine import Engine
from citynet_rules.spec import RuleSet, library_paths, load_rules

_WARM = 2  # batches before the measured ones
_SMALL_ROUNDS = 5  # readings a series in a batch that does not fill a commit
_QUICK_SERIES = 580
_PAIRS = 200_000
_SAMPLE_DEVICES = 20
_PAIRS_TIMEOUT_S = 900.0


class Pace(NamedTuple):
    """Readings a second: by the clock, by this process's processor time, of a bare comparison; alerts raised or cleared."""

    by_clock: float
    by_cpu: float
    bare: float
    transitions: int


def limits(stage: Stage) -> Line:
    """Line 8: one limit rule a series."""
    rules = [rule for rule in load_rules(library_paths()) if rule.kind == "limit" and rule.metric in load.METRICS]
    bounds = (Bound("readings_per_cpu_s", 3_000_000, 6_000_000),)
    return _line(stage, 8, "one limit rule a series, one core", RuleSet(tuple(rules)), bounds)


def library(stage: Stage) -> Line:
    """Line 9: every shipped rule, every metric of them in equal parts."""
    bounds = (Bound("readings_per_cpu_s", 1_000_000, 2_000_000),)
    return _line(stage, 9, "the shipped packs on every series, one core", load_rules(library_paths()), bounds)


def _line(stage: Stage, number: int, name: str, rules: RuleSet, bounds: tuple[Bound, ...]) -> Line:
    series, batches = (_QUICK_SERIES, 3) if stage.is_quick else (20_000, 10)
    full = _pace(rules, City(metrics_of(rules), series), batches)
    small = _pace(rules, City(metrics_of(rules), series, rounds=_SMALL_ROUNDS), batches)
    values = {
        "readings_per_s": full.by_clock,
        "readings_per_cpu_s": full.by_cpu,
        "readings_per_cpu_s_small_batches": small.by_cpu,
        "ratio_to_comparison": full.by_cpu / full.bare,
        "transitions": float(full.transitions),
    }
    notes = (
        f"{series:,} series; batches of 25 readings a series, small ones of {_SMALL_ROUNDS}; engine with its watermarks; "
        "the baseline compares every value with a number"
    )
    return Line(number, name, "readings/s", values, bounds, {"comparison_per_cpu_s": full.bare}, notes)


@dataclass(slots=True)
class _Spent:
    clock_s: float = 0.0
    cpu_s: float = 0.0
    bare_s: float = 0.0
    readings: int = 0
    transitions: int = 0


def _pace(rules: RuleSet, city: City, batches: int) -> Pace:
    """The engine over some batches, after a few to warm up."""
    infos = city.infos()
    engine = Engine(rules)
    engine.bind(infos)
    spent = _Spent()
    for number, batch in enumerate(city.batches(_WARM + batches, infos)):
        marks = watermarks(infos, batch)
        if number == _WARM:
            spent = _Spent()
        started, cpu = time.perf_counter(), time.process_time()
        fed, due = engine.feed(batch), engine.advance(marks)
        spent.cpu_s += time.process_time() - cpu
        spent.clock_s += time.perf_counter() - started
        spent.readings += len(batch)
        spent.transitions += len(fed.transitions) + len(due)
        spent.bare_s += _compared_s(batch)
    bare = spent.readings / spent.bare_s
    return Pace(spent.readings / spent.clock_s, spent.readings / spent.cpu_s, bare, spent.transitions)


def _compared_s(batch: SeriesBatch) -> float:
    """Processor seconds of the least that a limit takes: comparing every value with a number."""
    limit = np.full(len(batch), 1e12)
    cpu = time.process_time_ns()
    (batch.value >= limit).any()
    return max(time.process_time_ns() - cpu, 1) / 1e9


def pairs(stage: Stage) -> Line:
    """Line 10: memory, snapshot and restore of a worker at 200,000 (rule, object) pairs."""
    series = _QUICK_SERIES if stage.is_quick else _series_of(_PAIRS)
    found = _worker(stage, series)
    values = {
        "resident_mb": found["armed_bytes"] / 1e6,
        "added_mb": (found["armed_bytes"] - found["before_bytes"]) / 1e6,
        "peak_mb": found["peak_bytes"] / 1e6,
        "snapshot_s": found["snapshot_s"],
        "snapshot_cpu_s": found["snapshot_cpu_s"],
        "snapshot_mb": found["snapshot_bytes"] / 1e6,
        "restore_s": found["restore_s"],
        "restore_cpu_s": found["restore_cpu_s"],
        "bind_s": found["bind_s"],
        "ratio_to_plain_insert": found["plain_insert_s"] / found["snapshot_s"],
        "pairs": found["pairs"],
    }
    bounds = (
        Bound("peak_mb", 500, 400, at_most=True),
        Bound("snapshot_s", 1, 0.5, at_most=True),
        Bound("restore_s", 3, 1, at_most=True),
    )
    baselines = {"plain_insert_s": found["plain_insert_s"], "before_mb": found["before_bytes"] / 1e6}
    notes = (
        f"{series:,} series; a worker's committer with engine, rollups and registry, and its database; the baseline inserts "
        "the same state undeflated"
    )
    return Line(10, "200,000 (rule, object) pairs", "MB, s", values, bounds, baselines, notes)


def _series_of(pairs: int) -> int:
    """Of how many series the shipped packs make so many pairs, the metrics in equal parts."""
    rules = load_rules(library_paths())
    metrics = metrics_of(rules)
    sample = City(metrics, series=_SAMPLE_DEVICES * len(metrics))
    engine = Engine(rules)
    engine.bind(sample.infos())
    return round(pairs * sample.series / engine.pairs)


def _worker(stage: Stage, series: int) -> dict[str, float]:
    """What `bench.pairs` measures, in a process and a database of its own."""
    city = City(metrics_of(load_rules(library_paths())), series)
    with stage.database() as dsn:
        register(dsn, {f"{info.device}/{info.metric}": info.source for info in city.infos()})
        command = [sys.executable, "-m", "citynet_ingest.bench.pairs", dsn, str(series)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_PAIRS_TIMEOUT_S)  # noqa: S603
    if done.returncode:
        raise BenchError(f"the worker's half ended with exit code {done.returncode}:\n{done.stderr[-500:]}")
    found: dict[str, float] = json.loads(done.stdout)
    return found
