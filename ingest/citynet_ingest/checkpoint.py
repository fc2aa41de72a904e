"""A worker's snapshot: the rules engine's state and the open buckets of the rollups, which belong to one moment, as bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from citynet.errors import CitynetError
from citynet_ingest.commit import Commit
from citynet_ingest.state import State
from citynet_rules.engine import Part
from citynet_rules.transition import NONE_US

_MAGIC = b"CNIW\x01"  # the last byte is the version of this format
_HEAD = len(_MAGIC) + 4


def take(state: State, commit: Commit, now_us: int) -> None:
    """Let `commit` store the state as it is, and with it the buckets of series that fell silent (`Rollup.close_idle`).

    The commit must be the last one that moved the state.
    """
    commit.partials = commit.partials.plus(*state.rollup.close_idle(now_us))
    engine = state.engine.snapshot()
    commit.snapshot = _MAGIC + len(engine).to_bytes(4, "little") + engine + state.rollup.snapshot()


def split(snapshot: bytes) -> tuple[bytes, bytes | None]:
    """(state of the engine, open buckets) of a snapshot; no buckets in one of a worker before there were rollups.

    Raises:
        CitynetError: of another version.
    """
    if snapshot[:4] != _MAGIC[:4]:
        return snapshot, None
    if snapshot[: len(_MAGIC)] != _MAGIC:
        raise CitynetError(f"worker snapshot: format version {snapshot[4:5].hex() or 'missing'}, not {_MAGIC[4]}")
    end = _HEAD + int.from_bytes(snapshot[len(_MAGIC) : _HEAD], "little")
    return snapshot[_HEAD:end], snapshot[end:]


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
