"""Physics against closed forms and balances."""

from __future__ import annotations

from math import exp

import numpy as np
import pytest

from citynet_sim.kinds import KINDS, air_station, bridge, heat_station, river_gauge, tunnel_section
from citynet_sim.kinds import gas_well as gas
from citynet_sim.kinds import manhole as manholes
from citynet_sim.kinds import pump_station as pumps
from citynet_sim.kinds import water_meter as water
from citynet_sim.metrics import measure
from citynet_sim.models import rhythm
from citynet_sim.models.reservoir import response
from citynet_sim.noise import F64, uniforms, wander
from citynet_sim.weather import CLIMATES, RainPulse, intensity, runoff, temperature_c

DAY = np.arange(0.0, 86_400.0, 60.0)


def _sites(count: int) -> list[F64]:
    return [uniforms(1, "test-site", k, 8) for k in range(count)]


def test_reservoir_keeps_its_balance() -> None:
    """What flows in over the pulse flows out over all time."""
    t = np.arange(-100.0, 40_000.0, 0.5)
    outflow = response(t, 0.0, 3600.0, 1200.0, 1200.0)
    assert outflow.sum() * 0.5 == pytest.approx(3600.0, rel=1e-3)
    assert response(np.array([-1.0, 1200.0]), 0.0, 3600.0, 1200.0, 1200.0).tolist() == [0.0, 1.0 - exp(-1.0)]


def test_runoff_is_the_rain_that_fell() -> None:
    pulses = [RainPulse(0.0, 1800.0, 10.0), RainPulse(1800.0, 3600.0, 30.0)]
    t = np.arange(0.0, 40_000.0, 1.0)
    assert runoff(pulses, t).sum() == pytest.approx(intensity(pulses, t).sum(), rel=1e-3)
    assert intensity(pulses, np.array([0.0, 1799.0, 1800.0, 3600.0])).tolist() == [10.0, 10.0, 30.0, 0.0]


def test_demand_has_a_mean_of_one_a_night_and_two_peaks() -> None:
    week = np.arange(0.0, 7 * 86_400.0, 60.0)
    assert rhythm.demand(week).mean() == pytest.approx(1.0, abs=1e-6)
    local_hour = ((DAY + rhythm.LOCAL_OFFSET_S) / 3600.0) % 24.0
    use = rhythm.demand(DAY)
    assert 2.0 <= local_hour[use.argmin()] <= 4.0
    assert 19.0 <= local_hour[use.argmax()] <= 21.0
    assert 0.3 < use.min() < 0.45
    assert 1.3 < use.max() < 1.5


def test_demand_integral_is_its_integral() -> None:
    fine = np.arange(0.0, 86_400.0, 10.0)
    slope = np.gradient(rhythm.demand_integral_s(fine), 10.0)[1:-1]
    assert np.abs(slope - rhythm.demand(fine)[1:-1]).max() < 0.04  # the weekly part is left out of it


def test_leak_brings_methane_without_h2s_and_displaces_oxygen() -> None:
    well = gas.GasWell(0.5, 0.0, 0.2, 2.5, 700.0, 0.1)
    quiet, leaking = gas.values(well, DAY, np.zeros_like(DAY)), gas.values(well, DAY, np.full_like(DAY, 60.0))
    assert np.allclose(leaking[0] - quiet[0], 60.0)
    assert np.array_equal(leaking[2], quiet[2])
    assert np.allclose(quiet[3] - leaking[3], 20.8 * 0.03)  # 60 %LEL are 3 %vol
    assert np.array_equal(leaking[1], quiet[1])


def test_biogas_follows_the_warmth_and_brings_h2s() -> None:
    well = gas.GasWell(0.5, 3.0, 0.2, 2.5, 700.0, 0.1)
    ch4, _, h2s, _, _ = gas.values(well, DAY, np.zeros_like(DAY))
    assert np.corrcoef(ch4, rhythm.warmth(DAY))[0, 1] > 0.999
    assert np.allclose(h2s, 0.2 * (ch4 - 0.5))


def test_chlorine_decays_with_the_age_of_the_water() -> None:
    u = np.array([0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5])
    turbidity, chlorine = water.quality(u, np.array([1.0, 2.0, 0.0]))
    assert chlorine[:2] == pytest.approx([0.55 * exp(-0.03 * 5.5), 0.55 * exp(-0.03 * 2.75)])
    assert chlorine[2] == pytest.approx(0.55 * exp(-0.03 * 55.0))  # water that stands is not infinitely old
    assert turbidity[1] > turbidity[0]


