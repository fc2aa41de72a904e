"""Simulated Modbus devices, over TCP and over a serial line (a pseudo-terminal), with faults to order.

Framing and checksum are written after the specifications (Modbus application protocol V1.1b3; Modbus over serial line
V1.02, whose CRC is the polynomial 0xA001 reflected, started at 0xFFFF, low byte first), not after any library, so that
a client that speaks to these devices is tested against a second reading of the standard.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import threading
import time
import tty
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

ILLEGAL_FUNCTION = 1
ILLEGAL_ADDRESS = 2
ILLEGAL_VALUE = 3
DEVICE_FAILURE = 4

_READ_COILS, _READ_DISCRETE, _READ_HOLDING, _READ_INPUT = 1, 2, 3, 4
_WRITE_COIL, _WRITE_REGISTER = 5, 6
_RTU_REQUEST_BYTES = 8  # of all functions that are supported
_POLL_S = 0.02

Register = int | Callable[[], int]  # a callable is asked at every read


@dataclass(slots=True)
class Device:
    """One unit. An address that is not in a table does not exist. Faults may be changed at any time.

    Attributes:
        silent: does not answer.
        delay_s: answers so much later.
        on_request: asked before every answer how much later it comes, in s; None: it does not come.
        exception: answers everything with this exception code; 0: does not.
        corrupt: what is done to a frame before it is sent; None: nothing.
        on_read: told of every answer to a read of registers: the table as it was answered from, address, amount.
        on_write: told of every register that was written: address, value.
    """

    holding: dict[int, Register] = field(default_factory=dict)
    input: dict[int, Register] = field(default_factory=dict)
    coils: dict[int, Register] = field(default_factory=dict)
    discrete: dict[int, Register] = field(default_factory=dict)
    silent: bool = False
    delay_s: float = 0.0
    on_request: Callable[[], float | None] | None = None
    exception: int = 0
    corrupt: Callable[[bytes], bytes] | None = None
    on_read: Callable[[Mapping[int, Register], int, int], None] | None = None
    on_write: Callable[[int, int], None] | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked: the last two are address and count of a read, address and value of a write."""

    at_s: float
    unit: int
    function: int
    address: int
    amount: int


class Devices:
    """The devices behind one line, by unit; remembers what they were asked."""

    def __init__(self, devices: Mapping[int, Device]) -> None:
        self.devices = dict(devices)
        self.requests: list[Request] = []

    def answer(self, unit: int, pdu: bytes) -> bytes | None:
        """The answer (function and data) to a request of five bytes; None: nobody answers."""
        function, address, amount = struct.unpack(">BHH", pdu[:5])
        self.requests.append(Request(time.monotonic(), unit, function, address, amount))
        device = self.devices.get(unit)
        if device is None or device.silent:
            return None
        later_s = device.delay_s if device.on_request is None else device.on_request()
        if later_s is None:
            return None
        if later_s:
            time.sleep(later_s)
        code = device.exception
        if not code:
            try:
                return bytes([function]) + _act(device, function, address, amount)
            except KeyError:
                code = ILLEGAL_ADDRESS
            except NotImplementedError:
                code = ILLEGAL_FUNCTION
            except ValueError:
                code = ILLEGAL_VALUE
        return bytes([function | 0x80, code])

    def sent(self, unit: int, frame: bytes) -> bytes:
        """The frame as it goes out."""
        corrupt = self.devices[unit].corrupt
        return corrupt(frame) if corrupt else frame


def _act(device: Device, function: int, address: int, amount: int) -> bytes:
    """Data of an answer. KeyError: no such address; NotImplementedError: no such function; ValueError: bad amount."""
    if function in (_READ_HOLDING, _READ_INPUT):
        table = device.holding if function == _READ_HOLDING else device.input
        if not 1 <= amount <= 125:
            raise ValueError
        words = [_value(table[address + k]) for k in range(amount)]
        if device.on_read is not None:
            device.on_read(table, address, amount)
        return bytes([2 * amount]) + struct.pack(f">{amount}H", *words)
    if function in (_READ_COILS, _READ_DISCRETE):
        table = device.coils if function == _READ_COILS else device.discrete
        if not 1 <= amount <= 2000:
            raise ValueError
        bits = sum(bool(_value(table[address + k])) << k for k in range(amount))
        size = (amount + 7) // 8
        return bytes([size]) + bits.to_bytes(size, "little")
    if function == _WRITE_COIL:
        if amount not in (0, 0xFF00):
            raise ValueError
        device.coils[address] = _existing(device.coils, address) and int(amount == 0xFF00)
        return struct.pack(">HH", address, amount)
    if function == _WRITE_REGISTER:
        device.holding[address] = _existing(device.holding, address) and amount
        if device.on_write is not None:
            device.on_write(address, amount)
        return struct.pack(">HH", address, amount)
    raise NotImplementedError


