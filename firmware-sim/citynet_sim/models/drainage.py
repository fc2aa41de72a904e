"""Drainage: manholes (level, ponding, cover tilt) and pump stations (sump level, pump current, rain gauge).

Rain becomes runoff through a linear reservoir (`models.reservoir`); the level in a sewer is its dry-weather
depth, which follows water use, plus a rise in proportion to runoff, up to the rim of the manhole. Water that
a low manhole cannot take stands above its cover. A pump station fills with the inflow and is drawn down
between a start and a stop level: with an inflow in proportion to water use the state of the cycle is the
fraction of the integral of use, in closed form.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from citynet_sim.models import rhythm
from citynet_sim.noise import F64

RUNOFF_S = 1200.0  # time constant of runoff from paved ground into the sewer
_DRAINED_CM = 0.5  # less than this above the cover has gone down the gullies
_FILL_SHARE = 0.7  # of a pump cycle the sump fills, for the rest it is pumped down


@dataclass(frozen=True, slots=True)
class Manhole:
    """Constants of one manhole: dry-weather depth, rim above the invert, rise per runoff, cover's tilt."""

    depth_m: float
    rim_m: float
    rise_m_per_mm_h: float
    tilt_deg: float
    battery_days: float
    battery_phase: float

    @classmethod
    def draw(cls, u: F64) -> Manhole:
        """A manhole from eight uniform numbers."""
        return cls(
            depth_m=0.15 + 0.20 * float(u[0]),
            rim_m=2.6 + 1.2 * float(u[1]),
            rise_m_per_mm_h=0.006 + 0.006 * float(u[2]),
            tilt_deg=0.3 + 1.2 * float(u[3]),
            battery_days=500.0 + 500.0 * float(u[4]),
            battery_phase=float(u[5]),
        )


def manhole_values(site: Manhole, t_s: F64, runoff_mm_h: F64, ponding_cm: F64) -> F64:
    """True values, rows level_m, ponding_cm, cover_tilt_deg, battery_pct.

    `runoff_mm_h` is what the catchment delivers, `ponding_cm` the water that stands above the cover (0 where
    none does): while there is any, the manhole is full to its rim.
    """
    standing_cm = np.where(ponding_cm < _DRAINED_CM, 0.0, ponding_cm)
    filling = site.depth_m * rhythm.demand(t_s) ** 0.6 + site.rise_m_per_mm_h * runoff_mm_h
    level = np.where(standing_cm > 0.0, site.rim_m, np.minimum(filling, site.rim_m))
    tilt = np.full_like(t_s, site.tilt_deg)
    charge = rhythm.battery(t_s, site.battery_days, site.battery_phase)
    return np.stack([level, standing_cm, tilt, charge])


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


def pump_values(site: PumpStation, t_s: F64, rain_mm_h: F64, runoff_mm_h: F64) -> F64:
    """True values, rows sump_level_m, pump_current_a, rain_mm_h."""
    cycle = np.mod(rhythm.demand_integral_s(t_s) / site.cycle_s + site.phase, 1.0)
    filling = cycle < _FILL_SHARE
    share = np.where(filling, cycle / _FILL_SHARE, (1.0 - cycle) / (1.0 - _FILL_SHARE))
    level = site.stop_m + (site.start_m - site.stop_m) * share + site.rise_m_per_mm_h * runoff_mm_h
    load = 1.0 + 0.004 * runoff_mm_h  # against the fuller rising main
    # Runoff above what the cycle leaves over keeps the pump running instead of cycling.
    running = ~filling | (runoff_mm_h > 12.0)
    return np.stack([level, np.where(running, site.current_a * load, 0.0), rain_mm_h])
