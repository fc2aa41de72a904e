"""Small state that must survive a power cut whole: written aside, synced, renamed; read back only if its checksum holds."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TypeVar

import google_crc32c
import msgspec

from citynet_gateway.spool.files import Files, replace_durably

STATE_BYTES_MAX = 1 << 20
_MAGIC = b"CNST1\r\n\n"
_HEAD_BYTES = len(_MAGIC) + 4

T = TypeVar("T", bound=msgspec.Struct)


def save(files: Files, path: Path, state: msgspec.Struct) -> None:
    """Replace the state in `path`. OSError as the storage says; ValueError beyond `STATE_BYTES_MAX`."""
    body = msgspec.json.encode(state)
    if len(body) > STATE_BYTES_MAX:
        raise ValueError(f"{path.name}: {len(body)} bytes of state, at most {STATE_BYTES_MAX}")
    replace_durably(files, path, _MAGIC + int(google_crc32c.value(body)).to_bytes(4, "little") + body)


def load(files: Files, path: Path, kind: type[T]) -> T | None:
    """The state in `path`; None if there is none, or none that is whole. What is returned survives a power cut from now on."""
    try:
        data = files.read(path, 0, STATE_BYTES_MAX + _HEAD_BYTES)
    except OSError:
        return None
    with contextlib.suppress(OSError):  # e.g. somebody who may only read looks at it
        # A process that was killed between rename and sync left a state that only the page cache knows.
        files.sync_folder(path.parent)
    body = data[_HEAD_BYTES:]
    if not data.startswith(_MAGIC) or data[len(_MAGIC) : _HEAD_BYTES] != int(google_crc32c.value(body)).to_bytes(
        4, "little"
    ):
        return None
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
