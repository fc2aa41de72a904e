"""Incidents: what goes wrong on purpose, when, where, and which alert it has to raise.

An incident is data with a closed-form course, so a reading at any moment follows from it without history.
"""

from __future__ import annotations

from dataclasses import dataclass

from citynet_sim.city import City, central_well, lowest_manhole
from citynet_sim.models.reservoir import response
from citynet_sim.noise import F64
from citynet_sim.weather import RainPulse

GAS_LEAK = "gas-leak"
PONDING = "ponding"
_RISE_CONSTANTS = 4.0  # an exponential is at 98 % after four time constants: that is called "risen"
_LEAK_PEAKS_LEL = (82.0, 68.0, 64.0)  # the leaking well and its two neighbours, all above 50 %LEL
_PONDING_PEAK_CM = 36.0
_BURST_MM_H = 85.0


@dataclass(frozen=True, slots=True)
class Course:
    """Timing of an incident: start after the city's own start, rise to its peak, hold, then decay (all s)."""

    start_s: float
    rise_s: float = 5.0
    hold_s: float = 1800.0
    decay_s: float = 600.0


@dataclass(frozen=True, slots=True)
class Incident:
    """One incident. `peaks` has one entry a device, in the unit of `metric`; the first device is its origin.

    It lasts from `start_us` to `end_us` (µs since 1970); the first `rise_s` of it the effect rises, after its
    end it decays with the time constant `decay_s`. A ponding also brings rain of `rain_mm_h` to `district`.
    """

    id: str
    kind: str
    domain: str
    metric: str
    devices: tuple[str, ...]
    peaks: tuple[float, ...]
    district: str
    start_us: int
    end_us: int
    rise_s: float
    decay_s: float
    expected_rule: str
    expected_level: str
    rain_mm_h: float = 0.0

    def effect(self, device: str, t_s: F64) -> F64 | None:
        """What it adds to `metric` of `device` at `t_s` (s since 1970); None for a device it does not touch."""
        if device not in self.devices:
            return None
        peak = self.peaks[self.devices.index(device)]
        course = response(t_s, self.start_us / 1e6, self.end_us / 1e6, self.rise_s / _RISE_CONSTANTS, self.decay_s)
        return peak * course

    def rain(self, district: str) -> list[RainPulse]:
        """The rain that the incident brings to `district`."""
        if self.rain_mm_h <= 0.0 or district != self.district:
            return []
        return [RainPulse(self.start_us / 1e6, self.end_us / 1e6, self.rain_mm_h)]

    def to_json(self) -> dict[str, object]:
        """The incident as the truth file tells it."""
        return {
            "id": self.id, "kind": self.kind, "domain": self.domain, "metric": self.metric,
            "devices": list(self.devices), "peaks": list(self.peaks), "district": self.district,
            "start_us": self.start_us, "end_us": self.end_us, "rise_s": self.rise_s, "decay_s": self.decay_s,
            "expected_rule": self.expected_rule, "expected_level": self.expected_level,
        }  # fmt: skip


def gas_leak(city: City, course: Course, origin_us: int) -> list[Incident]:
    """A pipe leaks beside the central well; methane reaches the two nearest others. Empty without wells."""
    well = central_well(city)
    if well is None:
        return []
    struck = [well, *city.nearest(well, len(_LEAK_PEAKS_LEL) - 1)]
    start_us, end_us = _span(course, origin_us)
    return [
        Incident(
            "leak-1", GAS_LEAK, "gas", "ch4_lel", tuple(d.name for d in struck), _LEAK_PEAKS_LEL[: len(struck)],
            well.district, start_us, end_us, course.rise_s, course.decay_s, "gas-ch4-void", "red",
        )
    ]  # fmt: skip


def ponding(city: City, course: Course, origin_us: int) -> list[Incident]:
    """A rain burst over the district of the lowest manhole, where water stands. Empty without manholes."""
    low = lowest_manhole(city)
    if low is None:
        return []
    start_us, end_us = _span(course, origin_us)
    return [
        Incident(
            "ponding-1", PONDING, "drainage", "ponding_cm", (low.name,), (_PONDING_PEAK_CM,),
            low.district, start_us, end_us, course.rise_s, course.decay_s, "drainage-ponding", "red", _BURST_MM_H,
        )
    ]  # fmt: skip


def _span(course: Course, origin_us: int) -> tuple[int, int]:
    start_us = origin_us + round(course.start_s * 1e6)
    return start_us, start_us + round((course.rise_s + course.hold_s) * 1e6)