def _existing(table: Mapping[int, Register], address: int) -> bool:
    if address not in table:
        raise KeyError(address)
    return True


def _value(register: Register) -> int:
    return register() if callable(register) else register


def crc16(data: bytes) -> bytes:
    """Checksum of a serial frame, as it stands there: low byte first."""
    crc = 0xFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0xA001 if crc & 1 else crc >> 1
    return struct.pack("<H", crc)


class TcpServer:
    """Devices behind a Modbus TCP server on loopback; as a context manager."""

    def __init__(self, devices: Mapping[int, Device], port: int = 0) -> None:
        self.line = Devices(devices)
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._is_closed = False
        self._lock = threading.Lock()
        self.connections = 0
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def __enter__(self) -> TcpServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening, cut all connections."""
        with self._lock:
            self._is_closed = True
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)
        self.cut()

    def cut(self) -> None:
        """Cut all connections; new ones are taken."""
        while self._open:
            with suppress(OSError):
                self._open.pop().shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                if self._is_closed:  # it came while we closed: who cuts would not find it
                    connection.close()
                    return
                self._open.append(connection)
                self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        data = b""
        with connection, suppress(OSError):
            while chunk := connection.recv(4096):
                data += chunk
                while len(data) >= 6 and len(data) >= 6 + int.from_bytes(data[4:6], "big"):
                    size = 6 + int.from_bytes(data[4:6], "big")
                    frame, data = data[:size], data[size:]
                    self._one(connection, frame)

    def _one(self, connection: socket.socket, frame: bytes) -> None:
        unit = frame[6]
        pdu = self.line.answer(unit, frame[7:])
        if pdu is not None:
            head = frame[:4] + struct.pack(">HB", len(pdu) + 1, unit)
            connection.sendall(self.line.sent(unit, head + pdu))


class SerialServer:
    """Devices on a serial line: a pseudo-terminal, whose other end `path` leads to; as a context manager.

    `unplug` takes the port away, `plug` brings it back under the same path, as a USB adapter does.
    """

    def __init__(self, devices: Mapping[int, Device], path: Path) -> None:
        self.line = Devices(devices)
        self.path = path
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self.plug()

    def __enter__(self) -> SerialServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.unplug()

    def plug(self) -> None:
        """A new pseudo-terminal under the old path."""
        ours, theirs = os.openpty()
        tty.setraw(theirs)
        self.path.unlink(missing_ok=True)
        self.path.symlink_to(os.ttyname(theirs))
        self._stopping = threading.Event()  # an old line that has not ended yet must not hear that this one begins
        self._thread = threading.Thread(target=self._serve, args=(ours, theirs, self._stopping), daemon=True)
        self._thread.start()

    def unplug(self) -> None:
        """The port is gone: who has it open reads an end, who opens it finds nothing."""
        self.path.unlink(missing_ok=True)
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(5)

    def _serve(self, ours: int, theirs: int, stopping: threading.Event) -> None:
        data = b""
        while not stopping.is_set():
            if not select.select([ours], [], [], _POLL_S)[0]:
                data = b""  # a silence ends a frame
                continue
            with suppress(OSError):
                data += os.read(ours, 512)
            data = self._frames(ours, data)
        os.close(theirs)
        os.close(ours)

    def _frames(self, ours: int, data: bytes) -> bytes:
        """Answer every whole request; what is left."""
        while len(data) >= _RTU_REQUEST_BYTES:
            frame, data = data[:_RTU_REQUEST_BYTES], data[_RTU_REQUEST_BYTES:]
            if crc16(frame[:-2]) != frame[-2:]:
                return b""  # a device is silent on a wrong checksum
            unit = frame[0]
            pdu = self.line.answer(unit, frame[1:-2])
            if pdu is not None:
                body = bytes([unit]) + pdu
                with suppress(OSError):
                    os.write(ours, self.line.sent(unit, body + crc16(body)))
        return data
