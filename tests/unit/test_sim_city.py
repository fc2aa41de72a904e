"""The layout, the schedule of incidents, and the calm of a calm city."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from citynet.errors import ConfigError
from citynet_sim.city import City, CityParameters, build, describe
from citynet_sim.faults import Fault
from citynet_sim.kinds import KINDS
from citynet_sim.noise import F64
from citynet_sim.scenario import find, schedule
from citynet_sim.simulation import BLOCK_STEPS, Simulation

START_US = 1_767_225_600_000_000  # 2026-01-01
DAY_US = 86_400_000_000
MINUTE_MS = dict.fromkeys(KINDS, 60_000)
GAS_WELL, MANHOLE = "gas-well", "manhole"
NO_DEVICES = dict.fromkeys(KINDS, 0)


def _demo(city: City, period_ms: int = 5000) -> Simulation:
    return Simulation(city, _staged(city), dict.fromkeys(KINDS, period_ms), texture=False)


def _staged(city: City) -> tuple[Fault, ...]:
    return schedule(find("demo"), city, START_US, 3600.0)


def test_city_has_two_thousand_sensors_with_places_in_a_city() -> None:
    city = build(1, CityParameters())
    assert city.series_count >= 2000
    assert len({device.name for device in city.devices}) == len(city.devices)
    assert all(device.index == k for k, device in enumerate(city.devices))
    for device in city.devices:
        assert device.name.startswith(KINDS[device.kind].prefix + "-")
        assert abs(device.lon - 116.0) < 0.06
        assert abs(device.lat - 30.5) < 0.05
        assert device.district in city.districts
    assert {device.district for device in city.devices} == set(city.districts)


def test_number_of_gateways_moves_no_device_and_changes_no_reading() -> None:
    two = build(4, CityParameters())
    many = build(4, CityParameters(gateways=tuple(f"gw-{k:02d}" for k in range(7))))
    for one, other in zip(two.devices, many.devices, strict=True):
        assert replace(one, gateway="x") == replace(other, gateway="x")
    sizes = list(describe(many)["gateways"].values())  # type: ignore[attr-defined]
    assert max(sizes) - min(sizes) <= 1
    span = (START_US, START_US + 5_000_000)
    assert _demo(two).readings(*span) == _demo(many).readings(*span)


def test_seed_decides_the_city() -> None:
    assert build(1, CityParameters()) == build(1, CityParameters())
    assert build(1, CityParameters()).devices != build(2, CityParameters()).devices


def test_impossible_cities_are_refused_with_every_mistake() -> None:
    with pytest.raises(ConfigError) as caught:
        build(
            1,
            CityParameters(
                devices={"gas-well": 10_000, "manhole": -1, "ufo": 1}, climate="dry", gateways=("a b", "gw", "gw")
            ),
        )
    assert len(caught.value.problems) == 6
    with pytest.raises(ConfigError, match="no devices"):
        build(1, CityParameters(devices=NO_DEVICES))
    with pytest.raises(ConfigError, match="pressure points need a water meter"):
        build(1, CityParameters(devices={"water-meter": 0}))


def test_unknown_scenario_is_one_clear_line() -> None:
    with pytest.raises(ConfigError, match=r"scenario 'storm': unknown \(known: demo, "):
        find("storm")


def test_city_without_wells_or_manholes_has_no_such_incident() -> None:
    city = build(1, CityParameters(devices={"gas-well": 0, "manhole": 0}))
    assert schedule(find("demo"), city, START_US, 60.0) == ()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_leak_is_above_50_lel_within_5_s_and_stays(seed: int) -> None:
    city = build(seed, CityParameters())
    simulation = _demo(city, 1000)
    leak = next(incident for incident in simulation.faults if incident.kind == "gas-leak")
    assert len(leak.devices) == 3
    for name in leak.devices:
        device = next(device for device in city.devices if device.name == name)
        before = simulation.columns(device, START_US, leak.start_us)[1][0]
        during = simulation.columns(device, leak.start_us + 5_000_000, leak.end_us)[1]
        after = simulation.columns(device, leak.end_us + 3_600_000_000, leak.end_us + 3_700_000_000)[1][0]
        assert before.max() < 10.0
        assert during[0].min() > 52.0  # clear of the hysteresis too
        assert after.max() < 10.0
        assert during[3].min() > 19.5


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_ponding_is_above_25_cm_within_5_s_and_stays(seed: int) -> None:
    city = build(seed, CityParameters())
    simulation = _demo(city, 1000)
    ponding = next(incident for incident in simulation.faults if incident.kind == "ponding")
    device = next(device for device in city.devices if device.name == ponding.devices[0])
    assert device.ground_m == min(other.ground_m for other in city.of_kind(MANHOLE))
    before = simulation.columns(device, START_US, ponding.start_us)[1][1]
    during = simulation.columns(device, ponding.start_us + 5_000_000, ponding.end_us)[1][1]
    after = simulation.columns(device, ponding.end_us + 3_600_000_000, ponding.end_us + 3_700_000_000)[1][1]
    assert before.max() == 0.0
    assert during.min() > 27.0
    assert after.max() == 0.0


def _assert_calm(name: str, values: F64) -> None:
    """No metric of a calm city comes near a threshold of the domain reference."""
    low, high = float(values.min()), float(values.max())
    bounds = {
        "ch4_lel": (0.0, 10.0), "gas_pressure_kpa": (2.26, 2.75), "h2s_mg_m3": (0.0, 5.0), "o2_vol": (20.0, 21.2),
        "water_pressure_mpa": (0.18, 0.8), "water_flow_m3_h": (5.0, 330.0), "turbidity_ntu": (0.0, 0.8),
        "chlorine_mg_l": (0.1, 2.0), "level_m": (0.0, 1.0), "ponding_cm": (0.0, 0.0), "cover_tilt_deg": (0.0, 3.0),
        "battery_pct": (40.0, 100.0), "sump_level_m": (0.0, 3.0), "pump_current_a": (0.0, 70.0),
        "rain_mm_h": (0.0, 10.0), "supply_temperature_c": (15.0, 100.0), "return_temperature_c": (15.0, 70.0),
        "heat_flow_m3_h": (0.0, 260.0), "heat_power_kw": (0.0, 12_000.0), "makeup_m3_h": (0.0, 2.0),
        "heat_pressure_mpa": (0.38, 0.46), "temperature_c": (5.0, 39.0), "co_mg_m3": (0.0, 5.0), "smoke_db_m": (0.0, 0.0),
        "accel_rms_mm_s2": (0.0, 60.0), "frequency_hz": (2.8, 4.3), "strain_um_m": (-400.0, 400.0),
        "deflection_mm": (-1.0, 25.0), "deck_temperature_c": (-25.0, 50.0), "stage_m": (0.5, 6.0),
        "discharge_m3_s": (10.0, 600.0), "air_temperature_c": (-25.0, 45.0), "wind_m_s": (0.0, 20.0),
        "pm25_ug_m3": (0.0, 150.0), "pm10_ug_m3": (0.0, 250.0), "so2_ug_m3": (0.0, 150.0), "no2_ug_m3": (0.0, 200.0),
        "o3_ug_m3": (0.0, 200.0),
    }  # fmt: skip
    assert bounds[name][0] <= low, name
    assert high <= bounds[name][1], name


@pytest.mark.parametrize(("seed", "day"), [(1, 0), (2, 45), (3, 100), (4, 200)])
def test_calm_day_crosses_no_threshold(seed: int, day: int) -> None:
    city = build(seed, CityParameters())
    simulation = Simulation(city, (), MINUTE_MS, texture=False)
    t0_us = START_US + day * DAY_US
    for device in city.devices:
        times, values = simulation.columns(device, t0_us, t0_us + DAY_US)
        assert len(times) == 1440
        for metric, row in zip(device.metrics, values, strict=True):
            _assert_calm(metric.name, row)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_demo_disturbs_nothing_but_its_incidents(seed: int) -> None:
    """Everything that no incident names stays calm, also under the rain burst (its gauges show the rain, of course)."""
    city = build(seed, CityParameters())
    simulation = Simulation(city, _staged(city), MINUTE_MS, texture=False)
    affected = {(name, incident.metric) for incident in simulation.faults for name in incident.devices}
    struck = {name for name, _ in affected}
    wet = {"rain_mm_h", "level_m", "pump_current_a", "pm25_ug_m3", "pm10_ug_m3", "stage_m", "discharge_m3_s"}
    for device in city.devices:
        values = simulation.columns(device, START_US, START_US + 7_200_000_000)[1]
        for metric, row in zip(device.metrics, values, strict=True):
            if metric.name not in wet and not (
                device.name in struck and metric.name in ("ch4_lel", "o2_vol", "ponding_cm")
            ):
                _assert_calm(metric.name, row)
            if metric.name == "level_m" and device.name not in struck:
                assert row.max() < 2.0  # below the crown


def test_rain_reaches_gauges_and_sewers_of_its_district_only() -> None:
    city = build(1, CityParameters())
    simulation = _demo(city, 60_000)
    ponding = next(incident for incident in simulation.faults if incident.kind == "ponding")
    calm = Simulation(city, (), MINUTE_MS, texture=False)
    span = (START_US, START_US + 3_600_000_000)
    for device in [*city.of_kind(MANHOLE)[:60], *city.of_kind("pump-station")]:
        same = np.array_equal(simulation.columns(device, *span)[1], calm.columns(device, *span)[1])
        assert same == (device.district != ponding.district)


def test_wells_with_biogas_are_a_minority_and_are_no_leak() -> None:
    city = build(1, CityParameters())
    simulation = Simulation(city, (), MINUTE_MS, texture=False)
    highest = [
        float(simulation.columns(device, START_US, START_US + DAY_US)[1][0].max()) for device in city.of_kind(GAS_WELL)
    ]
    share = sum(value > 1.6 for value in highest) / len(highest)
    assert 0.08 < share < 0.35


def test_blocks_join_without_a_step() -> None:
    """Noise steps over the seam of two blocks are no larger than inside one."""
    simulation = Simulation(build(1, CityParameters()), (), dict.fromkeys(KINDS, 1000), texture=False)
    inside, seams = [], []
    for device in simulation.city.of_kind(MANHOLE)[:50]:
        times, values = simulation.columns(device, START_US, START_US + 4 * BLOCK_STEPS * 1_000_000)
        steps = np.diff(values[0])
        at_seam = (times[1:] - times[1:] % 1_000_000) // 1_000_000 % BLOCK_STEPS == 0
        seams += steps[at_seam].tolist()
        inside += steps[~at_seam].tolist()
    assert len(seams) >= 150
    assert np.std(seams) < 1.3 * np.std(inside)
