"""What drivers that ask their sources share: a grid of times that does not drift, steps of patience, a bound on what waits.

A polled source has no message of its own that could be repeated: a reading is accepted when it is synced, and until
then it waits in memory. `Pending` bounds that memory; at the bound a driver stops asking, and counts what it left out.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from random import Random

from citynet.notes import EventNote
from citynet.reading import Reading
from citynet.wire import ALARM, TELEMETRY
from citynet_gateway.drivers.port import Driver, Offer, Resumed
from citynet_gateway.intake import Part, Sorter

RECORDS_MAX = 20_000  # readings and notes of one driver that are not synced yet


class Ticker:
    """Due times ``start_s + k * interval_s`` on a monotonic clock: a late poll does not move the later ones."""

    def __init__(self, interval_s: float, start_s: float) -> None:
        self._interval_s = interval_s
        self._start_s = start_s
        self._count = 0  # grid points that are over

    @property
    def due_s(self) -> float:
        return self._start_s + self._count * self._interval_s

    def take(self, now_s: float) -> int:
        """Use up every point until `now_s`; how many were passed over beyond the one that is taken."""
        passed = max(1, int((now_s - self.due_s) / self._interval_s) + 1)
        self._count += passed
        if self.due_s <= now_s:  # the division may have been rounded down
            self._count += 1
            passed += 1
        return passed - 1

    def again(self) -> None:
        """Give the last point back."""
        self._count -= 1


class Backoff:
    """Growing pauses with jitter: ``first_s``, doubled by every failure up to `max_s`, times 0.75 to 1.25."""

    def __init__(self, first_s: float, max_s: float, random: Random) -> None:
        self._first_s = first_s
        self._max_s = max(first_s, max_s)
        self._random = random
        self.failures = 0

    def failed(self) -> float:
        """How long to leave it alone now, s."""
        full_s = min(self._max_s, self._first_s * float(1 << min(self.failures, 32)))
        self.failures += 1
        return full_s * self._random.uniform(0.75, 1.25)

    def worked(self) -> None:
        self.failures = 0


class Pending:
    """Hands readings to the service and knows how many of them are not synced yet."""

    def __init__(self, driver: Driver, sorter: Sorter, records_max: int = RECORDS_MAX) -> None:
        self._driver = driver
        self._sorter = sorter
        self._records_max = records_max
        self._lock = threading.Lock()
        self._records = 0
        self._put: Callable[[Offer | Resumed], None] | None = None

    def open(self, put: Callable[[Offer | Resumed], None]) -> None:
        self._put = put

    @property
    def full(self) -> bool:
        return self._records >= self._records_max

    def offer(self, readings: Sequence[Reading], events: Sequence[EventNote] = ()) -> None:
        """One offer of these, alarms first. May block while the service is behind."""
        records = len(readings) + len(events)
        if self._put is None or not records:
            return
        alarms = tuple(item for item in readings if self._sorter.is_alarm(item.metric))
        others = tuple(item for item in readings if not self._sorter.is_alarm(item.metric))
        parts = [Part(ALARM, alarms)] if alarms else []
        if others or events:
            parts.append(Part(TELEMETRY, others, tuple(events)))
        with self._lock:
            self._records += records
        self._put(Offer(self._driver, records, tuple(parts), waits=False))

    def answered(self, offers: Sequence[Offer]) -> None:
        """These are synced."""
        with self._lock:
            self._records -= sum(offer.receipt for offer in offers if isinstance(offer.receipt, int))
