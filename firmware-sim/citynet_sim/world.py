"""What a device's model may ask about the world it stands in: its site, the weather, the hydraulics, what faults do to it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from citynet_sim import weather
from citynet_sim.city import City, Device
from citynet_sim.faults import EVENT, LEAK, Fault
from citynet_sim.mains import PipedSupply
from citynet_sim.models.rhythm import DAY_S
from citynet_sim.noise import F64, uniforms
from citynet_sim.supply import WaterSupply
from citynet_sim.weather import RainPulse

Supply = WaterSupply | PipedSupply


class World:
    """A city with the events among its faults. All answers are pure functions of time."""

    def __init__(self, city: City, faults: Sequence[Fault]) -> None:
        self.city = city
        self.seed = city.seed
        self.climate = weather.climate(city.parameters.climate)
        self._events = [fault for fault in faults if fault.layer == EVENT]
        self._of_device: dict[str, list[Fault]] = {}
        for fault in self._events:
            for name in fault.devices:
                self._of_device.setdefault(name, []).append(fault)

    def site(self, device: Device) -> F64:
        """The eight numbers in [0, 1) that a model draws this device's constants from."""
        return self.city.site(device)

    def effect(self, device: Device, channel: str, t_s: F64) -> F64:
        """What all events together add to one channel of a device's model; shape of `t_s`."""
        total = np.zeros_like(t_s)
        for fault in self._of_device.get(device.name, ()):
            if fault.channel == channel:
                total += fault.effect(device.name, t_s)
        return total

    def acting(self, device: Device, channel: str) -> list[Fault]:
        """The events that act upon a channel of a device, in the order in which they were given."""
        return [fault for fault in self._of_device.get(device.name, ()) if fault.channel == channel]

    def pulses(self, district: str | None, t_s: F64) -> list[RainPulse]:
        """The rain that matters at `t_s` in a district; None: over the river's whole basin."""
        found = weather.pulses_around(self.seed, t_s, self.climate.wet_share)
        if district is not None:  # a shower is not the same everywhere
            found = [self._local(pulse, district) for pulse in found]
        share = 1.0 / len(self.city.districts)
        for fault in self._events:
            if fault.rain_mm_h > 0.0 and (district is None or fault.district in (district, "")):
                part = share if district is None and fault.district else 1.0
                found.append(RainPulse(fault.start_us / 1e6, fault.end_us / 1e6, part * fault.rain_mm_h))
        return found

    def _local(self, pulse: RainPulse, district: str) -> RainPulse:
        u = uniforms(self.seed, f"shower/{district}", int(pulse.start_s // DAY_S), 1)
        return RainPulse(pulse.start_s, pulse.end_s, (0.7 + 0.6 * float(u[0])) * pulse.intensity_mm_h)

    def rain(self, district: str, t_s: F64) -> F64:
        """Rain in mm/h."""
        return weather.intensity(self.pulses(district, t_s), t_s)

    def runoff(self, district: str, t_s: F64) -> F64:
        """Runoff into the sewers in mm/h."""
        return weather.runoff(self.pulses(district, t_s), t_s)

    def basin_runoff(self, t_s: F64) -> F64:
        """Runoff into the river in mm/h over its basin."""
        return weather.runoff(self.pulses(None, t_s), t_s, weather.RIVER_S)

    def temperature(self, t_s: F64) -> F64:
        """Outdoor temperature in °C."""
        found = weather.temperature_c(self.seed, self.climate, t_s, self.city.parameters.lat_center_deg)
        return found + self._everywhere("temperature", t_s)

    def wind(self, t_s: F64) -> F64:
        """Wind in m/s."""
        return np.maximum(weather.wind_m_s(self.seed, t_s) + self._everywhere("wind", t_s), 0.0)

    def _everywhere(self, channel: str, t_s: F64) -> F64:
        """What events add to a channel of the weather."""
        total = np.zeros_like(t_s)
        for fault in self._events:
            if fault.channel == channel and not fault.devices:
                total += fault.peaks[0] * fault.course(t_s)
        return total

    @cached_property
    def supply(self) -> Supply:
        """The water network with its leaks: that of a file, else an invented one."""
        leaks = [fault for fault in self._events if fault.channel == LEAK]
        survey = self.city.survey
        if survey is None or survey.network is None or survey.metering is None:
            return WaterSupply(self.city, leaks)
        return PipedSupply(self.seed, survey.network, survey.metering, self.city.devices, leaks)