def test_pump_runs_while_the_sump_falls() -> None:
    station = pumps.PumpStation(0.8, 1.6, 0.008, 30.0, 1200.0, 0.0)
    t = np.arange(0.0, 7200.0, 5.0)
    zero = np.zeros_like(t)
    level, current, _ = pumps.values(station, t, zero, zero)
    falling = np.diff(level) < 0
    agrees = (current[1:] > 0) == falling
    assert agrees.mean() > 0.97  # all but the steps in which the pump starts or stops
    assert level.min() >= 0.8
    assert level.max() <= 1.6


def test_water_stands_only_above_a_full_manhole() -> None:
    site = manholes.Manhole(0.3, 3.0, 0.01, 1.0, 700.0, 0.5)
    t, ponding = np.zeros(3), np.array([0.0, 0.3, 20.0])
    level, standing, _, _ = manholes.values(site, t, np.zeros(3), ponding)
    assert standing.tolist() == [0.0, 0.0, 20.0]
    assert level[2] == 3.0
    assert level[0] == level[1] < 1.0


def test_instrument_rounds_clips_and_stays_silent_at_zero() -> None:
    metrics = KINDS["pump-station"].metrics
    truth = np.array([[-1.0, 9.0], [0.0, 30.04], [0.0, 5.26]])
    reported = measure(metrics, truth, np.zeros((3, 2)))
    assert reported.tolist() == [[0.0, 5.0], [0.0, 30.0], [0.0, 5.3]]
    noisy = measure(metrics, truth, np.array([[metric.sigma * 3.0] * 2 for metric in metrics]))
    assert noisy[1:, 0].tolist() == [0.0, 0.0]
    assert noisy[1, 1] == 31.1


def test_readings_are_what_their_shortest_decimal_says() -> None:
    metrics = KINDS["water-meter"].metrics
    truth = np.linspace([m.low for m in metrics], [m.high for m in metrics], 500).T
    reported = measure(metrics, truth, np.zeros_like(truth))
    for metric, row in zip(metrics, reported.tolist(), strict=True):
        digits = len(str(metric.steps_per_unit)) - 1
        assert all(value == float(f"{value:.{digits}f}") for value in row)


def test_failed_pump_lets_the_sump_rise_by_what_flows_in() -> None:
    """The rise is the integral of the inflow over the sump's area, up to the rim; afterwards it falls to where it would be."""
    station = pumps.PumpStation(0.8, 1.6, 0.008, 30.0, 1200.0, 0.0)
    t = np.arange(0.0, 20_000.0, 10.0)
    quiet = pumps.values(station, t, np.zeros_like(t), np.zeros_like(t))
    failed = pumps.failed(station, t, quiet, 1.2, 3000.0, 6000.0)
    during = (t >= 3000.0) & (t < 6000.0)
    rate = (1.6 - 0.8) / (0.7 * 1200.0)
    inflow = rate * rhythm.demand(t[during])
    rise = np.concatenate([[0.0], np.cumsum(0.5 * (inflow[1:] + inflow[:-1]) * 10.0)])
    assert failed[0][during] == pytest.approx(np.minimum(1.2 + rise, pumps.RIM_M), abs=0.03)
    assert failed[0][during].max() > 3.0
    assert not failed[1][during].any()
    assert np.array_equal(failed[:, t < 3000.0], quiet[:, t < 3000.0])
    assert failed[0][-1] == pytest.approx(quiet[0][-1], abs=0.01)


def test_water_stands_where_the_sewer_is_too_small() -> None:
    site = manholes.Manhole(0.3, 3.0, 0.01, 1.0, 700.0, 0.5, capacity_mm_h=50.0, pond_cm_per_mm_h=2.0)
    level, standing, _, _ = manholes.values(site, np.zeros(3), np.array([40.0, 50.0, 60.0]), np.zeros(3))
    assert standing.tolist() == [0.0, 0.0, 20.0]
    assert level[2] == 3.0


def test_weather_curve_gives_its_design_point_and_the_heat_balance() -> None:
    supply, back = heat_station.curve(np.array([-9.0, 18.0, 4.5]), -9.0)
    assert (supply[0], back[0]) == (75.0, 50.0)
    assert (supply[1], back[1]) == (18.0, 18.0)
    assert supply[2] - back[2] == pytest.approx(0.5 * 25.0)  # at constant flow the spread is the load
    # The radiator's mean temperature follows its exponent: (tm - ti) grows with q^(1/1.3).
    assert (supply[2] + back[2]) / 2 - 18.0 == pytest.approx(44.5 * 0.5 ** (1 / 1.3))


def test_fire_keeps_its_heat_and_its_oxygen() -> None:
    warming, oxygen, co, smoke = tunnel_section.fire(np.array([0.0, 1000.0, 2000.0]))
    assert warming * tunnel_section.AIR_KG_S * 1.006 == pytest.approx([0.0, 1000.0, 2000.0])
    consumed_kg_s = oxygen / 100.0 * 32.0 / 28.97 * tunnel_section.AIR_KG_S
    assert consumed_kg_s * 13_100.0 == pytest.approx([0.0, 1000.0, 2000.0])
    assert co[2] == 2 * co[1] > 0.0
    assert smoke[0] == 0.0


