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
PARTIALS = Counter(
    "citynet_ingest_partials",
    "Rollup partials written, by level and by why: their bucket closed, or readings came late.",
    ["level", "kind"],
    registry=REGISTRY,
)
PUSH_REQUESTS = Counter(
    "citynet_push_requests", "Requests to the HTTP front, by path and status.", ["path", "status"], registry=REGISTRY
)
PUSH_S = Histogram(
    "citynet_push_seconds", "A request until its answer.", ["path"], buckets=_BUCKETS_S, registry=REGISTRY
)
PUSH_INFLIGHT = Gauge("citynet_push_inflight", "Requests that wait for their COMMIT.", registry=REGISTRY)
DATABASE_UP = Gauge("citynet_ingest_database_up", "1 while the database answers.", registry=REGISTRY)
COMMITS_CUT = Counter(
    "citynet_ingest_commits_cut",
    "Tries of a commit given up because the database did not answer in commit_timeout_s.",
    registry=REGISTRY,
)
SESSIONS_LOST = Counter(
    "citynet_ingest_sessions_lost",
    "Sessions that the broker had lost: messages of devices without a gateway may be missing.",
    registry=REGISTRY,
)
INFLIGHT_BYTES = Gauge(
    "citynet_ingest_inflight_bytes", "Bytes received and not yet acknowledged, of all sessions.", registry=REGISTRY
)
RULES = Gauge("citynet_ingest_rules", "Rules that are evaluated.", ["mode"], registry=REGISTRY)
RULES_SPREAD = Gauge(
    "citynet_ingest_rules_spread",
    "Rules of this worker that join series of other workers, and are not evaluated as they are written.",
    registry=REGISTRY,
)
RULES_UNLEARNED = Gauge(
    "citynet_ingest_rules_unlearned",
    "Objects of rules that learn (kind relation) which learned in vain and began anew: they are not judged.",
    registry=REGISTRY,
)
RULES_REFUSED = Gauge(
    "citynet_ingest_rules_refused", "1 while the rule files were refused at the last reload.", registry=REGISTRY
)
RULES_FAILED = Counter("citynet_ingest_rules_failed", "Rules taken out because they threw on data.", registry=REGISTRY)
HELD = Gauge(
    "citynet_ingest_held", "Readings of series with a lateness bound that wait for their order.", registry=REGISTRY
)
HURRIED = Gauge(
    "citynet_ingest_hurried",
    "Readings evaluated before their order was certain, because too many waited, since the last start or reload.",
    registry=REGISTRY,
)
LATE_SPANS = Gauge("citynet_ingest_late_spans", "Series with late readings that wait for hindsight.", registry=REGISTRY)
HINDSIGHT = Counter(
    "citynet_ingest_hindsight",
    "Series judged in hindsight, by outcome: judged, unwatched (no rule that can be judged again), changed (more came "
    "meanwhile), too_long (the window's readings end before the late ones do), failed.",
    ["outcome"],
    registry=REGISTRY,
)
HINDSIGHT_FOUND = Counter(
    "citynet_ingest_hindsight_found",
    "What hindsight came to: raised (retrospective alerts), revised, withdrawn (notes beside alerts), dropped (alerts beyond "
    "the bound of a window).",
    ["what"],
    registry=REGISTRY,
)
