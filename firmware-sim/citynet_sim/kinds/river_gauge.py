"""River gauge: stage and discharge.

Rain over the basin reaches the river through a linear reservoir of six hours; the discharge is base flow plus what the
basin delivers, Q = Qb + A r (1 mm/h over 1 km2 are 1/3.6 m3/s), and the stage follows from the rating curve
Q = a (h - h0)^(5/3), Manning's law for a wide channel. A wave from upstream is given as a rise in stage.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from citynet_sim.kind import Kind
from citynet_sim.metrics import BATTERY, Metric
from citynet_sim.models import rhythm
from citynet_sim.models.rhythm import DAY_S
from citynet_sim.noise import F64, wander
from citynet_sim.places import river

if TYPE_CHECKING:
    from citynet_sim.city import Device
    from citynet_sim.world import World

BASIN_KM2 = 240.0
_EXPONENT = 5.0 / 3.0
_BASE_M3_S = 45.0


def discharge_m3_s(base_m3_s: F64, runoff_mm_h: F64) -> F64:
    """Discharge with `runoff_mm_h` from the whole basin."""
    return base_m3_s + BASIN_KM2 / 3.6 * runoff_mm_h


def stage_m(discharge: F64, a: float, zero_m: float) -> F64:
    """Stage above the gauge's datum, inverse of the rating curve."""
    found: F64 = zero_m + (discharge / a) ** (1.0 / _EXPONENT)
    return found


def rating(stage: F64, a: float, zero_m: float) -> F64:
    """Discharge in m3/s at a stage."""
    found: F64 = a * np.maximum(stage - zero_m, 0.0) ** _EXPONENT
    return found


def _truth(world: World, device: Device, t_s: F64) -> F64:
    u = world.site(device)
    a, zero = 22.0 + 6.0 * float(u[0]), 0.3 + 0.2 * float(u[1])
    base = _BASE_M3_S * np.exp(0.2 * wander(world.seed, "river", t_s, 4 * DAY_S))
    stage = stage_m(discharge_m3_s(base, world.basin_runoff(t_s)), a, zero) + world.effect(device, "stage_m", t_s)
    charge = rhythm.battery(t_s, 600.0 + 400.0 * float(u[2]), float(u[3]))
    return np.stack([stage, rating(stage, a, zero), charge])


KIND = Kind(
    name="river-gauge",
    domain="river",
    prefix="rv",
    per_100k=0.6,
    place=river,
    metrics=(
        Metric("stage_m", "m", 0.0, 20.0, 1000, 0.006, 30.0, drift=0.004),
        Metric("discharge_m3_s", "m3/s", 0.0, 5000.0, 10, 0.8, 60.0),
        BATTERY,
    ),
    truth=_truth,
)
