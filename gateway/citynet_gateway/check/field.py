"""The field's side: serial ports, devices on buses, ports to listen on, sensors of the kernel, outputs. Nothing is switched.

Beside a gateway that runs (its spool is locked) what it holds itself is in order: a port in use, a serial line in use.
"""

from __future__ import annotations

import errno
import fcntl
import os
import pwd
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from citynet.errors import CitynetError
from citynet_gateway import certificate
from citynet_gateway.check.finding import Finding
from citynet_gateway.drivers.modbus.errors import Refused
from citynet_gateway.drivers.modbus.settings import ModbusSettings, RegisterTable
from citynet_gateway.drivers.push import read_doors, read_tls
from citynet_gateway.drivers.push_settings import PushSettings
from citynet_gateway.drivers.sysfs.read import Measured, SensorAbsent, read_iio, read_onewire
from citynet_gateway.drivers.sysfs.settings import OneWireSettings
from citynet_gateway.outputs.settings import FileOutput, GpioOutput, ModbusOutput
from citynet_gateway.settings import GatewaySettings
from citynet_gateway.spool.store import LOCK

DEVICES_TRIED_MAX = 16  # of a bus; a silent one costs its timeout
_PRIVILEGED_PORTS = 1024
_BESIDE = "in use, as it should be while the gateway runs"
_ONE_WIRE_HINT = "; is the data line on its pin, and dtoverlay=w1-gpio in config.txt?"


def findings(settings: GatewaySettings) -> Iterator[Finding]:
    """Every driver and output that is configured."""
    running = is_running(settings.spool_dir)
    for bus in settings.modbus:
        outputs = [item for item in settings.outputs if isinstance(item, ModbusOutput) and item.bus == bus.name]
        yield from modbus(bus, outputs, running=running)
    if settings.hj212.stations:
        yield listening("hj212", settings.hj212.host, settings.hj212.port, running=running)
    if settings.push.port:
        yield listening("push", settings.push.host, settings.push.port, running=running)
        yield push_files(settings.push, datetime.now(UTC))
    if settings.metrics_port:
        yield listening("metrics", "127.0.0.1", settings.metrics_port, running=running)
    yield from sensors(settings)
    for item in settings.outputs:
        if not isinstance(item, ModbusOutput):
            yield output(item, running=running)


def is_running(folder: Path) -> bool:
    """Whether a process has the spool in `folder` locked. The kernel's list is read; trying the lock would disturb a start."""
    try:
        found = (folder / LOCK).stat()
        locks = Path("/proc/locks").read_text(encoding="ascii")
    except OSError:
        return False
    place = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    return any(place in line.split() for line in locks.splitlines() if " FLOCK " in line)


# --- Modbus


def modbus(bus: ModbusSettings, outputs: Sequence[ModbusOutput], *, running: bool) -> Iterator[Finding]:
    """The line itself, then one read from each of its devices, then one of each output."""
    what = f"modbus {bus.name}"
    if bus.serial:
        yield (port := serial_port(what, Path(bus.serial), running=running))
        if port.verdict == "failed" or running:  # two programs on a line would garble each other's answers
            return
    for found in _devices(what, bus, outputs):
        if running and found.verdict == "failed":
            yield replace(
                found, verdict="warning", text=f"{found.text}; or it takes one connection, which the gateway has"
            )
        else:
            yield found


