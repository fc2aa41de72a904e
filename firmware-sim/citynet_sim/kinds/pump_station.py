"""Drainage pump station: sump level, pump current, and the rain gauge on its roof.

The sump fills with the inflow and is drawn down between a stop and a start level: with an inflow in proportion
to water use the state of the cycle is the fraction of the integral of use, in closed form. A pump that fails
lets the sump rise at the rate at which it fills, from the level at which it is, until it overflows at the rim.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from citynet.formats import SENML
from citynet_sim.kind import Kind
from citynet_sim.metrics import Metric
from citynet_sim.models import rhythm
from citynet_sim.noise import F64

if TYPE_CHECKING:
    from citynet_sim.city import Device
    from citynet_sim.world import World

RIM_M = 4.6
_FILL_SHARE = 0.7  # of a pump cycle the sump fills, for the rest it is pumped down
_PUMP_DOWN_S = 900.0  # a repaired station empties the overfull sump with this time constant


@dataclass(frozen=True, slots=True)
class PumpStation:
    """Constants of one pump station: stop and start level, rise per runoff, running current, mean cycle."""

    stop_m: float
    start_m: float
    rise_m_per_mm_h: float
    current_a: float
    cycle_s: float
    phase: float

    @classmethod
    def draw(cls, u: F64) -> PumpStation:
        """A pump station from eight uniform numbers."""
        return cls(
            stop_m=0.7 + 0.2 * float(u[0]),
            start_m=1.5 + 0.3 * float(u[1]),
            rise_m_per_mm_h=0.006 + 0.004 * float(u[2]),
            current_a=28.0 + 24.0 * float(u[3]),
            cycle_s=900.0 + 900.0 * float(u[4]),
            phase=float(u[5]),
        )


def values(site: PumpStation, t_s: F64, rain_mm_h: F64, runoff_mm_h: F64) -> F64:
    """True values, rows sump_level_m, pump_current_a, rain_mm_h."""
    cycle = np.mod(rhythm.demand_integral_s(t_s) / site.cycle_s + site.phase, 1.0)
    filling = cycle < _FILL_SHARE
    share = np.where(filling, cycle / _FILL_SHARE, (1.0 - cycle) / (1.0 - _FILL_SHARE))
    level = site.stop_m + (site.start_m - site.stop_m) * share + site.rise_m_per_mm_h * runoff_mm_h
    load = 1.0 + 0.004 * runoff_mm_h  # against the fuller rising main
    # Runoff above what the cycle leaves over keeps the pump running instead of cycling.
    running = ~filling | (runoff_mm_h > 12.0)
    return np.stack([level, np.where(running, site.current_a * load, 0.0), rain_mm_h])


def failed(site: PumpStation, t_s: F64, found: F64, at_start_m: float, start_s: float, end_s: float) -> F64:
    """`found` (rows as of `values`) with the pump standing still from `start_s` to `end_s`.

    The sump rises from `at_start_m` at the rate at which a cycle fills it, with water use; afterwards it is
    pumped down to where it would have been.
    """
    rate_m = (site.start_m - site.stop_m) / (_FILL_SHARE * site.cycle_s)  # per second of mean use
    inside = np.clip(t_s, start_s, end_s)
    origin = rhythm.demand_integral_s(np.array([start_s]))[0]
    risen = np.minimum(at_start_m + rate_m * (rhythm.demand_integral_s(inside) - origin), RIM_M)
    during, after = (t_s >= start_s) & (t_s < end_s), t_s >= end_s
    fading = np.exp(-np.maximum(t_s - end_s, 0.0) / _PUMP_DOWN_S)
    level = np.where(during, risen, np.where(after, found[0] + np.maximum(risen - found[0], 0.0) * fading, found[0]))
    current = np.where(during, 0.0, found[1])
    return np.stack([level, current, found[2]])


def _truth(world: World, device: Device, t_s: F64) -> F64:
    site = PumpStation.draw(world.site(device))
    found = values(site, t_s, world.rain(device.district, t_s), world.runoff(device.district, t_s))
    for fault in world.acting(device, "pump"):
        start_s = fault.start_us / 1e6
        at = np.array([start_s])
        before = values(site, at, world.rain(device.district, at), world.runoff(device.district, at))
        found = failed(site, t_s, found, float(before[0, 0]), start_s, fault.end_us / 1e6)
    return found


KIND = Kind(
    name="pump-station",
    domain="drainage",
    prefix="ps",
    per_100k=2.0,
    period_s=5.0,
    wire=SENML,
    metrics=(
        Metric("sump_level_m", "m", 0.0, 5.0, 1000, 0.004, 20.0, drift=0.003),
        Metric("pump_current_a", "A", 0.0, 200.0, 10, 0.35, 10.0, quiet_at_zero=True),
        Metric("rain_mm_h", "mm/h", 0.0, 400.0, 10, 0.03, 60.0, quiet_at_zero=True),
    ),
    truth=_truth,
)
