"""Series whose readings come out of order within their bound, through commits, crashes and changed settings: the store has
them all, none is late, alerts and rollups are those of readings in order."""

from __future__ import annotations

import random
from contextlib import closing

import numpy as np
import pytest
from pydantic import ValidationError

from citynet.quality import LATE
from citynet.reading import Reading
from citynet_ingest.lateness import LatenessSettings, bounds_of
from citynet_ingest.rollup.partials import HOUR_US
from citynet_ingest.store.paths import split_late
from citynet_rules.engine import Engine, SeriesInfo
from citynet_rules.spec import RuleSet
from tests.ingest import now_us, query
from tests.integration.test_rollup import raw, written
from tests.pipelined import Pipe, sent
from tests.property import rules_streams
from tests.property.rules_streams import limit_rule, rule
from tests.rollups import buckets_of, combined

SECOND = 1_000_000
BOUND_S = 45
LOOSE = {"devices": ["loose-*"], "bound_s": BOUND_S}
DEVICES = ("loose-1", "loose-2", "strict")
RULES = RuleSet(
    (
        limit_rule("high", levels={"yellow": 4, "red": 6}, on_delay_s=15, off_delay_s=10),
        rule("rate", "fast", direction="up", per="s", levels={"orange": 0.5}),
    )
)


def disorder(start_us: int) -> list[Reading]:
    """A reading of each device every 10 s, as they arrive: those of the loose ones up to 44 s late."""
    draw = random.Random(7)
    come = []
    for number in range(96):
        for device in DEVICES:
            at_us = start_us + number * 10 * SECOND
            late_us = draw.choice([0, 0, 15, 44]) * SECOND if device != "strict" else 0
            come.append((at_us + late_us, Reading(device, "x", at_us, float(draw.randrange(0, 9)))))
    return [reading for _, reading in sorted(come, key=lambda pair: pair[0])]


def in_order(readings: list[Reading]) -> set[tuple[str, str, str, int]]:
    """(rule, object, kind, µs) of what the same readings give in order and without bounds."""
    engine = Engine(RULES)
    engine.bind(SeriesInfo(n, device, "x", "gw") for n, device in enumerate(DEVICES))
    rows = [
        rules_streams.Reading(DEVICES.index(each.device), each.time_us, each.value, 0)
        for each in sorted(readings, key=lambda each: each.time_us)
    ]
    return {(t.rule, t.object, t.kind, t.time_us) for t in rules_streams.feed(engine, rows)[0] if t.kind != "verdict"}


def test_disorder_through_crashes_and_changed_settings(dsn: str) -> None:
    """Every start but the first follows a crash; the last ones have other bounds, and wait for nothing."""
    readings = disorder(now_us() - 1_800 * SECOND)
    per_start, per_commit = len(readings) // 6, 12
    bounds: list[list[dict[str, object]]] = [[LOOSE], [LOOSE], [LOOSE], [{**LOOSE, "bound_s": 3_600}], [LOOSE], [LOOSE]]
    with closing(Pipe(dsn)) as pipe:  # its watermark is at now, as that of any gateway that was heard before
        pipe.give(sent(1, "gw", 1, [Reading("gw", "uptime_s", now_us(), 0.0)])).result()
        pipe.call(pipe.committer.flush)
    for start, lateness in enumerate(bounds):
        with closing(Pipe(dsn, rules=RULES, lateness=lateness)) as pipe:
            for first in range(start * per_start, (start + 1) * per_start, per_commit):
                part = readings[first : min(first + per_commit, (start + 1) * per_start)]
                pipe.give(sent(first + 2, "gw", first + 2, part)).result()
            pipe.settle()
            assert pipe.committer.state.engine.held[0] > 0
    with closing(Pipe(dsn, rules=RULES)) as pipe:
        assert pipe.committer.state.engine.held == (0, 0)
    assert query(dsn, "SELECT count(*), count(*) FILTER (WHERE quality & 64 <> 0) FROM reading") == [
        (len(readings) + 1, 0)
    ]
    found = query(
        dsn,
        "SELECT a.rule_id, a.object, t.kind, (extract(epoch FROM t.at) * 1000000)::bigint"
        " FROM alert_transition t JOIN alert a ON a.id = t.alert_id WHERE t.kind <> 'verdict'",
    )
    expected = in_order(readings)
    assert len(found) == len(expected) > 30
    assert set(found) == expected
    loose = {
        sid
        for (sid,) in query(dsn, "SELECT s.id FROM series s JOIN device d ON d.id = s.device_id AND name ~ '^loose'")
    }
    hours = buckets_of([row for row in raw(dsn) if row[0] in loose], HOUR_US)
    partials = combined([written(dsn, "rollup_hour")])
    assert {key: bucket for key, bucket in partials.items() if key[0] in loose} == hours


def test_rows_of_bounded_series_never_promise_their_order() -> None:
    rows = rules_streams.batch(
        [rules_streams.Reading(n, at, 0.0, q) for n, at, q in [(3, 1, 0), (3, 2, LATE), (7, 1, 0), (9, 1, 0)]]
    )
    current, rest = split_late(rows, np.array([7, 8], np.int32))
    assert (current.series.tolist(), rest.series.tolist()) == ([3, 9], [3, 7])


def test_the_first_entry_that_names_a_series_counts() -> None:
    assert bounds_of([]) is None
    entries = [
        LatenessSettings(devices=("nb-1*",), metrics=("level_m", "flow_*"), bound_s=0),
        LatenessSettings(devices=("nb-*",), bound_s=1.5),
    ]
    bound_us = bounds_of(entries)
    assert bound_us is not None
    of = [("nb-12", "flow_m3_h"), ("nb-12", "ch4_lel"), ("nb-2", "level_m"), ("gas-1", "level_m")]
    assert [bound_us(SeriesInfo(1, device, metric, "gw")) for device, metric in of] == [0, 1_500_000, 1_500_000, 0]
    for wrong in (
        {"bound_s": -1},
        {"bound_s": float("inf")},
        {"bound_s": 1, "devices": []},
        {"bound_s": 1, "device": "x"},
    ):
        with pytest.raises(ValidationError):
            LatenessSettings.model_validate(wrong)
