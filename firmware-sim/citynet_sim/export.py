"""A run at full speed into a file; same seed, same bytes.

JSON Lines: one message a line, ordered by arrival, at the same moment by device. NumPy archive (`.npz`): columns by device,
for backtests; what a device measured, without transport.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import msgspec
import numpy as np
from numpy.typing import NDArray

from citynet.errors import CitynetError, ConfigError
from citynet_sim import transport
from citynet_sim.city import Device
from citynet_sim.faults import TRANSPORT
from citynet_sim.simulation import Simulation

COLUMNS_SUFFIX = ".npz"
_ROWS_A_STEP = 100_000
_encoder = msgspec.json.Encoder()
_EPOCH = (1980, 1, 1, 0, 0, 0)  # of every member of an archive: the hour of the run must not show

Progress = Callable[[int, float], None]
_Row = tuple[int, int, int, tuple[float, ...]]  # arrival, device's index, stamp, values


class ExportError(CitynetError):
    """The file cannot be written; the message names it and says why."""


def line(device: Device, names: list[str], row: _Row) -> bytes:
    """One line: ``{"time_us", "gateway", "device", "values": {metric: value}}``, and "arrived_us" where that differs."""
    arrival, _, stamp, values = row
    document: dict[str, object] = {"time_us": stamp, "gateway": device.gateway, "device": device.name}
    document["values"] = dict(zip(names, values, strict=True))
    if arrival != stamp:
        document["arrived_us"] = arrival
    return _encoder.encode(document)


def write(simulation: Simulation, t0_us: int, t1_us: int, path: Path, progress: Progress) -> tuple[int, int]:
    """Write all messages of [t0, t1) to `path`, as its suffix says; returns how many messages and readings.

    The file appears under its name when it is complete (it grows as ``NAME.part``). `progress` is called now
    and then with the number of messages and the share done, 0..1.

    Raises:
        ExportError: the file cannot be written.
        ConfigError: transport faults in columns, which have no messages.
    """
    as_columns = path.suffix == COLUMNS_SUFFIX
    if as_columns and any(fault.layer == TRANSPORT for fault in simulation.faults):
        raise ConfigError([f"--out {path}: columns have no transport; write this scenario to a .jsonl file"])
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            writer = _columns if as_columns else _lines
            counts = writer(simulation, t0_us, t1_us, file, progress)
        os.replace(part, path)
    except OSError as error:
        raise ExportError(f"{path}: {error.strerror}") from None
    return counts


def _lines(simulation: Simulation, t0_us: int, t1_us: int, file: IO[bytes], progress: Progress) -> tuple[int, int]:
    devices = simulation.city.devices
    names = [[metric.name for metric in device.metrics] for device in devices]
    messages = readings = 0
    for end_us, rows in messages_of(simulation, t0_us, t1_us):
        file.write(b"".join(line(devices[row[1]], names[row[1]], row) + b"\n" for row in rows))
        messages += len(rows)
        readings += sum(len(row[3]) for row in rows)
        progress(messages, (min(end_us, t1_us) - t0_us) / (t1_us - t0_us))
    return messages, readings


def messages_of(simulation: Simulation, t0_us: int, t1_us: int) -> Iterator[tuple[int, list[_Row]]]:
    """The messages of samples in [t0, t1), in steps (end of the step in µs, rows by arrival).

    Rows are (arrival, device's index, stamp, values). What arrives after a step waits for a later one.
    """
    step_us = max(int(_ROWS_A_STEP / max(simulation.samples_per_s(), 1e-9) * 1e6), 1000)
    waiting: list[_Row] = []
    start_us = t0_us
    while start_us < t1_us:
        end_us = min(start_us + step_us, t1_us)
        waiting += _step(simulation, start_us, end_us)
        waiting.sort(key=_by_arrival)
        # At the end nothing more is sampled, so everything that is under way goes out.
        count = len(waiting) if end_us == t1_us else _before(waiting, end_us)
        yield end_us, waiting[:count]
        waiting = waiting[count:]
        start_us = end_us


def _step(simulation: Simulation, start_us: int, end_us: int) -> list[_Row]:
    rows: list[_Row] = []
    seed = simulation.city.seed
    for device in simulation.city.devices:
        found = simulation.span(device, start_us, end_us)
        faults = transport.acting(simulation.faults, device.gateway)
        stamps, values, arrival = found.stamp_us, found.values, found.at_us
        if faults:
            position, arrival = transport.deliver(seed, device.name, found.at_us, faults)
            stamps, values = stamps[position], values[:, position]
        indices = [device.index] * len(stamps)
        rows += zip(arrival.tolist(), indices, stamps.tolist(), zip(*values.tolist(), strict=True), strict=True)
    return rows


def _by_arrival(row: _Row) -> tuple[int, int, int]:
    return row[:3]


def _before(rows: list[_Row], end_us: int) -> int:
    """How many of sorted rows arrive before `end_us`."""
    arrivals: NDArray[np.int64] = np.fromiter((row[0] for row in rows), np.int64, len(rows))
    return int(np.searchsorted(arrivals, end_us))


def _columns(simulation: Simulation, t0_us: int, t1_us: int, file: IO[bytes], progress: Progress) -> tuple[int, int]:
    """Members ``DEVICE/time_us`` (int64, µs) and ``DEVICE/METRIC`` (float64), stored as they are."""
    messages = readings = 0
    devices = simulation.city.devices
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for number, device in enumerate(devices, start=1):
            found = simulation.span(device, t0_us, t1_us)
            _member(archive, f"{device.name}/time_us", found.stamp_us)
            for metric, row in zip(device.metrics, found.values, strict=True):
                _member(archive, f"{device.name}/{metric.name}", row)
            messages += len(found.stamp_us)
            readings += found.values.size
            progress(messages, number / len(devices))
    return messages, readings


def _member(archive: zipfile.ZipFile, name: str, column: NDArray[np.generic]) -> None:
    with archive.open(zipfile.ZipInfo(f"{name}.npy", _EPOCH), "w", force_zip64=True) as member:
        np.lib.format.write_array(member, np.ascontiguousarray(column), allow_pickle=False)
