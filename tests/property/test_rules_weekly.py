"""Kind `weekly` over weeks: the engine against its machine, the profile against its definition, what is not learned."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from citynet_rules.engine import Engine, SeriesInfo, Transition
from citynet_rules.kinds import walk
from citynet_rules.kinds.weekly import FACTORS, STATE, WeeklyMachine
from citynet_rules.spec import RuleSet

from .rules_streams import SECOND, Mark, Op, Reading, apply, engine, keys, law, rule

HOUR = 3600 * SECOND
WEEK = 168 * HOUR
MONDAY = round(datetime(2026, 1, 5, tzinfo=ZoneInfo("Asia/Shanghai")).timestamp()) * SECOND
FIELDS: dict[str, Any] = {
    "time_zone": "Asia/Shanghai", "levels": {"yellow": 4, "orange": 8}, "hysteresis": 1, "sigma_min": 0.5,
    "drift_max": 3, "gap_s_max": 5400,
}  # fmt: skip
RULE: Any = rule("weekly", "week", **FIELDS)
SERIES = (SeriesInfo(7, "dma-1", "x", "gw-1"), SeriesInfo(8, "dma-2", "x", "gw-1"))


def city(*rules: Any) -> Engine:
    return engine(RuleSet(rules or (RULE,)), SERIES)


HOURS = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 2, 3, 4, 5, 6, 7, 8]),  # week
        st.sampled_from([7, 8, 9, 167, 0]),  # hour of the week
        st.lists(st.sampled_from([10.0, 10.5, 11.0, 9.5, 14.0, 30.0, -5.0]), min_size=1, max_size=6),
        st.sampled_from([0, 0, 0, 0, 2]),
    ),
    min_size=20,
    max_size=45,
)


def stream(hours: list[tuple[int, int, list[float], int]]) -> list[Op]:
    """Readings of two series within some hours of some weeks."""
    rows: list[Op] = []
    for week, hour, values, quality in sorted(hours, key=lambda of: of[:2]):
        for n, value in enumerate(values):
            time_us = MONDAY + week * WEEK + hour * HOUR + n * 600 * SECOND
            rows.append(Reading(7, time_us, value, quality if n == 1 else 0))
            if n % 2:
                rows.append(Reading(8, time_us, value + 0.25 * n, 0))
    return rows


def plain(t: Transition) -> tuple[Any, ...]:
    basis = tuple(t.evidence[name] for name in ("hour_of_week", "baseline", "sigma", "reading"))
    return (t.object, t.kind, t.level, t.time_us, t.value, t.limit, tuple(t.evidence["expected"]), basis)


def told(of: Any, ops: list[Op]) -> list[tuple[Any, ...]]:
    """What the scalar machine says of each series."""
    found = []
    for info in SERIES:
        machine = WeeklyMachine(of)
        state, tip_us = machine.initial(), -1
        for op in ops:
            if isinstance(op, Mark) or op.series != info.id or op.time_us <= tip_us:
                continue
            tip_us = op.time_us
            state, changes = machine.step(state, op.time_us, op.value, op.quality)
            state = machine.unpack(np.array([machine.pack(state)], STATE)[0].item())
            for c in changes:
                basis = tuple((c.more or {})[name] for name in ("hour_of_week", "baseline", "sigma", "reading"))
                found.append((info.device, c.change, c.level, c.time_us, c.value, c.limit, c.expected, basis))
    return found


@law
@given(HOURS, st.sets(st.integers(0, 300), max_size=20), st.sampled_from([0.0, 24.0]), st.integers(0, 300))
def test_the_engine_is_the_machine(
    hours: list[tuple[int, int, list[float], int]], cuts: set[int], readings_a_rank: float, crash: int
) -> None:
    """However the input is cut, gliding or walking, with a crash in the middle."""
    ops = stream(hours)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(walk, "READINGS_A_RANK_MIN", readings_a_rank)
        whole, cut = city(), city()
        got, again = apply(whole, ops), apply(cut, ops, cuts)
        assert sorted(map(plain, got), key=repr) == sorted(told(RULE, ops), key=repr)
        assert keys(got) == keys(again)
        assert whole.snapshot() == cut.snapshot()
        before = city()
        found = apply(before, ops[:crash])
        after = city()
        after.restore(before.snapshot())
        assert keys(found + apply(after, ops[crash:])) == keys(got)
        assert after.snapshot() == whole.snapshot()


@law
@given(st.lists(st.floats(5, 15), min_size=6, max_size=18))
def test_the_profile_is_its_definition(flows: list[float]) -> None:
    """Weeks of three neighbouring hours with constant flow each: c and σ by their formula, in plain Python."""
    machine = WeeklyMachine(RULE.model_copy(update={"levels": {"red": 1e9}, "drift_max": 100.0}))
    state = machine.initial()
    weeks = [flows[n : n + 3] for n in range(0, len(flows) - 2, 3)]
    for week, of_week in enumerate(weeks):
        for hour, flow in enumerate(of_week):
            for n in (0, 1):
                time_us = MONDAY + week * WEEK + (hour + 10) * HOUR + n * 1800 * SECOND
                state, _ = machine.step(state, time_us, flow, 0)
    state, _ = machine.step(state, MONDAY + len(weeks) * WEEK + 11 * HOUR, 0.0, 0)
    assert state.bin == 11
    if len(weeks) < 3:
        assert state.sigma == 0
        return
    newest = [[float(np.float32(of[h])) for of in weeks][-4:] for h in range(3)]
    away = [abs(x - median(of)) for of in newest for x in of]
    assert state.center == pytest.approx(median(newest[1]))
    assert state.sigma == pytest.approx(max(0.5, FACTORS[len(newest[1])] * median(away)))


def test_the_factors_make_a_median_deviation_sigma() -> None:
    draw = np.random.default_rng(1)
    for count, factor in FACTORS.items():
        x = draw.standard_normal((20_000, 3, count))
        away = np.abs(x - np.median(x, axis=2, keepdims=True)).reshape(len(x), -1)
        assert float(np.median(np.median(away, axis=1))) * factor == pytest.approx(1, abs=0.02)


def weeks(count: int, level: Any, *, start: int = 0, noise: float = 1.0, series: int = 7, hours: int = 24) -> list[Op]:
    """A reading every 20 minutes of `hours` hours of each Monday: a daily shape, noise, and `level(week)` on top."""
    draw = np.random.default_rng(start)
    found: list[Op] = []
    for week in range(start, start + count):
        for n in range(3 * hours):
            shape = 20 + 10 * np.sin(2 * np.pi * n / 72)
            value = float(shape + level(week) + noise * draw.standard_normal())
            found.append(Reading(series, MONDAY + week * WEEK + n * 1200 * SECOND, value, 0))
    return found


def test_a_sudden_rise_is_told_and_never_becomes_the_normal() -> None:
    """Four weeks teach; +15 is told within an hour or two, and still open eight weeks later."""
    live = city()
    found = apply(live, weeks(16, lambda week: 15 if week >= 8 else 0))
    assert [t.kind for t in found if t.kind in {"raise", "clear"}] == ["raise"]
    assert len(live.open_alerts()) == 1
    assert found[0].time_us <= MONDAY + 8 * WEEK + 2 * HOUR
    assert found[0].evidence["baseline"] == pytest.approx(20, abs=5)


def test_an_hour_with_an_open_alert_is_not_learned_however_calm_its_mean() -> None:
    """Four weeks at 10 teach c = 10, σ = 0.5; in the fifth a reading raises, its hour ends calm: nothing is learned of it."""
    machine = WeeklyMachine(RULE)
    state = machine.initial()
    for week, values in enumerate([[10.0] * 6] * 4 + [[13.0, *[10.0] * 5], [10.0]]):
        learned = state.means
        for n, value in enumerate(values):
            state, _ = machine.step(state, MONDAY + week * WEEK + n * 600 * SECOND, value, 0)
    assert np.array_equal(state.means, learned, equal_nan=True)
    assert (state.center, state.sigma) == (10.0, 0.5)


@pytest.mark.parametrize("a_week", [0.2, 0.5])
def test_a_slow_leak_is_told_at_the_latest_beyond_the_drift(a_week: float) -> None:
    """A rise of 0.2 or 0.5 a week stays within σ of any week's kept values; the anchor ends that: c moves by 3 at most."""
    found = apply(city(), weeks(60, lambda week: a_week * max(0, week - 4)))
    assert found, "the leak was learned"
    leak = a_week * ((found[0].time_us - MONDAY) // WEEK - 4)
    sigma = found[0].evidence["sigma"]
    assert leak <= 3 + 4 * sigma + 1
    free = RULE.model_copy(update={"drift_max": 1e6})
    drifting = apply(city(free), weeks(60, lambda week: a_week * max(0, week - 4)))
    assert len(drifting) < len(found) or drifting[0].time_us > found[0].time_us  # what the anchor is for


def test_one_wild_week_of_learning_is_borne_and_two_are_refused() -> None:
    """One week in four with +40 leaves the profile as it is; with two, σ is too large for `spread_max`: not judged."""
    strict = RULE.model_copy(update={"spread_max": 8.0})
    one = apply(city(strict), weeks(4, lambda week: 40 if week == 1 else 0) + weeks(1, lambda week: 15, start=4))
    assert one
    assert one[0].evidence["baseline"] < 31
    strict = strict.model_copy(update={"weeks_min": 4})
    two = apply(city(strict), weeks(4, lambda week: 40 * (week % 2)) + weeks(1, lambda week: 15, start=4))
    assert two == []


def test_nothing_is_told_of_ordinary_weeks() -> None:
    """20 weeks with normal noise, levels of 4 and 8 σ held for half an hour."""
    calm = RULE.model_copy(update={"on_delay_s": 1800.0})
    assert apply(city(calm), weeks(20, lambda week: 0)) == []


@pytest.mark.parametrize("zone", ["Europe/Berlin", "Asia/Shanghai", "Asia/Kolkata"])
def test_bins_are_hours_of_local_time(zone: str) -> None:
    """Around a change to summer time (29 March 2026), by the calendar of the standard library."""
    machine = WeeklyMachine(RULE.model_copy(update={"time_zone": zone}))
    state = machine.initial()
    first = datetime(2026, 3, 28, 20, tzinfo=UTC)
    for quarter in range(48):
        moment = first + timedelta(minutes=15 * quarter)
        state, _ = machine.step(state, round(moment.timestamp()) * SECOND, 1.0, 0)
        local = moment.astimezone(ZoneInfo(zone))
        assert state.bin == local.weekday() * 24 + local.hour
    state, _ = machine.step(state, 1 << 60, 1.0, 0)  # no calendar holds it
    assert state.begin_us <= 1 << 60 < state.end_us
