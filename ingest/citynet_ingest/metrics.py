"""Metrics of the ingest tier."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from citynet.runtime.metrics import REGISTRY

_BUCKETS_S = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

MESSAGES = Counter("citynet_ingest_messages", "Messages received from the broker.", registry=REGISTRY)
READINGS = Counter("citynet_ingest_records", "Records in committed parcels (duplicates included).", registry=REGISTRY)
COMMITS = Counter("citynet_ingest_commits", "Commits made.", registry=REGISTRY)
COMMIT_S = Histogram(
    "citynet_ingest_commit_seconds",
    "Plan, rules and transaction of a commit.",
    buckets=_BUCKETS_S,
    registry=REGISTRY,
)
_STAGE_S = Histogram(
    "citynet_ingest_stage_seconds",
    "Way of a commit: wait (its oldest message, receipt to the writer), decode (one read of the socket), plan (rules in it), "
    "commit (transaction), ack (COMMIT to PUBACK written).",
    ["stage"],
    buckets=(0.0005, 0.001, *_BUCKETS_S),
    registry=REGISTRY,
)
WAIT_S, DECODE_S, PLAN_S, STORE_S, ACK_S = map(_STAGE_S.labels, ("wait", "decode", "plan", "commit", "ack"))
CANARY_S = Histogram(
    "citynet_ingest_canary_delay_seconds",
    "End-to-end delay of the gateways' own readings: accepted there to committed here.",
    buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200, 43_200),
    registry=REGISTRY,
)
BROKER_DROPPED = Counter(
    "citynet_ingest_broker_dropped_messages",
    "Messages that the broker says it dropped, for any of its clients, while we or a predecessor watched.",
    registry=REGISTRY,
)
CLONES = Counter("citynet_ingest_gateway_clones", "Sightings of two machines with one gateway id.", registry=REGISTRY)
REDRIVEN = Counter("citynet_ingest_redriven_letters", "Dead letters tried again.", ["outcome"], registry=REGISTRY)
COPIED = Counter("citynet_ingest_copied", "Readings copied, by the way they took and why.", ["way"], registry=REGISTRY)
DATABASE_UP = Gauge("citynet_ingest_database_up", "1 while the database answers.", registry=REGISTRY)
INFLIGHT_BYTES = Gauge("citynet_ingest_inflight_bytes", "Bytes received and not yet acknowledged.", registry=REGISTRY)
