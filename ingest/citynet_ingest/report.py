"""What a commit makes known beyond the database, once it is durable: counters and warnings about the system itself."""

from __future__ import annotations

import time

from citynet.runtime import log
from citynet_ingest import metrics
from citynet_ingest.commit import Commit

_log = log.get("ingest")


def committed(commit: Commit) -> None:
    """Count and log what people must hear of; called after COMMIT."""
    for canary_us in commit.canaries.values():
        metrics.CANARY_S.observe(max(0.0, time.time() - canary_us / 1e6))
    for event in commit.events:
        if event.kind == "broker_dropped":
            metrics.BROKER_DROPPED.inc(event.count)
            effect = "messages of devices without a gateway may be lost; gateways send theirs again"
            _log.warning("broker-dropped", messages=event.count, detail=event.detail, effect=effect)
        else:
            metrics.CLONES.inc(event.count)
            _log.warning("gateway-cloned", gateway=event.object, detail=event.detail)
    for letter in commit.redriven:
        metrics.REDRIVEN.labels("stored" if letter.failure is None else "failed").inc()
