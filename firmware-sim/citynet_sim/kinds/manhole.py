"""Manhole of a storm sewer: level, water above the cover, tilt of the cover.

Rain becomes runoff through a linear reservoir (`models.reservoir`); the level is the dry-weather depth, which
follows water use, plus a rise in proportion to runoff; near its capacity backwater lifts it to the rim. What a
manhole cannot take stands above it: depth in proportion to the runoff beyond its capacity, as of a basin whose
outlet runs full (the storage of a linear reservoir is K times its outflow).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from citynet_sim.kind import Kind
from citynet_sim.metrics import BATTERY, Metric
from citynet_sim.models import rhythm
from citynet_sim.noise import F64

if TYPE_CHECKING:
    from citynet_sim.city import Device
    from citynet_sim.world import World

_SURCHARGE = 4  # how late the backwater comes: a sewer at half its capacity hardly knows it
_DRAINED_CM = 0.5  # less than this above the cover has gone down the gullies


@dataclass(frozen=True, slots=True)
class Manhole:
    """Constants of one manhole: dry-weather depth, rim above the invert, rise per runoff, capacity, cover's tilt."""

    depth_m: float
    rim_m: float
    rise_m_per_mm_h: float
    tilt_deg: float
    battery_days: float
    battery_phase: float
    capacity_mm_h: float = 60.0
    pond_cm_per_mm_h: float = 1.0

    @classmethod
    def draw(cls, u: F64) -> Manhole:
        """A manhole from eight uniform numbers; one in four lies in a hollow."""
        return cls(
            depth_m=0.15 + 0.20 * float(u[0]),
            rim_m=2.6 + 1.2 * float(u[1]),
            rise_m_per_mm_h=0.006 + 0.006 * float(u[2]),
            tilt_deg=0.3 + 1.2 * float(u[3]),
            battery_days=500.0 + 500.0 * float(u[4]),
            battery_phase=float(u[5]),
            capacity_mm_h=45.0 + 35.0 * float(u[6]),
            pond_cm_per_mm_h=1.0 + 1.5 * float(u[7]) if u[7] > 0.75 else 0.06,
        )


def values(site: Manhole, t_s: F64, runoff_mm_h: F64, ponding_cm: F64) -> F64:
    """True values, rows level_m, ponding_cm, cover_tilt_deg, battery_pct.

    `runoff_mm_h` is what the catchment delivers, `ponding_cm` water that stands above the cover for another
    reason (0 where none does): while there is any, the manhole is full to its rim.
    """
    excess_cm = site.pond_cm_per_mm_h * np.maximum(runoff_mm_h - site.capacity_mm_h, 0.0)
    standing_cm = ponding_cm + excess_cm
    standing_cm = np.where(standing_cm < _DRAINED_CM, 0.0, standing_cm)
    filling = site.depth_m * rhythm.demand(t_s) ** 0.6 + site.rise_m_per_mm_h * runoff_mm_h
    surcharge = np.minimum(runoff_mm_h / site.capacity_mm_h, 1.0) ** _SURCHARGE
    filling += (site.rim_m - filling) * surcharge
    level = np.where(standing_cm > 0.0, site.rim_m, np.minimum(filling, site.rim_m))
    tilt = np.full_like(t_s, site.tilt_deg)
    charge = rhythm.battery(t_s, site.battery_days, site.battery_phase)
    return np.stack([level, standing_cm, tilt, charge])


def _truth(world: World, device: Device, t_s: F64) -> F64:
    standing = world.effect(device, "ponding_cm", t_s)
    found = values(Manhole.draw(world.site(device)), t_s, world.runoff(device.district, t_s), standing)
    found[2] += world.effect(device, "cover_tilt_deg", t_s)
    return found


KIND = Kind(
    name="manhole",
    domain="drainage",
    prefix="mh",
    per_100k=20.0,
    period_s=5.0,
    metrics=(
        Metric("level_m", "m", 0.0, 7.0, 1000, 0.004, 60.0, drift=0.004),
        Metric("ponding_cm", "cm", 0.0, 200.0, 10, 0.25, 30.0, quiet_at_zero=True),
        Metric("cover_tilt_deg", "deg", 0.0, 180.0, 10, 0.06, 300.0),
        BATTERY,
    ),
    truth=_truth,
)
