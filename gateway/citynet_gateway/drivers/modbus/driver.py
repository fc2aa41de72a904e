"""Driver for the devices of one Modbus bus: polls on a grid of times, one request at a time, writes of outputs first.

The source has no memory, so there is nothing to answer: a reading is accepted when it is synced, until then it waits
here, bounded; at the bound polling pauses and what is left out is counted.

A device that does not answer is left alone for growing pauses. A device that refuses a request of several values is
asked for each value on its own from then on, because one address that it does not have spoils a whole request.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import nan

from citynet.notes import EventNote
from citynet.quality import BAD, GRADE_MASK
from citynet.reading import Reading
from citynet.runtime import log
from citynet_gateway import metrics
from citynet_gateway.drivers.modbus.bus import Bus, values_of
from citynet_gateway.drivers.modbus.codec import ValueCodec
from citynet_gateway.drivers.modbus.errors import Cut, LinkLost, ModbusError, Refused
from citynet_gateway.drivers.modbus.link import read_request
from citynet_gateway.drivers.modbus.plan import Bounds, Span, apart, groups, plan
from citynet_gateway.drivers.modbus.schedule import Schedule, Task, Turn
from citynet_gateway.drivers.modbus.settings import DeviceSettings, ModbusSettings
from citynet_gateway.drivers.polling import Pending
from citynet_gateway.drivers.port import Context, Offer, Resumed

SILENCES_TOLD = 3  # silent polls in a row that make an event; one is often only a disturbance
ASKED_MAX = 256
IDLE_S_MAX = 1.0
PAUSED_S = 0.05
STOP_S = 0.8

logger = log.get(__name__)


class _Device:
    """What is known of one device while the gateway runs. Its spans by interval; what it refuses by metric."""

    def __init__(self, bus: ModbusSettings, settings: DeviceSettings) -> None:
        bounds = Bounds(bus.registers_max, bus.bits_max, bus.gap_max)
        registers = bus.registers_of(settings)
        self.name = settings.device
        self.unit = settings.unit
        self.spans = {each: plan(its, bounds) for each, its in groups(registers, settings.interval_s).items()}
        self.codecs = {register.metric: ValueCodec(register) for register in registers}
        self.silence = ""
        self.silence_told = False
        self.refused: dict[str, str] = {}

    def decode(self, span: Span, values: Sequence[int], at_us: int) -> list[Reading]:
        """Readings of everything in a span, given the values of its addresses."""
        readings = []
        for item in span.items:
            first = item.address - span.address
            value, quality = self.codecs[item.metric].decode(values[first : first + item.width])
            readings.append(Reading(self.name, item.metric, at_us, value, quality))
        return readings


@dataclass(slots=True)
class _Found:
    """What a poll brought."""

    readings: list[Reading] = field(default_factory=list)
    events: list[EventNote] = field(default_factory=list)


class Modbus:
    """`Driver` of one bus; outputs share its `bus`."""

    def __init__(self, settings: ModbusSettings, context: Context) -> None:
        self.name = f"modbus-{settings.name}"
        self.bus = Bus(settings, context.random)
        self._stamp_us = context.stamp_us
        self._devices = [_Device(settings, item) for item in settings.devices]
        self._tasks = [Task(k, each) for k, device in enumerate(self._devices) for each in device.spans]
        first_pause_s = max(1.0, 2 * settings.timeout_ms / 1000)  # what answers late does so before the next request
        self._schedule = Schedule(self._tasks, time.monotonic(), first_pause_s, settings.backoff_s_max, context.random)
        self._pending = Pending(self, context.sorter)
        self._asked: deque[int] = deque(maxlen=ASKED_MAX)  # tasks that somebody wants done now
        self._taking = True
        self._stopping = False
        self._held = "behind"  # why polls were left out since the last one
        self._trouble = ""
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)

    def start(self, put: Callable[[Offer | Resumed], None]) -> None:
        """Begin to poll, in a thread of its own."""
        self._pending.open(put)
        self._thread.start()

    def answer(self, offers: Sequence[Offer]) -> None:
        self._pending.answered(offers)

    def poll_now(self, device: str) -> bool:
        """Read everything of a device (of all if empty) as soon as the bus is free; False if it is not on this bus.

        From any thread.
        """
        numbers = [k for k, task in enumerate(self._tasks) if device in ("", self._devices[task.device].name)]
        self._asked.extend(numbers)
        self.bus.wake()
        return bool(numbers)

    def trouble(self) -> str:
        if self._thread.ident is not None and not self._stopping and not self._thread.is_alive():
            return "polling ended by a fault of the program; the log has it"
        return self.bus.outage.reason or self._trouble

    def pause(self) -> None:
        self._taking = False

    def stop(self) -> None:
        self._taking, self._stopping = False, True
        self.bus.wake()
        if self._thread.is_alive():
            self._thread.join(STOP_S)

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._turn()
        finally:
            self.bus.close()  # whoever waits for a write is told, whatever ended this

    def _turn(self) -> None:
        self.bus.serve()
        wait_s = self._hold_s()
        if wait_s > 0:
            self.bus.wait(wait_s)
            return
        turn = (
            Turn(self._asked.popleft(), probe=False, skipped=0)
            if self._asked
            else self._schedule.next(time.monotonic())
        )
        if turn is None:
            self.bus.wait(self._schedule.wait_s(time.monotonic(), IDLE_S_MAX))
            return
        self._skipped(turn.skipped)
        self._poll(turn)

    def _hold_s(self) -> float:
        """How long to leave the bus to others; 0 to poll."""
        if not self._taking:
            return IDLE_S_MAX
        if self._pending.full:
            self._held = "paused"
            return PAUSED_S
        if (usable_in_s := self.bus.usable_in_s()) > 0:
            self._held = "lost"
            return min(IDLE_S_MAX, usable_in_s)
        return 0.0

    def _skipped(self, polls: int, reason: str = "") -> None:
        if polls:
            metrics.POLLS_SKIPPED.labels(self.name, reason or self._held).inc(polls)
        self._held = "behind"

    def _poll(self, turn: Turn) -> None:
        """Read everything of one task and offer what came."""
        task = self._tasks[turn.task]
        device = self._devices[task.device]
        found = _Found()
        try:
            waiting = deque(device.spans[task.interval_s])
            while waiting:
                self.bus.serve()
                waiting.extendleft(reversed(self._read(device, waiting.popleft(), task, found, yields=turn.probe)))
            self._answered(task, device, found)
        except Cut:
            self._skipped(1, "silent")
        except LinkLost:
            self._schedule.again(turn.task)
        except ModbusError as error:
            self._skipped(1, "silent")
            self._silent(task, device, error, found)
        bad = sum(reading.quality & GRADE_MASK == BAD for reading in found.readings)
        metrics.BAD_VALUES.labels(self.name).inc(bad)
        self._tell()
        self._pending.offer(found.readings, found.events)

    def _read(self, device: _Device, span: Span, task: Task, found: _Found, *, yields: bool) -> list[Span]:
        """One request; its values go to `found`. Returns the requests to try instead if the device refuses this one."""
        request = read_request(device.unit, span.table, span.address, span.count)
        try:
            values = values_of(self.bus.ask(request, yields=yields))
        except Refused as error:
            if error.not_reached:
                raise
            pieces = apart(span)
            if error.wrong_request and len(pieces) > 1:
                spans = device.spans[task.interval_s]
                spans[spans.index(span) : spans.index(span) + 1] = pieces
                logger.warning("modbus-request-divided", device=device.name, table=span.table, address=span.address)
                return pieces
            self._refused(device, span, error, found)
            return []
        for item in span.items:
            device.refused.pop(item.metric, None)
        found.readings += device.decode(span, values, self._stamp_us())
        return []

    def _refused(self, device: _Device, span: Span, error: Refused, found: _Found) -> None:
        """The device answers, and has no value for these: readings of quality bad, and one event until it has."""
        now_us = self._stamp_us()
        for item in span.items:
            text = f"{item.metric} ({span.table} {item.address}): {error}"
            if device.refused.get(item.metric) != text:
                device.refused[item.metric] = text
                found.events.append(EventNote(device.name, "device_refuses", text, now_us))
        found.readings += [Reading(device.name, item.metric, now_us, nan, BAD) for item in span.items]

    def _answered(self, task: Task, device: _Device, found: _Found) -> None:
        self._schedule.answered(task.device)
        device.silence = ""
        if device.silence_told:
            device.silence_told = False
            found.events.append(EventNote(device.name, "device_back", "answers again", self._stamp_us()))

    def _silent(self, task: Task, device: _Device, error: ModbusError, found: _Found) -> None:
        failures = self._schedule.failed(task.device, time.monotonic())
        device.silence = str(error)
        if failures >= SILENCES_TOLD and not device.silence_told:
            device.silence_told = True
            found.events.append(EventNote(device.name, "device_silent", device.silence, self._stamp_us()))

    def _tell(self) -> None:
        """The trouble in words: silent devices first, then what is refused."""
        metrics.SILENT_DEVICES.labels(self.name).set(self._schedule.silent)
        silent = [f"{device.name}: {device.silence}" for device in self._devices if device.silence]
        refused = [f"{device.name} {text}" for device in self._devices for text in device.refused.values()]
        head = f"{len(silent)} of {len(self._devices)} devices silent: " if silent else ""
        self._trouble = head + "; ".join([*silent, *refused])
