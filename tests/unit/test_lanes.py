"""Lanes: which ranges of shards are whole, and how they are dealt to workers."""

from __future__ import annotations

import sys
from itertools import chain
from subprocess import run

import pytest

from citynet.errors import ConfigError
from citynet.ids import SHARDS, shard_of
from citynet.runtime.settings import load
from citynet_ingest.lanes import LANES, SHARDS_PER_LANE, dealt, filters_of, lane_of, lanes_of, shards_of
from citynet_ingest.settings import IngestSettings


def test_every_shard_is_in_one_lane() -> None:
    assert sorted(chain.from_iterable(shards_of(lane) for lane in range(LANES))) == list(range(SHARDS))
    assert all(shard_of(f"gw-{n}") in shards_of(lane_of(f"gw-{n}")) for n in range(500))


def test_sessions_of_all_lanes_subscribe_to_every_shard_once() -> None:
    data = [f.pattern for lane in range(LANES) for f in filters_of(lane) if f.pattern.count("/") == 4]
    assert len(data) == len(set(data)) == 2 * SHARDS


@pytest.mark.parametrize("low", range(0, SHARDS, 3))
def test_only_whole_lanes_are_a_range(low: int) -> None:
    for stop in range(low + 1, SHARDS + 1):
        shards = range(low, stop)
        if low % SHARDS_PER_LANE or stop % SHARDS_PER_LANE:
            with pytest.raises(ValueError, match="cuts a lane of 8 shards"):
                lanes_of(shards)
        else:
            assert list(chain.from_iterable(shards_of(lane) for lane in lanes_of(shards))) == list(shards)


def test_the_nearest_bounds_are_named() -> None:
    with pytest.raises(ValueError, match=r"9-17 cuts a lane .* here 8-23$"):
        lanes_of(range(9, 18))


@pytest.mark.parametrize("workers", range(1, LANES + 1))
def test_dealt_shards_are_whole_even_and_complete(workers: int) -> None:
    parts = dealt(range(SHARDS), workers)
    assert list(chain.from_iterable(parts)) == list(range(SHARDS))
    counts = [len(lanes_of(part)) for part in parts]
    assert max(counts) - min(counts) <= 1


def test_more_workers_than_lanes_is_an_error_that_says_so() -> None:
    with pytest.raises(ConfigError, match=r"--workers: .*3 workers for 2 lanes \(shards 16-31\): 1 to 2"):
        load(IngestSettings, None, {"shards": "16-31", "workers": 3})


def test_a_range_that_cuts_a_lane_is_a_usage_error() -> None:
    done = run([sys.executable, "-m", "citynet", "ingest", "run", "--shards", "0-10"], capture_output=True, check=False)
    assert done.returncode == 2
    assert b"0-10 cuts a lane" in b" ".join(done.stderr.split())
