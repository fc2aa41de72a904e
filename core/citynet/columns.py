"""Typed columns of the wire (RFC 8746 typed arrays), without numpy: the gateway must stay light.

A `Column` is a format such as ``<u4`` (numpy's spelling, so that `numpy.frombuffer` takes it as it is) and the bytes.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import cbor2

from citynet.errors import DecodeError

# RFC 8746, table 1, without the 16-bit and 128-bit floats and the clamped bytes, which no sensor sends.
FORMAT_OF_TAG = {
    64: "|u1", 65: ">u2", 66: ">u4", 67: ">u8", 69: "<u2", 70: "<u4", 71: "<u8",
    72: "|i1", 73: ">i2", 74: ">i4", 75: ">i8", 77: "<i2", 78: "<i4", 79: "<i8",
    81: ">f4", 82: ">f8", 85: "<f4", 86: "<f8",
}  # fmt: skip
TAG_OF_FORMAT = {fmt: tag for tag, fmt in FORMAT_OF_TAG.items()}
UNSIGNED = frozenset({"u1", "u2", "u4"})
INTEGERS = frozenset({"u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8"})
FLOATS = frozenset({"f4", "f8"})
_ARRAY_CODES = {
    "u1": "B",
    "u2": "H",
    "u4": "I",
    "u8": "Q",
    "i1": "b",
    "i2": "h",
    "i4": "i",
    "i8": "q",
    "f4": "f",
    "f8": "d",
}
_NATIVE = "<" if sys.byteorder == "little" else ">"


@dataclass(frozen=True, slots=True)
class Column:
    """One typed array as it travels: `fmt` in numpy's spelling, `data` its bytes."""

    fmt: str
    data: bytes

    @property
    def kind(self) -> str:
        """Type without byte order: ``u4``, ``i8``, ``f8`` …"""
        return self.fmt[1:]

    def __len__(self) -> int:
        return len(self.data) // int(self.fmt[2])

    def native(self) -> array[int] | array[float]:
        """The values as a standard-library array in this machine's byte order."""
        values: array[int] | array[float] = array(_ARRAY_CODES[self.kind], self.data)
        if self.fmt[0] not in ("|", _NATIVE):
            values.byteswap()
        return values

    def to_tag(self) -> cbor2.CBORTag:
        return cbor2.CBORTag(TAG_OF_FORMAT[self.fmt], self.data)


def pack(kind: str, values: Sequence[int] | Sequence[float]) -> Column:
    """Pack `values` as `kind` (``u1`` … ``f8``) in native byte order. OverflowError if one does not fit."""
    fmt = ("|" if kind.endswith("1") else _NATIVE) + kind
    return Column(fmt, array(_ARRAY_CODES[kind], values).tobytes())


def pack_index(values: Sequence[int], size: int) -> Column:
    """Pack indexes below `size` in the narrowest unsigned type."""
    return pack("u1" if size <= 0x100 else "u2" if size <= 0x10000 else "u4", values)


def pack_offsets(values: Sequence[int]) -> Column:
    """Pack time offsets in 32 bits when all fit, else in 64."""
    wide = any(not -0x8000_0000 <= v <= 0x7FFF_FFFF for v in (min(values, default=0), max(values, default=0)))
    return pack("i8" if wide else "i4", values)


def pack_values(values: Sequence[float]) -> Column:
    """Pack floats in 32 bits when that loses nothing (most sensors), else in 64."""
    try:
        narrow = array("f", values)
    except OverflowError:
        return pack("f8", values)
    return pack("f4" if narrow.tolist() == list(values) else "f8", values)


def from_wire(value: object, where: str, kinds: frozenset[str], default_kind: str) -> Column:
    """A column out of a decoded envelope: a typed array (CBOR) or a plain list (JSON).

    Args:
        kinds: the accepted types; `default_kind`: the type a plain list is packed as.

    Raises:
        DecodeError: not a column, of a type that is not accepted, torn, or with a value that does not fit.
    """
    if isinstance(value, cbor2.CBORTag):
        fmt = FORMAT_OF_TAG.get(value.tag)
        if fmt is None or fmt[1:] not in kinds or not isinstance(value.value, bytes):
            raise DecodeError("bad-column-type", where, f"tag {value.tag} is not accepted here")
        if len(value.value) % int(fmt[2]):
            raise DecodeError("torn-column", where, f"{len(value.value)} bytes are no whole number of {fmt[1:]}")
        return Column(fmt, value.value)
    if isinstance(value, list):
        return _from_list(value, where, default_kind)
    raise DecodeError("bad-column-type", where, f"{type(value).__name__} is not a typed array or list")


def _from_list(values: list[object], where: str, kind: str) -> Column:
    numeric = (int, float) if kind in FLOATS else (int,)
    cleaned: list[float] = []
    for position, item in enumerate(values):
        if item is None and kind in FLOATS:  # JSON has no NaN; null says "no value"
            cleaned.append(float("nan"))
        elif isinstance(item, numeric) and not isinstance(item, bool):
            cleaned.append(item)
        else:
            raise DecodeError("bad-value", f"{where}[{position}]", f"{str(item)[:40]!r} is not a number of type {kind}")
    try:
        return pack(kind, cleaned)
    except OverflowError as error:
        raise DecodeError("value-too-large", where, str(error)) from None
