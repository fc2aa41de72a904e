"""Air station: PM2.5, PM10, SO2, NO2, CO, O3 as a box model sees them.

A box of mixing height H and width across the wind dilutes what traffic and industry emit: concentration above the background
is proportional to E / (u H) (Seinfeld and Pandis, Atmospheric Chemistry and Physics, ch. 25, steady state). The mixing
height follows the warmth of the day. Rain washes particles out. Ozone is made in warmth and light and used up by NO:
it mirrors NO2. A dust episode brings coarse particles; an eighth of them is fine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from citynet_sim.kind import Kind
from citynet_sim.kinds.bridge import traffic
from citynet_sim.metrics import Metric
from citynet_sim.models import rhythm
from citynet_sim.models.rhythm import DAY_S
from citynet_sim.noise import F64, wander

if TYPE_CHECKING:
    from citynet_sim.city import Device
    from citynet_sim.world import World

_FINE_SHARE = 1.0 / 8.0
_WASHOUT_H_MM = 0.15  # share of particles that a mm/h of runoff's memory takes


def dilution(wind_m_s: F64, warmth: F64) -> F64:
    """1 / (u H) relative to 2.3 m/s and the mean mixing height; dimensionless."""
    height = 1.0 + 0.55 * warmth
    found: F64 = 2.3 / np.maximum(wind_m_s, 0.5) / height
    return found


def _truth(world: World, device: Device, t_s: F64) -> F64:
    u = world.site(device)
    warm, temperature = rhythm.warmth(t_s), world.temperature(t_s)
    box = np.minimum(dilution(world.wind(t_s), warm), 4.0)
    road, works = (0.6 + 0.8 * float(u[0])) * traffic(t_s), 0.5 + float(u[1])
    winter = 1.0 + 0.5 * np.clip((15.0 - temperature) / 20.0, 0.0, 1.0)  # heating, and a lower lid
    haze = np.exp(0.35 * wander(world.seed, "haze", t_s, 2 * DAY_S)) * winter
    washed = np.exp(-_WASHOUT_H_MM * np.minimum(world.runoff(device.district, t_s), 12.0))
    dust = world.effect(device, "dust_ug_m3", t_s)
    fine = (14.0 * haze + (4.0 * road + 3.0 * works) * box) * washed + _FINE_SHARE * dust
    coarse = fine + (16.0 + 6.0 * road * box) * washed + (1.0 - _FINE_SHARE) * dust
    no2 = 6.0 + 14.0 * road * box
    so2 = 3.0 + 3.0 * works * box
    co = 0.25 + 0.2 * road * box + 0.1 * works
    light = np.clip(0.5 + 0.5 * warm, 0.0, 1.0) * np.clip((temperature + 5.0) / 30.0, 0.1, 1.3)
    o3 = np.maximum(30.0 + 75.0 * light - 0.5 * no2, 2.0)
    return np.stack([fine, coarse, so2, no2, co, o3])


KIND = Kind(
    name="air-station",
    domain="air",
    prefix="aq",
    per_100k=1.0,
    metrics=(
        Metric("pm25_ug_m3", "ug/m3", 0.0, 1000.0, 1, 1.2, 300.0, drift=0.5, warm_up=8.0),
        Metric("pm10_ug_m3", "ug/m3", 0.0, 2000.0, 1, 2.0, 300.0, drift=1.0, warm_up=12.0),
        Metric("so2_ug_m3", "ug/m3", 0.0, 1400.0, 10, 0.4, 600.0, drift=0.3),
        Metric("no2_ug_m3", "ug/m3", 0.0, 1000.0, 10, 0.8, 300.0, drift=0.4),
        Metric("co_mg_m3", "mg/m3", 0.0, 60.0, 100, 0.02, 300.0, drift=0.02),
        Metric("o3_ug_m3", "ug/m3", 0.0, 1000.0, 10, 1.0, 300.0, drift=0.5),
    ),
    truth=_truth,
)
