"""A run at full speed straight into the store, for backtests: columns, without transport. The simulator knows no database:
whoever has one registers under the entry point ``citynet.bulkstore``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from citynet.batch import F64, I32, I64
from citynet.errors import ConfigError
from citynet_sim.city import Device
from citynet_sim.faults import TRANSPORT
from citynet_sim.simulation import Simulation

GROUP = "citynet.bulkstore"
BLOCK_READINGS = 1_000_000
_SPAN_US = 8 * 86_400_000_000  # a block has so many days of few devices: long runs of a series are cheap to store
Progress = Callable[[int, float], None]


class BulkStore(Protocol):
    """What a store offers: register all series first, then take block after block, each whole or not at all."""

    def open(self, sources: Mapping[str, str]) -> None: ...

    def write(
        self, names: tuple[str, ...], index: I32, time_us: I64, value: F64, counts: Mapping[str, int]
    ) -> None: ...


def open_store(config: Path | None) -> AbstractContextManager[BulkStore]:
    """The store of this installation. ConfigError if there is none."""
    for point in entry_points(group=GROUP):
        opened: Callable[[Path | None], Any] = point.load()
        found: AbstractContextManager[BulkStore] = opened(config)
        return found
    raise ConfigError(["--into-store: no store is installed (the extra `server`)"])


def write(simulation: Simulation, t0_us: int, t1_us: int, store: BulkStore, progress: Progress) -> int:
    """Store what the devices measured in [t0, t1); returns how many readings.

    Raises:
        ConfigError: transport faults, which columns do not have.
    """
    if any(fault.layer == TRANSPORT for fault in simulation.faults):
        raise ConfigError(
            ["--into-store: columns have no transport; play this scenario live, or write it to a .jsonl file"]
        )
    devices = simulation.city.devices
    store.open({f"{d.name}/{m.name}": d.gateway for d in devices for m in d.metrics})
    readings = 0
    for start_us, end_us in _spans(t0_us, t1_us):
        for number, group in _groups(simulation, end_us - start_us):
            made = _block(simulation, group, start_us, end_us)
            if len(made[1]):
                store.write(*made)
            readings += len(made[1])
            done_us = (start_us - t0_us) + (end_us - start_us) * (number / len(devices))
            progress(readings, done_us / (t1_us - t0_us))
    return readings


def _spans(t0_us: int, t1_us: int) -> Iterator[tuple[int, int]]:
    for start_us in range(t0_us, t1_us, _SPAN_US):
        yield start_us, min(start_us + _SPAN_US, t1_us)


def _groups(simulation: Simulation, span_us: int) -> Iterator[tuple[int, list[Device]]]:
    """Devices in groups whose readings of a span make about a block, and how many devices are done with each."""
    group: list[Device] = []
    expected = 0.0
    devices = simulation.city.devices
    for number, device in enumerate(devices, start=1):
        group.append(device)
        expected += span_us / simulation.period_us(device) * len(device.metrics)
        if expected >= BLOCK_READINGS or number == len(devices):
            yield number, group
            group, expected = [], 0.0


def _block(
    simulation: Simulation, group: list[Device], start_us: int, end_us: int
) -> tuple[tuple[str, ...], I32, I64, F64, dict[str, int]]:
    names: list[str] = []
    index, times, values = [], [], []
    counts: dict[str, int] = {}
    for device in group:
        found = simulation.span(device, start_us, end_us)
        rows = len(device.metrics)
        index.append(np.repeat(np.arange(len(names), len(names) + rows, dtype=np.int32), len(found.stamp_us)))
        times.append(np.tile(found.stamp_us, rows))
        values.append(found.values.ravel())
        names += [f"{device.name}/{metric.name}" for metric in device.metrics]
        counts[device.gateway] = counts.get(device.gateway, 0) + found.values.size
    kept = {gateway: count for gateway, count in counts.items() if count}
    return tuple(names), np.concatenate(index), np.concatenate(times), np.concatenate(values), kept
