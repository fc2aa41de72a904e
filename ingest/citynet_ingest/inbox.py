"""The inbox: parcels of all lanes on their way from the event loop to the committer, in the order in which they came."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from citynet_ingest.parcel import Parcel

Weighed = tuple[Parcel, int, int]  # a parcel, its readings, the bytes it takes


@dataclass(slots=True)
class Haul:
    """What one commit takes out of the inbox; `weights` are bytes by lane and generation of its session."""

    parcels: list[Parcel] = field(default_factory=list)
    readings: int = 0
    weights: dict[tuple[int, int], int] = field(default_factory=dict)


class Inbox:
    """Parcels between the event loop and the committer; `take` blocks, `put` never does (the broker bounds it).

    While a commit is being written (`hold`) nothing but a full commit is taken: less had to wait for the writer anyway, and
    goes with what comes meanwhile.
    """

    def __init__(self, readings_max: int, messages_max: int, bytes_max: int) -> None:
        self._parcels: deque[Weighed] = deque()
        self._arrived = threading.Condition()
        self._readings_max = readings_max
        self._messages_max = messages_max
        self._bytes_max = bytes_max
        self._readings = 0
        self._bytes = 0
        self._is_held = False

    def put(self, parcels: list[Weighed]) -> None:
        with self._arrived:
            self._parcels.extend(parcels)
            self._count(parcels)
            if self._is_ready():
                self._arrived.notify()

    def hold(self, is_held: bool) -> None:
        """Whether a commit is being written. Its end ends a wait in `take`, whatever has come."""
        with self._arrived:
            self._is_held = is_held
            if not is_held:
                self._arrived.notify()

    def _is_ready(self) -> bool:
        waiting = self._parcels
        return bool(waiting) and (not self._is_held or self._is_full(len(waiting), self._readings, self._bytes))

    def _is_full(self, messages: int, readings: int, bytes_taken: int) -> bool:
        return messages >= self._messages_max or readings >= self._readings_max or bytes_taken >= self._bytes_max

    def _count(self, parcels: Iterable[Weighed]) -> None:
        for _, size, bytes_taken in parcels:
            self._readings += size
            self._bytes += bytes_taken

    def take(self, timeout_s: float) -> Haul:
        """All that has come, up to one commit's size; nothing after `timeout_s` without anything, or when woken."""
        haul = Haul()
        taken, weights, readings, weight = haul.parcels, haul.weights, 0, 0
        with self._arrived:
            if not self._is_ready():
                self._arrived.wait(timeout_s)
            if not self._is_ready():
                return haul
            waiting = self._parcels
            while waiting and not self._is_full(len(taken), readings, weight):
                parcel, size, bytes_taken = waiting.popleft()
                taken.append(parcel)
                readings += size
                weight += bytes_taken
                session = (parcel.origin.lane, parcel.origin.generation)
                weights[session] = weights.get(session, 0) + bytes_taken
            self._readings -= readings
            self._bytes -= weight
        haul.readings = readings
        return haul

    def clear(self, lane: int | None = None) -> None:
        """Drop what waits, of one lane or of all: the broker sends it again on the next connection."""
        with self._arrived:
            self._parcels = deque(w for w in self._parcels if lane is not None and w[0].origin.lane != lane)
            self._readings = self._bytes = 0
            self._count(self._parcels)

    def wake(self) -> None:
        with self._arrived:
            self._arrived.notify_all()

    def __len__(self) -> int:
        return len(self._parcels)
