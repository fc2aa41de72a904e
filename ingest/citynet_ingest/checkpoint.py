"""A worker's snapshot: the rules engine's state and the open buckets of the rollups, which belong to one moment, as bytes.

It is deflated here, quickly: columns of a city come to a tenth, and the server, which would compress what it is given at a
fifth of the speed, leaves it alone.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from citynet.errors import CitynetError
from citynet_ingest.commit import Commit
from citynet_ingest.state import State
from citynet_rules.engine import Part
from citynet_rules.transition import NONE_US

_MAGIC = b"CNIW\x02"  # the last byte is the version of this format
_BEFORE = b"CNIW\x01"  # the same, not deflated
_HEAD = 4  # bytes that give the length of the engine's state
_LEVEL = 1  # others take several times as long for a few per cent
_BYTES_MAX = 2 << 30  # inflated


def take(state: State, commit: Commit, now_us: int) -> None:
    """Let `commit` store the state as it is, and with it the buckets of series that fell silent (`Rollup.close_idle`) or have
    a lateness bound since this start (`Rollup.forget`).

    The commit must be the last one that moved the state.
    """
    commit.partials = commit.partials.plus(*state.rollup.forget(state.engine.bounded()))
    commit.partials = commit.partials.plus(*state.rollup.close_idle(now_us))
    engine = state.engine.snapshot()
    deflate = zlib.compressobj(_LEVEL)
    pieces = (len(engine).to_bytes(_HEAD, "little"), engine, state.rollup.snapshot())
    commit.snapshot = b"".join([_MAGIC, *map(deflate.compress, pieces), deflate.flush()])


def split(snapshot: bytes) -> tuple[bytes, bytes | None]:
    """(state of the engine, open buckets) of a snapshot; no buckets in one of a worker before there were rollups.

    Raises:
        CitynetError: damaged, or of another version.
    """
    magic, body = snapshot[: len(_MAGIC)], snapshot[len(_MAGIC) :]
    if magic[:4] != _MAGIC[:4]:
        return snapshot, None
    if magic == _MAGIC:
        body = _inflated(body)
    elif magic != _BEFORE:
        raise CitynetError(f"worker snapshot: format version {magic[4:].hex() or 'missing'}, not {_MAGIC[4]}")
    end = _HEAD + int.from_bytes(body[:_HEAD], "little")
    return body[_HEAD:end], body[end:]


def _inflated(body: bytes) -> bytes:
    inflate = zlib.decompressobj()
    try:
        found = inflate.decompress(body, _BYTES_MAX)
    except zlib.error as error:
        raise CitynetError(f"worker snapshot: damaged ({error})") from None
    if not inflate.eof:
        raise CitynetError("worker snapshot: damaged (it is cut off, or too large)")
    return found


def restore(state: State, parts: Sequence[Part]) -> None:
    """Bring engine and open buckets to where snapshots were taken; each part's `state` is a whole snapshot. Of a series that
    several parts have, the first one's counts. Buckets of series whose newest reading the engine does not know are left out:
    they are rebuilt from the store.

    Raises:
        CitynetError: not a snapshot, damaged, or of another version.
    """
    pieces = [(part, *split(part.state)) for part in parts]
    state.engine.restore_parts([replace(part, state=engine) for part, engine, _ in pieces])
    ids, tip_us = state.engine.tips()
    known = ids[tip_us > NONE_US]
    for part, _, buckets in reversed(pieces):
        if buckets is not None:
            state.rollup.restore(buckets, known[part.has(known)].astype(np.int32))
