"""What the gateway has to say about itself, as notes in the alarm stream: so it is kept, sent and accounted for like a reading.

Notes may be handed in from any thread and never block it. Bound: `NOTES_MAX` that are not yet safe; what is beyond is
counted, and told in one note when there is room again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from citynet import wire
from citynet.notes import ClockNote, EventNote
from citynet_gateway import metrics
from citynet_gateway.drivers.port import Offer, Resumed
from citynet_gateway.intake import Part

NOTES_MAX = 1_000
TEXT_CHARS_MAX = 1_024
CODE_CHARS_MAX = 64


class Journal:
    """A `Driver` whose source is the gateway itself.

    Args:
        stamp_us: what a note of now is stamped with; may be a boot stamp.
    """

    name = "journal"

    def __init__(self, gateway: str, stamp_us: Callable[[], int]) -> None:
        self._gateway = gateway
        self._stamp_us = stamp_us
        self._put: Callable[[Offer | Resumed], None] | None = None
        self._lock = threading.Lock()
        self._early: list[Offer] = []
        self._unsafe = 0
        self._dropped = 0

    def start(self, put: Callable[[Offer | Resumed], None]) -> None:
        """`put` must not block."""
        with self._lock:
            self._put = put
            early, self._early = self._early, []
        for offer in early:
            put(offer)

    def event(self, code: str, text: str, device: str = "") -> None:
        """Something happened now, at `device` or at the gateway itself."""
        note = EventNote(device or self._gateway, code[:CODE_CHARS_MAX], text[:TEXT_CHARS_MAX], self._stamp_us())
        self.record(note)

    def record(self, note: EventNote | ClockNote) -> None:
        """Keep a note."""
        with self._lock:
            if self._unsafe >= NOTES_MAX:
                self._dropped += 1
                metrics.EVENTS_DROPPED.inc()
                return
            self._unsafe += 1
            offer = Offer(self, None, (Part(wire.ALARM, (), (note,)),))
            put = self._put
            if put is None:
                self._early.append(offer)
        if put is not None:
            put(offer)

    def answer(self, offers: Sequence[Offer]) -> None:
        """They are safe."""
        metrics.EVENTS.inc(len(offers))
        with self._lock:
            self._unsafe -= len(offers)
            dropped, self._dropped = self._dropped, 0
        if dropped:
            self.event("events-dropped", f"{dropped} events were not recorded: the spool did not take them")

    def trouble(self) -> str:
        return f"{self._dropped} events are not recorded" if self._dropped else ""

    def pause(self) -> None:
        """Its source may speak to the end."""

    def stop(self) -> None:
        """Nothing is held."""
