"""Devices of a city at work: each a thread with its firmware, its samples and its protocol, until told to stop."""

from __future__ import annotations

import heapq
import queue
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from citynet.errors import CitynetError
from citynet.reading import Reading
from citynet.runtime import log
from citynet_sim.city import Device
from citynet_sim.firmware.journal import FleetJournal
from citynet_sim.firmware.link import Link, check
from citynet_sim.firmware.machine import (
    Action,
    Booted,
    ConfigurationError,
    Firmware,
    GaveUp,
    Mode,
    Options,
    Report,
    Send,
)
from citynet_sim.firmware.polled import FilePost, RegisterPost
from citynet_sim.firmware.port import LOCAL, POLLED, Post, Request
from citynet_sim.firmware.pushing import MqttPost, StationPost
from citynet_sim.firmware.speech import told
from citynet_sim.protocols import modbus
from citynet_sim.protocols.sysfs import SensorTree
from citynet_sim.settings import SimSettings
from citynet_sim.simulation import Sample, Simulation
from citynet_sim.truth import TruthError

DEVICES_MAX = 100  # a thread each; 247 is what a Modbus line can have
SERIAL_NAME, TREE_NAME = "ttySIM", "sys"
STATION_INTERVAL_S = 2.0  # HJ 212 knows whole seconds: two reports of one second would be one
_LOOK_S = 0.1  # what was asked for meanwhile is heard at this interval at most
_STOP_S = 20.0
_logger = log.get(__name__)


def wall_us() -> int:
    return time.time_ns() // 1000


@dataclass(slots=True)
class Place:
    """Where devices speak: the stations' gateway, the Modbus server's port, the folder of serial line and sensor tree."""

    folder: Path
    hj212_host: str = "127.0.0.1"
    hj212_port: int = 9212
    modbus_port: int = 0


@dataclass(frozen=True, slots=True)
class Member:
    """A device and the protocol that it speaks; `unit` is its number on a Modbus line or among IIO devices."""

    device: Device
    protocol: str
    unit: int


class Runner(threading.Thread):
    """One device. Its firmware decides; this carries out."""

    def __init__(
        self,
        member: Member,
        firmware: Firmware,
        post: Post,
        samples: Iterator[Sample],
        journal: FleetJournal,
        link: Link,
    ) -> None:
        super().__init__(name=member.device.name, daemon=True)
        self.member, self.firmware = member, firmware
        self.error: Exception | None = None
        self._post, self._samples, self._journal, self._link = post, samples, journal, link
        self._on_their_way: list[tuple[int, int, Report, int]] = []  # arrival, number, what and how often
        self._requests: queue.SimpleQueue[Request] = queue.SimpleQueue()
        self._numbers: dict[int, int] = {}  # by sequence, of what was handed over and is not acknowledged
        self._acked: set[int] = set()
        self._sendings = 0
        self._halt = threading.Event()

    def halt(self) -> None:
        """End soon; what was never handed over is written down as such."""
        self._halt.set()

    def hear(self, request: Request) -> None:
        """From any thread: something is wanted of the device."""
        self._requests.put(request)

    def run(self) -> None:
        try:
            self._post.start(self.hear)
            self._work()
            for report in self.firmware.buffer:
                if report.seq not in self._numbers:
                    self._journal.lost(self.member.device.gateway, self._told(report), stopped=True)
        except TruthError as error:  # nothing is sent that is not written down
            self.error = error
        finally:
            self._post.close()

    def _work(self) -> None:
        following = next(self._samples)
        while not self._halt.is_set():
            now_us = wall_us()
            self._supply(now_us)
            while following.at_us <= now_us:
                values = dict(zip((m.name for m in following.device.metrics), following.values, strict=True))
                self._do(self.firmware.sample(now_us, following.time_us, values))
                following = next(self._samples)
            self._do(self.firmware.tick(wall_us()))
            self._arrive(wall_us())
            self._post.show(Mode.OFF if self._is_cut_off(now_us) else self.firmware.mode)
            self._post.listen()
            due_us = [
                following.at_us,
                self.firmware.due_us or following.at_us,
                *(row[0] for row in self._on_their_way[:1]),
            ]
            wait_us = min(due_us) - wall_us()
            try:
                request = self._requests.get(timeout=max(min(wait_us / 1e6, _LOOK_S), 0.001))
            except queue.Empty:
                continue
            request.answer(self._obey(request))

    def _supply(self, now_us: int) -> None:
        """Power goes or comes back, where a power cut is staged."""
        is_on = self._link.is_powered(now_us)
        if is_on == (self.firmware.mode is Mode.OFF):
            self.firmware.power(now_us, on=is_on)
            _logger.info("device-power", device=self.name, on=is_on)

    def _is_cut_off(self, now_us: int) -> bool:
        """A bus on the gateway's own board has no link that could fail."""
        return self.member.protocol not in LOCAL and self._link.is_down(now_us)

    def _arrive(self, now_us: int) -> None:
        """Reports that were on their way for some time reach the other side."""
        while self._on_their_way and self._on_their_way[0][0] <= now_us and not self._halt.is_set():
            _, _, report, copies = heapq.heappop(self._on_their_way)
            self._do(self._hand_over(report, copies))

    def _obey(self, request: Request) -> dict[str, object]:
        firmware = self.firmware
        try:
            if request.configure:
                firmware.configure(request.configure)
        except ConfigurationError as error:
            return {"refused": str(error)}
        if request.update:
            firmware.update(wall_us(), request.update)
        elif request.reboot:
            firmware.reboot(wall_us())
        _logger.info("device-configured", device=self.name, revision=firmware.revision, mode=firmware.mode.value)
        return {"revision": firmware.revision, "version": firmware.version, "mode": firmware.mode.value}

    def _do(self, actions: list[Action]) -> None:
        """Carry out actions and what follows from them."""
        waiting = deque(actions)
        while waiting:
            action = waiting.popleft()
            if isinstance(action, Send):
                waiting.extend(self._send(action))
            elif isinstance(action, GaveUp):
                self._journal.lost(self.member.device.gateway, self._told(action.report), stopped=False)
            elif isinstance(action, Booted):
                _logger.info("device-booted", device=self.name, reason=action.reason, version=action.version)

    def _send(self, action: Send) -> list[Action]:
        report, now_us = action.report, wall_us()
        if self.member.protocol in POLLED:  # it shows; what is read of it, others write down
            self._post.deliver(report, self.firmware.options.ack_s)
            return self.firmware.acked(wall_us(), report.seq)
        fate = self._link.fate(now_us, report.seq, action.attempt)
        if fate.is_down:
            return self.firmware.failed(now_us)
        if fate.is_lost:
            return []  # no answer comes, and the firmware notices
        if fate.delay_us:
            self._sendings += 1
            heapq.heappush(self._on_their_way, (now_us + fate.delay_us, self._sendings, report, fate.copies))
            return []
        return self._hand_over(report, fate.copies)

    def _hand_over(self, report: Report, copies: int) -> list[Action]:
        """To the other side, `copies` times; what its answer means to the firmware."""
        seq, is_there = report.seq, False
        for _ in range(copies):
            if seq in self._numbers:
                self._journal.again(self._numbers[seq])
            else:
                self._numbers[seq] = self._journal.first(self.member.device.gateway, self._told(report))
            is_there = self._post.deliver(report, self.firmware.options.ack_s) or is_there
        if not is_there:
            return self.firmware.failed(wall_us())
        if seq not in self._acked:
            self._acked.add(seq)
            self._journal.acked(self._numbers[seq])
        following = self.firmware.acked(wall_us(), seq)
        self._forget()
        return following

    def _forget(self) -> None:
        """Numbers of what is acknowledged, of which no copy is on its way, and which the firmware will not send again."""
        buffer, awaited = self.firmware.buffer, {row[2].seq for row in self._on_their_way}
        for seq in [s for s in self._acked if s not in awaited and not (buffer and buffer[0].seq <= s)]:
            self._acked.discard(seq)
            del self._numbers[seq]

    def _told(self, report: Report) -> list[Reading]:
        return told(self.member.device, report, self.member.protocol)


