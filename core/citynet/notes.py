"""Notes: records of a batch that are not readings. They share the readings' sequence, so nothing is unaccounted for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LossNote:
    """Records `first`..`last` of this stream and epoch are gone; the note stands in their place.

    It occupies exactly the sequence numbers it declares, so a cursor passes over a loss like over data.
    """

    first: int
    last: int
    reason: str

    @property
    def span(self) -> int:
        return self.last - self.first + 1


@dataclass(frozen=True, slots=True)
class ClockNote:
    """The gateway learnt the time: boot-relative clock of boot `boot` plus `offset_us` is Unix time."""

    boot: str
    offset_us: int

    span = 1


@dataclass(frozen=True, slots=True)
class EventNote:
    """Something happened at a device or on the gateway itself (`time_us` µs since the Unix epoch)."""

    device: str
    code: str
    text: str
    time_us: int

    span = 1


@dataclass(frozen=True, slots=True)
class RawNote:
    """A field message that could not be understood, kept whole; the server stores it as dead letter."""

    topic: str
    payload: bytes
    reason: str

    span = 1


Note = LossNote | ClockNote | EventNote | RawNote
