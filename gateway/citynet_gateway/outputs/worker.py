"""A thread for each output, so that one that hangs blocks nobody else.

Only the newest demand counts. What the output has taken is written again every `refresh_s`, for devices that fall back to
their safe state when nobody speaks to them; what it refused is tried again until it takes it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

from citynet_gateway import metrics
from citynet_gateway.outputs.port import Output, OutputError

RETRY_S_FIRST = 0.1
RETRY_S_MAX = 5.0
ASKED_MAX = 16
OVERDUE_S = 1.0


@dataclass(frozen=True, slots=True)
class Demand:
    """Switch to `on`; `why` is told with the outcome, `since_s` (monotonic) is when the cause came."""

    on: bool
    why: str
    since_s: float


@dataclass(frozen=True, slots=True)
class Acted:
    """What came of it: `error` is empty when the device has taken it. `took_s` from the cause on."""

    output: str
    on: bool
    why: str
    took_s: float
    error: str = ""
    is_back: bool = False  # it took what it had refused


class OutputWorker:
    """Switches one output. `tell` is called from its thread with every change that was made, and once with each that failed."""

    def __init__(self, output: Output, refresh_s: float, tell: Callable[[Acted], None]) -> None:
        self._output = output
        self._refresh_s = refresh_s
        self._tell = tell
        self._changed = threading.Condition()
        self._demand: Demand | None = None
        self._is_new = False
        self._asked: deque[tuple[Future[bool | None], Demand | None]] = deque()
        self._stopping = False
        self._busy_since_s: float | None = None
        self._error = ""
        self._thread = threading.Thread(target=self._run, name=f"output-{output.name}", daemon=True)

    @property
    def name(self) -> str:
        return self._output.name

    @property
    def error(self) -> str:
        """What is wrong with the output; empty if nothing."""
        return "does not answer" if self.is_overdue else self._error

    @property
    def is_overdue(self) -> bool:
        since_s = self._busy_since_s
        return since_s is not None and time.monotonic() - since_s > OVERDUE_S

    def start(self) -> None:
        self._thread.start()

    def demand(self, on: bool, why: str, since_s: float) -> None:
        """Switch it as soon as it can be. Never blocks."""
        with self._changed:
            self._demand, self._is_new = Demand(on, why, since_s), True
            self._changed.notify()

    def ask(self) -> Future[bool | None]:
        """What it is now. The future fails with OutputError."""
        return self._queue(None)

    def write(self, on: bool, why: str) -> Future[bool | None]:
        """Switch it once; done when the device has taken it. The future fails with OutputError; it is not tried again."""
        return self._queue(Demand(on, why, time.monotonic()))

    def _queue(self, demand: Demand | None) -> Future[bool | None]:
        future: Future[bool | None] = Future()
        with self._changed:
            if len(self._asked) >= ASKED_MAX or self._stopping:
                future.set_exception(OutputError(f"output {self.name}: too many are waiting"))
                return future
            self._asked.append((future, demand))
            self._changed.notify()
        return future

    def stop(self, timeout_s: float) -> bool:
        """Carry out what was demanded last, then let go. False if it did not come to an end in time."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        retry_s = RETRY_S_FIRST
        due_s: float | None = None  # next time to write what was demanded once more
        while True:
            with self._changed:
                while not (self._is_new or self._asked or self._stopping):
                    wait_s = None if due_s is None else due_s - time.monotonic()
                    if (wait_s is not None and wait_s <= 0) or not self._changed.wait(wait_s):
                        break
                if self._stopping and not self._is_new:
                    break
                demand, is_new, self._is_new = self._demand, self._is_new, False
                asked = self._asked.popleft() if self._asked and not is_new else None
            if asked is not None:
                self._answer(*asked)
                continue
            if demand is None:
                continue
            if self._write(demand, is_new=is_new):
                retry_s, due_s = RETRY_S_FIRST, time.monotonic() + self._refresh_s if self._refresh_s else None
            else:
                retry_s, due_s = min(RETRY_S_MAX, 2 * retry_s), time.monotonic() + retry_s
        self._output.close()

    def _write(self, demand: Demand, *, is_new: bool) -> bool:
        self._busy_since_s = time.monotonic()
        try:
            self._output.write(demand.on)
        except OutputError as error:
            metrics.OUTPUT_ACTIONS.labels(self.name, "failed").inc()
            if is_new or not self._error:
                self._error = str(error)
                self._tell(self._acted(demand, str(error)))
            return False
        finally:
            self._busy_since_s = None
        was_failing, self._error = bool(self._error), ""
        metrics.OUTPUT_ACTIONS.labels(self.name, "done").inc()
        if is_new or was_failing:
            self._tell(self._acted(demand, is_back=was_failing))
        return True

    def _acted(self, demand: Demand, error: str = "", *, is_back: bool = False) -> Acted:
        return Acted(self.name, demand.on, demand.why, time.monotonic() - demand.since_s, error, is_back)

    def _answer(self, future: Future[bool | None], demand: Demand | None) -> None:
        self._busy_since_s = time.monotonic()
        try:
            if demand is None:
                future.set_result(self._output.read())
                return
            self._output.write(demand.on)
        except OutputError as error:
            future.set_exception(error)
            if demand is not None:
                self._tell(self._acted(demand, str(error)))
        else:
            with self._changed:
                self._demand = self._demand if self._is_new else demand  # from now on this is what is refreshed
            metrics.OUTPUT_ACTIONS.labels(self.name, "done").inc()
            self._tell(self._acted(demand))
            future.set_result(demand.on)
        finally:
            self._busy_since_s = None
