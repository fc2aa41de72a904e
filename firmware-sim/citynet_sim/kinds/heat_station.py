"""Heat station: supply and return of the secondary side on a weather curve, circulating flow, heat, make-up water, pressure.

Radiators of exponent b at constant flow (quality regulation; the usual textbook result for heating networks): with the
relative load q = (ti - to) / (ti - to') the temperatures are
ts, tr = ti + (ts' + tr' - 2 ti)/2 q^(1/(1+b)) ± (ts' - tr')/2 q, primes at design; b = 0.3, 75/50 °C, ti = 18 °C.
Heat is P = rho c G (ts - tr). Water that a leak loses is made up; what is missing lowers the pressure.
Without a load the station keeps its water standing at the temperature of its cellar.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from citynet.formats import SENML
from citynet_sim.kind import Kind
from citynet_sim.metrics import Metric
from citynet_sim.models import rhythm
from citynet_sim.noise import F64, wander

if TYPE_CHECKING:
    from citynet_sim.city import Device
    from citynet_sim.world import World

INDOOR_C = 18.0
SUPPLY_C, RETURN_C = 75.0, 50.0
_RADIATOR = 0.3
_BASE_C = 12.0  # above this outdoor temperature nobody heats
_MEAN_S = 6 * 3600.0  # a station follows the mean of the last hours, not every cloud
HEAT_KW_PER_M3_H_K = 1.163  # rho c of water
_PRESSURE_MPA = 0.42
_MPA_PER_M3_H = 0.004


def curve(outdoor_c: F64, design_c: float, supply_c: float = SUPPLY_C, return_c: float = RETURN_C) -> tuple[F64, F64]:
    """Supply and return temperature in °C at an outdoor temperature; `design_c` is the coldest that is designed for."""
    load = np.clip((INDOOR_C - outdoor_c) / (INDOOR_C - design_c), 0.0, 1.2)
    middle = INDOOR_C + 0.5 * (supply_c + return_c - 2.0 * INDOOR_C) * load ** (1.0 / (1.0 + _RADIATOR))
    half = 0.5 * (supply_c - return_c) * load
    return middle + half, middle - half


def _truth(world: World, device: Device, t_s: F64) -> F64:
    u = world.site(device)
    nominal = 60.0 + 160.0 * float(u[0])
    # Three looks back stand for the running mean: the weather is a function of time, so the past can be asked for.
    outdoor = (world.temperature(t_s) + world.temperature(t_s - _MEAN_S / 2) + world.temperature(t_s - _MEAN_S)) / 3.0
    supply, back = curve(outdoor, world.climate.design_c)
    own = 0.6 * wander(world.seed, f"heat/{device.name}", t_s, 3 * 3600.0)
    heating = outdoor < _BASE_C
    supply = np.where(heating, supply + own - 0.8 * rhythm.warmth(t_s), 24.0)
    back = np.where(heating, back + 0.6 * own, 24.0)
    flow = np.where(heating, nominal * (1.0 + 0.01 * wander(world.seed, f"flow/{device.name}", t_s, 1800.0)), 0.0)
    leak = world.effect(device, "makeup_m3_h", t_s)
    makeup = np.where(heating, nominal * (0.003 + 0.003 * float(u[1])), 0.0) + leak
    pressure = _PRESSURE_MPA - _MPA_PER_M3_H * leak + 0.02 * (float(u[2]) - 0.5)
    power = HEAT_KW_PER_M3_H_K * flow * (supply - back)
    return np.stack([supply, back, flow, power, makeup, pressure])


KIND = Kind(
    name="heat-station",
    domain="heat",
    prefix="hs",
    per_100k=1.2,
    wire=SENML,
    metrics=(
        Metric("supply_temperature_c", "Cel", 0.0, 150.0, 10, 0.12, 120.0, drift=0.1),
        Metric("return_temperature_c", "Cel", 0.0, 150.0, 10, 0.1, 120.0, drift=0.1),
        Metric("heat_flow_m3_h", "m3/h", 0.0, 500.0, 10, 0.5, 60.0, quiet_at_zero=True),
        Metric("heat_power_kw", "kW", 0.0, 20_000.0, 1, 12.0, 60.0, quiet_at_zero=True),
        Metric("makeup_m3_h", "m3/h", 0.0, 50.0, 100, 0.03, 60.0, quiet_at_zero=True),
        Metric("heat_pressure_mpa", "MPa", 0.0, 1.6, 1000, 0.001, 30.0, drift=0.0005),
    ),
    truth=_truth,
)
