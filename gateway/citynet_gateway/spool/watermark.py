"""The watermark file: which records the server has, and what we told it, per epoch and stream.

Two slots, written in turn and each synced, so that a cut during a write leaves the other slot whole. A slot
is magic, generation, length, CRC-32C and a MessagePack body. The newer whole slot counts; if both are broken
the spool starts without
a watermark: it then sends what it holds again, and the server, which has the cursor, drops the duplicates.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import google_crc32c
import msgspec

from citynet.control import Stream
from citynet_gateway.spool.files import File, Files, close_quietly, write_all

SLOT_BYTES = 64 << 10
MARKS_MAX = 1_024  # of at most 45 bytes: they fit a slot
DROPS_MAX = 700  # of all marks together, of at most 20 bytes: what is left of a slot
_SLOT = struct.Struct("<8sQII")  # magic, generation, length, crc
_MAGIC = b"CNWMK\x01\r\n"


class Mark(msgspec.Struct, frozen=True, array_like=True):
    """One epoch in one stream.

    `acked` by the server, `claimed` towards it, `opening` gives the epochs' order. `tail_bytes`: the size of the last segment
    of an epoch that no longer grows; while it is that, the segment need not be read to know where the epoch ends. `drops`:
    what was given up, as (first, last, place of the reason in `reader.GIVEN_UP`).
    """

    opening: int
    epoch: int
    stream: Stream
    acked: int
    claimed: int
    tail_bytes: int = 0
    drops: tuple[tuple[int, int, int], ...] = ()


class _Body(msgspec.Struct, frozen=True, array_like=True):
    opening: int
    marks: list[Mark]
    clock_s: int = 0


_decoder = msgspec.msgpack.Decoder(_Body)


class WatermarkFile:
    """Reads and writes the two slots.

    `opening` counts the openings of the spool, `clock_s` the seconds it was open: a clock that nobody sets.
    """

    def __init__(self, files: Files, path: Path) -> None:
        self._files = files
        self._path = path
        self._file: File | None = None
        self._generation = 0
        self.opening = 0
        self.clock_s = 0
        self.damaged_slots = 0

    def load(self) -> list[Mark]:
        """The newer whole slot's marks.

        Empty if there is none. Never fails: unreadable is the same as absent.
        """
        best: _Body | None = None
        for slot in range(2):
            found = self._load_slot(slot)
            if found is not None and found[0] > self._generation:
                self._generation, best = found
        if best is None:
            return []
        self.opening, self.clock_s = best.opening, best.clock_s
        return best.marks

    def _load_slot(self, slot: int) -> tuple[int, _Body] | None:
        try:
            data = self._files.read(self._path, slot * SLOT_BYTES, SLOT_BYTES)
        except FileNotFoundError:
            return None
        except OSError:
            self.damaged_slots += 1
            return None
        if len(data) < _SLOT.size or not any(data[: _SLOT.size]):
            return None
        magic, generation, length, crc = _SLOT.unpack_from(data)
        body = data[_SLOT.size : _SLOT.size + length]
        if magic == _MAGIC and len(body) == length and crc == _crc(generation, body):
            try:
                return generation, _decoder.decode(body)
            except msgspec.DecodeError:
                pass
        self.damaged_slots += 1
        return None

    def save(self, marks: Sequence[Mark]) -> None:
        """Persist `marks` (at most `MARKS_MAX`: the caller chooses) in the older slot.

        Raises:
            OSError: the slot is in doubt, the other one still counts; the same slot is tried again next time.
        """
        generation = self._generation + 1
        body = msgspec.msgpack.encode(_Body(self.opening, list(marks), self.clock_s))
        slot = _SLOT.pack(_MAGIC, generation, len(body), _crc(generation, body)) + body
        if len(slot) > SLOT_BYTES:
            raise ValueError(f"{len(marks)} marks do not fit a slot")
        fresh = self._file is None
        file = self._file = self._file or self._files.open(self._path)
        try:
            write_all(file, slot, (generation % 2) * SLOT_BYTES)
            file.datasync()
            if fresh:
                self._files.sync_folder(self._path.parent)
        except OSError:
            # After a failed sync the kernel may forget the dirty pages: a new descriptor and a whole new
            # write.
            self._file = None
            close_quietly(file)
            raise
        self._generation = generation

    def reserve(self) -> None:
        """Take the room of both slots now: what is lost on a full disk must be written down on a full disk.

        Raises:
            OSError: there is no room.
        """
        size = self._files.size(self._path)
        if size < 2 * SLOT_BYTES:
            file = self._file = self._file or self._files.open(self._path)
            write_all(file, bytes(2 * SLOT_BYTES - size), size)
            file.datasync()

    def close(self) -> None:
        if self._file is not None:
            close_quietly(self._file)
            self._file = None


def _crc(generation: int, body: bytes) -> int:
    return int(google_crc32c.extend(google_crc32c.value(generation.to_bytes(8, "little")), body))
