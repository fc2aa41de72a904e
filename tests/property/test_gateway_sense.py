"""The edge sense: what the deadband may hold back, against a plain statement of it; flags; units; memory."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from citynet.quality import OUT_OF_RANGE, STUCK, UNCERTAIN
from citynet.reading import Reading
from citynet_gateway import units
from citynet_gateway.clock import boot_stamp
from citynet_gateway.sense import SERIES_MAX, Judged, Sense
from citynet_gateway.sense_settings import SenseSettings

SECOND_US = 1_000_000
VALUES = st.sampled_from([0.0, 0.1, 0.5, 1.0, 1.4, 1.5, 2.0, -3.0, math.nan, 100.0])


def sense(**settings: object) -> Sense:
    return Sense([SenseSettings.model_validate({"metrics": ["*"], **settings})])


def reading(value: float, at_s: float = 0.0, quality: int = 0, metric: str = "m") -> Reading:
    return Reading("d", metric, round(at_s * SECOND_US), value, quality)


def kept(found: Sense, *readings: Reading, now_s: float = 0.0, is_alarm: bool = False) -> list[Reading]:
    judged = found.judge(readings, now_s, is_alarm=is_alarm)
    judged.commit()
    return list(judged.kept)


@given(
    st.lists(st.tuples(VALUES, st.integers(-5, 40), st.sampled_from([0, 0, 0, 1, 128])), max_size=40),
    st.lists(st.integers(1, 5), min_size=1, max_size=40),
)
def test_what_is_held_back_says_nothing_new(rows: list[tuple[float, int, int]], cuts: list[int]) -> None:
    """Whatever way the readings are cut into messages: each one held back lies in the band around the one kept before it, has
    its quality, and is neither older than it nor a heartbeat younger."""
    found = sense(deadband=0.5, heartbeat_s=60)
    at_s, last, pending = 1_000, None, list[Reading]()
    for value, step_s, quality in rows:
        at_s += step_s
        pending.append(reading(value, at_s, quality))
    while pending:
        size = cuts[len(pending) % len(cuts)]
        message, pending = pending[:size], pending[size:]
        result = kept(found, *message)
        for item in message:
            if result and result[0] is item:
                last = result.pop(0)
                continue
            assert last is not None, "the first one is kept"
            assert item.quality == last.quality
            assert 0 <= item.time_us - last.time_us < 60 * SECOND_US
            assert (math.isnan(item.value) and math.isnan(last.value)) or abs(item.value - last.value) <= 0.5
        assert result == []


def test_a_value_at_the_band_is_held_back_and_one_beyond_it_is_kept() -> None:
    found = sense(deadband=0.5, deadband_percent=10, heartbeat_s=3600)
    assert [item.value for item in kept(found, *map(reading, [10.0, 11.0, 11.01, 10.0, 9.9]))] == [10.0, 11.01, 9.9]
    assert [item.value for item in kept(found, *[reading(value, metric="n") for value in (1.0, 1.5, 1.6)])] == [
        1.0,
        1.6,
    ]


def test_the_heartbeat_goes_by_the_readings_time_and_by_ours() -> None:
    found = sense(deadband=1.0, heartbeat_s=10)
    assert len(kept(found, *[reading(5.0, at_s) for at_s in range(31)])) == 4
    stands_still = sense(deadband=1.0, heartbeat_s=10)
    assert [len(kept(stands_still, reading(5.0), now_s=float(now_s))) for now_s in (0, 5, 9.9, 10)] == [1, 0, 0, 1]


def test_what_was_not_committed_is_judged_anew() -> None:
    found = sense(deadband=1.0)
    assert found.judge([reading(5.0)], 0.0, is_alarm=False).kept != ()
    assert found.judge([reading(5.0)], 0.0, is_alarm=False).kept != (), "the spool refused it before"
    assert len(kept(found, reading(5.0))) == 1
    assert kept(found, reading(5.0)) == []


def test_a_reading_older_than_the_one_kept_last_is_kept() -> None:
    assert [item.time_us for item in kept(sense(deadband=1.0), reading(5.0, 10), reading(5.0, 9), reading(5.0, 9.5))] == [
        10_000_000, 9_000_000,
    ]  # fmt: skip


def test_alarms_are_never_held_back() -> None:
    assert len(kept(sense(deadband=1.0, unit_in="bar", unit_out="kPa"), *[reading(1.0)] * 5, is_alarm=True)) == 5


def test_flags_come_after_the_conversion_and_a_change_of_flag_is_kept() -> None:
    found = sense(unit_in="degF", unit_out="Cel", max=40, deadband=50)
    cold, hot = kept(found, reading(68.0), reading(106.0))
    assert (cold.value, cold.quality) == (pytest.approx(20.0), 0)
    assert (hot.value, hot.quality) == (pytest.approx(41.11, abs=0.01), OUT_OF_RANGE | UNCERTAIN)
    assert kept(sense(min=0), reading(-1.0, quality=2))[0].quality == 2 | OUT_OF_RANGE


def test_a_stuck_value_is_flagged_until_it_moves() -> None:
    found = sense(stuck_after_s=60)
    qualities = [item.quality for item in kept(found, *[reading(7.0, at_s) for at_s in (0, 30, 59, 60, 300)])]
    assert qualities == [0, 0, 0, STUCK, STUCK]
    assert kept(found, reading(7.1, 301))[0].quality == 0
    assert kept(found, reading(7.1, 290))[0].quality == 0, "a clock that goes back begins anew"


def test_the_moment_the_clock_becomes_known_is_not_a_long_time() -> None:
    found = sense(stuck_after_s=60)
    early = Reading("d", "m", boot_stamp(5), 7.0)
    assert [item.quality for item in kept(found, early, reading(7.0, 1.7e9))] == [0, 0]


def test_a_stuck_sensor_in_the_deadband_is_told() -> None:
    found = sense(stuck_after_s=60, deadband=1.0, heartbeat_s=3600)
    assert [item.quality for item in kept(found, *[reading(7.0, at_s) for at_s in range(0, 200, 10)])] == [0, STUCK]


def test_the_first_entry_that_fits_counts_and_others_pass_untouched() -> None:
    found = Sense(
        [
            SenseSettings(metrics=["a*"], devices=["d"], max=1.0),
            SenseSettings(metrics=["*b"], unit_in="m", unit_out="cm"),
        ]
    )
    given_readings = [reading(2.0, metric=name) for name in ("ab", "b", "c")]
    result = kept(found, *given_readings)
    assert [item.value for item in result] == [2.0, 200.0, 2.0]
    assert result[2] is given_readings[2]
    assert found.judge([], 0.0, is_alarm=False) == Judged((), sense=found)


def test_memory_is_bounded_and_the_longest_silent_series_goes_first() -> None:
    found = sense(deadband=1.0)
    for number in range(SERIES_MAX + 50):
        kept(found, reading(1.0, metric=f"m{number}"), reading(1.0, metric="busy"))
    assert len(found) == SERIES_MAX
    assert kept(found, reading(1.0, metric="busy")) == []
    assert len(kept(found, reading(1.0, metric="m0"))) == 1, "forgotten, so its next value is kept"


@given(st.sampled_from(units.names()), st.floats(-1e6, 1e6))
def test_there_and_back_is_the_same(unit: str, value: float) -> None:
    for other in units.names():
        try:
            scale, offset = units.conversion(unit, other)
        except ValueError:
            continue
        back, back_offset = units.conversion(other, unit)
        assert (value * scale + offset) * back + back_offset == pytest.approx(value, rel=1e-12, abs=1e-9)


@pytest.mark.parametrize(
    ("unit_in", "unit_out", "value", "expected"),
    [
        ("degF", "Cel", 212.0, 100.0), ("degF", "K", 32.0, 273.15), ("Cel", "degF", -40.0, -40.0), ("K", "Cel", 0.0, -273.15),
        ("psi", "kPa", 1.0, 6.894757293168361), ("bar", "kPa", 2.5, 250.0), ("mH2O", "kPa", 1.0, 9.80665),
        ("L/min", "m3/h", 100.0, 6.0), ("gal", "L", 1.0, 3.785411784), ("mph", "km/h", 1.0, 1.609344),
        ("kn", "m/s", 1.0, 1852 / 3600),
        ("in", "mm", 1.0, 25.4), ("ft", "m", 1.0, 0.3048), ("lb", "kg", 1.0, 0.45359237), ("kWh", "MJ", 1.0, 3.6),
        ("%", "/", 5.0, 0.05), ("mg/L", "g/m3", 3.0, 3.0), ("h", "min", 1.5, 90.0),
    ],
)  # fmt: skip
def test_conversions(unit_in: str, unit_out: str, value: float, expected: float) -> None:
    scale, offset = units.conversion(unit_in, unit_out)
    assert value * scale + offset == pytest.approx(expected, rel=1e-15, abs=1e-13)


def test_factors_are_the_nearest_floats() -> None:
    assert units.conversion("degF", "Cel") == (float(Fraction(5, 9)), float(Fraction(-160, 9)))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"unit_in": "degF"}, "stand together"),
        ({"unit_in": "degF", "unit_out": "kPa"}, "temperature"),
        ({"unit_in": "furlong", "unit_out": "m"}, "no unit 'furlong'"),
        ({"min": 5, "max": 5}, "min must be below max"),
        ({"deadband": math.inf}, "finite"),
        ({"metrics": [""]}, "1 to 64 characters"),
        ({"deadbnd": 1}, "Extra inputs"),
    ],
)
def test_mistakes_are_told(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        sense(**wrong)