def serial_port(what: str, path: Path, *, running: bool) -> Finding:
    """Whether it is there, may be opened, is a serial port, and is free."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return Finding(what, "failed", f"{path} is not there: is the adapter plugged in? ls /dev/serial/by-id/")
    except PermissionError:
        return Finding(what, "failed", f"{path} may not be opened by {_account()}: add it to group dialout")
    except OSError as error:
        if error.errno == errno.EBUSY:
            return _in_use(what, path, running=running)
        return Finding(what, "failed", f"{path}: {error.strerror or error}")
    try:
        if not os.isatty(descriptor):
            return Finding(what, "failed", f"{path} is no serial port")
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return _in_use(what, path, running=running)
    finally:
        os.close(descriptor)
    return Finding(what, "ok", f"{path} opens and is free")


def _in_use(what: str, path: Path, *, running: bool) -> Finding:
    if running:
        return Finding(what, "ok", f"{path}: {_BESIDE}")
    return Finding(what, "failed", f"{path} is in use by another program (sudo fuser -v {path} names it)")


def _account() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"account {os.geteuid()}"


@dataclass(frozen=True, slots=True)
class _Read:
    """One read that must be answered; `what` is told about it."""

    what: str
    unit: int
    table: RegisterTable
    address: int
    count: int


def _reads(bus: ModbusSettings, outputs: Sequence[ModbusOutput]) -> Iterator[_Read]:
    """The first value of each device, and what each output is now."""
    for device in bus.devices[:DEVICES_TRIED_MAX]:
        first = bus.registers_of(device)[0]
        yield _Read(f"device {device.device}", device.unit, first.table, first.address, first.width)
    for item in outputs:
        yield _Read(f"output {item.name}", item.unit, item.table, item.address, 1)


def _devices(what: str, bus: ModbusSettings, outputs: Sequence[ModbusOutput]) -> Iterator[Finding]:
    try:
        from citynet_gateway.drivers.modbus.errors import LinkLost, ModbusError  # noqa: PLC0415
        from citynet_gateway.drivers.modbus.link import Link, read_request  # noqa: PLC0415  (pymodbus may be missing)
    except ModuleNotFoundError as error:
        yield Finding(what, "failed", f"needs the package {error.name}: install citynet[gateway,modbus]")
        return
    with ExitStack() as stack:
        ends = os.pipe()
        for end in ends:
            stack.callback(os.close, end)
        try:
            link = Link(bus, ends[0])
            stack.callback(link.close)
            if not bus.serial:
                yield Finding(what, "ok", f"{bus.place} takes connections")
            for read in _reads(bus, outputs):
                place = f"unit {read.unit} on {bus.place}, {read.table} {read.address}"
                try:
                    link.exchange(read_request(read.unit, read.table, read.address, read.count))
                except LinkLost:
                    raise
                except ModbusError as error:
                    yield Finding(read.what, "failed", f"{place}: {error}{_hint(bus, error)}")
                else:
                    yield Finding(read.what, "ok", f"{place}: answers")
        except LinkLost as error:
            yield Finding(what, "failed", str(error))
    if (left := len(bus.devices) - DEVICES_TRIED_MAX) > 0:
        yield Finding(what, "ok", f"{left} more devices were not tried")


def _hint(bus: ModbusSettings, error: CitynetError) -> str:
    if isinstance(error, Refused):
        return "; is the register map that of this device? addresses count from 0 here" if error.wrong_request else ""
    return (
        "; check unit, baud, parity and the two wires (A and B swapped?)" if bus.serial else "; check the unit number"
    )


# --- ports to listen on


def listening(what: str, host: str, port: int, *, running: bool) -> Finding:
    """Whether the address is ours and the port is free."""
    place = f"{host} port {port}"
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the gateway does
        try:
            listener.bind((host, port))
            listener.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRINUSE and running:
                return Finding(what, "ok", f"{place}: {_BESIDE}")
            return Finding(what, "failed", f"{place}: {_why_not_bound(error, port)}")
    if running and port:
        text = f"{place} is free, though a gateway runs: with other settings, or its log says why it does not listen"
        return Finding(what, "warning", text)
    return Finding(what, "ok", f"{place} is free" if port else f"{host}, any free port")


def _why_not_bound(error: OSError, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"in use by another program (sudo ss -ltnp 'sport = :{port}' names it)"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine has no such address (ip address shows those it has)"
    if error.errno == errno.EACCES:
        return f"ports below {_PRIVILEGED_PORTS} are not for this account: choose a higher one"
    return error.strerror or str(error)


def push_files(settings: PushSettings, now: datetime) -> Finding:
    """Tokens and certificate of the HTTP driver."""
    try:
        read_doors(settings)
        read_tls(settings)
    except CitynetError as error:
        return Finding("push files", "failed", str(error))
    trouble = certificate.trouble(settings.tls_cert_file, now)
    if trouble:
        return Finding("push files", "warning" if " expires in " in trouble else "failed", trouble)
    return Finding("push files", "ok", "tokens and certificate can be read")


# --- sensors of the kernel


def sensors(settings: GatewaySettings) -> Iterator[Finding]:
    """One read of each."""
    for chip in settings.iio:
        yield _sensor(f"iio {chip.sensor}", partial(read_iio, settings.sysfs, chip), "")
    for wire in settings.onewire:
        yield _sensor(f"1-wire {wire.sensor}", partial(_one, settings.sysfs, wire), _ONE_WIRE_HINT)


def _one(root: Path, settings: OneWireSettings) -> list[Measured]:
    return [read_onewire(root, settings)]


def _sensor(what: str, read: Callable[[], Sequence[Measured]], hint: str) -> Finding:
    try:
        found = read()
    except SensorAbsent as error:
        return Finding(what, "failed", f"{error}{hint}")
    if faults := [item.fault for item in found if item.fault]:
        return Finding(what, "failed", "; ".join(faults))
    return Finding(what, "ok", ", ".join(f"{item.metric} {item.value:g}" for item in found))


# --- outputs


def output(settings: FileOutput | GpioOutput, *, running: bool) -> Finding:
    """Whether it is there and may be switched. It is opened, nothing is written."""
    what = f"output {settings.name}"
    path = settings.path if isinstance(settings, FileOutput) else settings.chip
    try:
        access = os.O_WRONLY if isinstance(settings, FileOutput) else os.O_RDWR
        os.close(os.open(path, access | os.O_NONBLOCK | os.O_CLOEXEC))
    except PermissionError:
        return Finding(what, "failed", f"{path} may not be written by {_account()}")
    except OSError as error:
        return Finding(what, "failed", f"{path}: {error.strerror or error}")
    return (
        Finding(what, "ok", str(path)) if isinstance(settings, FileOutput) else _line(what, settings, running=running)
    )


def _line(what: str, settings: GpioOutput, *, running: bool) -> Finding:
    place = f"{settings.chip} line {settings.line}"
    try:
        import gpiod  # noqa: PLC0415  (may be missing)

        with gpiod.Chip(str(settings.chip)) as chip:
            info = chip.get_line_info(settings.line)
    except ModuleNotFoundError as error:
        return Finding(what, "failed", f"needs the package {error.name}: install citynet[gateway,gpio]")
    except (OSError, ValueError) as error:
        return Finding(what, "failed", f"{place}: {getattr(error, 'strerror', None) or error}")
    if info.used and not running:
        return Finding(what, "failed", f"{place} is in use by {info.consumer or 'the kernel'}")
    return Finding(what, "ok", f"{place}: {_BESIDE}" if info.used else f"{place} is free")
