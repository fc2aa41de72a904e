"""What a protocol is to a device: a place to hand reports over, and a way to hear what is wanted of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from citynet_sim.firmware.machine import Mode, Report

PUSHED = ("mqtt", "senml", "hj212", "chirpstack")
POLLED = ("modbus-tcp", "modbus-rtu", "iio", "onewire")
LOCAL = ("iio", "onewire")  # on the gateway's own board
PROTOCOLS = PUSHED + POLLED


@dataclass(frozen=True, slots=True)
class Request:
    """What somebody wants of a device; `answer` is called with what became of it: the new revision, or why not."""

    configure: Mapping[str, Any] = field(default_factory=dict)
    update: str = ""
    reboot: bool = False
    answer: Callable[[dict[str, object]], None] = lambda _: None


class Post(Protocol):
    """One device on its protocol. Called by the device's own thread only."""

    def start(self, hear: Callable[[Request], None]) -> None:
        """Begin; `hear` may be called from any thread."""

    def deliver(self, report: Report, timeout_s: float) -> bool:
        """Hand a report over; whether the other side says within this time that it has it."""

    def listen(self) -> None:
        """Take what the other side has said meanwhile; returns at once."""

    def show(self, mode: Mode) -> None:
        """What the device is doing: one that does not run does not answer either."""

    def close(self) -> None:
        """End."""