def test_ground_is_damped_and_late() -> None:
    year = np.arange(0.0, 365.2425 * 86_400.0, 3600.0)
    ground = tunnel_section.ground_c(15.0, 12.0, year)
    assert ground.max() - 15.0 == pytest.approx(12.0 * exp(-3.0 / 2.5), rel=1e-3)
    late_days = year[ground.argmax()] / 86_400.0 - 200.0
    assert late_days == pytest.approx(1.2 / (2 * np.pi) * 365.2425, abs=1.0)


def test_bridge_is_the_beam_of_the_textbook() -> None:
    span = bridge.Span(32.0, 4.0e10, 12_000.0, 1.0)
    stiffness = span.stiffness(np.array([15.0, 35.0, 15.0]), np.array([0.0, 0.0, 0.19]))
    frequency = span.frequency_hz(stiffness)
    assert frequency[0] == pytest.approx(np.pi / 2 * np.sqrt(4.0e10 / (12_000.0 * 32.0**4)))
    assert frequency[1] / frequency[0] == pytest.approx(np.sqrt(1.0 - 20 * 1.5e-3))  # warmer is softer
    assert frequency[2] / frequency[0] == pytest.approx(0.9)  # a loss of 19 % of the stiffness
    force_n = 40.0 * 9806.65
    assert span.deflection_mm(np.array([40.0]), stiffness[:1]) == pytest.approx(1e3 * force_n * 32.0**3 / (48 * 4.0e10))
    moment = force_n * 32.0 / 4.0
    assert span.strain_um_m(np.array([40.0]), stiffness[:1]) == pytest.approx(1e6 * moment * 1.0 / 4.0e10)


def test_drawn_bridges_swing_where_they_should() -> None:
    for u in _sites(20):
        span = bridge.Span.draw(u)
        at_15 = span.frequency_hz(span.stiffness(np.array([15.0]), 0.0))
        assert at_15 == pytest.approx(3.0 + float(u[2]))


def test_trucks_are_more_by_day() -> None:
    t = np.arange(0.0, 28 * 86_400.0, 10.0)
    load = bridge.trucks_t(1, "br-0001", t)
    hour = ((t + rhythm.LOCAL_OFFSET_S) / 3600.0) % 24.0
    night, day = (load > 0.0)[(hour > 1.5) & (hour < 4.5)].mean(), (load > 0.0)[(hour > 9.0) & (hour < 21.0)].mean()
    assert 0.02 < night < 0.6 * day < 0.3


def test_river_carries_what_the_basin_delivers() -> None:
    flow = river_gauge.discharge_m3_s(np.array([40.0, 40.0]), np.array([0.0, 3.6]))
    assert flow.tolist() == [40.0, 280.0]  # 3.6 mm/h over 240 km2
    stage = river_gauge.stage_m(flow, 24.0, 0.4)
    assert river_gauge.rating(stage, 24.0, 0.4) == pytest.approx(flow)


def test_air_is_diluted_by_wind_and_by_height() -> None:
    assert air_station.dilution(np.array([2.3, 4.6]), np.zeros(2)).tolist() == [1.0, 0.5]
    noon, night = air_station.dilution(np.array([2.3, 2.3]), np.array([1.0, -1.0]))
    assert night > 3 * noon


@pytest.mark.parametrize("name", sorted(CLIMATES))
def test_year_has_the_climate_s_mean_and_seasons(name: str) -> None:
    climate = CLIMATES[name]
    t = np.arange(0.0, 4 * 365.2425 * 86_400.0, 3 * 3600.0)
    air = temperature_c(3, climate, t)
    assert air.mean() == pytest.approx(climate.mean_c, abs=0.4)
    day = (t / 86_400.0) % 365.2425
    july, january = air[np.abs(day - 200) < 15].mean(), air[np.abs(day - 17.4) < 15].mean()
    assert (july - january) / 2 == pytest.approx(climate.season_c, abs=1.3)


def test_wandering_keeps_its_variance_and_forgets() -> None:
    t = np.arange(0.0, 4000.0 * 100.0, 25.0)
    x = wander(5, "test", t, 100.0)
    assert abs(x.mean()) < 0.06
    assert x.std() == pytest.approx(1.0, abs=0.05)
    assert abs((x[8:] * x[:-8]).mean()) < 0.06  # twice the spacing apart
    assert np.array_equal(wander(5, "test", t[777:780], 100.0), x[777:780])
