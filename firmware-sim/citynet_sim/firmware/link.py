"""The way from a device to its gateway under staged transport faults. Pure; for a device with one report under way at a time.

| fault | a device that pushes | a polled one (Modbus) | files of a local bus |
|---|---|---|---|
| power-cut | off, boots afterwards | off: does not answer | off: nothing new is written |
| link-flap, gateway-reboot | nobody hears it: it tries again | does not answer | no link to fail |
| loss | the report goes nowhere, no answer comes | does not answer | |
| duplicate | the report is handed over twice | | |
| delay, reorder | the report is on its way for so long; reorder: up to so long | answers so much later | |

Nothing overtakes where one report is under way at a time, so reordering shows as delays of drawn length. What becomes of an
attempt follows from seed, fault, device, report and attempt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from citynet.errors import ConfigError
from citynet_sim import transport
from citynet_sim.faults import Fault
from citynet_sim.noise import uniforms

ANSWER_DELAY_S_MAX = 10.0  # of a polled device: a server's thread waits for it
_ATTEMPTS = 1 << 20


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of an attempt: nobody is there and that shows at once (`is_down`), it goes nowhere (`is_lost`), how often it
    arrives and how much later."""

    is_down: bool = False
    is_lost: bool = False
    copies: int = 1
    delay_us: int = 0


class Link:
    """The way of one device; `faults` are all of the city."""

    def __init__(self, seed: int, device: str, gateway: str, faults: Sequence[Fault]) -> None:
        self._seed, self._device = seed, device
        self._faults = transport.acting(faults, gateway)

    def is_powered(self, now_us: int) -> bool:
        """Whether the device has power."""
        return not any(fault.kind == "power-cut" for fault in self._acting(now_us))

    def is_down(self, now_us: int) -> bool:
        """Whether nobody hears the device. A link that flaps is down in every other spell, first of all in the first."""
        for fault in self._acting(now_us):
            spell_us = max(round(fault.peaks[0] * 1e6), 1)
            if fault.kind == "gateway-reboot":
                return True
            if fault.kind == "link-flap" and (now_us - fault.start_us) // spell_us % 2 == 0:
                return True
        return False

    def fate(self, now_us: int, seq: int, attempt: int) -> Fate:
        """Of the attempt `attempt` to hand over report `seq`, or to answer the question of that number."""
        if self.is_down(now_us):
            return Fate(is_down=True)
        copies, delay_us = 1, 0
        for fault in self._acting(now_us):
            peak, draw = fault.peaks[0], self._draw(fault, seq, attempt)
            if fault.kind == "loss" and draw < peak:
                return Fate(is_lost=True)
            if fault.kind == "duplicate" and draw < peak:
                copies = 2
            if fault.kind in ("delay", "reorder"):
                delay_us += round((1.0 if fault.kind == "delay" else draw) * peak * 1e6)
        return Fate(copies=copies, delay_us=delay_us)

    def _acting(self, now_us: int) -> list[Fault]:
        return [fault for fault in self._faults if fault.start_us <= now_us < fault.end_us]

    def _draw(self, fault: Fault, seq: int, attempt: int) -> float:
        return float(uniforms(self._seed, f"link/{fault.id}/{self._device}", seq * _ATTEMPTS + attempt, 1)[0])


def check(faults: Sequence[Fault]) -> None:
    """ConfigError: a fault that live devices cannot play."""
    if replays := [fault.id for fault in faults if fault.kind == "replay"]:
        raise ConfigError([f"{name}: devices of `sim serve` do not replay; play it with `sim run`" for name in replays])
