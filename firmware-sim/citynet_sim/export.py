"""A run at full speed into a file: JSON Lines, one message a line, ordered by time; same seed, same bytes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from citynet.errors import CitynetError
from citynet_sim.simulation import Sample, Simulation

_LINES_A_WRITE = 4096
_encoder = msgspec.json.Encoder()


class ExportError(CitynetError):
    """The file cannot be written; the message names it and says why."""


def line(sample: Sample) -> bytes:
    """One line: ``{"time_us", "gateway", "device", "values": {metric: value}}``."""
    device = sample.device
    names = [metric.name for metric in device.metrics]
    values = dict(zip(names, sample.values, strict=True))
    return _encoder.encode(
        {"time_us": sample.time_us, "gateway": device.gateway, "device": device.name, "values": values}
    )


def write(
    simulation: Simulation, t0_us: int, t1_us: int, path: Path, progress: Callable[[int, float], None]
) -> tuple[int, int]:
    """Write all messages in [t0, t1) to `path`; returns how many messages and readings.

    The file appears under its name when it is complete (it grows as ``NAME.part``). `progress` is called now
    and then with the number of messages and the share done, 0..1.

    Raises:
        ExportError: the file cannot be written.
    """
    part = path.with_name(path.name + ".part")
    messages = readings = 0
    lines: list[bytes] = []
    try:
        with part.open("wb") as file:
            for sample in simulation.samples(t0_us, t1_us):
                lines.append(line(sample))
                messages += 1
                readings += len(sample.values)
                if len(lines) >= _LINES_A_WRITE:
                    file.write(b"\n".join(lines) + b"\n")
                    lines.clear()
                    progress(messages, (sample.time_us - t0_us) / (t1_us - t0_us))
            if lines:
                file.write(b"\n".join(lines) + b"\n")
        os.replace(part, path)
    except OSError as error:
        raise ExportError(f"{path}: {error.strerror}") from None
    return messages, readings
