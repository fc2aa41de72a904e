"""Pressure point of the water network: a logger on a hydrant inside a district; pressure from the hydraulics (`supply`)."""

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


def _truth(world: World, device: Device, t_s: F64) -> F64:
    u = world.site(device)
    pressure, _ = world.supply.at(device, t_s)
    return np.stack([pressure, rhythm.battery(t_s, 1200.0 + 900.0 * float(u[0]), float(u[1]))])


KIND = Kind(
    name="pressure-point",
    domain="water",
    prefix="pp",
    per_100k=4.0,
    wire=SENML,
    metrics=(Metric("water_pressure_mpa", "MPa", 0.0, 1.6, 10_000, 0.0015, 30.0, drift=0.0005), BATTERY),
    truth=_truth,
)
