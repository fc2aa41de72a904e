"""The city as an examiner wants it: the truth's header, and the readings as columns in the order of their arrival.

No file, no broker, no clock: whoever scores alerts asks for a scenario by the entry point ``citynet.rehearsals`` and reads
blocks of time, of bounded size. The readings are those of ``citynet sim run --out``, transport faults included.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from citynet.batch import SeriesBatch
from citynet_sim import city as layout
from citynet_sim import live, scenario, transport
from citynet_sim.noise import F64
from citynet_sim.settings import SimSettings
from citynet_sim.simulation import I64, Simulation
from citynet_sim.staging import simulation_of

BLOCK_US_MIN = 300_000_000  # watermarks move this often: a third of the time after which a device counts as silent
BLOCK_MESSAGES = 3  # or as often as a device speaks so many times, where that is longer
PIECE_READINGS = 2_000_000  # computed in one go; about 60 MB
START_US = 1_767_225_600_000_000  # 2026-01-01: where a scenario names no start
AREA_KM2_PER_HEAD = 81e-6  # a smaller city is not a thinner one: its mains would be too long for their flow
OFTEN = {"bridge": 6, "tunnel-section": 6}  # messages for one of the others: a convoy is over within a minute


@dataclass(frozen=True)
class Rehearsal:
    """One run of a scenario in [start_us, end_us), µs since 1970. The city was there before: blocks may begin earlier.

    `header` is the truth file's (docs/truth-file.md). Series are numbered from 1 in its order of devices and series.
    """

    header: dict[str, Any]
    start_us: int
    end_us: int
    simulation: Simulation
    block_us: int = BLOCK_US_MIN

    def blocks(self, from_us: int, to_us: int) -> Iterator[tuple[SeriesBatch, int]]:
        """What arrives in [from, to), in blocks of `block_us`: readings by series and arrival, and the block's end."""
        piece_us = self._piece_us()
        waiting: dict[int, tuple[I64, I64, F64]] = {}
        for piece_from_us in range(from_us, to_us, piece_us):
            piece_to_us = min(piece_from_us + piece_us, to_us)
            yield from self._piece(piece_from_us, piece_to_us, waiting)

    def _piece_us(self) -> int:
        devices = self.simulation.city.devices
        a_second = sum(len(device.metrics) * 1e6 / self.simulation.period_us(device) for device in devices)
        return max(int(PIECE_READINGS / max(a_second, 1e-9) * 1e6) // self.block_us, 1) * self.block_us

    def _piece(
        self, from_us: int, to_us: int, waiting: dict[int, tuple[I64, I64, F64]]
    ) -> Iterator[tuple[SeriesBatch, int]]:
        series: list[I64] = []
        stamps: list[I64] = []
        values: list[F64] = []
        numbers: list[I64] = []
        first = 1
        for device in self.simulation.city.devices:
            arrival, stamp, value = self._arriving(device, from_us, to_us, waiting)
            count = len(device.metrics)
            number = np.clip((arrival - from_us) // self.block_us, 0, None)
            series.append(np.repeat(np.arange(first, first + count), len(stamp)))
            stamps.append(np.tile(stamp, count))
            values.append(value.ravel())
            numbers.append(np.tile(number, count))
            first += count
        number = np.concatenate(numbers)
        order = np.argsort(number.astype(np.uint16), kind="stable")  # by block; in it by series, in that by arrival
        whole = SeriesBatch(
            np.concatenate(series)[order].astype(np.int32),
            np.concatenate(stamps)[order],
            np.concatenate(values)[order],
            np.zeros(len(order), np.uint8),
        )
        ends = range(from_us + self.block_us, to_us + self.block_us, self.block_us)
        cuts = np.searchsorted(number[order], np.arange(len(ends) + 1))
        for block, end_us in enumerate(ends):
            yield whole.picked(slice(int(cuts[block]), int(cuts[block + 1]))), min(end_us, to_us)

    def _arriving(
        self, device: layout.Device, from_us: int, to_us: int, waiting: dict[int, tuple[I64, I64, F64]]
    ) -> tuple[I64, I64, F64]:
        """Arrivals, stamps and values of a device's messages that arrive in [from, to); later ones wait."""
        found = self.simulation.span(device, from_us, to_us)
        faults = transport.acting(self.simulation.faults, device.gateway)
        if not faults:
            return found.at_us, found.stamp_us, found.values
        position, arrival = transport.deliver(self.simulation.city.seed, device.name, found.at_us, faults)
        stamp, value = found.stamp_us[position], found.values[:, position]
        if device.index in waiting:
            held = waiting.pop(device.index)
            arrival, stamp = np.concatenate([held[0], arrival]), np.concatenate([held[1], stamp])
            value = np.concatenate([held[2], value], axis=1)
        order = np.argsort(arrival, kind="stable")
        arrival, stamp, value = arrival[order], stamp[order], value[:, order]
        now = int(np.searchsorted(arrival, to_us))
        if now < len(arrival):
            waiting[device.index] = (arrival[now:], stamp[now:], value[:, now:])
        return arrival[:now], stamp[:now], value[:, :now]


def names() -> list[str]:
    """The shipped scenarios."""
    return list(scenario.shipped())


def rule_files() -> list[Path]:
    """What the city sets for itself: overrides of shipped rules."""
    return [Path(__file__).with_name("city-rules.toml")]


def stage(
    name: str, *, seed: int, duration_s: float | None = None, population: int = 1_000_000, every_s: float = 60.0
) -> Rehearsal:
    """A scenario (a shipped one, or the path of a file) in the city of `seed`, as long as it says or for `duration_s`.

    Devices sample every `every_s`, those of `OFTEN` so many times as often.

    Raises:
        ConfigError: no such scenario, or mistakes in it or in the parameters, one line each.
    """
    settings = SimSettings.model_validate(
        {
            "seed": seed,
            "scenario": name,
            "city": {"population": population, "area_km2": AREA_KM2_PER_HEAD * population},
            "sampling": {"every_s": every_s, "kinds": {kind: every_s / often for kind, often in OFTEN.items()}},
        }
    )
    file = scenario.find(name)
    start_us = START_US if file.start_us is None else file.start_us
    length_s = file.file.duration_s if duration_s is None else duration_s
    simulation = simulation_of(settings, start_us, length_s)
    header = live.header(simulation, settings, start_us)
    block_us = max(BLOCK_US_MIN, round(BLOCK_MESSAGES * every_s) * 1_000_000)
    return Rehearsal(header, start_us, start_us + round(length_s * 1e6), simulation, block_us)
