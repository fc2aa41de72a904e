"""The city in time: every sensor's reading at every moment, as a pure function of seed, incidents and time.

A device samples at ``phase + k * period`` since 1970, for all whole k. Its samples are computed in blocks of
256 steps whose noise is addressed by (seed, device, block), so a span of time gives the same readings however
it is cut, at whatever speed it is played. The block last used is kept for every device: memory is bounded by
256 rows a device.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from citynet.reading import Reading
from citynet_sim import weather
from citynet_sim.city import City, Device
from citynet_sim.incidents import Incident
from citynet_sim.metrics import GAS_WELL, MANHOLE, WATER_METER, Metric
from citynet_sim.models import drainage, gas, water
from citynet_sim.noise import F64, ar1_bridge, normals, uniforms

I64 = NDArray[np.int64]

BLOCK_STEPS = 256


@dataclass(frozen=True, slots=True)
class Sample:
    """What a device measured at one moment: `values` in the order of its metrics, `time_us` in whole ms."""

    time_us: int
    device: Device
    values: tuple[float, ...]

    def readings(self) -> list[Reading]:
        """The sample as readings."""
        pairs = zip(self.device.metrics, self.values, strict=True)
        return [Reading(self.device.name, metric.name, self.time_us, value) for metric, value in pairs]


@dataclass(frozen=True, slots=True)
class _Block:
    """256 consecutive samples of a device: `times_us` is (256,), `values` is (metrics, 256)."""

    number: int
    times_us: I64
    values: F64


class Simulation:
    """A city with its incidents and sampling periods; `period_ms` is the period of each kind of device."""

    def __init__(self, city: City, incidents: tuple[Incident, ...], period_ms: dict[str, int]) -> None:
        self.city = city
        self.incidents = incidents
        self._period_us = {kind: period * 1000 for kind, period in period_ms.items()}
        self._phase_us = [self._phase(device) for device in city.devices]
        self._blocks: dict[int, _Block] = {}
        self._rows: dict[int, tuple[int, list[tuple[int, tuple[float, ...]]]]] = {}

    def _phase(self, device: Device) -> int:
        period_ms = self._period_us[device.kind] // 1000
        return int(float(uniforms(self.city.seed, f"phase/{device.name}", 0, 1)[0]) * period_ms) * 1000

    def columns(self, device: Device, t0_us: int, t1_us: int) -> tuple[I64, F64]:
        """A device's samples in [t0, t1): times (n,) in µs since 1970, values (metrics, n)."""
        first, last = self._steps(device, t0_us, t1_us)
        if first >= last:
            return np.empty(0, np.int64), np.empty((len(device.metrics), 0))
        numbers = range(first // BLOCK_STEPS, (last - 1) // BLOCK_STEPS + 1)
        blocks = [self._block(device, number) for number in numbers]
        times = np.concatenate([block.times_us for block in blocks])
        values = np.concatenate([block.values for block in blocks], axis=1)
        inside = slice(first - numbers[0] * BLOCK_STEPS, last - numbers[0] * BLOCK_STEPS)
        return times[inside], values[:, inside]

    def samples(self, t0_us: int, t1_us: int | None = None) -> Iterator[Sample]:
        """All samples in [t0, t1), or without end, ordered by time, at the same time by device."""
        streams = [self._device_rows(device, t0_us, t1_us) for device in self.city.devices]
        devices = self.city.devices
        for time_us, index, values in heapq.merge(*streams):
            yield Sample(time_us, devices[index], values)

    def readings(self, t0_us: int, t1_us: int) -> list[Reading]:
        """All readings in [t0, t1), in the order of `samples`; for tests and small spans."""
        return [reading for sample in self.samples(t0_us, t1_us) for reading in sample.readings()]

    def samples_per_s(self) -> float:
        """How many messages the whole city sends in a second of its own time."""
        return sum(1e6 / self._period_us[device.kind] for device in self.city.devices)

    def _steps(self, device: Device, t0_us: int, t1_us: int) -> tuple[int, int]:
        """First step in the span, and the first after it."""
        phase, period = self._phase_us[device.index], self._period_us[device.kind]
        return -((phase - t0_us) // period), -((phase - t1_us) // period)

    def _device_rows(
        self, device: Device, t0_us: int, t1_us: int | None
    ) -> Iterator[tuple[int, int, tuple[float, ...]]]:
        step = self._steps(device, t0_us, t0_us)[0]
        while True:
            rows = self._block_rows(device, step // BLOCK_STEPS)
            for time_us, values in rows[step % BLOCK_STEPS :]:
                if t1_us is not None and time_us >= t1_us:
                    return
                yield time_us, device.index, values
            step = (step // BLOCK_STEPS + 1) * BLOCK_STEPS

    def _block_rows(self, device: Device, number: int) -> list[tuple[int, tuple[float, ...]]]:
        """The block as Python rows: one conversion for 256 samples instead of one for each."""
        kept = self._rows.get(device.index)
        if kept is not None and kept[0] == number:
            return kept[1]
        block = self._block(device, number)
        rows = list(zip(block.times_us.tolist(), zip(*block.values.tolist(), strict=True), strict=True))
        self._rows[device.index] = (number, rows)
        return rows

    def _block(self, device: Device, number: int) -> _Block:
        kept = self._blocks.get(device.index)
        if kept is not None and kept.number == number:
            return kept
        period_us = self._period_us[device.kind]
        steps = np.arange(number * BLOCK_STEPS, (number + 1) * BLOCK_STEPS, dtype=np.int64)
        times_us = self._phase_us[device.index] + steps * period_us
        truth = self._true_values(device, times_us / 1e6)
        noise = self._noise(device, number, period_us / 1e6)
        block = _Block(number, times_us, measure(device.metrics, truth, noise))
        self._blocks[device.index] = block
        return block

    def _noise(self, device: Device, number: int, period_s: float) -> F64:
        """Unit-variance AR(1) noise of one block, (metrics, 256); neighbours share the value at the seam."""
        metrics = device.metrics
        seed, rows = self.city.seed, len(metrics)
        white = normals(seed, f"noise/{device.name}", number, rows * BLOCK_STEPS).reshape(rows, BLOCK_STEPS)
        first = normals(seed, f"seam/{device.name}", number, rows)
        last = normals(seed, f"seam/{device.name}", number + 1, rows)
        phi = np.exp(-period_s / np.array([metric.tau_s for metric in metrics]))
        return ar1_bridge(white, phi, first, last)

    def _true_values(self, device: Device, t_s: F64) -> F64:
        site = self.city.site(device)
        if device.kind == GAS_WELL:
            return gas.values(gas.GasWell.draw(site), t_s, self._effect(device, "ch4_lel", t_s))
        if device.kind == WATER_METER:
            return water.values(water.WaterDistrict.draw(site), t_s)
        pulses = weather.pulses_around(self.city.seed, t_s)
        for incident in self.incidents:
            pulses += incident.rain(device.district)
        runoff = weather.runoff(pulses, t_s)
        if device.kind == MANHOLE:
            standing = self._effect(device, "ponding_cm", t_s)
            return drainage.manhole_values(drainage.Manhole.draw(site), t_s, runoff, standing)
        rain = weather.intensity(pulses, t_s)
        return drainage.pump_values(drainage.PumpStation.draw(site), t_s, rain, runoff)

    def _effect(self, device: Device, metric: str, t_s: F64) -> F64:
        """What all incidents together add to one metric of a device; shape of `t_s`."""
        total = np.zeros_like(t_s)
        for incident in self.incidents:
            if incident.metric == metric and (added := incident.effect(device.name, t_s)) is not None:
                total += added
        return total


def measure(metrics: tuple[Metric, ...], truth: F64, noise: F64) -> F64:
    """What the instruments report of the truth: noise added, clipped to the range, rounded to the resolution.

    `truth` and `noise` are (metrics, n), noise in standard deviations. A reading is the float64 nearest to
    ``steps / steps_per_unit``, hence exactly what its shortest decimal form says.
    """
    sigma, low, high, scale = np.array([[m.sigma, m.low, m.high, m.steps_per_unit] for m in metrics]).T[:, :, None]
    quiet = np.array([m.quiet_at_zero for m in metrics])[:, None] & (truth <= 0.0)
    raw = np.clip(np.where(quiet, truth, truth + sigma * noise), low, high)
    # Adding 0.0 turns a negative zero into zero: a sensor knows only one.
    reported: F64 = np.rint(raw * scale) / scale + 0.0
    return reported
