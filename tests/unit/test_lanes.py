"""Lanes: which ranges of shards are whole, and how they are dealt to workers."""

from __future__ import annotations

import sys
from itertools import chain
from subprocess import run

import mqtt5
import pytest

from citynet import formats, topics
from citynet.errors import ConfigError
from citynet.ids import SHARDS, shard_of
from citynet.runtime.settings import load
from citynet_ingest.inbox import Inbox
from citynet_ingest.intake import Intake
from citynet_ingest.lanes import (
    LANES,
    SHARDS_PER_LANE,
    broker_filters_of,
    dealt,
    filters_of,
    lane_of,
    lanes_of,
    shards_of,
)
from citynet_ingest.parcel import Origin, PassedParcel
from citynet_ingest.settings import IngestSettings
from citynet_ingest.sources import Sources
from citynet_ingest.state import Receipts


def test_every_shard_is_in_one_lane() -> None:
    assert sorted(chain.from_iterable(shards_of(lane) for lane in range(LANES))) == list(range(SHARDS))
    assert all(shard_of(f"gw-{n}") in shards_of(lane_of(f"gw-{n}")) for n in range(500))


def test_sessions_of_all_lanes_subscribe_to_every_shard_once() -> None:
    data = [f.pattern for lane in range(LANES) for f in filters_of(lane) if f.pattern.count("/") == 4]
    assert len(data) == len(set(data)) == 3 * SHARDS


def test_one_lane_hears_what_the_broker_says_of_itself() -> None:
    heard = {lane: [item.pattern for item in broker_filters_of(lane)] for lane in range(LANES)}
    assert heard == {lane: [topics.BROKER_DROPPED] if lane == 0 else [] for lane in range(LANES)}


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


@pytest.mark.parametrize("topic", ["hello/gw 1", "status/网关", "status/", "hello/gw-1"])
def test_what_every_lane_hears_is_one_lanes_business(topic: str) -> None:
    """Bad identifiers and bad bodies too: one dead letter, not eight."""
    packet = mqtt5.PublishPacket(f"{topics.ROOT}/{topic}", b"junk", qos=mqtt5.QoS.AT_LEAST_ONCE, packet_id=1)
    parcels = [
        Intake(shards_of(lane), formats.THINGSBOARD, Sources([]), lane).take(packet, 1, 0) for lane in range(LANES)
    ]
    assert sorted(type(parcel).__name__ for parcel in parcels) == ["PassedParcel"] * 7 + ["PoisonParcel"]


def test_a_lane_that_reconnects_takes_only_its_own_out_of_the_inbox() -> None:
    inbox = Inbox(100, 100, 1 << 20)
    for lane, generation in ((1, 1), (2, 1), (1, 1), (2, 1)):
        inbox.put([(PassedParcel(Origin("t", 1, generation, False, 0, "", b"", lane)), 1, 10)])
    inbox.clear(1)
    haul = inbox.take(0)
    assert [parcel.origin.lane for parcel in haul.parcels] == [2, 2]
    assert haul.weights == {(2, 1): 20}


def test_receipts_are_trimmed_now_and_then_and_never_below_what_is_kept() -> None:
    receipts = Receipts(100)
    due = []
    for number in range(400):
        receipts.add(number.to_bytes(16))
        due += [number] if receipts.is_trim_due() else []
    assert due == [125, 151, 177, 203, 229, 255, 281, 307, 333, 359, 385]
