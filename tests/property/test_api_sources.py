"""Whatever rows a figure is read from, each reading is counted exactly once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from hypothesis import event, given, settings
from hypothesis import strategies as st

from citynet_api.sources import (
    HOUR,
    MINUTE,
    ORIGIN,
    Extent,
    Source,
    Uneven,
    by_minutes,
    ceil,
    floor,
    left_by_hours,
    stretches,
)

SECONDS = st.integers(0, 8 * 3600)
GRAIN = {Source.MINUTE: MINUTE, Source.HOUR: HOUR}
Times = list[datetime]


@dataclass(frozen=True)
class Store:
    """The tables of one series: raw readings, and for each level how many readings the partials of a bucket count."""

    raw: Times
    minutes: Counter[datetime]
    hours: Counter[datetime]
    retired: tuple[datetime, datetime]

    def extent(self, start: datetime, end: datetime) -> Extent:
        """``series_extent.sql``"""
        newest = max(self.raw, default=None)
        solid = None
        if newest is not None:
            solid = floor(newest, HOUR)
            while solid < floor(newest, MINUTE) and solid in self.minutes and floor(newest, HOUR) not in self.hours:
                solid += MINUTE
        first = [
            min((at for at in of if start <= at < end), default=None) for of in (self.raw, self.minutes, self.hours)
        ]
        return Extent(1, newest, first[0], first[1], None, first[2], None, solid)

    def uneven(self, ranges: Iterable[tuple[datetime, datetime]]) -> list[Uneven]:
        """``series_uneven.sql``"""
        found = []
        for low, high in ranges:
            assert (low, high) == (floor(low, HOUR), ceil(high, HOUR))
            hours = {floor(at, HOUR) for at in (*self.minutes, *self.hours) if low <= at < high}
            for at in sorted(hours):
                counted = sum(n for minute, n in self.minutes.items() if floor(minute, HOUR) == at)
                if counted != self.hours.get(at):
                    is_gone = self.retired[0] <= at < self.retired[1] or not any(at <= one for one in self.raw)
                    found.append(Uneven(1, at, self.hours.get(at), is_gone))
        return found


def stored(readings: list[tuple[int, bool, bool]], rolled_since_s: int, retired_s: tuple[int, int]) -> Store:
    """As ingest and retention leave it. A reading is (time, whether it came late, whether a partial by minute of its own or of
    others like it is worth writing); of minutes there may be any part, of hours there is all that has closed."""
    all_rows = sorted((ORIGIN + timedelta(seconds=at), late, worth) for at, late, worth in readings)
    newest = max((at for at, *_ in all_rows), default=ORIGIN)
    rows = [(at, late and at < newest, worth) for at, late, worth in all_rows]
    rolled = ORIGIN + timedelta(seconds=rolled_since_s)
    alone = Counter((floor(at, MINUTE), late) for at, late, _ in rows)
    minutes: Counter[datetime] = Counter()
    hours: Counter[datetime] = Counter()
    for at, late, worth in rows:
        minute, hour = floor(at, MINUTE), floor(at, HOUR)
        is_written = (late and worth) or (not late and alone[minute, late] > 1 and minute < floor(newest, MINUTE))
        if minute >= rolled and is_written:
            minutes[minute] += 1
        if hour >= floor(rolled, HOUR) and (late or hour < floor(newest, HOUR)):
            hours[hour] += 1
    # Retention takes whole hours that the rollups have, of all but the newest.
    first, last = (ORIGIN + timedelta(seconds=at) for at in retired_s)
    first, last = max(first, floor(rolled, HOUR)), min(last, floor(newest, HOUR))
    return Store([at for at, *_ in rows if not first <= at < last], minutes, hours, (first, last))


# Runs of readings: when the first comes, how far they are apart, how many; whether some are late, and worth a partial.
RUNS = st.lists(
    st.tuples(
        SECONDS, st.sampled_from([7, 20, 25, 70, 600]), st.integers(1, 200), st.sets(st.integers(0, 200), max_size=3)
    ),
    min_size=1,
    max_size=3,
)


@settings(max_examples=200, deadline=None)
@given(
    runs=RUNS,
    is_worth=st.booleans(),
    has_late=st.booleans(),
    rolled_since=st.sampled_from([0, 0, 0, 1800, 3600, 3 * 3600, 9 * 3600]),
    retired=st.sampled_from([(0, 0), (0, 0), (0, 2 * 3600), (0, 9 * 3600), (3 * 3600, 5 * 3600)]),
    start=st.sampled_from([0, 0, 1020, 3600, 9000]),
    length=st.one_of(st.integers(1, 400).map(lambda minutes: minutes * 60), st.sampled_from([7200, 16_200, 32_400])),
    source=st.sampled_from(list(Source)),
)
def test_each_reading_is_in_exactly_one_stretch(
    runs: list[tuple[int, int, int, set[int]]],
    is_worth: bool,
    has_late: bool,
    rolled_since: int,
    retired: tuple[int, int],
    start: int,
    length: int,
    source: Source,
) -> None:
    """Rollups begin at `rolled_since`; raw readings of `retired` are gone, if they were rolled up."""
    readings = [
        (first_s + k * step_s, has_late and k in late, is_worth)
        for first_s, step_s, count, late in runs
        for k in range(count)
        if first_s + k * step_s < 9 * 3600
    ]
    times = sorted(ORIGIN + timedelta(seconds=at) for at, *_ in readings)
    store = stored(readings, rolled_since, retired)
    first, last = ORIGIN + timedelta(seconds=start), ORIGIN + timedelta(seconds=start + length)
    extent = store.extent(first, last)
    uneven = store.uneven(by_minutes(extent, first, last, source))
    found = stretches(extent, first, last, source, uneven)
    for stretch in found:
        assert first <= stretch.start < stretch.end <= last
        if width := GRAIN.get(stretch.source):
            assert (stretch.start, stretch.end) == (floor(stretch.start, width), ceil(stretch.end, width))
    if left_by_hours(uneven) is not None:
        event("left by hours")
        assert store.retired[0] < store.retired[1]
        return
    got: Counter[datetime] = Counter()  # by minute, or by hour where it is read from hours
    for stretch in found:
        rows = {Source.RAW: Counter(store.raw), Source.MINUTE: store.minutes, Source.HOUR: store.hours}[stretch.source]
        grain = GRAIN.get(stretch.source, MINUTE)
        for at, n in rows.items():
            if stretch.start <= at < stretch.end:
                got[floor(at, grain)] += n
                event(f"read from {stretch.source}{', light' if stretch.is_light else ''}")
    by_hours = [stretch for stretch in found if stretch.source is Source.HOUR]
    there = store.raw if source is Source.RAW else times
    wanted = Counter(
        floor(at, HOUR if any(s.start <= at < s.end for s in by_hours) else MINUTE)
        for at in there
        if first <= at < last
    )
    assert got == wanted
