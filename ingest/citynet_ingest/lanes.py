"""Lanes: the 64 shards in eight equal parts, each with an MQTT session of its own.

A session's queue cannot be divided, so what moves between workers is a whole lane: its session at the broker with all
that is queued and in flight, the receipts that recognise redeliveries, and the rules' state of its series. The number of
lanes is part of the schema (`ingest_lane`): another number would need a migration and new sessions.
"""

from __future__ import annotations

from itertools import pairwise

import mqtt5

from citynet import topics
from citynet.ids import SHARDS, shard_of

LANES = 8
SHARDS_PER_LANE = SHARDS // LANES


def lane_of(identifier: str) -> int:
    """The lane of a gateway or direct device."""
    return shard_of(identifier) // SHARDS_PER_LANE


def shards_of(lane: int) -> range:
    """The shards of a lane."""
    return range(lane * SHARDS_PER_LANE, (lane + 1) * SHARDS_PER_LANE)


def lanes_of(shards: range) -> range:
    """The lanes of a range of shards. ValueError, with the nearest bounds, if the range cuts one."""
    first, last = shards.start // SHARDS_PER_LANE, (shards.stop - 1) // SHARDS_PER_LANE
    if shards.start % SHARDS_PER_LANE or shards.stop % SHARDS_PER_LANE:
        raise ValueError(
            f"{shards_text(shards)} cuts a lane of {SHARDS_PER_LANE} shards; a worker owns whole lanes: LOW is a multiple"
            f" of {SHARDS_PER_LANE} and HIGH one below one, here {shards_text(_span(range(first, last + 1)))}"
        )
    return range(first, last + 1)


def shards_text(shards: range) -> str:
    """A range of shards as the settings write it: ``0-31``."""
    return f"{shards.start}-{shards.stop - 1}"


def dealt(shards: range, workers: int) -> list[range]:
    """Shards of each of so many workers: whole lanes side by side, as even as can be. ValueError if there are fewer lanes."""
    lanes = lanes_of(shards)
    if not 1 <= workers <= len(lanes):
        raise ValueError(f"{workers} workers for {len(lanes)} lanes (shards {shards_text(shards)}): 1 to {len(lanes)}")
    bounds = [lanes.start + len(lanes) * number // workers for number in range(workers + 1)]
    return [_span(range(low, high)) for low, high in pairwise(bounds)]


def _span(lanes: range) -> range:
    return range(lanes.start * SHARDS_PER_LANE, lanes.stop * SHARDS_PER_LANE)


def client_id(lane: int) -> str:
    """The name of a lane's session at the broker, whichever worker holds it."""
    return f"citynet-ingest-lane-{lane}"


def filters_of(lane: int) -> list[mqtt5.TopicFilter]:
    """What a lane's session subscribes to: its shards' data, and every gateway's control messages (it answers its own only).

    Retained data is not sent again at a reconnect; retained status is.
    """
    once = mqtt5.RetainHandling.SEND_IF_SUBSCRIPTION_NOT_EXISTS
    data = [f"{topics.ROOT}/{kind}/{shard:02d}/+" for kind in ("up", "dev", "push") for shard in shards_of(lane)]
    qos = mqtt5.QoS.AT_LEAST_ONCE
    return [
        *(mqtt5.TopicFilter(f, max_qos=qos, retain_handling=once, retain_as_published=False) for f in data),
        *(mqtt5.TopicFilter(f, max_qos=qos, retain_as_published=False) for f in (topics.HELLO_ALL, topics.STATUS_ALL)),
    ]


def broker_filters_of(lane: int) -> list[mqtt5.TopicFilter]:
    """What the broker says of itself; one lane of all listens, so that it is counted once."""
    return [mqtt5.TopicFilter(topics.BROKER_DROPPED, max_qos=mqtt5.QoS.AT_MOST_ONCE)] if lane == 0 else []
