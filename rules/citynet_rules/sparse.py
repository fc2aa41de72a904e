"""Rows of states as bytes without their zeros: windows, rings and cells are mostly empty.

Rows are taken in pieces of `PIECE_BYTES`. A piece is cut into words of 8 bytes (the last one filled up with zeros). Stored
are one bit a word, set where it is not zero, in whole bytes, and then these words. How many rows there are is known elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from citynet.batch import I64, U8, Bools
from citynet_rules.kinds.kind import Rows

PIECE_BYTES = 4 << 20  # part of the format
_WORD = 8
Buffer = bytes | bytearray | memoryview


def pieces(count: int, row_bytes: int) -> Iterator[slice]:
    """Rows 0 to `count` in the pieces in which they are stored."""
    step = max(1, PIECE_BYTES // row_bytes)
    return (slice(first, min(first + step, count)) for first in range(0, count, step))


def pack(rows: Callable[[slice], Rows], count: int, row_bytes: int) -> bytes:
    """`count` rows, asked for piece by piece."""
    return b"".join(part for piece in pieces(count, row_bytes) for part in _packed(rows(piece)))


def unpack(state: Buffer, count: int, layout: np.dtype[np.void]) -> Iterator[tuple[slice, Rows]]:
    """The rows of `pack`, piece by piece. They are not to be kept.

    Raises:
        ValueError: `state` is of another length.
    """
    place = 0
    for piece in pieces(count, layout.itemsize):
        row_bytes = (piece.stop - piece.start) * layout.itemsize
        words: I64 = np.zeros(-(-row_bytes // _WORD), np.int64)
        is_set = _bits(state, place, len(words))
        place += -(-len(words) // 8)
        kept = int(np.count_nonzero(is_set))
        words[is_set] = np.frombuffer(state, "<i8", kept, place)
        place += kept * _WORD
        yield piece, words.view(np.uint8)[:row_bytes].view(layout)
    if place != len(state):
        raise ValueError(f"{len(state)} bytes, not {place}")


def fits(state: Buffer, count: int, layout: np.dtype[np.void]) -> bool:
    """Whether `state` can be unpacked."""
    place = 0
    for piece in pieces(count, layout.itemsize):
        words = -(-((piece.stop - piece.start) * layout.itemsize) // _WORD)
        if place + -(-words // 8) > len(state):
            return False
        place += -(-words // 8) + _WORD * int(np.count_nonzero(_bits(state, place, words)))
    return place == len(state)


def _packed(rows: Rows) -> tuple[bytes, bytes]:
    cells: U8 = np.ascontiguousarray(rows).view(np.uint8)
    if left := -len(cells) % _WORD:
        cells = np.append(cells, np.zeros(left, np.uint8))
    words = cells.view("<i8")
    is_set = words != 0
    return np.packbits(is_set).tobytes(), words[is_set].tobytes()


def _bits(state: Buffer, place: int, count: int) -> Bools:
    found: Bools = np.unpackbits(np.frombuffer(state, np.uint8, -(-count // 8), place), count=count).view(np.bool_)
    return found
