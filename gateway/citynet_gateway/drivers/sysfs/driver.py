"""Driver for sensors of the machine itself: one thread for all 1-wire sensors, whose bus is slow, and one for each IIO device.

A read can hang in the kernel; then only its own thread does, and `trouble` says for how long. As with every polled
source a reading is accepted when it is synced; until then it waits here, bounded.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from citynet.notes import EventNote
from citynet.quality import BAD, GRADE_MASK
from citynet.reading import Reading
from citynet_gateway import metrics
from citynet_gateway.drivers.polling import Pending, Ticker
from citynet_gateway.drivers.port import Context, Offer, Resumed
from citynet_gateway.drivers.sysfs.read import Measured, SensorAbsent, read_iio, read_onewire
from citynet_gateway.drivers.sysfs.settings import OneWireSettings

SLOW_S = 5.0  # a read that takes longer is a trouble; 1-wire takes 0.75 s, three tries of it 2.25 s
STOP_S = 0.5
PAUSED_S = 0.05


@dataclass(slots=True)
class _Sensor:
    """One sensor: how it is read, when, and what is wrong with it."""

    name: str
    device: str
    read: Callable[[], Sequence[Measured]]
    ticker: Ticker
    trouble: str = ""
    absent: bool = False
    asked: bool = False  # somebody wants it read now

    def due_s(self) -> float:
        return 0.0 if self.asked else self.ticker.due_s


@dataclass(slots=True)
class _Lane:
    """Sensors that are read one after the other. `busy`: which one is being read, and since when (monotonic s)."""

    sensors: list[_Sensor]
    busy: tuple[str, float] | None = None


class Sysfs:
    """`Driver` for ``[[gateway.iio]]`` and ``[[gateway.onewire]]``."""

    name = "sysfs"

    def __init__(self, context: Context) -> None:
        settings, root = context.settings, context.settings.sysfs
        self._stamp_us = context.stamp_us
        self._monotonic_s = context.monotonic_s
        self._pending = Pending(self, context.sorter)
        self._stop = threading.Event()
        self._taking = True
        now_s = context.monotonic_s()
        wires = [
            _Sensor(item.sensor, item.device, partial(_one, root, item), Ticker(item.interval_s, now_s))
            for item in settings.onewire
        ]
        chips = [
            _Sensor(item.sensor, item.device, partial(read_iio, root, item), Ticker(item.interval_s, now_s))
            for item in settings.iio
        ]
        self._lanes = [_Lane([chip]) for chip in chips]
        if wires:
            self._lanes.append(_Lane(wires))
        self._threads: list[threading.Thread] = []

    def start(self, put: Callable[[Offer | Resumed], None]) -> None:
        """Begin to read, in threads of its own."""
        self._pending.open(put)
        for lane in self._lanes:
            thread = threading.Thread(target=self._run, args=(lane,), name=self.name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def answer(self, offers: Sequence[Offer]) -> None:
        self._pending.answered(offers)

    def poll_now(self, device: str) -> bool:
        """Read the sensors of a device (of all if empty) within a second or so; False if it has none here. From any thread."""
        its = [sensor for lane in self._lanes for sensor in lane.sensors if device in ("", sensor.device)]
        for sensor in its:
            sensor.asked = True
        return bool(its)

    def trouble(self) -> str:
        if not self._stop.is_set() and not all(thread.is_alive() for thread in self._threads):
            return "reading ended by a fault of the program; the log has it"
        now_s = self._monotonic_s()
        hung = [
            f"{busy[0]}: the read takes {now_s - busy[1]:.0f} s already"
            for lane in self._lanes
            if (busy := lane.busy) and now_s - busy[1] > SLOW_S
        ]
        return "; ".join([*hung, *(item.trouble for lane in self._lanes for item in lane.sensors if item.trouble)])

    def pause(self) -> None:
        self._taking = False

    def stop(self) -> None:
        self._taking = False
        self._stop.set()
        end_s = time.monotonic() + STOP_S
        for thread in self._threads:
            thread.join(max(0.0, end_s - time.monotonic()))  # one that hangs in the kernel is left behind

    def _run(self, lane: _Lane) -> None:
        while not self._stop.is_set():
            now_s = self._monotonic_s()
            sensor = min(lane.sensors, key=_Sensor.due_s)
            if not self._taking or sensor.due_s() > now_s:
                self._stop.wait(1.0 if not self._taking else min(1.0, sensor.due_s() - now_s))
                continue
            if self._pending.full:
                metrics.POLLS_SKIPPED.labels(self.name, "paused").inc(sensor.ticker.take(now_s) + 1)
                self._stop.wait(PAUSED_S)
                continue
            if sensor.asked:
                sensor.asked = False
            elif skipped := sensor.ticker.take(now_s):
                metrics.POLLS_SKIPPED.labels(self.name, "behind").inc(skipped)
            lane.busy = (sensor.name, now_s)
            self._read(sensor)
            lane.busy = None

    def _read(self, sensor: _Sensor) -> None:
        try:
            measured = sensor.read()
        except SensorAbsent as error:
            self._absent(sensor, str(error))
            return
        now_us = self._stamp_us()
        readings = [Reading(sensor.device, item.metric, now_us, item.value, item.quality) for item in measured]
        events = [EventNote(sensor.device, "device_back", f"{sensor.name} is back", now_us)] if sensor.absent else []
        sensor.absent = False
        sensor.trouble = "; ".join(item.fault for item in measured if item.fault)
        metrics.BAD_VALUES.labels(self.name).inc(sum(item.quality & GRADE_MASK == BAD for item in measured))
        self._tell()
        self._pending.offer(readings, events)

    def _absent(self, sensor: _Sensor, text: str) -> None:
        metrics.POLLS_SKIPPED.labels(self.name, "silent").inc()
        events = [] if sensor.absent else [EventNote(sensor.device, "device_silent", text, self._stamp_us())]
        sensor.absent, sensor.trouble = True, text
        self._tell()
        self._pending.offer([], events)

    def _tell(self) -> None:
        absent = sum(item.absent for lane in self._lanes for item in lane.sensors)
        metrics.SILENT_DEVICES.labels(self.name).set(absent)


def _one(root: Path, settings: OneWireSettings) -> list[Measured]:
    return [read_onewire(root, settings)]
