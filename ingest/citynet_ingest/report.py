"""What a commit makes known beyond the database, once it is durable: counters and warnings about the system itself."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from citynet.runtime import log
from citynet_ingest import metrics
from citynet_ingest.commit import Commit, SystemEvent
from citynet_rules.engine import Engine
from citynet_rules.guard import RuleFailedError
from citynet_rules.joint.spread import Spread
from citynet_rules.spec import RuleSet

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
        elif event.kind == "rules_spread":
            effect = (
                "objects over several workers are not evaluated, conditions there are unknown; --workers 1 has them all"
            )
            _log.warning("rules-spread", rules=event.count, detail=event.detail, effect=effect)
        else:
            metrics.CLONES.inc(event.count)
            _log.warning("gateway-cloned", gateway=event.object, detail=event.detail)
    for letter in commit.redriven:
        metrics.REDRIVEN.labels("stored" if letter.failure is None else "failed").inc()


def armed(rules: RuleSet) -> None:
    """These rules run from now on."""
    live = sum(rule.mode == "live" for rule in rules)
    metrics.RULES.labels("live").set(live)
    metrics.RULES.labels("shadow").set(len(rules) - live)
    metrics.RULES_REFUSED.set(0)
    _log.info("rules-armed", live=live, shadow=len(rules) - live)


def spread(found: Sequence[Spread], worker: str) -> SystemEvent:
    """Rules join series of other workers; returns the event for the database."""
    detail = str(found[0]) if len(found) == 1 else f"{found[0]} (and {len(found) - 1} more)"
    return SystemEvent("rules_spread", f"worker {worker}", len(found), detail[:500])


def health(engine: Engine, before: Mapping[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
    """Say of the engine what nobody would notice; what it is about. `before` is what was said last."""
    held, hurried = engine.held
    metrics.HELD.set(held)
    metrics.HURRIED.set(hurried)
    unlearned = engine.unlearned()
    metrics.RULES_UNLEARNED.set(sum(objects for objects, _ in unlearned.values()))
    for rule, (objects, tries) in unlearned.items():
        if (objects, tries) != before.get(rule):
            effect = "its readings follow no relation that is tight enough; until they do, these objects are not judged"
            _log.warning("rule-unlearned", rule=rule, objects=objects, tries=tries, effect=effect)
    return unlearned


def refused(problems: Sequence[str], worker: str) -> dict[str, object]:
    """The rule files hold mistakes and what was armed goes on; returns the event for the database."""
    metrics.RULES_REFUSED.set(1)
    _log.error("rules-refused", problems=list(problems), effect="the armed rules stay as they are")
    detail = problems[0] if len(problems) == 1 else f"{problems[0]} (and {len(problems) - 1} more)"
    return {"kind": "rules_refused", "object": f"worker {worker}", "count": 1, "detail": detail[:500]}


def failed(error: RuleFailedError, worker: str) -> list[dict[str, object]]:
    """Rules threw on data and are out until the next reload or start; returns the events for the database."""
    effect = "the others run on; SIGHUP or a restart arms it again, its open alerts stay"
    for rule in error.rules:
        metrics.RULES_FAILED.inc()
        _log.error("rule-failed", rule=rule, error=error.why, effect=effect)
    detail = f"worker {worker}: {error.why}"[:500]
    return [{"kind": "rule_failed", "object": rule, "count": 1, "detail": detail} for rule in error.rules]
