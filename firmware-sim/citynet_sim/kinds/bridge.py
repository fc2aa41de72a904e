"""Bridge: vibration, first frequency, strain, deflection and temperature of one span.

The span is a simply supported beam: f1 = pi/2 sqrt(E I / (m L^4)); a load P at mid-span bends it by P L^3 / (48 E I) and
strains its lower face by P L y / (4 E I). Stiffness falls with temperature (E by `_E_PER_K` a kelvin about 15 °C), so the
frequency shifts by half of that; damage d leaves E I (1 - d). Trucks come in slots of ten seconds, more often when traffic
is dense; what is reported is the peak of the slot. Vibration is that of traffic, with its square root, and of wind.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi
from typing import TYPE_CHECKING

import numpy as np

from citynet_sim.kind import Kind
from citynet_sim.metrics import Metric
from citynet_sim.models import rhythm
from citynet_sim.noise import F64, lattice
from citynet_sim.places import river

if TYPE_CHECKING:
    from citynet_sim.city import Device
    from citynet_sim.world import World

_E_PER_K = 1.5e-3  # concrete and asphalt together, the order that long records of bridges show
_REFERENCE_C = 15.0
_SLOT_S = 10.0
_TRUCK_T = 22.0
_STRAIN_PER_K = 6.0  # um/m a kelvin that restrained expansion leaves


@dataclass(frozen=True, slots=True)
class Span:
    """Length (m), bending stiffness (N m2), mass (kg/m), distance of the lower face from the neutral axis (m)."""

    length_m: float
    stiffness_n_m2: float
    mass_kg_m: float
    face_m: float

    @classmethod
    def draw(cls, u: F64) -> Span:
        """A span of 30 to 45 m from eight uniform numbers; its stiffness gives it 3 to 4 Hz at the reference temperature."""
        length, mass = 30.0 + 15.0 * float(u[0]), 11_000.0 + 4000.0 * float(u[1])
        wanted = 3.0 + 1.0 * float(u[2])
        return cls(length, mass * length**4 * (2.0 * wanted / pi) ** 2, mass, 0.9 + 0.3 * float(u[3]))

    def stiffness(self, temperature_c: F64, damage: F64 | float) -> F64:
        """E I in N m2 at a temperature, after a loss of the share `damage`."""
        found: F64 = self.stiffness_n_m2 * (1.0 - _E_PER_K * (temperature_c - _REFERENCE_C)) * (1.0 - damage)
        return found

    def frequency_hz(self, stiffness: F64) -> F64:
        """First bending frequency."""
        found: F64 = pi / 2.0 * np.sqrt(stiffness / (self.mass_kg_m * self.length_m**4))
        return found

    def deflection_mm(self, load_t: F64, stiffness: F64) -> F64:
        """At mid-span, under a load there."""
        return 1e3 * 9.80665e3 * load_t * self.length_m**3 / (48.0 * stiffness)

    def strain_um_m(self, load_t: F64, stiffness: F64) -> F64:
        """Of the lower face at mid-span, under a load there."""
        return 1e6 * 9.80665e3 * load_t * self.length_m * self.face_m / (4.0 * stiffness)


def traffic(t_s: F64) -> F64:
    """Traffic relative to its mean: by day, with rush hours; dimensionless."""
    return np.maximum(0.25, rhythm.demand(t_s - 3600.0) * 1.2 - 0.2)


def trucks_t(seed: int, name: str, t_s: F64) -> F64:
    """Highest load in t at mid-span in the ten seconds of `t_s`, from the trucks of traffic; shape of `t_s`."""
    slot = np.floor(t_s / _SLOT_S).astype(np.int64)
    draw = lattice(seed, f"truck/{name}", slot)
    weight = _TRUCK_T * np.exp(0.35 * lattice(seed, f"weight/{name}", slot))
    # A standard normal number exceeds 1.1 in 14 % of the slots and 1.5 in 7 %.
    comes = draw > 1.6 - 0.5 * np.minimum(traffic(t_s), 1.5)
    found: F64 = np.where(comes, weight, 0.0)
    return found


def _truth(world: World, device: Device, t_s: F64) -> F64:
    u = world.site(device)
    span = Span.draw(u)
    # A deck lags the air by a couple of hours.
    deck = 0.5 * (world.temperature(t_s - 7200.0) + world.temperature(t_s - 10_800.0)) + 2.0 * rhythm.warmth(
        t_s - 3600.0
    )
    stiffness = span.stiffness(deck, np.minimum(world.effect(device, "damage", t_s), 0.9))
    convoy = world.effect(device, "convoy_t", t_s)
    load = trucks_t(world.seed, device.name, t_s) + convoy
    vibration = (6.0 + 4.0 * float(u[4])) * np.sqrt(traffic(t_s)) + 0.3 * world.wind(t_s) + 0.15 * load
    strain = span.strain_um_m(load, stiffness) + _STRAIN_PER_K * (deck - _REFERENCE_C)
    return np.stack([vibration, span.frequency_hz(stiffness), strain, span.deflection_mm(load, stiffness), deck])


KIND = Kind(
    name="bridge",
    domain="bridge",
    prefix="br",
    per_100k=0.6,
    place=river,
    metrics=(
        Metric("accel_rms_mm_s2", "mm/s2", 0.0, 2000.0, 10, 0.8, 10.0),
        Metric("frequency_hz", "Hz", 0.0, 50.0, 1000, 0.006, 60.0),
        Metric("strain_um_m", "um/m", -2000.0, 2000.0, 10, 0.6, 30.0, drift=1.0),
        Metric("deflection_mm", "mm", -200.0, 200.0, 100, 0.04, 20.0, drift=0.05),
        Metric("deck_temperature_c", "Cel", -40.0, 80.0, 10, 0.1, 300.0),
    ),
    truth=_truth,
)
