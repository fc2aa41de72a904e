"""The city in time: every sensor's reading at every moment, as a pure function of seed, faults and time.

A device samples at ``phase + k * period`` since 1970, for all whole k, give or take its jitter. Everything random is addressed
by (seed, device, step), noise in blocks of 256 steps, so a span of time gives the same readings however it is cut, at whatever
speed it is played. The block last used is kept for every device: memory is bounded by 256 rows a device.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from citynet.reading import Reading
from citynet_sim import instruments
from citynet_sim.city import City, Device
from citynet_sim.faults import SENSOR, Fault
from citynet_sim.kinds import KINDS
from citynet_sim.metrics import measure
from citynet_sim.models.rhythm import DAY_S
from citynet_sim.noise import F64, ar1_bridge, lattice, normals, uniforms, wander
from citynet_sim.world import World

I64 = NDArray[np.int64]

BLOCK_STEPS = 256
_SPAN_BLOCKS = 32  # blocks computed in one go when a long span is asked for
_DRIFT_S = 30 * DAY_S
JITTER_SHARE, JITTER_MS_MAX = 0.02, 500  # of the period
_MISSED_BEYOND = 2.75  # a standard number of `noise.normals` is beyond it in 2.3 of a thousand: so often a sample fails
_SPELL_WINDOW_S = 12 * 3600.0  # in each window a radio is out of reach once in seven
_SPELL_BEYOND = 1.07
_SPELL_S_MAX = 600.0  # below the 15 minutes after which a device counts as silent


@dataclass(frozen=True, slots=True)
class Sample:
    """What a device measured at one moment: `values` in the order of its metrics.

    `time_us` is what the device's clock said, in whole ms; `at_us` is when it was.
    """

    time_us: int
    device: Device
    values: tuple[float, ...]
    at_us: int

    def readings(self) -> list[Reading]:
        """The sample as readings."""
        pairs = zip(self.device.metrics, self.values, strict=True)
        return [Reading(self.device.name, metric.name, self.time_us, value) for metric, value in pairs]


@dataclass(frozen=True, slots=True)
class Columns:
    """Samples of a device: moments and stamps (n,) in µs since 1970, values (metrics, n)."""

    at_us: I64
    stamp_us: I64
    values: F64

    def where(self, chosen: NDArray[np.bool_]) -> Columns:
        """Those samples only."""
        return Columns(self.at_us[chosen], self.stamp_us[chosen], self.values[:, chosen])


class Simulation:
    """A city with its faults and sampling periods; `period_ms` is the period of each kind of device.

    With `texture` samples jitter and some are missing, as in the field; without, every sample is there, on the dot.
    """

    def __init__(self, city: City, faults: Sequence[Fault], period_ms: dict[str, int], *, texture: bool = True) -> None:
        self.city = city
        self.faults = tuple(faults)
        self.world = World(city, self.faults)
        self._texture = texture
        self._period_us = {kind: period * 1000 for kind, period in period_ms.items()}
        self._phase_us = [self._phase(device) for device in city.devices]
        self._sensor: dict[str, list[Fault]] = {}
        for fault in self.faults:
            if fault.layer == SENSOR:
                for name in fault.devices:
                    self._sensor.setdefault(name, []).append(fault)
        self._rows: dict[int, tuple[int, list[tuple[int, int, tuple[float, ...]]]]] = {}
        self._held: dict[tuple[str, str, int], float] = {}

    def _phase(self, device: Device) -> int:
        period_ms = self._period_us[device.kind] // 1000
        return int(float(uniforms(self.city.seed, f"phase/{device.name}", 0, 1)[0]) * period_ms) * 1000

    def columns(self, device: Device, t0_us: int, t1_us: int) -> tuple[I64, F64]:
        """A device's samples whose moment is in [t0, t1): stamps (n,) in µs since 1970, values (metrics, n)."""
        found = self.span(device, t0_us, t1_us)
        return found.stamp_us, found.values

    def span(self, device: Device, t0_us: int, t1_us: int) -> Columns:
        """A device's samples whose moment is in [t0, t1)."""
        first, last = self._blocks_of(device, t0_us, t1_us)
        parts = [
            self._compute(device, number, min(number + _SPAN_BLOCKS, last))
            for number in range(first, last, _SPAN_BLOCKS)
        ]
        if not parts:
            return Columns(np.empty(0, np.int64), np.empty(0, np.int64), np.empty((len(device.metrics), 0)))
        whole = Columns(
            np.concatenate([part.at_us for part in parts]),
            np.concatenate([part.stamp_us for part in parts]),
            np.concatenate([part.values for part in parts], axis=1),
        )
        return whole.where((whole.at_us >= t0_us) & (whole.at_us < t1_us))

    def samples(self, t0_us: int, t1_us: int | None = None) -> Iterator[Sample]:
        """All samples in [t0, t1), or without end, ordered by their moment, at the same moment by device."""
        streams = [self._device_rows(device, t0_us, t1_us) for device in self.city.devices]
        devices = self.city.devices
        for at_us, index, stamp_us, values in heapq.merge(*streams):
            yield Sample(stamp_us, devices[index], values, at_us)

    def samples_of(self, device: Device, t0_us: int) -> Iterator[Sample]:
        """The samples of one device from t0 on, without end."""
        for at_us, _, stamp_us, values in self._device_rows(device, t0_us, None):
            yield Sample(stamp_us, device, values, at_us)

    def readings(self, t0_us: int, t1_us: int) -> list[Reading]:
        """All readings in [t0, t1), in the order of `samples`; for tests and small spans."""
        return [reading for sample in self.samples(t0_us, t1_us) for reading in sample.readings()]

    def samples_per_s(self) -> float:
        """How many messages the whole city sends in a second of its own time, if none is missing."""
        return sum(1e6 / self._period_us[device.kind] for device in self.city.devices)

    def period_us(self, device: Device) -> int:
        """Time between two samples of a device."""
        return self._period_us[device.kind]

    def _blocks_of(self, device: Device, t0_us: int, t1_us: int) -> tuple[int, int]:
        """First block that can have a sample in the span, and the first after it."""
        phase, period = self._phase_us[device.index], self._period_us[device.kind]
        # A step that jitters may fall on the other side of a border.
        first, last = (t0_us - phase) // period - 1, (t1_us - phase) // period + 2
        return (first // BLOCK_STEPS, (last - 1) // BLOCK_STEPS + 1) if t1_us > t0_us else (0, 0)

    def _device_rows(
        self, device: Device, t0_us: int, t1_us: int | None
    ) -> Iterator[tuple[int, int, int, tuple[float, ...]]]:
        """A device's samples as rows (moment, device's index, stamp, values), block by block."""
        number = self._blocks_of(device, t0_us, t0_us + 1)[0]
        while True:
            for at_us, stamp_us, values in self._block_rows(device, number):
                if t1_us is not None and at_us >= t1_us:
                    return
                if at_us >= t0_us:
                    yield at_us, device.index, stamp_us, values
            number += 1
            if t1_us is not None and self._nominal_us(device, number * BLOCK_STEPS - 1) >= t1_us:
                return

    def _block_rows(self, device: Device, number: int) -> list[tuple[int, int, tuple[float, ...]]]:
        """The block as Python rows: one conversion for 256 samples instead of one for each."""
        kept = self._rows.get(device.index)
        if kept is not None and kept[0] == number:
            return kept[1]
        block = self._compute(device, number, number + 1)
        values = zip(*block.values.tolist(), strict=True)
        rows = list(zip(block.at_us.tolist(), block.stamp_us.tolist(), values, strict=True))
        self._rows[device.index] = (number, rows)
        return rows

    def _nominal_us(self, device: Device, step: int) -> int:
        return self._phase_us[device.index] + step * self._period_us[device.kind]

    def _compute(self, device: Device, first: int, last: int) -> Columns:
        """The blocks `first`..`last` - 1 of a device, without what it missed."""
        step = np.arange(first * BLOCK_STEPS, last * BLOCK_STEPS, dtype=np.int64)
        at_us = self._moments(device, step)
        t_s = at_us / 1e6
        faults = self._sensor.get(device.name, [])
        values = self._clean(device, first, last, t_s, faults)
        if faults:
            values = instruments.distort(
                self.city.seed, device.name, device.metrics, step, t_s, values, faults,
                lambda fault, row: self._stuck_at(device, fault, row),
            )  # fmt: skip
        columns = Columns(at_us, instruments.stamps_us(at_us, faults), values)
        missing = self._missed(device, step, t_s) | instruments.is_silent(t_s, faults)
        return columns.where(~missing) if missing.any() else columns

    def _moments(self, device: Device, step: I64) -> I64:
        """When the steps are taken, in µs, on whole ms; in order."""
        period_us = self._period_us[device.kind]
        nominal = self._phase_us[device.index] + step * period_us
        if not self._texture:
            return nominal
        most_ms = min(JITTER_SHARE * period_us / 1000, JITTER_MS_MAX)
        jitter = lattice(self.city.seed, f"jitter/{device.name}", step) / 3.5  # below 1
        return nominal + np.rint(jitter * most_ms).astype(np.int64) * 1000

    def _missed(self, device: Device, step: I64, t_s: F64) -> NDArray[np.bool_]:
        """Samples that never came to be: single ones, and spells without radio."""
        if not self._texture:
            return np.zeros(len(step), bool)
        seed, name = self.city.seed, device.name
        single = lattice(seed, f"missed/{name}", step) > _MISSED_BEYOND
        window = np.floor(t_s / _SPELL_WINDOW_S).astype(np.int64)
        out = lattice(seed, f"spell/{name}", window)
        length = _SPELL_S_MAX * np.clip(0.4 + 0.3 * lattice(seed, f"length/{name}", window), 0.05, 1.0)
        offset = (t_s - window * _SPELL_WINDOW_S) - 0.5 * _SPELL_WINDOW_S * (1.0 + out / 4.0)
        found: NDArray[np.bool_] = single | ((np.abs(out) > _SPELL_BEYOND) & (offset >= 0.0) & (offset < length))
        return found

    def _clean(self, device: Device, first: int, last: int, t_s: F64, faults: Sequence[Fault]) -> F64:
        """Readings of the blocks without any value fault: truth, noise, drift, warm-up."""
        metrics = device.metrics
        truth = KINDS[device.kind].truth(self.world, device, t_s)
        sigma = np.array([metric.sigma for metric in metrics])[:, None]
        error = sigma * self._noise(device, first, last)
        for row, metric in enumerate(metrics):
            if metric.drift:
                stream = f"drift/{device.name}/{metric.name}"
                error[row] += metric.drift * wander(self.city.seed, stream, t_s, _DRIFT_S)
        if faults:
            error += instruments.warm_up(metrics, t_s, faults)
        return measure(metrics, truth, error)

    def _noise(self, device: Device, first: int, last: int) -> F64:
        """Unit-variance AR(1) noise of blocks, (metrics, steps); neighbours share the value at the seam."""
        rows, count, seed, name = len(device.metrics), last - first, self.city.seed, device.name
        white = np.stack([normals(seed, f"noise/{name}", k, rows * BLOCK_STEPS) for k in range(first, last)])
        seams = np.stack([normals(seed, f"seam/{name}", k, rows) for k in range(first, last + 1)])
        phi = np.exp(-self._period_us[device.kind] / 1e6 / np.array([metric.tau_s for metric in device.metrics]))
        joined = ar1_bridge(
            white.reshape(count * rows, BLOCK_STEPS), np.tile(phi, count), seams[:-1].ravel(), seams[1:].ravel()
        )
        return joined.reshape(count, rows, BLOCK_STEPS).transpose(1, 0, 2).reshape(rows, count * BLOCK_STEPS)

    def _stuck_at(self, device: Device, fault: Fault, row: int) -> float:
        """The clean reading of the first step at or after the start of a fault that holds it."""
        key = (device.name, fault.id, row)
        if key not in self._held:
            first, _ = self._blocks_of(device, fault.start_us, fault.start_us + 1)
            step = np.arange(first * BLOCK_STEPS, (first + 2) * BLOCK_STEPS, dtype=np.int64)
            at_us = self._moments(device, step)
            clean = self._clean(device, first, first + 2, at_us / 1e6, self._sensor[device.name])
            self._held[key] = float(clean[row, int(np.argmax(at_us >= fault.start_us))])
        return self._held[key]
