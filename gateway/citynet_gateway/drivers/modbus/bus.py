"""A bus: the link with its loss and return, and the queue of those who want a transaction from another thread.

One thread owns the link. Everything that others want, writes above all, waits in a queue that is worked off before the
next request of a poll; a wait for a device that was silent before is given up for it. What waited beyond its caller's
patience is not done any more: a valve must not open late because a bus was slow.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as WaitedTooLong
from contextlib import suppress
from dataclasses import dataclass
from random import Random

from pymodbus.pdu import ModbusPDU

from citynet.runtime import log
from citynet_gateway import metrics
from citynet_gateway.drivers.modbus.errors import Garbage, LinkLost, ModbusError, Refused, Silence
from citynet_gateway.drivers.modbus.link import Link, read_request, wait_readable, write_request
from citynet_gateway.drivers.modbus.settings import ModbusSettings, RegisterTable
from citynet_gateway.drivers.polling import Backoff

RECONNECT_S_FIRST = 0.5
RECONNECT_S_MAX = 15.0
JOBS_MAX = 64

logger = log.get(__name__)


@dataclass(frozen=True, slots=True)
class _Job:
    request: ModbusPDU
    done: Future[ModbusPDU]


class Bus:
    """`call`, `read_bit`, `write` from any thread; the rest from the one that owns the bus."""

    def __init__(self, settings: ModbusSettings, random: Random) -> None:
        self.settings = settings
        self.outage = log.OutageLog(logger, f"modbus-{settings.name}")
        self._link: Link | None = None
        self._proven = False  # this link has carried an answer
        self._backoff = Backoff(RECONNECT_S_FIRST, RECONNECT_S_MAX, random)
        self._retry_at_s = 0.0
        self._jobs: deque[_Job] = deque()
        self._closed = False
        # Never closed: a late `wake` must not write into whatever gets the number next.
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    # --- from any thread

    def write(self, unit: int, table: RegisterTable, address: int, value: int, timeout_s: float) -> None:
        """Write one coil or holding register; returns when the device has repeated it. ModbusError."""
        self.call(write_request(unit, table, address, value), timeout_s)

    def read(self, unit: int, table: RegisterTable, address: int, timeout_s: float) -> int:
        """One register, or one bit as 0 or 1. ModbusError."""
        return values_of(self.call(read_request(unit, table, address, 1), timeout_s))[0]

    def call(self, request: ModbusPDU, timeout_s: float) -> ModbusPDU:
        """Have a transaction done before the next poll. ModbusError, also when it is not done within `timeout_s`."""
        if self._closed or len(self._jobs) >= JOBS_MAX:
            raise LinkLost(
                f"{self.settings.place}: {'closed' if self._closed else f'{JOBS_MAX} requests wait already'}"
            )
        job = _Job(request, Future())
        self._jobs.append(job)
        self.wake()
        try:
            return job.done.result(timeout_s)
        except WaitedTooLong:
            began = not job.done.cancel()
        except CancelledError:
            raise LinkLost(f"{self.settings.place}: closed") from None
        raise Silence(f"{'no answer' if began else 'bus not free'} within {timeout_s * 1000:.0f} ms")

    def wake(self) -> None:
        """End the wait of the bus's thread."""
        with suppress(BlockingIOError, OSError):
            os.write(self._wake_write, b"!")

    # --- from the bus's own thread

    def wait(self, timeout_s: float) -> None:
        """Until `wake`, or for so long."""
        wait_readable((self._wake_read,), timeout_s)
        self._drain_wakes()

    def serve(self) -> None:
        """Do what others want, in their order."""
        while self._jobs:
            job = self._jobs.popleft()
            if not job.done.set_running_or_notify_cancel():
                continue
            try:
                job.done.set_result(self._twice(job.request))
            except ModbusError as error:
                job.done.set_exception(error)

    def ask(self, request: ModbusPDU, *, yields: bool = False) -> ModbusPDU:
        """One transaction of a poll. `yields`: stop waiting for the answer as soon as somebody else wants the bus."""
        return self._exchange(request, self._wanted if yields else None)

    def usable_in_s(self) -> float:
        """0 when there is a link or one may be tried; else how long until the next try."""
        return 0.0 if self._link is not None else max(0.0, self._retry_at_s - time.monotonic())

    def close(self) -> None:
        """Let go of everything; who waits is told."""
        self._closed = True
        self._drop()
        while self._jobs:
            self._jobs.popleft().done.cancel()

    def _wanted(self) -> bool:
        self._drain_wakes()
        return bool(self._jobs) or self._closed

    def _twice(self, request: ModbusPDU) -> ModbusPDU:
        """To write the same again changes nothing, so a disturbance costs a second try."""
        try:
            return self._exchange(request, None)
        except Garbage:
            return self._exchange(request, None)

    def _exchange(self, request: ModbusPDU, cut: Callable[[], bool] | None) -> ModbusPDU:
        try:
            try:
                answer = self._connected().exchange(request, cut)
            except LinkLost:
                if not self._proven:
                    raise
                # Many servers close a connection that was idle for a while; that is no outage.
                self._drop()
                answer = self._connected().exchange(request, cut)
        except LinkLost as error:
            self._drop()
            self._retry_at_s = time.monotonic() + self._backoff.failed()
            self.outage.failed(error)
            self._count(error.outcome)
            raise
        except ModbusError as error:
            self._count(error.outcome)
            if isinstance(error, Garbage) and not self.settings.serial:
                self._drop()
            if isinstance(error, Refused):
                self._worked()
            raise
        self._worked()
        self._count("answered")
        return answer

    def _connected(self) -> Link:
        if self._link is None:
            self._link = Link(self.settings, self._wake_read)
            self.outage.worked()
            metrics.CONNECTED.labels(f"modbus-{self.settings.name}").set(1)
        return self._link

    def _worked(self) -> None:
        self._proven = True
        self._backoff.worked()

    def _drop(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None
        self._proven = False
        metrics.CONNECTED.labels(f"modbus-{self.settings.name}").set(0)

    def _count(self, outcome: str) -> None:
        metrics.MODBUS_REQUESTS.labels(self.settings.name, outcome).inc()

    def _drain_wakes(self) -> None:
        with suppress(BlockingIOError):
            while os.read(self._wake_read, 512):
                pass


def values_of(answer: ModbusPDU) -> Sequence[int]:
    """Registers of an answer, or its bits as 0 and 1."""
    return answer.registers or [int(bit) for bit in answer.bits]
