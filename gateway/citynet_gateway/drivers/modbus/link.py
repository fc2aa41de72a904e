"""One connection to a bus, and one transaction on it: framing and messages are pymodbus', waiting and checking is ours.

Its clients are not used, because a transaction here must be interruptible, be measured on a clock that nobody sets,
and take nothing for an answer that is none (ADR 23): the function, the number of registers and what a write repeats
are compared; what came late is thrown away before a request; after bytes that were no answer a line is left alone
until it is quiet (and `bus` closes a TCP connection, because nobody knows where the next frame begins).
"""

from __future__ import annotations

import logging
import os
import select
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import ceil

import serial
from pymodbus.exceptions import ModbusException
from pymodbus.framer import FramerBase, FramerRTU, FramerSocket
from pymodbus.pdu import DecodePDU, ModbusPDU
from pymodbus.pdu.bit_message import ReadCoilsRequest, ReadDiscreteInputsRequest, WriteSingleCoilRequest
from pymodbus.pdu.register_message import (
    ReadHoldingRegistersRequest,
    ReadInputRegistersRequest,
    WriteSingleRegisterRequest,
)

from citynet_gateway.drivers.modbus.errors import Cut, Garbage, LinkLost, Refused, Silence
from citynet_gateway.drivers.modbus.settings import ModbusSettings, RegisterTable

logging.getLogger("pymodbus").setLevel(logging.CRITICAL)  # it speaks of every bad frame; we count them

_CHUNK = 4096
_ANSWER_BYTES_MAX = 1024  # more than any frame; a source that never stops is cut off there
_QUIET_S = 0.02  # a line on which nothing came for so long is quiet
_QUIET_WAIT_S_MAX = 0.2
_FRAME_OVERHEAD_BYTES = 8

_READS: dict[RegisterTable, type[ModbusPDU]] = {
    "holding": ReadHoldingRegistersRequest,
    "input": ReadInputRegistersRequest,
    "coil": ReadCoilsRequest,
    "discrete": ReadDiscreteInputsRequest,
}


def read_request(unit: int, table: RegisterTable, address: int, count: int) -> ModbusPDU:
    """Read `count` registers or bits."""
    return _READS[table](dev_id=unit, address=address, count=count)


def write_request(unit: int, table: RegisterTable, address: int, value: int) -> ModbusPDU:
    """Write one coil (0 or 1) or one holding register (0..65535)."""
    if table == "coil":
        return WriteSingleCoilRequest(dev_id=unit, address=address, bits=[bool(value)])
    return WriteSingleRegisterRequest(dev_id=unit, address=address, registers=[value])


class Link:
    """A connection that is open. Used by one thread; `wake_fd` becomes readable when somebody wants that thread."""

    def __init__(self, settings: ModbusSettings, wake_fd: int) -> None:
        """Connect.

        Raises:
            LinkLost: it cannot be done, and why.
        """
        self._settings = settings
        self._wake_fd = wake_fd
        self._rtu = bool(settings.serial) or settings.rtu_over_tcp
        self._framer: FramerBase = (FramerRTU if self._rtu else FramerSocket)(DecodePDU(False))
        self._timeout_s = settings.timeout_ms / 1000
        self._byte_s = _bits_of_a_byte(settings) / settings.baud if settings.serial else 0.0
        # 3.5 characters apart, above 19,200 baud at least 1.75 ms (Modbus over serial line V1.02, 2.5.1.1).
        self._pause_s = max(3.5 * self._byte_s, 0.00175) if settings.serial else 0.0
        self._free_at_s = 0.0
        self._transaction = 0
        self._port = _open_serial(settings) if settings.serial else _open_tcp(settings, self._timeout_s)

    def close(self) -> None:
        with suppress(OSError):
            self._port.close()

    def exchange(self, request: ModbusPDU, cut: Callable[[], bool] | None = None) -> ModbusPDU:
        """Send a request, return its answer.

        Args:
            cut: asked when somebody wants this thread and nothing was received yet: give up waiting?

        Raises:
            Silence, Garbage, Refused: what the device did; the link can be used again.
            LinkLost: it cannot.
            Cut: the wait was given up; the device may still answer.
        """
        self._discard()
        self._transaction = 0 if self._rtu else self._transaction % 65_535 + 1
        request.transaction_id = self._transaction
        frame = self._framer.buildFrame(request)
        self._send(frame)
        on_the_line_s = (len(frame) + _answer_bytes(request)) * self._byte_s
        try:
            answer = self._receive(request, time.monotonic() + self._timeout_s + on_the_line_s, cut)
            _check(request, answer)
        except Garbage:
            if self._rtu:
                self._settle()
            raise
        finally:
            self._free_at_s = time.monotonic() + self._pause_s
        return answer

    def _receive(self, request: ModbusPDU, end_s: float, cut: Callable[[], bool] | None) -> ModbusPDU:
        data, heard = b"", 0
        while (left_s := end_s - time.monotonic()) > 0:
            watched = (self._port.fileno(), self._wake_fd) if cut else (self._port.fileno(),)
            ready = wait_readable(watched, left_s)
            if self._wake_fd in ready and cut is not None:
                if cut():
                    raise Cut("given up for something more urgent")
                continue
            if not ready:
                continue
            cut = None  # it answers: now we wait for the rest
            chunk = self._read()
            heard += len(chunk)
            data += chunk
            try:
                used, answer = self._framer.handleFrame(data, request.dev_id, self._transaction)
            except (ModbusException, ValueError, IndexError) as error:
                raise Garbage(f"{heard} bytes that are no answer ({error})") from None
            if answer is not None:
                return answer
            data = data[used:]
            if heard > _ANSWER_BYTES_MAX:
                break
        if heard:
            raise Garbage(f"{heard} bytes that are no answer")
        raise Silence(f"no answer within {self._settings.timeout_ms} ms")

    def _send(self, frame: bytes) -> None:
        if (wait_s := self._free_at_s - time.monotonic()) > 0:
            time.sleep(wait_s)  # a few ms: the silence between two frames on a serial line
        try:
            if isinstance(self._port, socket.socket):
                self._port.sendall(frame)
            elif self._port.write(frame) != len(frame):
                raise LinkLost(f"{self._settings.place}: takes no more bytes")
        except (OSError, serial.SerialException) as error:
            raise self._lost(error) from None

    def _read(self) -> bytes:
        try:
            chunk = os.read(self._port.fileno(), _CHUNK)
        except BlockingIOError:
            return b""
        except (OSError, serial.SerialException) as error:
            raise self._lost(error) from None
        if not chunk:
            raise LinkLost(f"{self._settings.place}: closed by the other side")
        return chunk

    def _discard(self) -> None:
        """Throw away what nobody waits for any more."""
        while self._readable(0.0):
            self._read()

    def _settle(self) -> None:
        """Wait until the line is quiet, or long enough."""
        end_s = time.monotonic() + _QUIET_WAIT_S_MAX
        while time.monotonic() < end_s and self._readable(max(_QUIET_S, 3.5 * self._byte_s)):
            self._read()

    def _readable(self, wait_s: float) -> bool:
        try:
            return bool(wait_readable((self._port.fileno(),), wait_s))
        except (OSError, ValueError, serial.SerialException) as error:
            raise self._lost(error) from None

    def _lost(self, error: Exception) -> LinkLost:
        return LinkLost(f"{self._settings.place}: {_words(error)}")


