"""The port of a driver: how field messages come in, and how their source is answered.

A driver runs in its own thread and hands an `Offer` per source message to the service. The service answers
through `Driver.answer` once everything of the offer is synced, and never before; an offer that is not
answered is the source's to repeat. Adding a driver means one module with one class of this shape.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol

from citynet_gateway.intake import Part, Sorter
from citynet_gateway.settings import GatewaySettings
from citynet_gateway.spool.files import Files
from citynet_gateway.timekeeper import wall_us


@dataclass(frozen=True, slots=True)
class Context:
    """What a driver is built from.

    Attributes:
        clock_us: UTC, µs since the Unix epoch, as well as the gateway knows; monotonic_s: never goes back.
        sorter: which stream a metric belongs to.
        files: the file system, for what a driver must remember across a power cut.
        stamp_us: what a reading without a time of its own is stamped with. While the clock is unknown that is no UTC but
            so long after boot (`citynet_gateway.clock`), so it is for readings and nothing else.
    """

    settings: GatewaySettings
    files: Files
    clock_us: Callable[[], int]
    monotonic_s: Callable[[], float]
    random: Random
    sorter: Sorter
    stamp_us: Callable[[], int] = wall_us


@dataclass(frozen=True, slots=True)
class Offer:
    """One source message.

    Attributes:
        driver: who answers it; None for the gateway's own readings.
        receipt: what the driver needs to answer; opaque to everybody else.
        token: names the delivery; empty if the source never repeats one.
        repeated: the source says that it may have sent this before; only then the token is looked up.
        rejected: how many raw notes are in `parts`.
        waits: the source keeps the message until it is answered. What cannot wait (polled, QoS 0) is taken even when the spool
            is full: the oldest telemetry gives way.
    """

    driver: Driver | None
    receipt: object
    parts: tuple[Part, ...]
    token: bytes = b""
    repeated: bool = False
    rejected: int = 0
    waits: bool = True


@dataclass(frozen=True, slots=True)
class Resumed:
    """The source repeats whatever `driver` has not answered; offers from before that were not accepted may be forgotten."""

    driver: Driver


class Driver(Protocol):
    """One field protocol."""

    name: str

    def start(self, put: Callable[[Offer | Resumed], None]) -> None:
        """Begin taking; `put` may block while the service is behind."""
        ...

    def answer(self, offers: Sequence[Offer]) -> None:
        """Tell the source that these are safe.

        Never blocks, never fails: a lost answer only means a repetition.
        """
        ...

    def trouble(self) -> str:
        """What is wrong with the source, in plain words for the status; empty if nothing is. Called from another thread."""
        ...

    def pause(self) -> None:
        """Take nothing more; answering still works."""
        ...

    def stop(self) -> None:
        """Flush the answers and leave, within a second."""
        ...
