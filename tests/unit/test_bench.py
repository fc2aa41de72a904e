"""The bench table's arithmetic: bounds, percentiles, and the load that is sent."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from citynet import wire
from citynet.batch import Batch
from citynet_ingest.bench.load import CALM, RESOLUTION, Fleet, batch_messages, drafts
from citynet_ingest.bench.measure import watch
from citynet_ingest.bench.paced import BEYOND, Plan, _crossing
from citynet_ingest.bench.result import Bound, Line, percentile
from citynet_ingest.bench.stage import RULES, BenchError, Process
from citynet_rules.spec import load_rules

NOW_US = 1_800_000_000_000_000


def test_percentiles_are_of_nearest_rank() -> None:
    values = [float(k) for k in range(100, 0, -1)]
    assert percentile(values, 50) == 50
    assert percentile(values, 99) == 99
    assert percentile(values, 100) == 100
    assert percentile([7.0], 99) == 7
    assert percentile([1.0, 2.0], 51) == 2


@pytest.mark.parametrize(
    ("found", "at_most", "ok", "goal"),
    [
        (10, False, True, True),
        (9, False, True, False),
        (4, False, False, False),
        (5, True, True, False),
        (6, True, False, False),
    ],
)
def test_a_line_is_judged_by_its_bounds(found: float, at_most: bool, ok: bool, goal: bool) -> None:
    bound = Bound("x", 5, 3 if at_most else 10, at_most=at_most)
    line = Line(1, "n", "u", {"x": found}, (bound,))
    assert (line.ok, line.reaches_goal) == (ok, goal)
    both = Line(1, "n", "u", {"x": found, "y": 0}, (bound, Bound("y", 1, 1)))
    assert both.ok is False


def test_a_line_without_bounds_is_not_judged() -> None:
    assert Line(1, "n", "u", {"x": 1}).ok is None


def test_who_has_stored_all_of_it_may_end(tmp_path: Path) -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as storing:
        process = Process(storing, tmp_path / "storing.log")

        def seen() -> Iterator[int]:
            yield 2
            storing.communicate()  # it stores the rest and ends, right after we have looked
            yield 5
            yield 10

        assert watch(seen().__next__, 10, process).count == 8
        process.log.touch()
        with pytest.raises(BenchError, match="storing ended with exit code 0"):
            watch(lambda: 5, 10, process)


def test_batches_follow_each_other_without_gap_and_their_times_rise() -> None:
    fleet = Fleet(gateways=3, series_each=8, rounds=5, period_us=100_000)
    cursor: dict[str, int] = {}
    newest: dict[str, int] = {}
    total = 0
    for _, payload in batch_messages(fleet, 4, NOW_US):
        envelope = wire.decode(payload)
        batch = Batch.from_envelope(envelope, NOW_US)
        header = envelope.header
        assert header.seq0 == cursor.get(header.gateway, 0) + 1
        assert not batch.rejects
        cursor[header.gateway] = header.last
        for k, time_us in zip(batch.index, batch.time_us, strict=True):
            name = batch.names[int(k)]
            assert int(time_us) > newest.get(name, 0), "a late reading takes another way through ingest"
            newest[name] = int(time_us)
        total += len(batch)
    assert total == fleet.total(4) == 4 * 3 * 40
    assert newest.keys() == fleet.sources().keys()


def test_values_are_calm_and_of_the_sensors_resolution() -> None:
    draft = next(drafts(Fleet(gateways=1, series_each=8, rounds=50), 1, NOW_US))
    for k in range(8):
        calm, step = CALM[k % 4], RESOLUTION[k % 4]
        column = draft.value[:, k]
        np.testing.assert_allclose(column / step, np.round(column / step), atol=1e-6)
        assert np.all(np.abs(column - calm) < 0.06 * calm + 12 * step)
        assert len(np.unique(column)) > 3, "sensors are noisy"


def test_crossings_are_where_the_rule_looks() -> None:
    rule = load_rules([RULES]).rules[0]
    plan = Plan(1, "", 4, 40, 5, 100_000, 2.0, 5, 0.5)
    fleet, found = plan.fleet(), []
    batches = itertools.islice(drafts(fleet, 20, NOW_US), 80)
    for number, draft in enumerate(batches):
        crossing = _crossing(plan, draft, number, number / plan.batches_per_s())
        assert bool(crossing) == bool((draft.value == BEYOND).any())
        if crossing:
            device, time_us = crossing
            row, column = np.argwhere(draft.value == BEYOND)[0]
            assert fleet.names(draft.gateway)[column] == f"{device}/{rule.metric}"
            assert rule.selects(device, "level_m")
            assert draft.time_us[row, column] == time_us
            found.append(crossing)
    assert len(found) == len(set(found)) == sum(n / 8 >= 0.5 for n in range(0, 80, 5))
