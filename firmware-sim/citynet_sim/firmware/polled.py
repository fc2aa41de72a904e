"""Devices that are polled: Modbus registers, and files as the kernel shows them. Each shows its newest report."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from citynet.errors import ConfigError
from citynet.reading import Reading
from citynet_sim.city import Device
from citynet_sim.firmware.identity import onewire_address
from citynet_sim.firmware.link import ANSWER_DELAY_S_MAX, Link
from citynet_sim.firmware.machine import Mode, Report
from citynet_sim.firmware.port import Request
from citynet_sim.metrics import Metric
from citynet_sim.protocols import modbus
from citynet_sim.protocols.sysfs import SensorTree

INTERVAL_REGISTER, RESTART_REGISTER = 0, 1  # holding: tenths of a second; 1 restarts
Shown = Callable[[list[Reading]], None]


def scale(metric: Metric) -> float:
    """What a raw integer of a metric is multiplied by."""
    return 1.0 / metric.steps_per_unit


def raw(metric: Metric, value: float) -> int:
    """A value as its register has it: whole steps, 32 bits with sign."""
    return max(-(1 << 31), min((1 << 31) - 1, round(value * metric.steps_per_unit)))


class RegisterPost:
    """A Modbus unit: metric k of the device is a signed 32-bit integer at input registers 2k and 2k + 1, high word first.

    Holding register 0 is the interval in tenths of a second, register 1 restarts the device when 1 is written.
    Nothing is there before the first sample.
    """

    def __init__(self, device: Device, clock_us: Callable[[], int], shown: Shown, link: Link) -> None:
        self._device, self._clock_us, self._shown, self._link = device, clock_us, shown, link
        self._asked = 0
        self.unit = modbus.Device(holding={INTERVAL_REGISTER: 0, RESTART_REGISTER: 0}, on_read=self._on_read)
        self.unit.on_request = self._on_request
        self._hear: Callable[[Request], None] = lambda _: None

    def start(self, hear: Callable[[Request], None]) -> None:
        self._hear = hear
        self.unit.on_write = self._on_write

    def deliver(self, report: Report, timeout_s: float) -> bool:
        del timeout_s
        words: dict[int, modbus.Register] = dict(self.unit.input)
        for number, metric in enumerate(self._device.metrics):
            if metric.name in report.values:
                whole = raw(metric, report.values[metric.name]) & 0xFFFF_FFFF
                words[2 * number], words[2 * number + 1] = whole >> 16, whole & 0xFFFF
        self.unit.input = words  # at once: no answer has half of a report
        return True

    def listen(self) -> None:
        """The server's threads hear."""

    def show(self, mode: Mode) -> None:
        self.unit.silent = mode is not Mode.RUNNING

    def close(self) -> None:
        """The server is the fleet's."""

    def _on_request(self) -> float | None:
        self._asked += 1
        fate = self._link.fate(self._clock_us(), self._asked, 1)
        return None if fate.is_down or fate.is_lost else min(fate.delay_us / 1e6, ANSWER_DELAY_S_MAX)

    def _on_read(self, table: Mapping[int, modbus.Register], address: int, amount: int) -> None:
        if table is self.unit.holding:
            return
        now_us, found = self._clock_us(), []
        for number, metric in enumerate(self._device.metrics):
            high, low = table.get(2 * number), table.get(2 * number + 1)
            if (
                address <= 2 * number
                and 2 * number + 1 < address + amount
                and isinstance(high, int)
                and isinstance(low, int)
            ):
                whole = high << 16 | low
                signed = whole - (1 << 32) if whole >> 31 else whole
                found.append(Reading(self._device.name, metric.name, now_us, signed * scale(metric)))
        if found:
            self._shown(found)

    def _on_write(self, address: int, value: int) -> None:
        if address == INTERVAL_REGISTER:
            self._hear(Request({"interval_s": value / 10.0}))
        elif value == 1:
            self._hear(Request(reboot=True))


class FilePost:
    """An IIO device of the kernel, ``in_METRIC_input``; or a 1-wire thermometer, for a device's first temperature."""

    def __init__(
        self, device: Device, protocol: str, number: int, tree: SensorTree, clock_us: Callable[[], int], shown: Shown
    ) -> None:
        self._device, self._number, self._tree = device, number, tree
        self._clock_us, self._shown = clock_us, shown
        self._metric = thermometer(device) if protocol == "onewire" else None

    def start(self, hear: Callable[[Request], None]) -> None:
        """Nobody can want anything of a file."""

    def deliver(self, report: Report, timeout_s: float) -> bool:
        del timeout_s
        values = dict(report.values)
        if self._metric is not None:
            if self._metric not in values:
                return True
            values = {self._metric: values[self._metric]}
        now_us = self._clock_us()
        self._shown([Reading(self._device.name, metric, now_us, value) for metric, value in values.items()])
        if self._metric is None:
            self._tree.iio(
                self._number, self._device.name, {f"in_{name}_input": value for name, value in values.items()}
            )
        else:
            self._tree.onewire(onewire_address(self._device), round(values[self._metric] * 1000))
        return True

    def listen(self) -> None:
        """A file hears nothing."""

    def show(self, mode: Mode) -> None:
        """A file stays what it was."""

    def close(self) -> None:
        """The tree stays."""


def thermometer(device: Device) -> str:
    """The metric that a 1-wire thermometer of a device gives. ConfigError: it measures no temperature."""
    for metric in device.metrics:
        if metric.unit == "Cel":
            return metric.name
    raise ConfigError([f"{device.name}: a {device.kind} measures no temperature, so it is no 1-wire thermometer"])
