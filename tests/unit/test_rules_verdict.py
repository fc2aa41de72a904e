"""Sensor fault or city event: who is told of an alert, when, and why, with the shipped rules."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from citynet.batch import SeriesBatch
from citynet.errors import ConfigError
from citynet.quality import UNCERTAIN
from citynet_rules.cli_neighbours import Site, nearest
from citynet_rules.engine import Engine, SeriesInfo, Transition
from citynet_rules.spec import RuleSet, library_paths, load_rules

SECOND = 1_000_000
HOUR = 3600
DAY = 86_400
EVERY = load_rules(library_paths())
LIBRARY = replace(
    EVERY, rules=tuple(rule for rule in EVERY if not rule.id.startswith("gas-origin-"))
)  # test_rules_origin.py
CH4, O2, NEXT, PONDING, PRESSURE, LEVEL = 1, 2, 3, 4, 5, 8
SERIES = (
    SeriesInfo(CH4, "gas-1", "ch4_lel", "gw"),
    SeriesInfo(O2, "gas-1", "o2_vol", "gw"),
    SeriesInfo(NEXT, "gas-2", "ch4_lel", "far"),
    SeriesInfo(PONDING, "mh-1", "ponding_cm", "gw"),
    SeriesInfo(PRESSURE, "pp-1", "water_pressure_mpa", "gw"),
    SeriesInfo(6, "pp-2", "water_pressure_mpa", "gw"),
    SeriesInfo(7, "pp-3", "water_pressure_mpa", "gw"),
    SeriesInfo(LEVEL, "mh-1", "level_m", "gw"),
)
NEAR = {"ch4_lel": {"gas-1": ("gas-2",)}, "water_pressure_mpa": {"pp-1": ("pp-2", "pp-3")}}
Course = Callable[[int], float]


def engine(known: Iterable[int] = (CH4, O2, PONDING, PRESSURE, 6, 7, LEVEL)) -> Engine:
    fresh = Engine(RuleSet(LIBRARY.rules, LIBRARY.origins, LIBRARY.derived, NEAR))
    fresh.bind([info for info in SERIES if info.id in set(known)])
    return fresh


def play(target: Engine, courses: dict[int, Course], start: int, stop: int, step: int = 10) -> list[Transition]:
    """Readings every `step` s, a batch each, and the watermark of their gateway after it."""
    found: list[Transition] = []
    for now in range(start, stop, step):
        series = np.array(sorted(courses), np.int32)
        value = np.array([courses[int(n)](now) for n in series])
        time_us = np.full(len(series), now * SECOND, np.int64)
        fed = target.feed(SeriesBatch.group(series, time_us, value, np.zeros(len(series), np.uint8)))
        found += [*fed.transitions, *target.advance({"gw": now * SECOND})]
    return found


def words(found: Iterable[Transition], rule: str) -> list[tuple[int, str, str, str]]:
    """(time in s, kind, verdict, audience) of a rule's raises and revisions; of water pressure those of the first point."""
    return [
        (t.time_us // SECOND, t.kind, t.opinion.state, t.opinion.audience)
        for t in found
        if t.rule == rule and t.opinion is not None and t.object not in ("pp-2", "pp-3")
    ]


def air(now: int) -> float:
    """Oxygen of fresh air with a sensor's noise."""
    return 20.8 + 0.01 * (now // 10 % 2)


def quiet(now: int) -> float:
    return 0.5 + 0.1 * (now // 10 % 2)


def test_a_leak_that_displaces_oxygen_is_an_event_at_its_raise() -> None:
    def methane(now: int) -> float:
        return 40.0 if now >= HOUR else quiet(now)

    def oxygen(now: int) -> float:
        return air(now) - (0.416 if now >= HOUR else 0.0)

    found = play(engine(), {CH4: methane, O2: oxygen}, 0, HOUR + 300)
    raised, confirmed = words(found, "gas-ch4-void")
    assert raised == (
        HOUR + 30,
        "raise",
        "undecided",
        "maintenance",
    )  # its witnesses may speak, and have at the same time
    assert confirmed == (HOUR + 30, "verdict", "event", "people")
    revision = next(t for t in found if t.kind == "verdict")
    assert revision.evidence["verdict"]["check"] == "witness"
    assert "真实事件" in revision.text_zh
    assert "an event" in revision.text_en


def test_a_biased_sensor_is_for_maintenance_as_long_as_it_lasts() -> None:
    def methane(now: int) -> float:
        return quiet(now) + (30.0 if HOUR <= now < 2 * HOUR else 0.0)

    found = play(engine(), {CH4: methane, O2: air}, 0, 3 * HOUR)
    told = words(found, "gas-ch4-void")
    assert told[-1][1:] == ("verdict", "device", "maintenance")
    assert not any(audience == "people" for *_, audience in told)
    doubt = next(t for t in found if t.rule == "device-witness-ch4")
    assert doubt.kind == "raise"
    assert doubt.value == pytest.approx(30.0, abs=1.0)
    verdict = next(t for t in found if t.rule == "gas-ch4-void" and t.kind == "verdict").evidence["verdict"]
    assert (verdict["rule"], verdict["limit"], verdict["unit"]) == ("device-witness-ch4", 8.0, "%LEL")
    assert verdict["samples"]


def test_without_witnesses_gas_that_stays_is_for_people_after_the_hold() -> None:
    """A well that has no oxygen cell: a jump to the end of the scale is never taken for a fault for its speed."""

    def methane(now: int) -> float:
        return 100.0 if now >= 600 else quiet(now)

    found = play(engine([CH4]), {CH4: methane}, 0, 1200)
    assert words(found, "gas-ch4-void") == [
        (630, "raise", "undecided", "maintenance"),
        (660, "verdict", "undecided", "people"),
    ]


@pytest.mark.parametrize(("value", "audience"), [(115.0, "people"), (-400.0, "maintenance")])
def test_more_than_the_scale_of_a_gas_detector_may_be_real_less_may_not(value: float, audience: str) -> None:
    """It tells the device's maintainer all the same."""

    def methane(now: int) -> float:
        return (value if now < 900 else 60.0) if now >= 600 else quiet(now)

    found = play(engine([CH4]), {CH4: methane}, 0, 960)
    assert [t.rule for t in found if t.rule == "device-range-ch4" and t.kind == "raise"]
    assert words(found, "gas-ch4-void")[-1][3] == audience


def test_a_doubt_ends_wherever_the_reading_comes_back_to() -> None:
    """A reading below the scale, then gas near the upper end: what the detector is cleared of, it is not doubted for."""

    def methane(now: int) -> float:
        return -400.0 if 600 <= now < 700 else 90.0 if now >= 700 else quiet(now)

    found = play(engine([CH4]), {CH4: methane}, 0, HOUR)
    assert [t.kind for t in found if t.rule == "device-range-ch4"] == ["raise", "clear"]
    assert words(found, "gas-ch4-void")[-1][2:] == ("undecided", "people")


def test_a_witness_that_is_stuck_accuses_nobody() -> None:
    def methane(now: int) -> float:
        return 40.0 if now >= HOUR else quiet(now)

    found = play(engine(), {CH4: methane, O2: lambda _: 20.8}, 0, HOUR + 300)
    assert words(found, "gas-ch4-void")[-1] == (HOUR + 60, "verdict", "undecided", "people")


def test_a_spike_is_for_maintenance_and_marks_its_readings() -> None:
    def methane(now: int) -> float:
        return 80.0 if 600 <= now <= 640 else quiet(now)

    target = engine([CH4])
    found = play(target, {CH4: methane}, 0, 680)
    assert words(found, "gas-ch4-void") == [
        (630, "raise", "undecided", "maintenance"),
        (650, "verdict", "device", "maintenance"),
    ]
    row = SeriesBatch(np.array([CH4], np.int32), np.array([680 * SECOND]), np.array([0.5]), np.zeros(1, np.uint8))
    assert target.feed(row).quality.tolist() == [UNCERTAIN]


def test_a_doubt_that_ends_while_the_alert_goes_on_hands_it_to_people() -> None:
    """A level that leapt is believed after half an hour: another half and the rule's own delays later people are told. A slip
    of the unit in the middle of a real flood must not hide the flood until it is over."""
    found = play(engine(), {LEVEL: lambda now: 5.5 if now >= 600 else 1.0}, 0, 2 * HOUR, 30)
    cleared = next(t.time_us // SECOND for t in found if t.rule == "device-jump-level" and t.kind == "clear")
    assert 600 + HOUR - 60 <= cleared <= 600 + HOUR
    assert words(found, "drainage-level-high")[-1] == (cleared + 60 + 120, "verdict", "undecided", "people")


def test_water_on_the_road_that_stays_is_for_people() -> None:
    found = play(engine(), {PONDING: lambda now: 30.0 if now >= 600 else 0.0}, 0, 900)
    assert words(found, "drainage-ponding")[-1][2:] == ("undecided", "people")


def test_a_level_that_leaps_metres_is_a_fault() -> None:
    found = play(engine(), {LEVEL: lambda now: 5.5 if now >= 600 else 1.0}, 0, 900)
    assert words(found, "drainage-level-high") == [(660, "raise", "device", "maintenance")]


def test_neighbours_contradict_and_confirm() -> None:
    def steady(now: int) -> float:
        return 0.35 + 0.001 * (now // 10 % 2)

    def low(now: int) -> float:
        return steady(now) - (0.25 if now >= HOUR else 0.0)

    courses: dict[int, Course] = {PRESSURE: low, 6: steady, 7: steady}
    alone = play(engine(), courses, 0, HOUR + 600)
    assert words(alone, "water-pressure-low")[-1][2:] == ("device", "maintenance")
    together = play(engine(), {PRESSURE: low, 6: low, 7: steady}, 0, HOUR + 600)
    assert words(together, "water-pressure-low")[-1][2:] == ("event", "people")


def test_a_verdict_turns_when_a_neighbour_follows_and_both_times_are_kept() -> None:
    def steady(now: int) -> float:
        return 0.35 + 0.001 * (now // 10 % 2)

    def low(since: int) -> Course:
        return lambda now: steady(now) - (0.25 if now >= since else 0.0)

    found = play(engine(), {PRESSURE: low(HOUR), 6: low(HOUR + 900), 7: steady}, 0, HOUR + 1200)
    told = words(found, "water-pressure-low")
    assert told[0][:2] == (HOUR + 60, "raise")
    assert told[-1] == (HOUR + 900, "verdict", "event", "people")
    raised, last = (
        next(t for t in found if t.kind == kind and t.rule == "water-pressure-low") for kind in ("raise", "verdict")
    )
    assert raised.alert_id == last.alert_id


def test_a_silent_neighbour_behind_another_gateway_is_waited_for_no_longer_than_a_minute() -> None:
    def methane(now: int) -> float:
        return 40.0 if now >= HOUR else quiet(now)

    target = engine([CH4, O2, NEXT])
    target.advance({"far": 0})
    play(target, {CH4: quiet, O2: air, NEXT: quiet}, 0, HOUR)
    found = play(target, {CH4: methane, O2: air}, HOUR, HOUR + 120)
    assert words(found, "gas-ch4-void")[-1] == (HOUR + 30, "raise", "undecided", "maintenance")
    found = target.advance({"": (HOUR + 120) * SECOND})  # a minute after the hold, by the server's clock
    assert [t.kind for t in found if t.rule == "gas-ch4-void"] == ["verdict"]


def test_a_restart_between_raise_and_verdict_changes_nothing() -> None:
    def methane(now: int) -> float:
        return quiet(now) + (30.0 if now >= HOUR else 0.0)

    courses: dict[int, Course] = {CH4: methane, O2: air}
    whole, first, second = engine(), engine(), engine()
    expected = play(whole, courses, 0, HOUR + 300)
    before = play(first, courses, 0, HOUR + 40)
    second.restore(first.snapshot())
    assert before + play(second, courses, HOUR + 40, HOUR + 300) == expected
    assert second.snapshot() == whole.snapshot()


def test_neighbours_of_a_rule_file_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "near.toml"
    path.write_text('[neighbours.ch4_lel]\n"a" = ["b"]\n"b" = ["b"]\n"c" = []\n"d" = ["no name"]\n', encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_rules([path])
    assert caught.value.problems == [
        f"{path}:3: neighbours.ch4_lel.b: a device stands twice, or beside itself",
        f"{path}:4: neighbours.ch4_lel.c: a list of 1 to 8 devices was expected",
        f"{path}:5: neighbours.ch4_lel.d: 'no name' is not 1..64 of A-Z a-z 0-9 . _ -",
    ]
    path.write_text('[neighbours.ch4_lel]\n"a" = ["b", "c"]\n', encoding="utf-8")
    assert load_rules([path]).neighbours == {"ch4_lel": {"a": ("b", "c")}}


def test_the_nearest_stand_beside() -> None:
    sites = [Site("a", 0, 0), Site("b", 90, 0), Site("c", -80, 0), Site("d", 0, 101), Site("e", 1000, 1000)]
    assert dict(nearest(sites, 2, 100)) == {"a": ["c", "b"], "b": ["a"], "c": ["a"]}


def at_once(target: Engine, courses: dict[int, Course], stop: int, step: int) -> list[Transition]:
    """As `play` from 0 on, in one batch: a month is a moment, and the cut of batches decides nothing."""
    now = np.arange(0, stop, step)
    series = np.repeat(np.array(sorted(courses), np.int32), len(now))
    value = np.concatenate([[courses[number](int(at)) for at in now] for number in sorted(courses)])
    time_us = np.tile(now * SECOND, len(courses))
    fed = target.feed(SeriesBatch.group(series, time_us, value, np.zeros(len(series), np.uint8)))
    return [*fed.transitions, *target.advance({"gw": stop * SECOND})]


def creeping(now: int) -> float:
    """Methane that rises by 4 %LEL a day from the third day on."""
    return quiet(now // 120) + max(0.0, 4.0 * (now / DAY - 2.0))


def test_methane_that_creeps_is_a_drift_where_oxygen_stays_and_an_event_where_it_is_displaced() -> None:
    """However slowly it comes: gas in a void is never believed less for that."""
    wells = [SeriesInfo(20 + n, f"gas-{n // 2}", ("ch4_lel", "o2_vol")[n % 2], "gw") for n in range(4)]
    target = Engine(LIBRARY)
    target.bind(wells)

    def displaced(now: int) -> float:
        return air(now // 120) - 0.0104 * creeping(now)

    courses: dict[int, Course] = {20: creeping, 21: lambda now: air(now // 120), 22: creeping, 23: displaced}
    found = at_once(target, courses, 9 * DAY, 1200)
    drifts, leaks = (words([t for t in found if t.object == well], "gas-ch4-void") for well in ("gas-0", "gas-1"))
    assert drifts
    assert {audience for *_, audience in drifts} == {"maintenance"}
    assert drifts[-1][2] == "device"
    assert leaks[-1][2:] == ("event", "people")


@pytest.mark.parametrize(("days", "audience"), [(5.0, "maintenance"), (0.1, "people")])
def test_oxygen_that_creeps_away_is_looked_at_by_maintenance_first(days: float, audience: str) -> None:
    def oxygen(now: int) -> float:
        return air(now // 60) - 1.6 * min(1.0, max(0.0, (now / DAY - 10.0) / days))

    found = at_once(engine([O2]), {O2: oxygen}, round((11 + days) * DAY), 900)
    assert words(found, "gas-o2-low")[-1][3] == audience


def test_oxygen_that_has_crept_for_a_week_without_anybody_mending_it_is_for_people() -> None:
    def oxygen(now: int) -> float:
        return air(now // 60) - min(1.6, max(0.0, 0.4 * (now / DAY - 10.0)))

    found = at_once(engine([O2]), {O2: oxygen}, 25 * DAY, 900)
    (doubted,) = (t.time_us for t in found if (t.rule, t.kind) == ("device-drift-o2", "raise"))
    (believed,) = (t.time_us for t in found if (t.rule, t.kind) == ("device-drift-o2", "clear"))
    assert 7 * DAY <= (believed - doubted) // SECOND <= 7 * DAY + 900
    assert words(found, "gas-o2-low")[-1][2:] == ("undecided", "people")


def test_neighbours_accuse_only_after_they_have_spoken() -> None:
    """Points that speak every five minutes: the fall of all comes to each at its own time."""

    def steady(now: int) -> float:
        return 0.35 + 0.001 * (now // 300 % 2)

    def low(now: int) -> float:
        return steady(now) - (0.25 if now >= HOUR else 0.0)

    target, found = engine([PRESSURE, 6, 7]), list[Transition]()
    for number in range(14):
        for offset, series in enumerate((PRESSURE, 6, 7)):
            at = 300 * number + 100 * offset
            row = SeriesBatch(
                np.array([series], np.int32), np.array([at * SECOND]), np.array([low(at)]), np.zeros(1, np.uint8)
            )
            found += [*target.feed(row).transitions, *target.advance({"gw": at * SECOND})]
    assert not [t for t in found if t.rule == "device-witness-water-pressure" and t.kind == "raise"]
    assert words(found, "water-pressure-low")[-1][2:] == ("event", "people")


def test_a_doubt_lasts_as_long_as_a_rule_looks_back() -> None:
    """A flow that was stuck at night is what the next night is compared with."""

    def flow(now: int) -> float:
        day, hour = divmod(now / HOUR, 24)
        used = 100.0 + (60.0 if 6 <= hour < 22 else 0.0) + now // 300 % 7
        return 100.0 if day == 2 and 2 <= hour < 12 else used

    meter = SeriesInfo(9, "dma-1", "water_flow_m3_h", "gw")
    target = Engine(LIBRARY)
    target.bind([meter])
    found = at_once(target, {9: lambda now: flow(now) + (20.0 if now >= 3 * DAY else 0.0)}, 4 * DAY, 300)
    assert {t.kind for t in found if t.rule == "device-stuck-flow"} == {"raise", "clear"}
    assert [(verdict, audience) for *_, verdict, audience in words(found, "water-burst-flow")] == [
        ("device", "maintenance")
    ]


def test_one_peak_of_a_bridge_is_confirmed_by_strain() -> None:
    metrics = ("deflection_mm", "strain_um_m")
    spans = [SeriesInfo(30 + n, f"br-{n // 2}", metrics[n % 2], "gw") for n in range(4)]
    target, crossing = Engine(LIBRARY), 2020 * 50
    target.bind(spans)

    def bends(now: int) -> float:
        return 15.0 if now == crossing else 0.2 * (now // 50 % 2)

    def hums(now: int) -> float:
        return now // 50 % 3

    courses: dict[int, Course] = {
        30: bends, 31: hums, 32: bends, 33: lambda now: hums(now) + (140.0 if now == crossing else 0.0)
    }  # fmt: skip
    found = at_once(target, courses, crossing + 100, 50)
    told = {
        name: words([t for t in found if t.object == name], "bridge-deflection-extreme") for name in ("br-0", "br-1")
    }
    assert told["br-0"][-1][2:] == ("device", "maintenance")
    assert told["br-1"][-1][2:] == ("event", "people")
    assert not words(found, "bridge-deflection-peak")
