"""From registers to a reading's value and quality, pure.

A value that is no number is a reading of quality bad; nothing that a device said is left out.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from decimal import Decimal
from math import isfinite, nan

from citynet.quality import BAD, GOOD, OUT_OF_RANGE, UNCERTAIN
from citynet_gateway.drivers.modbus.settings import RegisterSettings

_FORMATS = {
    "u16": ">H", "i16": ">h", "u32": ">I", "i32": ">i", "u64": ">Q", "i64": ">q", "f32": ">f", "f64": ">d",
}  # fmt: skip
_EXACT_MAX = 1 << 53  # larger integers are not all doubles


class ValueCodec:
    """Decodes one value of a register map."""

    def __init__(self, register: RegisterSettings) -> None:
        self.register = register
        # Decimal, because 3 * 0.1 should read 0.3, as the manual of the device has it.
        self._scale = Decimal(repr(register.scale))
        self._offset = Decimal(repr(register.offset))
        self._plain = register.scale == 1 and register.offset == 0
        self._invalid = frozenset(register.invalid)

    def decode(self, words: Sequence[int]) -> tuple[float, int]:
        """Value (in the unit after scaling) and quality code of the value's own registers or bit, lowest address first."""
        register = self.register
        if register.kind == "bit":
            return float((words[0] >> register.bit) & 1 if register.bit is not None else bool(words[0])), GOOD
        raw = b"".join(
            word.to_bytes(2, register.byte_order) for word in words[:: 1 if register.word_order == "big" else -1]
        )
        if int.from_bytes(raw, "big") in self._invalid:
            return nan, BAD
        (number,) = struct.unpack(_FORMATS[register.kind], raw)
        value = self._scaled(number)
        if not isfinite(value):
            return nan, BAD
        quality = GOOD if isinstance(number, float) or abs(number) <= _EXACT_MAX else UNCERTAIN
        low, high = register.min, register.max
        if (low is not None and value < low) or (high is not None and value > high):
            quality = UNCERTAIN | OUT_OF_RANGE
        return value, quality

    def _scaled(self, number: int | float) -> float:
        if self._plain or not isfinite(number):
            return float(number)
        if isinstance(number, float):
            return number * self.register.scale + self.register.offset
        try:
            return float(Decimal(number) * self._scale + self._offset)
        except ArithmeticError:
            return nan
