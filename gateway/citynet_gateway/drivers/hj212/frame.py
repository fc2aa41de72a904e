"""Frames of HJ 212-2017, without IO: ``##``, four digits of length, the data segment, four hex digits of checksum, CR LF.

A data segment is ASCII text without line ends and without ``##``. So a frame whose length is wrong, or that was cut off,
ends at the next ``##`` or line end, and the frame behind it is not lost. What a stream of bytes gives does not depend on
how it was cut into reads.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

CHECKSUM_CHARS = 4
GARBAGE_BYTES_MAX = 1_024  # of one `Broken`
LENGTH_MAX = 9_999  # four digits

_HEAD_BYTES = 6
_HEAD = re.compile(rb"##(\d{4})")
_HALF_HEAD = re.compile(rb"(?:##\d{0,3}|#)\Z")
_CUT = re.compile(rb"##|[\r\n]")
_CUT_IN_CHECKSUM = re.compile(rb"[#\r\n]")
_BLANK = b"\r\n \t\0"
_POLYNOMIAL = 0xA001


def _rest(value: int) -> int:
    """What eight steps of division leave of a byte."""
    for _ in range(8):
        value = (value >> 1) ^ _POLYNOMIAL if value & 1 else value >> 1
    return value


_RESTS = tuple(_rest(value) for value in range(256))


def checksum(data: bytes) -> int:
    """The standard's own 16-bit checksum (its appendix A), start value FFFF.

    It is not CRC-16/Modbus: the register is shifted by eight bits *before* the byte is xored into it.
    """
    register = 0xFFFF
    for byte in data:
        register = (register >> 8) ^ byte
        register = (register >> 8) ^ _RESTS[register & 0xFF]
    return register


def checksum_modbus(data: bytes) -> int:
    """CRC-16/Modbus, which some loggers send instead."""
    register = 0xFFFF
    for byte in data:
        register = (register >> 8) ^ _RESTS[(register ^ byte) & 0xFF]
    return register


CHECKSUMS: Mapping[str, Callable[[bytes], int]] = {"hj212": checksum, "modbus-crc": checksum_modbus}


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame as long as it says it is; its checksum is not looked at yet."""

    data: bytes
    checksum: bytes

    def holds(self, kind: str) -> bool:
        """Whether the checksum is right; `kind` is a key of `CHECKSUMS`. Upper and lower case digits count alike."""
        return self.checksum.upper() == b"%04X" % CHECKSUMS[kind](self.data)

    def raw(self) -> bytes:
        """The frame as it came, without its line end."""
        return b"##%04d%b%b" % (len(self.data), self.data, self.checksum)


@dataclass(frozen=True, slots=True)
class Broken:
    """Bytes that are no frame: `reason` is ``garbage``, ``bad-length`` or ``cut-short``."""

    reason: str
    data: bytes


def encode(data: bytes, kind: str = "hj212") -> bytes:
    """A data segment as a frame. ValueError if it is too long for one."""
    if len(data) > LENGTH_MAX:
        raise ValueError(f"a data segment of {len(data)} bytes, at most {LENGTH_MAX}")
    return b"##%04d%b%04X\r\n" % (len(data), data, CHECKSUMS[kind](data))


class Deframer:
    """Bytes in, frames out. Holds at most one frame and what was fed last."""

    def __init__(self, data_bytes_max: int) -> None:
        self._data_bytes_max = data_bytes_max
        self._buffer = bytearray()

    @property
    def waiting(self) -> bool:
        """Whether something was begun and not ended."""
        return bool(self._buffer.strip(_BLANK))

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def next(self) -> Frame | Broken | None:
        """The next frame, or what stands in its place; None until more is fed."""
        while True:
            head = self._head()
            between = len(self._buffer) - self._half_head() if head is None else head
            if head is None and between < GARBAGE_BYTES_MAX:
                return None
            if between == 0:
                return self._frame()
            skipped = self._take(min(between, GARBAGE_BYTES_MAX)).strip(_BLANK)
            if skipped:
                return Broken("bad-length" if b"##" in skipped else "garbage", skipped)

    def rest(self) -> Broken | None:
        """What was left when the stream ended."""
        left = self._take(len(self._buffer)).strip(_BLANK)
        return Broken("cut-short" if left.startswith(b"##") else "garbage", left) if left else None

    def _head(self) -> int | None:
        """Where the next frame begins that is not longer than allowed."""
        found = (match.start() for match in _HEAD.finditer(self._buffer) if int(match[1]) <= self._data_bytes_max)
        return next(found, None)

    def _half_head(self) -> int:
        """How many bytes at the end may become a head."""
        match = _HALF_HEAD.search(self._buffer[-(_HEAD_BYTES - 1) :])
        return len(match[0]) if match else 0

    def _frame(self) -> Frame | Broken | None:
        size = int(self._buffer[2:_HEAD_BYTES])
        end = _HEAD_BYTES + size + CHECKSUM_CHARS
        cut = _CUT.search(self._buffer, _HEAD_BYTES, end)
        cut = cut or _CUT_IN_CHECKSUM.search(self._buffer, end - CHECKSUM_CHARS, end)
        if cut is not None:
            return Broken("cut-short", self._take(cut.start()))
        if len(self._buffer) < end:
            return None
        whole = self._take(end)
        return Frame(whole[_HEAD_BYTES:-CHECKSUM_CHARS], whole[-CHECKSUM_CHARS:])

    def _take(self, size: int) -> bytes:
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken
