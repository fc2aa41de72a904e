"""Spools as a long outage leaves them: many unacknowledged records, of one opening or of many."""

from __future__ import annotations

from pathlib import Path

from citynet.reading import Reading
from citynet.wire import TELEMETRY
from citynet_gateway.service import new_epoch
from citynet_gateway.spool import SegmentSpool, SpoolSettings

POINTS = 200  # readings of a message of the filling
DEVICES = 40


def fill(folder: Path, bytes_min: int, epochs: int, *, last_segment_singles: bool = True) -> int:
    """Fill a spool with at least `bytes_min` bytes of `epochs` openings. Returns the records.

    With `last_segment_singles` the newest segment holds messages of one reading each: that is what an opening has to scan.
    """
    settings = SpoolSettings(bytes_max=max(1 << 30, 2 * bytes_min))
    records = held = 0
    for number in range(epochs):
        spool = SegmentSpool(folder, settings, new_epoch())
        goal = bytes_min * (number + 1) // epochs
        is_last = number == epochs - 1
        singles_from = goal - settings.segment_bytes if is_last and last_segment_singles else goal
        while (held := spool.used_bytes) < goal:
            count = POINTS if held < singles_from else 1
            for _ in range(256 if count == 1 else 20):
                spool.append(TELEMETRY, _message(records, count), [], records.to_bytes(8, "big"))
                records += count
            spool.sync(TELEMETRY)
        spool.close()
    return records


def _message(number: int, count: int) -> list[Reading]:
    device = f"station-{number % DEVICES:02d}"
    first_us = 1_767_225_600_000_000 + number * 1_000
    return [Reading(device, "level_m", first_us + k * 1_000, (number + k) % 977 / 8) for k in range(count)]