@dataclass(slots=True)
class Fleet:
    """The chosen devices, as a context manager; `port` is the Modbus server's, `serial` the line, `tree` the sensors' root."""

    members: list[Member]
    simulation: Simulation
    settings: SimSettings
    place: Place
    journal: FleetJournal
    options: Options = field(default_factory=Options)
    runners: list[Runner] = field(default_factory=list)
    port: int = 0
    _stack: ExitStack = field(default_factory=ExitStack)

    @property
    def serial(self) -> Path:
        return self.place.folder / SERIAL_NAME

    @property
    def tree(self) -> Path:
        return self.place.folder / TREE_NAME

    def __enter__(self) -> Fleet:
        check(self.simulation.faults)
        links = [self._link(member) for member in self.members]
        posts = [self._post(member, link) for member, link in zip(self.members, links, strict=True)]
        self._lines(dict(zip(self.members, posts, strict=True)))
        start_us = wall_us()
        for member, post, link in zip(self.members, posts, links, strict=True):
            options = self.options
            if member.protocol == "hj212":
                options = options.changed({"interval_s": max(options.interval_s, STATION_INTERVAL_S)})
            samples = self.simulation.samples_of(member.device, start_us)
            self.runners.append(Runner(member, Firmware(options), post, samples, self.journal, link))
        for runner in self.runners:
            runner.start()
        return self

    def __exit__(self, *_: object) -> None:
        for runner in self.runners:
            runner.halt()
        for runner in self.runners:
            runner.join(_STOP_S)
        self._stack.close()

    def failure(self) -> CitynetError | None:
        """Why a device had to end, if one had to."""
        return next((runner.error for runner in self.runners if isinstance(runner.error, CitynetError)), None)

    def _link(self, member: Member) -> Link:
        device = member.device
        return Link(self.simulation.city.seed, device.name, device.gateway, self.simulation.faults)

    def _post(self, member: Member, link: Link) -> Post:
        device, protocol = member.device, member.protocol
        if protocol in ("modbus-tcp", "modbus-rtu"):
            return RegisterPost(device, wall_us, self.journal.shown, link)
        if protocol in ("iio", "onewire"):
            return FilePost(device, protocol, member.unit, SensorTree(self.tree), wall_us, self.journal.shown)
        if protocol == "hj212":
            return StationPost(device, self.place.hj212_host, self.place.hj212_port, wall_us)
        return MqttPost(device, protocol, self.settings.broker, self.settings.field_prefix)

    def _lines(self, posts: dict[Member, Post]) -> None:
        """The Modbus server and the serial line, where a device is on one."""
        units = {
            protocol: {
                m.unit: post.unit
                for m, post in posts.items()
                if m.protocol == protocol and isinstance(post, RegisterPost)
            }
            for protocol in ("modbus-tcp", "modbus-rtu")
        }
        if units["modbus-tcp"]:
            self.port = self._stack.enter_context(modbus.TcpServer(units["modbus-tcp"], self.place.modbus_port)).port
        if units["modbus-rtu"]:
            self._stack.enter_context(modbus.SerialServer(units["modbus-rtu"], self.serial))
