"""Rollups as a property: whatever comes, however it is cut into commits, and wherever the worker crashes, the partials that
were written and the buckets that are open come to what the stored readings come to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from citynet.batch import SeriesBatch
from citynet.errors import CitynetError
from citynet.quality import BAD, LATE, TEST, UNCERTAIN
from citynet_ingest.rollup import buckets
from citynet_ingest.rollup.buckets import IDLE_US, Rollup
from citynet_ingest.rollup.partials import HOUR_US, MINUTE_US, NONE_US, READINGS_MIN, Partials
from citynet_rules.engine import Engine, SeriesInfo
from citynet_rules.spec import RuleSet
from tests.rollups import Key, Row, buckets_of, combined

START_US = 1_800_000_000_000_000 // HOUR_US * HOUR_US
VALUES = st.one_of(
    st.integers(-64, 64).map(lambda eighths: eighths / 8),
    st.sampled_from([float("nan"), float("inf"), 1e308, -1e308, 1.5e308]),
)
QUALITY = st.sampled_from([0, 0, 0, UNCERTAIN, BAD, BAD | UNCERTAIN, TEST])
# How far a reading is from the newest of its series: mostly on, over minutes, hours and days; sometimes back, or not at all.
STEP = st.one_of(
    st.integers(1, 40).map(lambda s: s * 1_000_000),
    st.sampled_from([0, -1, -30_000_000, -MINUTE_US, -3 * HOUR_US, MINUTE_US, 61_000_000, HOUR_US, 2 * IDLE_US]),
)
READING = st.tuples(st.sampled_from([3, 7, 1200]), STEP, VALUES, QUALITY)
COMMIT = st.lists(READING, min_size=1, max_size=40)
# A start with lateness bounds for these series.
START = st.frozensets(st.sampled_from([3, 7, 1200]))
ACT = st.one_of(COMMIT, COMMIT, st.sampled_from(["snapshot", "idle", "crash", "crash", "bare crash"]), START)
BOUND_US = 45_000_000


@dataclass
class World:
    """A database, and a worker that may lose what it knows."""

    rows: list[Row] = field(default_factory=list)
    minutes: list[Partials] = field(default_factory=list)
    hours: list[Partials] = field(default_factory=list)
    kept: tuple[bytes, bytes] | None = None  # the engine's snapshot and the rollups'
    rollup: Rollup = field(default_factory=Rollup)
    tips: dict[int, int] = field(default_factory=dict)
    bounded: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        self.engine = self.started()

    def started(self) -> Engine:
        bounded = self.bounded
        engine = Engine(RuleSet(()), bound_us=lambda info: BOUND_US if info.id in bounded else 0)
        engine.bind(SeriesInfo(n, f"d-{n}", "x", "gw") for n in (3, 7, 1200))
        return engine

    def commit(self, readings: Sequence[tuple[int, int, float, int]]) -> None:
        rows = []
        for series, step_us, value, quality in readings:
            time_us = self.tips.get(series, START_US) + step_us
            self.tips[series] = max(time_us, self.tips.get(series, time_us))
            rows.append((series, time_us, value, quality))
        given_rows = SeriesBatch.group(*columns(rows))
        quality = self.engine.feed(given_rows).quality
        order = np.lexsort((given_rows.time_us, given_rows.series)).astype(np.int64)
        batch = SeriesBatch(given_rows.series, given_rows.time_us, given_rows.value, quality).picked(order)
        closed = self.rollup.feed(batch, self.engine.bounded())
        self.rows += batch.rows()
        self.minutes += [closed.minutes, closed.late_minutes]
        self.hours += [closed.hours, closed.late_hours]

    def snapshot(self, now_us: int) -> None:
        for minutes, hours in (self.rollup.forget(self.engine.bounded()), self.rollup.close_idle(now_us)):
            self.minutes.append(minutes)
            self.hours.append(hours)
        self.kept = self.engine.snapshot(), self.rollup.snapshot()

    def crash(self) -> None:
        """Recover from the snapshot; what closes in the replay is dropped."""
        self.engine, self.rollup = self.started(), Rollup()
        tips: dict[int, int] = {}
        if self.kept is not None:
            self.engine.restore(self.kept[0])
            ids, tip_us = self.engine.tips()
            tips = {s: t for s, t in zip(ids.tolist(), tip_us.tolist(), strict=True) if t != NONE_US}
            self.rollup.restore(self.kept[1])
        missed = [r for r in self.rows if not r[3] & LATE and r[1] > tips.get(r[0], 0)]
        self.engine.feed(SeriesBatch(*columns(sorted(missed, key=by_time))))
        there = sorted({row[0] for row in self.rows})
        unknown = self.rollup.unknown(np.array(there, np.int32)).tolist()
        known = [row for row in missed if row[0] not in unknown]
        self.rollup.feed(SeriesBatch(*columns(sorted(known, key=by_time))))
        self.reopen(unknown)

    def restart(self, bounded: frozenset[int]) -> None:
        """With other settings; the recovery's own commit has a snapshot."""
        self.bounded = bounded
        self.crash()
        self.snapshot(START_US)

    def bare_crash(self) -> None:
        """Recover without a snapshot of the rollups."""
        self.rollup = Rollup()
        self.reopen(sorted({row[0] for row in self.rows}))

    def reopen(self, ids: Sequence[int]) -> None:
        """What ``rollup_missed.sql`` gives."""
        for series in ids:
            start_us = self.tip_of(series) // HOUR_US * HOUR_US
            held = [row for row in self.rows if row[0] == series and row[1] >= start_us]
            written = sum(n for (s, at), (n, *_) in combined(self.hours).items() if s == series and at == start_us)
            current = sorted((row for row in held if not row[3] & LATE), key=by_time)
            self.rollup.feed(SeriesBatch(*columns(current[len(current) - (len(held) - written) :])))

    def tip_of(self, series: int) -> int:
        return max(time_us for s, time_us, _, quality in self.rows if s == series and not quality & LATE)

    def check(self) -> None:
        """Written and open hours together are the stored readings, and before the hour of the newest reading all is written.
        Minutes are what a reader takes them for: complete where they count what their hour counts; in the open hour, unless
        some of it was late or has closed, every one that is there, and where none is there is at most one reading."""
        opened = Rollup()
        opened.restore(self.rollup.snapshot())
        _, rest = opened.close_idle(1 << 61)
        minutes, hours = buckets_of(self.rows, MINUTE_US), buckets_of(self.rows, HOUR_US)
        assert combined([*self.hours, rest]) == hours
        assert all((block["n"] >= READINGS_MIN).all() for block in self.minutes)
        written = combined(self.minutes)
        assert all(n <= minutes[key][0] for key, (n, *_) in written.items()), "nothing is counted twice"
        written_hours = combined(self.hours)
        counted: Counter[Key] = Counter()
        for (series, start_us), (n, *_) in written.items():
            counted[series, start_us // HOUR_US * HOUR_US] += n
        for (series, start_us), truth in minutes.items():
            hour = series, start_us // HOUR_US * HOUR_US
            tip_us = self.tip_of(series)
            found = written.get((series, start_us))
            if hour[1] < tip_us // HOUR_US * HOUR_US:
                assert written_hours[hour] == hours[hour]
                is_taken = counted[hour] == written_hours[hour][0]
                assert not is_taken or found == truth
                event(f"a closed minute is {'taken' if is_taken else 'read from the readings'}")
            elif hour not in written_hours and start_us < tip_us // MINUTE_US * MINUTE_US:
                assert found == truth if found else truth[0] < READINGS_MIN
                event("a minute of the open hour")


def by_time(row: Row) -> tuple[int, int]:
    return row[0], row[1]


def columns(rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    series, time_us, value, quality = zip(*rows, strict=True) if rows else ((), (), (), ())
    return (
        np.array(series, np.int32),
        np.array(time_us, np.int64),
        np.array(value, np.float64),
        np.array(quality, np.uint8),
    )


@settings(deadline=None)
@given(st.lists(ACT, min_size=1, max_size=12))
def test_written_and_open_are_what_the_readings_come_to(
    acts: list[list[tuple[int, int, float, int]] | frozenset[int] | str],
) -> None:
    world = World()
    for act in acts:
        if isinstance(act, list):
            world.commit(act)
        elif act == "snapshot":
            world.snapshot(START_US)  # nothing is idle
        elif act == "idle":
            world.snapshot(max(world.tips.values(), default=0) + IDLE_US)
        elif isinstance(act, frozenset):
            world.restart(act)
        elif act == "crash":
            world.crash()
        else:
            world.bare_crash()
        world.check()
        event(act if isinstance(act, str) else type(act).__name__)


@given(
    st.lists(st.tuples(st.sampled_from([3, 7]), st.integers(1, 90), VALUES), max_size=120), st.sets(st.integers(0, 120))
)
def test_cutting_changes_nothing_and_a_bucket_is_written_once(
    readings: list[tuple[int, int, float]], cuts: set[int]
) -> None:
    """In time: the same partials whatever the commits, one for each closed bucket."""
    given_readings = [(series, step_s * 1_000_000, value, 0) for series, step_s, value in readings]
    whole, pieces = World(), World()
    whole.commit(given_readings)
    borders = sorted({0, len(readings), *(cut for cut in cuts if cut < len(readings))})
    for first, last in pairwise(borders):
        pieces.commit(given_readings[first:last])
    assert pieces.rollup.snapshot() == whole.rollup.snapshot()
    for one, other in ((whole.minutes, pieces.minutes), (whole.hours, pieces.hours)):
        rows = [row for block in other for row in block.tolist()]
        assert max(Counter((row[8], row[0]) for row in rows).values(), default=1) == 1
        assert combined(one) == combined(other)


@settings(deadline=None)
@given(st.lists(st.lists(READING, min_size=1, max_size=16), max_size=20))
def test_the_path_for_few_rows_gives_what_the_one_for_many_gives(
    commits: list[list[tuple[int, int, float, int]]],
) -> None:
    few, many = World(), World()
    with pytest.MonkeyPatch.context() as patch:
        for readings in commits:
            patch.setattr(buckets, "_FEW_ROWS", 16)
            few.commit(readings)
            patch.setattr(buckets, "_FEW_ROWS", 0)
            many.commit(readings)
            assert few.rollup.snapshot() == many.rollup.snapshot()
    for one, other in ((few.minutes, many.minutes), (few.hours, many.hours)):
        assert b"".join(block.tobytes() for block in one) == b"".join(block.tobytes() for block in other)


def test_only_series_that_are_asked_for_are_restored() -> None:
    world = World()
    world.commit([(3, 1, 1.0, 0), (7, 1, 2.0, 0)])
    rollup = Rollup()
    rollup.restore(world.rollup.snapshot(), np.array([7, 99], np.int32))
    assert rollup.unknown(np.array([3, 7, 99, 5000], np.int32)).tolist() == [3, 99, 5000]
    closed = rollup.feed(SeriesBatch(*columns([(7, START_US + HOUR_US, 0.0, 0)])))
    assert combined([closed.hours]) == {(7, START_US): (1, 1, 2.0, 2.0, 2.0, (START_US + 1, 2.0), (START_US + 1, 2.0))}


@pytest.mark.parametrize("damage", [b"", b"CNRU\x02", b"CNRU\x01\x05\0\0\0", b"CNRU\x01\0\0\0\0x"])
def test_a_damaged_snapshot_is_refused(damage: bytes) -> None:
    with pytest.raises(CitynetError, match="rollup snapshot"):
        Rollup().restore(damage)
