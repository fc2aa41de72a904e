"""The truth of devices that speak for themselves, each in a thread of its own: written before it happens, in one file."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from citynet.reading import Reading
from citynet_sim.ledger import Ledger
from citynet_sim.truth import LOST_BUFFER_FULL, LOST_STOPPED, End, TruthWriter


@dataclass(slots=True)
class Tally:
    """Readings that polled devices have shown, besides the messages of the others."""

    shown: int = 0


class FleetJournal:
    """Numbers the reports of all devices in the order in which they are first handed over. Safe for threads."""

    def __init__(self, writer: TruthWriter) -> None:
        self._writer = writer
        self._lock = threading.Lock()
        self._ledger = Ledger()
        self._sent = self._readings = 0
        self.tally = Tally()

    def first(self, gateway: str, readings: Sequence[Reading]) -> int:
        """A report is about to be handed over for the first time, or given up; its number."""
        with self._lock:
            return self._number(gateway, readings)

    def again(self, number: int) -> None:
        """It is about to be handed over once more; the first copy may have arrived."""
        with self._lock:
            self._writer.resent([number])

    def acked(self, number: int) -> None:
        with self._lock:
            self._ledger.acknowledge(number)
            self._flush()

    def lost(self, gateway: str, readings: Sequence[Reading], *, stopped: bool) -> None:
        """A report was never handed over and never will be."""
        with self._lock:
            number = self._number(gateway, readings)
            self._writer.lost([number], LOST_STOPPED if stopped else LOST_BUFFER_FULL)
            self._ledger.give_up(number)
            self._flush()

    def shown(self, readings: Sequence[Reading]) -> None:
        """A polled device has these to be read."""
        with self._lock:
            self._writer.shown(readings)
            self.tally.shown += len(readings)

    def end(self) -> End:
        """Write the last line."""
        with self._lock:
            end = End(self._sent, self._ledger.acked, self._ledger.lost, self._readings)
            self._writer.end(end)
            return end

    def _number(self, gateway: str, readings: Sequence[Reading]) -> int:
        self._sent += 1
        self._readings += len(readings)
        self._writer.messages([(self._sent, gateway, readings, False)])
        return self._sent

    def _flush(self) -> None:
        if (news := self._ledger.news()) is not None:
            self._writer.acked(*news)
