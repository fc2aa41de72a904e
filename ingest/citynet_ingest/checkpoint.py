"""A worker's snapshot: the rules engine's state and the open buckets of the rollups, which belong to one moment, as bytes."""

from __future__ import annotations

import numpy as np

from citynet.errors import CitynetError
from citynet_ingest.commit import Commit
from citynet_ingest.plan import State
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


def restore(state: State, snapshot: bytes) -> None:
    """Bring engine and open buckets to where the snapshot was taken. Buckets of series whose newest reading the engine
    does not know are left out: they are rebuilt from the store.

    Raises:
        CitynetError: not a snapshot, damaged, or of another version.
    """
    if snapshot[:4] != _MAGIC[:4]:  # the engine's alone: of a worker before there were rollups
        state.engine.restore(snapshot)
        return
    if snapshot[: len(_MAGIC)] != _MAGIC:
        raise CitynetError(f"worker snapshot: format version {snapshot[4:5].hex() or 'missing'}, not {_MAGIC[4]}")
    end = _HEAD + int.from_bytes(snapshot[len(_MAGIC) : _HEAD], "little")
    state.engine.restore(snapshot[_HEAD:end])
    ids, tip_us = state.engine.tips()
    state.rollup.restore(snapshot[end:], ids[tip_us > NONE_US].astype(np.int32))
