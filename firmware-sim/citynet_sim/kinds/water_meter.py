"""Water district meter: pressure, flow into the district, turbidity and free chlorine behind the meter.

Pressure and flow come from the hydraulics of the whole network (`supply`). Chlorine decays by first order with the water's
age, c = c0 exp(-k age), and age is inverse to flow, so it is lowest at night. Turbidity is a steady level, stirred up a little
when the flow is high.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from citynet.formats import SENML
from citynet_sim.kind import Kind
from citynet_sim.metrics import BATTERY, Metric
from citynet_sim.models import rhythm
from citynet_sim.noise import F64

if TYPE_CHECKING:
    from citynet_sim.city import Device
    from citynet_sim.world import World

_DECAY_PER_H = 0.03  # first-order bulk decay of chlorine, a usual order of magnitude for treated surface water
_USE_MIN = 0.1  # water that stands still is not older than this share of the mean flow makes it


def mean_m3_h(u: F64) -> float:
    """A district's mean demand, from its site's uniform numbers."""
    return 40.0 + 140.0 * float(u[0])


def quality(u: F64, use: F64) -> tuple[F64, F64]:
    """Turbidity (NTU) and free chlorine (mg/L) behind a meter whose flow is `use` times its mean; `u`: the site's numbers."""
    turbidity = (0.15 + 0.25 * float(u[3])) * (0.9 + 0.1 * use)
    age_h = (3.0 + 5.0 * float(u[5])) / np.maximum(use, _USE_MIN)
    return turbidity, (0.40 + 0.30 * float(u[4])) * np.exp(-_DECAY_PER_H * age_h)


def _truth(world: World, device: Device, t_s: F64) -> F64:
    u = world.site(device)
    pressure, flow = world.supply.at(device, t_s)
    turbidity, chlorine = quality(u, flow / world.supply.mean_m3_h(device))
    charge = rhythm.battery(t_s, 900.0 + 900.0 * float(u[6]), float(u[7]))
    return np.stack([pressure, flow, turbidity, chlorine, charge])


KIND = Kind(
    name="water-meter",
    domain="water",
    prefix="dma",
    per_100k=8.0,
    period_s=5.0,
    wire=SENML,
    metrics=(
        Metric("water_pressure_mpa", "MPa", 0.0, 1.6, 10_000, 0.0015, 30.0, drift=0.0005),
        Metric("water_flow_m3_h", "m3/h", 0.0, 800.0, 100, 0.9, 90.0, drift=0.2),
        Metric("turbidity_ntu", "[NTU]", 0.0, 100.0, 1000, 0.015, 600.0, drift=0.01),
        Metric("chlorine_mg_l", "mg/L", 0.0, 5.0, 1000, 0.008, 600.0, drift=0.01),
        BATTERY,
    ),
    truth=_truth,
)
