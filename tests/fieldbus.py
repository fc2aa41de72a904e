"""A driver of the gateway with a collector behind it, for tests that need no spool and no broker."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from random import Random
from typing import Any

from citynet.notes import EventNote
from citynet.reading import Reading
from citynet_gateway.drivers.port import Context, Driver, Offer, Resumed
from citynet_gateway.intake import Sorter
from citynet_gateway.settings import GatewaySettings
from citynet_gateway.spool.files import LocalFiles


def context(settings: GatewaySettings, clock_us: Callable[[], int] = lambda: time.time_ns() // 1000) -> Context:
    sorter = Sorter(tuple(settings.alarm_metrics))
    return Context(settings, LocalFiles(), clock_us, time.monotonic, Random(7), sorter, clock_us)


class Collector:
    """Takes offers as the service does; answers them unless `holding`."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.holding = False
        self.offers: list[Offer] = []
        self._lock = threading.Lock()

    def put(self, event: Offer | Resumed) -> None:
        assert isinstance(event, Offer)
        with self._lock:
            self.offers.append(event)
        if not self.holding:
            self.driver.answer([event])

    def readings(self, name: str = "") -> list[Reading]:
        with self._lock:
            found = [reading for offer in self.offers for part in offer.parts for reading in part.readings]
        return [reading for reading in found if not name or reading.name == name]

    def values(self, name: str) -> list[float]:
        return [reading.value for reading in self.readings(name)]

    def events(self) -> list[tuple[str, str]]:
        with self._lock:
            notes: Sequence[Any] = [note for offer in self.offers for part in offer.parts for note in part.notes]
        return [(note.device, note.code) for note in notes if isinstance(note, EventNote)]


@contextmanager
def running(driver: Driver) -> Iterator[Collector]:
    """The driver at work, stopped at the end."""
    collector = Collector(driver)
    driver.start(collector.put)
    yield collector
    driver.pause()
    driver.stop()
