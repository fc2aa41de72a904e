"""A worker's snapshot as bytes: deflated, checked, and still read as it was written before."""

from __future__ import annotations

import numpy as np
import pytest

from citynet.batch import SeriesBatch
from citynet.errors import CitynetError
from citynet_ingest import checkpoint
from citynet_ingest.commit import Commit
from citynet_ingest.state import State
from citynet_ingest.watermarks import Watermarks
from citynet_rules.engine import Engine, Part, SeriesInfo
from citynet_rules.spec import RuleSet

BEGIN_US = 1_800_000_000_000_000
INFOS = [SeriesInfo(n, f"gas-{n}", "ch4_lel", "gw") for n in range(1, 401)]


def fresh() -> State:
    state = State(Engine(RuleSet()), {}, Watermarks(0, 0))
    state.engine.bind(INFOS)
    return state


@pytest.fixture
def state() -> State:
    """A worker that has heard of every series."""
    found = fresh()
    series = np.array([info.id for info in INFOS], np.int32)
    time_us = BEGIN_US + 1000 * np.arange(len(INFOS), dtype=np.int64)
    rows = SeriesBatch(series, time_us, np.full(len(INFOS), 1.5), np.zeros(len(INFOS), np.uint8))
    found.engine.feed(rows)
    found.rollup.feed(rows)
    return found


def taken(state: State) -> bytes:
    commit = Commit(1, SeriesBatch.empty())
    checkpoint.take(state, commit, BEGIN_US)
    assert commit.snapshot is not None
    return commit.snapshot


def same(one: State, other: State) -> bool:
    return (one.engine.snapshot(), one.rollup.snapshot()) == (other.engine.snapshot(), other.rollup.snapshot())


def test_what_is_taken_is_restored_and_small(state: State) -> None:
    kept, restored = taken(state), fresh()
    checkpoint.restore(restored, [Part(kept)])
    assert same(restored, state)
    assert len(kept) < 0.3 * len(state.engine.snapshot() + state.rollup.snapshot())


def test_the_form_before_is_read_too(state: State) -> None:
    engine = state.engine.snapshot()
    before = b"CNIW\x01" + len(engine).to_bytes(4, "little") + engine + state.rollup.snapshot()
    restored = fresh()
    checkpoint.restore(restored, [Part(before)])
    assert same(restored, state)
    alone = fresh()
    checkpoint.restore(alone, [Part(engine)])  # of a worker before there were rollups
    assert alone.engine.snapshot() == engine


@pytest.mark.parametrize("damage", ["cut", "bit", "version", "nothing"])
def test_damage_is_refused_in_one_line(state: State, damage: str) -> None:
    kept = bytearray(taken(state))
    if damage == "cut":
        del kept[-20:]
    elif damage == "bit":
        kept[len(kept) // 2] ^= 4
    elif damage == "version":
        kept[4] = 9
    else:
        del kept[5:]
    with pytest.raises(CitynetError, match="snapshot: "):
        checkpoint.restore(fresh(), [Part(bytes(kept))])
