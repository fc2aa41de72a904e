"""The interlocks at work: a thread that judges, a thread an output that acts, and a record of everything.

    driver's thread --feed--> [queue] --> judge (pure, microseconds) --> output's thread --> device
                                               |                            |
                                               +--------> journal <---------+

Nothing here waits for the spool, its sync or the link: readings are seen before they are queued for the service.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from math import isnan
from pathlib import Path

import msgspec

from citynet import quality
from citynet.reading import Reading
from citynet.runtime import log
from citynet_gateway import durable, metrics
from citynet_gateway.clock import is_boot_stamp
from citynet_gateway.interlock import Change, Interlock
from citynet_gateway.interlock_settings import InterlockSettings
from citynet_gateway.journal import Journal
from citynet_gateway.outputs.worker import OVERDUE_S, Acted, OutputWorker
from citynet_gateway.sense import Sense
from citynet_gateway.spool.files import Files

QUEUE_MAX = 4_096
RESET_S_MAX = 2.0
STOP_S_MAX = 1.0
_WATCH_S = 0.5  # how often outputs that have not answered are looked at
_STEP_S = 0.05  # timers are looked at so often however much comes in
_NOT_AN_INPUT = quality.OUT_OF_RANGE | quality.TEST

logger = log.get(__name__)


class Latched(msgspec.Struct):
    """The interlocks that a person must reset, by name."""

    names: list[str] = []


_Reset = tuple[str, "Future[str]"]


class Interlocks:
    """All interlocks of a gateway.

    Args:
        workers: the outputs by name; each interlock's is among them.
        sense: converts units and judges ranges; its own instance, for this thread.
        utc_us: the time as well as we know, to tell an old reading.
        path: where the latched ones are remembered.
    """

    def __init__(
        self,
        settings: Sequence[InterlockSettings],
        workers: Mapping[str, OutputWorker],
        sense: Sense,
        journal: Journal,
        utc_us: Callable[[], int],
        files: Files,
        path: Path,
    ) -> None:
        self._workers = workers
        self._sense = sense
        self._journal = journal
        self._utc_us = utc_us
        self._files = files
        self._path = path
        latched = durable.load(files, path, Latched) or Latched()
        now_s = time.monotonic()
        self._interlocks = [
            Interlock(item, now_s, is_latched=item.latch and item.name in latched.names) for item in settings
        ]
        self._of: dict[tuple[str, str], list[Interlock]] = {}
        for interlock in self._interlocks:
            self._of.setdefault((interlock.settings.device, interlock.settings.metric), []).append(interlock)
        self._remembered = self._latched()
        self._inputs: queue.SimpleQueue[tuple[Reading, float] | _Reset | None] = queue.SimpleQueue()
        self._saves: queue.SimpleQueue[list[str] | None] = queue.SimpleQueue()
        self._demanded: dict[str, bool] = {}
        self._told_overdue: set[str] = set()
        self._stopping = False
        self._judge = threading.Thread(target=self._run, name="interlocks", daemon=True)
        self._saver = threading.Thread(target=self._save, name="interlock-latches", daemon=True)

    def start(self) -> None:
        """Bring every output into its state of the start, then judge."""
        if not self._interlocks:
            return
        self._demand_all("start", time.monotonic())
        self._judge.start()
        self._saver.start()

    def feed(self, readings: Sequence[Reading]) -> None:
        """Readings as they come, from any thread. Never blocks."""
        for reading in readings:
            if (reading.device, reading.metric) in self._of:
                if self._inputs.qsize() >= QUEUE_MAX:
                    metrics.INTERLOCK_INPUTS.labels("dropped").inc()
                    continue
                self._inputs.put((reading, time.monotonic()))

    def reset(self, name: str) -> str:
        """Release a latched interlock: empty text, or why not."""
        if all(item.settings.name != name for item in self._interlocks):
            return f"no interlock is called {name[:64]}"
        future: Future[str] = Future()
        self._inputs.put((name, future))
        try:
            return future.result(RESET_S_MAX)
        except TimeoutError:
            return "the interlocks do not answer"

    def states(self) -> dict[str, dict[str, object]]:
        """Name: what it is now, for people."""
        return {
            item.settings.name: {
                "tripped": item.is_tripped, "latched": item.is_latched, "value": item.value, "output": item.settings.output,
            }
            for item in self._interlocks
        }  # fmt: skip

    def outputs_used(self) -> set[str]:
        return {item.settings.output for item in self._interlocks}

    def acted(self, acted: Acted) -> None:
        """An output's thread tells what it did; makes it a record."""
        state = "on" if acted.on else "off"
        if acted.error:
            self._journal.event("output-failed", f"{acted.output} -> {state} ({acted.why}): {acted.error}")
            logger.warning("output-failed", output=acted.output, error=acted.error)
            return
        metrics.OUTPUT_S.observe(acted.took_s)
        again = ", after it had failed" if acted.is_back else ""
        self._journal.event(
            f"output-{state}",
            f"{acted.output} -> {state} ({acted.why}), {acted.took_s * 1000:.0f} ms after its cause{again}",
        )
        logger.info("output-switched", output=acted.output, on=acted.on, why=acted.why)

    def stop(self) -> None:
        """Put the outputs into their state for a stop, as far as they answer within `STOP_S_MAX`."""
        self._stopping = True
        if self._judge.ident is not None:
            self._inputs.put(None)
            self._saves.put(None)
            self._judge.join(STOP_S_MAX)
            self._saver.join(STOP_S_MAX)
        for interlock in self._interlocks:
            settings = interlock.settings
            if settings.on_stop == "trip" and self._demanded.get(settings.output) != settings.trip:
                self._demanded[settings.output] = settings.trip
                self._workers[settings.output].demand(settings.trip, f"{settings.name}: stop", time.monotonic())

    # --- the judge's thread

    def _run(self) -> None:
        stepped_s = time.monotonic()
        while not self._stopping:
            now_s = time.monotonic()
            dues = [due for item in self._interlocks if (due := item.due_at_s(now_s)) is not None]
            wait_s = min([_WATCH_S, *(due - now_s for due in dues)])
            try:
                item = self._inputs.get(timeout=max(0.0, wait_s))
            except queue.Empty:
                self._step_all()
                continue
            if item is None:
                return
            if isinstance(item[1], Future):
                self._reset(str(item[0]), item[1])
            elif isinstance(item[0], Reading):
                self._see(item[0], item[1])
            if self._inputs.empty() or now_s - stepped_s >= _STEP_S:
                stepped_s = now_s
                self._step_all()

    def _see(self, raw: Reading, at_s: float) -> None:
        reading = self._sense.converted(raw)
        for interlock in self._of[reading.device, reading.metric]:
            if not self._is_input(reading, interlock.settings.stale_after_s):
                metrics.INTERLOCK_INPUTS.labels("ignored").inc()
                continue
            metrics.INTERLOCK_INPUTS.labels("seen").inc()
            interlock.see(reading.value, at_s)
            self._take(interlock, interlock.step(at_s), at_s)

    def _is_input(self, reading: Reading, age_s_max: float) -> bool:
        """A reading that is bad, or of long ago, says nothing about now: its input goes stale instead."""
        if isnan(reading.value) or reading.quality & quality.GRADE_MASK >= quality.BAD:
            return False
        if reading.quality & _NOT_AN_INPUT:
            return False
        return is_boot_stamp(reading.time_us) or self._utc_us() - reading.time_us <= age_s_max * 1_000_000

    def _step_all(self) -> None:
        now_s = time.monotonic()
        for interlock in self._interlocks:
            self._take(interlock, interlock.step(now_s), now_s)
        self._watch()

    def _take(self, interlock: Interlock, change: Change | None, since_s: float) -> None:
        if change is not None:
            settings = interlock.settings
            why = f"{settings.name}: {change.cause}"
            self._record(interlock, change)  # before the output's thread can: a cause comes before what it causes
            self._demand_all(why, since_s)
            logger.warning(_code(change), name=settings.name, cause=change.cause, value=change.value)
            metrics.INTERLOCK_TRIPPED.labels(settings.name).set(change.is_tripped)
            metrics.INTERLOCK_CHANGES.labels(settings.name, change.cause).inc()
        names = self._latched()
        if names != self._remembered:
            self._remembered = names
            self._saves.put(names)

    def _record(self, interlock: Interlock, change: Change) -> None:
        settings = interlock.settings
        limit = f"above {settings.above:g}" if settings.above is not None else f"below {settings.below:g}"
        value = "no reading" if change.value is None else f"{change.value:g}"
        text = f"{settings.name} ({settings.device}/{settings.metric} {limit}): {change.cause}, newest {value}"
        self._journal.event(_code(change), text + (", latched" if interlock.is_latched else ""), settings.device)

    def _demand_all(self, why: str, since_s: float) -> None:
        """An output is in its tripped state while one of its interlocks is."""
        for name in self.outputs_used():
            mine = [item for item in self._interlocks if item.settings.output == name]
            trip = mine[0].settings.trip
            wanted = trip if any(item.is_tripped for item in mine) else not trip
            if self._demanded.get(name) != wanted:
                self._demanded[name] = wanted
                self._workers[name].demand(wanted, why, since_s)

    def _reset(self, name: str, future: Future[str]) -> None:
        now_s = time.monotonic()
        interlock = next(item for item in self._interlocks if item.settings.name == name)
        change, refusal = interlock.reset(now_s)
        self._take(interlock, change, now_s)
        future.set_result(refusal)

    def _watch(self) -> None:
        """An output that hangs is told once."""
        for name, worker in self._workers.items():
            if not worker.is_overdue:
                self._told_overdue.discard(name)
            elif name not in self._told_overdue:
                self._told_overdue.add(name)
                self._journal.event("output-overdue", f"{name} has not answered for {OVERDUE_S:g} s")

    # --- latches

    def _latched(self) -> list[str]:
        return [item.settings.name for item in self._interlocks if item.is_latched]

    def _save(self) -> None:
        """In a thread of its own: a slow card must not delay a judgement."""
        while (names := self._saves.get()) is not None:
            try:
                durable.save(self._files, self._path, Latched(names))
            except OSError as error:
                logger.warning("interlock-latches-not-saved", error=str(error))


def _code(change: Change) -> str:
    return "interlock-tripped" if change.is_tripped else "interlock-released"
