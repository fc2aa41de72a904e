"""Gas well: a void beside a gas pipe, with a combustible-gas head, an H2S cell and an oxygen cell.

Methane: a small background, in some wells slow biogas that follows the day's warmth with H2S beside it (a
leak brings methane without H2S). A leak is a release into a well-mixed volume V with air exchange n: C' = q/V
- n C, whose answer to a constant release is the linear reservoir (`models.reservoir`); ventilation after the
repair is its decay. Oxygen is displaced: O2 = 20.8 (1 - CH4/100) with CH4 in %vol; 1 %vol is 20 %LEL (lower
limit 5 %vol). Pipe pressure: low-pressure distribution near 2.5 kPa, lower by the square of the draw-off,
which follows the city's day.
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

LEL_PER_VOL = 20.0
_OXYGEN_VOL = 20.8


@dataclass(frozen=True, slots=True)
class GasWell:
    """Constants of one well: methane background, biogas (%LEL), set pressure (kPa), battery life and age."""

    background_lel: float
    biogas_lel: float
    h2s_per_lel: float
    pressure_kpa: float
    battery_days: float
    battery_phase: float

    @classmethod
    def draw(cls, u: F64) -> GasWell:
        """A well from eight uniform numbers; one in five has biogas."""
        biogas = 1.0 + 2.5 * float(u[2]) if u[1] < 0.2 else 0.0
        return cls(
            background_lel=0.3 + 0.5 * float(u[0]),
            biogas_lel=biogas,
            h2s_per_lel=0.15 + 0.15 * float(u[3]),
            pressure_kpa=2.40 + 0.20 * float(u[4]),
            battery_days=700.0 + 700.0 * float(u[5]),
            battery_phase=float(u[6]),
        )


def values(site: GasWell, t_s: F64, leak_lel: F64, sewer_lel: F64 | float = 0.0) -> F64:
    """True values, rows ch4_lel, gas_pressure_kpa, h2s_mg_m3, o2_vol, battery_pct.

    `leak_lel` is a leak's share of the methane, `sewer_lel` biogas from a sewer beside the well (%LEL).
    """
    biogas = (site.biogas_lel + sewer_lel) * (1.0 + 0.4 * rhythm.warmth(t_s))
    ch4 = np.minimum(site.background_lel + biogas + leak_lel, 100.0)
    pressure = site.pressure_kpa * (1.0 - 0.015 * rhythm.demand(t_s) ** 2)
    oxygen = _OXYGEN_VOL * (1.0 - ch4 / LEL_PER_VOL / 100.0)
    charge = rhythm.battery(t_s, site.battery_days, site.battery_phase)
    return np.stack([ch4, pressure, site.h2s_per_lel * biogas, oxygen, charge])


def _truth(world: World, device: Device, t_s: F64) -> F64:
    leak, sewer = world.effect(device, "ch4_lel", t_s), world.effect(device, "biogas_lel", t_s)
    return values(GasWell.draw(world.site(device)), t_s, leak, sewer)


KIND = Kind(
    name="gas-well",
    domain="gas",
    prefix="gas",
    per_100k=16.0,
    period_s=5.0,
    metrics=(
        Metric("ch4_lel", "%", 0.0, 100.0, 10, 0.12, 60.0, drift=0.15, warm_up=4.0),
        Metric("gas_pressure_kpa", "kPa", 0.0, 10.0, 1000, 0.008, 120.0, drift=0.003),
        Metric("h2s_mg_m3", "mg/m3", 0.0, 150.0, 100, 0.03, 60.0, drift=0.02, warm_up=1.5),
        Metric("o2_vol", "%", 0.0, 30.0, 100, 0.03, 120.0, drift=0.03),
        BATTERY,
    ),
    truth=_truth,
)
