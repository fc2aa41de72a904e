"""Faults: what goes wrong on purpose, when, where, why, and which alert it has to raise. On three layers:

- an *event* happens in the world and acts upon the models,
- a *sensor* fault distorts what a device reports, or keeps it silent,
- a *transport* fault changes the stream of messages of a gateway.

A fault is data with a closed-form course, so a reading at any moment follows from it without history.
"""

from __future__ import annotations

from dataclasses import dataclass

from citynet_sim.models.reservoir import response
from citynet_sim.noise import F64

EVENT = "event"
SENSOR = "sensor"
TRANSPORT = "transport"
LEAK = "leak_m3_h"  # the channel of what leaves the water network
LAYERS = (EVENT, SENSOR, TRANSPORT)
_RISE_CONSTANTS = 4.0  # an exponential is at 98 % after four time constants: that is called "risen"
_FADED = 20.0  # after so many time constants nothing is left (2e-9)


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. `peaks` has one entry a device (one in all where it names none), in the unit of `channel`.

    `channel` is what it acts upon: an input of the devices' model, a metric of a sensor, nothing for transport; `metric` is
    where it shows best. It lasts from `start_us` to `end_us` (µs since 1970); the first `rise_s` of it the effect rises, after
    its end it decays with the time constant `decay_s`. `rain_mm_h` is rain that it brings to `district` (everywhere if empty).
    `devices` names the origin first; transport faults name `gateways`, a leak may name the `pipe` that breaks.
    `expected_rule` is an alert that the shipped rules have to raise at every one of `devices`; without it `expected_level` is
    the colour that would be right, or None.
    """

    id: str
    layer: str
    kind: str
    domain: str
    channel: str
    metric: str
    devices: tuple[str, ...]
    peaks: tuple[float, ...]
    district: str
    start_us: int
    end_us: int
    rise_s: float
    decay_s: float
    cause: str
    expected_rule: str | None = None
    expected_level: str | None = None
    rain_mm_h: float = 0.0
    gateways: tuple[str, ...] = ()
    pipe: str = ""

    def course(self, t_s: F64) -> F64:
        """Share of its peak at `t_s` (s since 1970), 0..1."""
        start_s, end_s = self.start_us / 1e6, self.end_us / 1e6
        return response(t_s, start_s, end_s, self.rise_s / _RISE_CONSTANTS, self.decay_s)

    def effect(self, device: str, t_s: F64) -> F64:
        """What it adds to `channel` of `device` at `t_s`. ValueError for a device that it does not name."""
        found: F64 = self.peaks[self.devices.index(device)] * self.course(t_s)
        return found

    def is_during(self, t_s: F64) -> F64:
        """1 from its start to its end, else 0."""
        found: F64 = ((t_s >= self.start_us / 1e6) & (t_s < self.end_us / 1e6)).astype(float)
        return found

    def over_s(self) -> float:
        """When nothing of it is left (s since 1970)."""
        return self.end_us / 1e6 + _FADED * self.decay_s

    def knots_s(self) -> list[float]:
        """Moments between which its course is nearly straight: a rise and a decay in sixteen steps each."""
        start_s, end_s = self.start_us / 1e6, self.end_us / 1e6
        rising = [min(start_s + self.rise_s * k / 8.0, end_s) for k in range(17)]
        return [*rising, end_s, *(end_s + self.decay_s * k / 4.0 for k in range(1, 17))]

    def to_json(self) -> dict[str, object]:
        """The fault as the truth file tells it."""
        return {
            "id": self.id, "layer": self.layer, "kind": self.kind, "domain": self.domain, "metric": self.metric,
            "devices": list(self.devices), "gateways": list(self.gateways), "peaks": list(self.peaks),
            "district": self.district, "start_us": self.start_us, "end_us": self.end_us, "rise_s": self.rise_s,
            "decay_s": self.decay_s, "cause": self.cause, "rain_mm_h": self.rain_mm_h,
            "expected_rule": self.expected_rule, "expected_level": self.expected_level,
            **({"pipe": self.pipe} if self.pipe else {}),
        }  # fmt: skip


def incidents(faults: tuple[Fault, ...]) -> list[dict[str, object]]:
    """The faults that the shipped rules have to find, for readers that know incidents only."""
    return [fault.to_json() for fault in faults if fault.layer == EVENT and fault.expected_rule is not None]
