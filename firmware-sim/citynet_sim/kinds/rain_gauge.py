"""Weather station: rain, air temperature, wind. Its truth is the city's weather (`weather`), rain by district."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from citynet_sim.kind import Kind
from citynet_sim.metrics import BATTERY, Metric
from citynet_sim.models import rhythm
from citynet_sim.noise import F64

if TYPE_CHECKING:
    from citynet_sim.city import Device
    from citynet_sim.world import World


def _truth(world: World, device: Device, t_s: F64) -> F64:
    u = world.site(device)
    here = world.temperature(t_s) + 1.2 * (float(u[0]) - 0.5)  # warmer in the centre, cooler in a park
    wind = world.wind(t_s) * (0.8 + 0.4 * float(u[1]))
    charge = rhythm.battery(t_s, 600.0 + 400.0 * float(u[2]), float(u[3]))
    return np.stack([world.rain(device.district, t_s), here, wind, charge])


KIND = Kind(
    name="rain-gauge",
    domain="weather",
    prefix="rg",
    per_100k=1.2,
    metrics=(
        Metric("rain_mm_h", "mm/h", 0.0, 400.0, 10, 0.03, 60.0, quiet_at_zero=True),
        Metric("air_temperature_c", "Cel", -40.0, 60.0, 10, 0.1, 600.0, drift=0.1),
        Metric("wind_m_s", "m/s", 0.0, 60.0, 10, 0.35, 20.0),
        BATTERY,
    ),
    truth=_truth,
)
