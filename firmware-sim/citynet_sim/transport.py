"""What transport faults do to a stream of messages: which of them arrive, how often, and when. Pure, message by message.

The fate of a message follows from seed, fault, device and moment alone, so a stream may be cut anywhere. Faults compose: first
what loses, then what copies, then what delays, then what holds messages back until a link is up.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from citynet_sim.faults import TRANSPORT, Fault
from citynet_sim.noise import F64, uniforms

I64 = NDArray[np.int64]


def acting(faults: Sequence[Fault], gateway: str) -> list[Fault]:
    """The transport faults of a gateway."""
    return [fault for fault in faults if fault.layer == TRANSPORT and gateway in fault.gateways]


def reach_us(faults: Sequence[Fault]) -> int:
    """No message arrives later than this after its moment."""
    longest = 0.0
    for fault in faults:
        span_s = (fault.end_us - fault.start_us) / 1e6
        longest += span_s + (fault.peaks[0] if fault.kind in ("replay", "reorder", "delay") else 5.0)
    return round(longest * 1e6)


def touches(faults: Sequence[Fault], at_us: int) -> bool:
    """Whether the fate of a message sent at `at_us` can be other than to arrive at once."""
    return any(
        fault.start_us - (round(fault.peaks[0] * 1e6) if fault.kind == "replay" else 0) <= at_us < fault.end_us
        for fault in faults
    )


def deliver(seed: int, device: str, at_us: I64, faults: Sequence[Fault]) -> tuple[I64, I64]:
    """Messages of a device at `at_us` (n,): positions (m,) of those that arrive, repeated where copied; arrivals (m,) in µs."""
    position, arrival = np.arange(len(at_us)), at_us
    for fault in faults:
        if fault.kind in ("loss", "power-cut"):
            lost = fault.peaks[0] if fault.kind == "loss" else 1.0
            kept = ~(_during(fault, at_us[position]) & (_draw(seed, fault, device, at_us[position]) < lost))
            position, arrival = position[kept], arrival[kept]
    for fault in faults:
        if fault.kind in ("duplicate", "replay"):
            again, when = _copies(seed, fault, device, at_us[position])
            position = np.concatenate([position, position[again]])
            arrival = np.concatenate([arrival, when])
    for fault in faults:
        if fault.kind in ("delay", "reorder"):
            late = _during(fault, arrival)
            share = np.ones(len(arrival)) if fault.kind == "delay" else _draw(seed, fault, device, at_us[position])
            arrival = arrival + np.where(late, np.rint(share * fault.peaks[0] * 1e3), 0.0).astype(np.int64) * 1000
    for fault in faults:
        if fault.kind in ("link-flap", "gateway-reboot"):
            arrival = _held(fault, arrival)
    return position, arrival


def _copies(seed: int, fault: Fault, device: str, at_us: I64) -> tuple[NDArray[np.bool_], I64]:
    """Which messages come again, and when the copies arrive."""
    draw = _draw(seed, fault, device, at_us)
    if fault.kind == "duplicate":
        again = _during(fault, at_us) & (draw < fault.peaks[0])
        return again, at_us[again] + 1000 * np.rint(200.0 + 3000.0 * draw[again]).astype(np.int64)
    reach_us = round(fault.peaks[0] * 1e6)
    again = (at_us >= fault.start_us - reach_us) & (at_us < fault.start_us)
    # The copies follow each other as the originals did, in the span of the fault.
    share = (at_us[again] - (fault.start_us - reach_us)) / reach_us
    within_ms = np.rint(share * (fault.end_us - fault.start_us) / 1e3).astype(np.int64)
    return again, fault.start_us + 1000 * within_ms


def _held(fault: Fault, arrival: I64) -> I64:
    """Arrivals while the link is down move to when it is up again."""
    if fault.kind == "gateway-reboot":
        return np.where(_during(fault, arrival), fault.end_us, arrival)
    spell_us = max(round(fault.peaks[0] * 1e6), 1)
    spell = (arrival - fault.start_us) // spell_us
    up_us = np.minimum(fault.start_us + (spell + 1) * spell_us, fault.end_us)
    return np.where(_during(fault, arrival) & (spell % 2 == 0), up_us, arrival)


def _during(fault: Fault, time_us: I64) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = (time_us >= fault.start_us) & (time_us < fault.end_us)
    return found


def _draw(seed: int, fault: Fault, device: str, at_us: I64) -> F64:
    """A number in [0, 1) for every message, by its moment; 0 where the fault cannot reach."""
    found = np.zeros(len(at_us))
    for k in np.flatnonzero(_during(fault, at_us)).tolist():
        found[k] = uniforms(seed, f"transport/{fault.id}/{device}", int(at_us[k]) // 1000, 1)[0]
    return found
