"""The list of names in a CBOR envelope, recognised without decoding it.

A gateway sends the same names batch after batch, and they are most of what a general CBOR decoder has to make. So the bytes of
the last list are remembered per gateway and stream; when they stand in the same place again, at the top level of the map, the
decoder is given an empty list instead and the names are taken from memory. Whatever is not exactly so goes the ordinary way:
this module only ever says "these very bytes", never what they mean.
"""

from __future__ import annotations

from collections import OrderedDict

import cbor2

NAMES_MIN = 16  # fewer are decoded faster than they are skipped
BYTES_REMEMBERED_MAX = 16 << 20
_EMPTY_LIST = b"\x80"
_UINT, _BYTES, _TEXT, _MAP = 0, 2, 3, 5
_KEYS_MAX = 12

Names = tuple[str, ...]


class NamesMemory:
    """Encoded name lists of the last batches, oldest forgotten first. Not safe for threads; every decoder has its own."""

    def __init__(self, bytes_max: int = BYTES_REMEMBERED_MAX) -> None:
        self._known: OrderedDict[bytes, tuple[bytes, Names]] = OrderedDict()
        self._size = 0
        self._bytes_max = bytes_max

    def cut(self, payload: bytes) -> tuple[bytes, Names] | None:
        """(payload with an empty list of names, the names), or None if its names are not known."""
        place = find_names(payload)
        if place is None:
            return None
        sender, start = place
        known = self._known.get(sender)
        if known is None or not payload.startswith(known[0], start):
            return None
        self._known.move_to_end(sender)
        return payload[:start] + _EMPTY_LIST + payload[start + len(known[0]) :], known[1]

    def learn(self, payload: bytes, names: Names) -> None:
        """Remember the names of a payload that was decoded the ordinary way."""
        place = find_names(payload) if len(names) >= NAMES_MIN else None
        if place is None:
            return
        sender, start = place
        encoded = cbor2.dumps(list(names))
        if not payload.startswith(encoded, start):  # encoded in another way than the shortest
            return
        before = self._known.pop(sender, None)
        self._size += len(encoded) - (len(before[0]) if before else 0)
        self._known[sender] = encoded, names
        while self._size > self._bytes_max:
            _, (forgotten, _) = self._known.popitem(last=False)
            self._size -= len(forgotten)


def find_names(payload: bytes) -> tuple[bytes, int] | None:
    """(encoded `gw` and `st`, where the value of `names` begins) in a map that has them in this order.

    Walks the keys at the top level as far as `names`, over integers and strings only; None if there is anything else.
    """
    try:
        if payload[0] >> 5 != _MAP:
            return None
        entries, position = _head(payload, 0)
        sender = b""
        for _ in range(min(entries, _KEYS_MAX)):
            key_start = position
            position = _skip(payload, position)
            key = payload[key_start:position]
            if key == b"\x65names":
                return sender, position
            value_start = position
            position = _skip(payload, position)
            if key in (b"\x62gw", b"\x62st"):
                sender += payload[value_start:position]
    except (IndexError, ValueError):
        pass
    return None


def _head(payload: bytes, position: int) -> tuple[int, int]:
    """(argument, position behind it) of the data item at `position`. ValueError: of indefinite length, or reserved."""
    short = payload[position] & 0x1F
    if short < 24:
        return short, position + 1
    if short > 27:
        raise ValueError("no definite length")
    end = position + 1 + (1 << (short - 24))
    return int.from_bytes(payload[position + 1 : end]), end


def _skip(payload: bytes, position: int) -> int:
    """Position behind an integer or a string. ValueError on anything else."""
    major = payload[position] >> 5
    argument, behind = _head(payload, position)
    if major in (_BYTES, _TEXT):
        return behind + argument
    if major == _UINT:
        return behind
    raise ValueError("not an integer or a string")