def wait_readable(fds: Sequence[int], wait_s: float) -> set[int]:
    """Those of `fds` that have something to read or are broken, after at most `wait_s`."""
    poll = select.poll()  # select() ends at descriptor 1,023
    for fd in fds:
        poll.register(fd, select.POLLIN)
    return {fd for fd, _ in poll.poll(ceil(max(0.0, wait_s) * 1000))}


def _open_tcp(settings: ModbusSettings, timeout_s: float) -> socket.socket:
    try:
        port = socket.create_connection((settings.host, settings.port), timeout=max(1.0, timeout_s))
        port.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except (OSError, UnicodeError) as error:  # the latter for a name that can be none
        raise LinkLost(f"{settings.place}: {_words(error)}") from None
    port.settimeout(timeout_s)
    return port


def _open_serial(settings: ModbusSettings) -> serial.Serial:
    try:
        return serial.Serial(
            settings.serial,
            settings.baud,
            parity={"none": "N", "even": "E", "odd": "O"}[settings.parity],
            stopbits=settings.stop_bits,
            timeout=0,
            write_timeout=1.0,
            exclusive=True,
        )
    except (OSError, ValueError) as error:
        raise LinkLost(f"{settings.serial}: {_words(error)}") from None


def _words(error: Exception) -> str:
    """What the system says; pyserial's own text repeats the path and the number."""
    number = error.errno if isinstance(error, OSError) else None
    return os.strerror(number) if number else str(error)


def _bits_of_a_byte(settings: ModbusSettings) -> int:
    return 9 + settings.stop_bits + (settings.parity != "none")


def _answer_bytes(request: ModbusPDU) -> int:
    bits = isinstance(request, (ReadCoilsRequest, ReadDiscreteInputsRequest))
    return _FRAME_OVERHEAD_BYTES + (request.count // 8 if bits else 2 * request.count)


def _check(request: ModbusPDU, answer: ModbusPDU) -> None:
    """Garbage if this is no answer to that, Refused if it is an exception."""
    if answer.function_code == request.function_code | 0x80:
        raise Refused(answer.exception_code)
    if answer.function_code != request.function_code:
        raise Garbage(f"an answer to function {answer.function_code & 0x7F} instead of {request.function_code}")
    if isinstance(request, (WriteSingleCoilRequest, WriteSingleRegisterRequest)):
        if (answer.address, answer.bits, answer.registers) != (request.address, request.bits, request.registers):
            raise Garbage("it repeats another address or value than was written")
    elif isinstance(request, (ReadCoilsRequest, ReadDiscreteInputsRequest)):
        if len(answer.bits) != (request.count + 7) // 8 * 8:
            raise Garbage(f"{len(answer.bits)} bits instead of {request.count}")
    elif len(answer.registers) != request.count:
        raise Garbage(f"{len(answer.registers)} registers instead of {request.count}")
