"""Water district meter: flow into a district, pressure, turbidity and free chlorine behind the meter.

Flow follows the demand curve. Pressure is the static pressure less the friction loss of the supply main,
which grows with Q^1.852 (Hazen-Williams). Chlorine decays by first order with the water's age, c = c0 exp(-k
age), and age is inverse to flow, so it is lowest at night. Turbidity is a steady level, stirred up a little
when the flow is high.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from citynet_sim.models import rhythm
from citynet_sim.noise import F64

_HAZEN_WILLIAMS = 1.852


@dataclass(frozen=True, slots=True)
class WaterDistrict:
    """Constants of one metered district: mean flow, static pressure and its loss at mean flow, quality."""

    flow_m3_h: float
    static_mpa: float
    loss_mpa: float
    turbidity_ntu: float
    chlorine_mg_l: float
    age_h: float
    battery_days: float
    battery_phase: float

    @classmethod
    def draw(cls, u: F64) -> WaterDistrict:
        """A district from eight uniform numbers."""
        return cls(
            flow_m3_h=40.0 + 140.0 * float(u[0]),
            static_mpa=0.38 + 0.12 * float(u[1]),
            loss_mpa=0.02 + 0.04 * float(u[2]),
            turbidity_ntu=0.15 + 0.25 * float(u[3]),
            chlorine_mg_l=0.40 + 0.30 * float(u[4]),
            age_h=3.0 + 5.0 * float(u[5]),
            battery_days=900.0 + 900.0 * float(u[6]),
            battery_phase=float(u[7]),
        )


_DECAY_PER_H = 0.03  # first-order bulk decay of chlorine, a usual order of magnitude for treated surface water


def values(site: WaterDistrict, t_s: F64) -> F64:
    """True values, rows water_pressure_mpa, water_flow_m3_h, turbidity_ntu, chlorine_mg_l, battery_pct."""
    use = rhythm.demand(t_s)
    pressure = site.static_mpa - site.loss_mpa * use**_HAZEN_WILLIAMS
    turbidity = site.turbidity_ntu * (0.9 + 0.1 * use)
    chlorine = site.chlorine_mg_l * np.exp(-_DECAY_PER_H * site.age_h / use)
    charge = rhythm.battery(t_s, site.battery_days, site.battery_phase)
    return np.stack([pressure, site.flow_m3_h * use, turbidity, chlorine, charge])
