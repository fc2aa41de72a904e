"""Laws of retention: what a plan drops, for any parts, holds, settings and clocks."""

from __future__ import annotations

import datetime as dt

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from citynet_ingest.policies import Outcome, delete_step, drop_steps, keep, outliving, reference, words
from citynet_ingest.storage_settings import StorageSettings
from citynet_ingest.store.holds import Hold
from citynet_ingest.store.parts import HOUR, MINUTE, READING, TABLES, Part

START = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
HOURS = st.integers(0, 24 * 900)
lenient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is slow to draw
INSTANTS = HOURS.map(lambda hours: START + dt.timedelta(hours=hours))


@st.composite
def tables_of_parts(draw: st.DrawFn) -> list[Part]:
    found = []
    for table in TABLES:
        size = dt.timedelta(hours=draw(st.sampled_from([1, 12, 24, 168, 720])))
        for slot in draw(st.lists(st.integers(0, 100), unique=True, max_size=6)):
            at = START + slot * size
            found.append(Part(table, "public", f"{table}_{slot}", at, at + size, 0, False, 0))
    return found


@st.composite
def hold_lists(draw: st.DrawFn) -> list[Hold]:
    found = []
    for number in range(draw(st.integers(0, 3))):
        begin = draw(INSTANTS)
        end = begin + dt.timedelta(hours=draw(st.integers(1, 500)))
        released = draw(st.none() | st.just(START))
        by = None if released is None else "a"
        found.append(Hold(number, begin, end, "r", START, "a", "a", released, by, by, by))
    return found


SETTINGS = st.builds(
    StorageSettings,
    reading_keep_days=st.integers(0, 300),
    minute_keep_days=st.integers(0, 300),
    hour_keep_days=st.integers(0, 300),
    drop_days_max=st.integers(1, 60),
)


@lenient
@given(tables_of_parts(), hold_lists(), SETTINGS, INSTANTS)
def test_a_plan_drops_only_what_it_may(
    parts: list[Part], holds: list[Hold], settings: StorageSettings, at: dt.datetime
) -> None:
    steps = drop_steps(settings, parts, holds, at)
    going = [step.part for step in steps if step.outcome is Outcome.DUE and step.part]
    for part in going:
        age = keep(settings, part.table)
        assert age is not None
        assert part.to_at <= at - age
        assert not any(h.released_at is None and h.from_at < part.to_at and part.from_at < h.to_at for h in holds)
    for table in TABLES:
        its = [part for part in going if part.table == table]
        assert len(its) <= 1 or sum((p.span for p in its), dt.timedelta()).days <= settings.drop_days_max
        too_much = any(step.table == table and step.outcome is Outcome.TOO_MUCH for step in steps)
        assert not (too_much and its), "a refused table loses nothing"


@lenient
@given(tables_of_parts(), hold_lists(), SETTINGS, INSTANTS)
def test_every_old_part_is_dropped_held_or_refused(
    parts: list[Part], holds: list[Hold], settings: StorageSettings, at: dt.datetime
) -> None:
    steps = drop_steps(settings, parts, holds, at, accept_large=True)
    named = {step.part for step in steps}
    old = {part for part in parts if (age := keep(settings, part.table)) is not None and part.to_at <= at - age}
    assert named == old
    again = drop_steps(settings, [p for p in parts if p not in named], holds, at, accept_large=True)
    assert again == []


@lenient
@given(INSTANTS, st.none() | INSTANTS)
def test_age_is_never_measured_from_later_than_data_and_clock(clock: dt.datetime, newest: dt.datetime | None) -> None:
    at = reference(clock, newest)
    assert (at is None) == (newest is None)
    if at is not None and newest is not None:
        assert at <= clock
        assert at <= newest


def test_only_rollups_that_keep_the_span_must_have_it() -> None:
    part = Part(READING, "public", "p", START, START + dt.timedelta(days=1), 0, False, 0)
    at = START + dt.timedelta(days=101)
    assert outliving(StorageSettings(minute_keep_days=100, hour_keep_days=0), part, at) == [HOUR]
    assert outliving(StorageSettings(minute_keep_days=101, hour_keep_days=0), part, at) == [MINUTE, HOUR]
    assert outliving(StorageSettings(minute_keep_days=90, hour_keep_days=90), part, at) == []
    assert outliving(StorageSettings(require_rollups=False), part, at) == []


def test_deleting_rows_is_bounded_as_dropping_is() -> None:
    settings = StorageSettings(drop_days_max=3)
    assert delete_step(settings, "dead_letter", (0, 0), START) is None
    outcomes = [
        step.outcome
        for days, large in ((3, False), (4, False), (4, True))
        if (step := delete_step(settings, "dead_letter", (9, days), START, accept_large=large))
    ]
    assert outcomes == [Outcome.DUE, Outcome.TOO_MUCH, Outcome.DUE]


def test_words() -> None:
    spans = (None, dt.timedelta(hours=36), dt.timedelta(days=90), dt.timedelta(minutes=30))
    assert [words(span) for span in spans] == ["never", "36 h", "90 d", "0.5 h"]
