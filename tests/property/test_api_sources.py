"""Whatever rows a figure is read from, each reading is counted exactly once."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from citynet_api.sources import HOUR, MINUTE, ORIGIN, Extent, Source, ceil, floor, stretches

SECONDS = st.integers(0, 8 * 3600)
GRAIN = {Source.RAW: timedelta(0), Source.MINUTE: MINUTE, Source.HOUR: HOUR}


@given(
    readings=st.lists(SECONDS, max_size=30),
    rolled_since=st.sampled_from([0, 1800, 3600, 3 * 3600, 9 * 3600]),
    raw_since=st.sampled_from([0, 0, 2 * 3600, 5 * 3600, 9 * 3600]),
    start=SECONDS.map(lambda second: second // 60 * 60),
    length=st.integers(1, 300).map(lambda minutes: minutes * 60),
    source=st.sampled_from(list(Source)),
)
def test_each_reading_is_in_exactly_one_stretch(
    readings: list[int], rolled_since: int, raw_since: int, start: int, length: int, source: Source
) -> None:
    """Rollups begin at `rolled_since`; raw readings before `raw_since` are gone, if they were rolled up."""
    times = sorted(ORIGIN + timedelta(seconds=second) for second in readings)
    rolled = ORIGIN + timedelta(seconds=rolled_since)
    raw = [at for at in times if at >= ORIGIN + timedelta(seconds=raw_since) or at < rolled]
    first, last = ORIGIN + timedelta(seconds=start), ORIGIN + timedelta(seconds=start + length)
    # Partials exist of every bucket since `rolled`, with late readings perhaps of the open one as well.
    minutes = {floor(at, MINUTE) for at in times if at >= rolled}
    hours = {floor(at, HOUR) for at in times if floor(at, HOUR) >= rolled}
    extent = Extent(
        id=1,
        newest_at=raw[-1] if raw else None,
        oldest_at=min((at for at in raw if first <= at < last), default=None),
        minutes_at=min((at for at in minutes if first <= at < last), default=None),
        minutes_n=None,
        hours_at=min((at for at in hours if first <= at < last), default=None),
        hours_n=None,
    )
    found = stretches(extent, first, last, source)
    for stretch in found:
        assert first <= stretch.start < stretch.end <= last
        width = GRAIN[stretch.source]
        if width:
            assert (stretch.start, stretch.end) == (floor(stretch.start, width), ceil(stretch.end, width))
            assert not raw or stretch.end <= floor(raw[-1], width), "the bucket of the newest reading is open"
    held = {Source.RAW: raw, Source.MINUTE: times, Source.HOUR: times}
    there = raw if source is Source.RAW else times
    if source is not Source.RAW and raw and raw[-1] != times[-1]:
        return  # the newest reading is never gone before older ones
    counted = sorted(at for s in found for at in held[s.source] if s.start <= at < s.end)
    assert counted == [at for at in there if first <= at < last]
