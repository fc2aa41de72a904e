"""The queue between the threads of drivers and uplink and the service."""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Callable

from citynet_gateway import metrics
from citynet_gateway.drivers.port import Offer, Resumed
from citynet_gateway.uplink import Acked, UplinkEvent

QUEUE_MAX = 8_192
EVENTS_PER_TURN_MAX = 512

Event = Offer | Resumed | UplinkEvent


class Inbox:
    """The queue. `tap` sees every offer of the field before it is queued, in the driver's thread."""

    def __init__(self, tap: Callable[[Offer], None] | None = None) -> None:
        self._queue: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.tap = tap
        self.closed = False

    def put_field(self, event: Offer | Resumed) -> None:
        """Wait for room: that stops reading from the source, which is the back-pressure it understands."""
        if self.tap is not None and isinstance(event, Offer):
            self.tap(event)
        while self._queue.qsize() >= QUEUE_MAX and not self.closed:
            time.sleep(0.005)
        self._queue.put(event)

    def put_own(self, event: Offer | Resumed) -> None:
        """What the gateway itself has to say; bounded where it comes from, never waits."""
        self._queue.put(event)

    def put_uplink(self, event: UplinkEvent) -> None:
        if isinstance(event, Acked) and self._queue.qsize() >= QUEUE_MAX:
            metrics.ACKS_DROPPED.inc()
            return
        self._queue.put(event)

    def take(self, timeout_s: float) -> list[Event]:
        """What is there, after waiting for the first one; at most `EVENTS_PER_TURN_MAX`."""
        found: list[Event] = []
        with contextlib.suppress(queue.Empty):
            found.append(self._queue.get(timeout=timeout_s))
            while len(found) < EVENTS_PER_TURN_MAX:
                found.append(self._queue.get_nowait())
        return found

    def take_own(self, source: object) -> list[Offer]:
        """At the end: what `source` has put and nobody took; the rest is left to its sources to repeat."""
        found: list[Offer] = []
        with contextlib.suppress(queue.Empty):
            while True:
                event = self._queue.get_nowait()
                if isinstance(event, Offer) and event.driver is source:
                    found.append(event)
        return found
