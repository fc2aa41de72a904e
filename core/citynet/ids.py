"""Identifiers and shards: names of gateways, devices and metrics, and who owns them."""

from __future__ import annotations

import re
import zlib
from functools import lru_cache

from citynet.errors import DecodeError

SHARDS = 64
ID_CHARS_MAX = 64
_REMEMBERED = 65_536
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


@lru_cache(_REMEMBERED)  # the same few names come again with every message
def is_id(text: str) -> bool:
    """Whether `text` is an identifier: 1 to 64 of ``A-Z a-z 0-9 . _ -``."""
    return _ID.fullmatch(text) is not None


def check_id(text: object, where: str) -> str:
    """Return `text` if it is an identifier, else raise `DecodeError` that names `where`."""
    if not isinstance(text, str) or _ID.fullmatch(text) is None:
        raise DecodeError("bad-identifier", where, f"{str(text)[:80]!r} is not 1..64 of A-Z a-z 0-9 . _ -")
    return text


def shard_of(identifier: str) -> int:
    """Shard 0..63 of a gateway or direct device: CRC-32 of its id modulo 64 (the unit of work that a worker owns)."""
    return zlib.crc32(identifier.encode("ascii")) % SHARDS


def shard_of_text(text: str) -> int:
    """`shard_of` for a text that may be no identifier."""
    return zlib.crc32(text.encode("utf-8", "surrogatepass")) % SHARDS
