"""Physics against closed forms and balances."""

from __future__ import annotations

from math import exp

import numpy as np
import pytest

from citynet_sim.metrics import METRICS_OF_KIND, PUMP_STATION, WATER_METER
from citynet_sim.models import drainage, gas, rhythm, water
from citynet_sim.models.reservoir import response
from citynet_sim.noise import F64, uniforms
from citynet_sim.simulation import measure
from citynet_sim.weather import RainPulse, intensity, runoff

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


def test_pressure_falls_when_flow_rises() -> None:
    for u in _sites(20):
        pressure, flow, _, chlorine, _ = water.values(water.WaterDistrict.draw(u), DAY)
        assert np.corrcoef(pressure, flow)[0, 1] < -0.9
        assert pressure.argmin() == flow.argmax()
        assert chlorine.argmin() == flow.argmin()


def test_pump_runs_while_the_sump_falls() -> None:
    station = drainage.PumpStation(0.8, 1.6, 0.008, 30.0, 1200.0, 0.0)
    t = np.arange(0.0, 7200.0, 5.0)
    zero = np.zeros_like(t)
    level, current, _ = drainage.pump_values(station, t, zero, zero)
    falling = np.diff(level) < 0
    agrees = (current[1:] > 0) == falling
    assert agrees.mean() > 0.97  # all but the steps in which the pump starts or stops
    assert level.min() >= 0.8
    assert level.max() <= 1.6


def test_water_stands_only_above_a_full_manhole() -> None:
    site = drainage.Manhole(0.3, 3.0, 0.01, 1.0, 700.0, 0.5)
    t, ponding = np.zeros(3), np.array([0.0, 0.3, 20.0])
    level, standing, _, _ = drainage.manhole_values(site, t, np.zeros(3), ponding)
    assert standing.tolist() == [0.0, 0.0, 20.0]
    assert level[2] == 3.0
    assert level[0] == level[1] < 1.0


def test_instrument_rounds_clips_and_stays_silent_at_zero() -> None:
    metrics = METRICS_OF_KIND[PUMP_STATION]
    truth = np.array([[-1.0, 9.0], [0.0, 30.04], [0.0, 5.26]])
    reported = measure(metrics, truth, np.zeros((3, 2)))
    assert reported.tolist() == [[0.0, 5.0], [0.0, 30.0], [0.0, 5.3]]
    noisy = measure(metrics, truth, np.full((3, 2), 3.0))
    assert noisy[1:, 0].tolist() == [0.0, 0.0]
    assert noisy[1, 1] == 31.1


def test_readings_are_what_their_shortest_decimal_says() -> None:
    metrics = METRICS_OF_KIND[WATER_METER]
    truth = np.linspace([m.low for m in metrics], [m.high for m in metrics], 500).T
    reported = measure(metrics, truth, np.zeros_like(truth))
    for metric, row in zip(metrics, reported.tolist(), strict=True):
        digits = len(str(metric.steps_per_unit)) - 1
        assert all(value == float(f"{value:.{digits}f}") for value in row)
