"""Armed rules in the database: what may run and how, who decided it, and what becomes of open alerts."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from citynet.runtime import log
from citynet_ingest.store import sql
from citynet_rules.proof.gate import ArmedRule, Decision, KeptScore, effective
from citynet_rules.proof.history import Span
from citynet_rules.proof.score import Score
from citynet_rules.rule import Rule
from citynet_rules.spec import RuleSet

Connection = psycopg.Connection[Any]
_UNIX = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_log = log.get("rules")


def arm(connection: Connection, rules: RuleSet, worker: str, failed: Collection[str] = ()) -> RuleSet:
    """Arm the rules that a worker read from its files, without those that failed on data; returns them as they may run.

    A rule that is neither proved nor answered for by somebody runs in shadow. Open alerts of rules that are gone, or in shadow
    now, are closed; those of rules that failed stay as they are, and those of rules that came out of shadow are shown.
    """
    with connection.transaction(), connection.cursor() as cursor:
        cursor.execute("SELECT lock_transitions()")
        overridden = overrides(connection, [rule.digest for rule in rules])
        running, why = effective(rules, kept_scores(connection, [rule.fingerprint for rule in rules]), overridden)
        cursor.executemany(sql.text("rule_add"), [_row(rule, why.get(rule.id)) for rule in running])
        ids = [rule.id for rule in running]
        cursor.execute(sql.text("rule_disarm"), {"ids": ids, "versions": [rule.version for rule in running]})
        noted = {"author": f"worker {worker}", "reason": "named in its settings"}
        cursor.executemany(sql.text("rule_arming_note"), [_identity(rule) | noted for rule in running])
        cursor.execute(sql.text("alerts_disarm"), {"armed": [*ids, *failed]})
        cursor.execute(sql.text("alerts_demote"), {"shadow": [rule.id for rule in running if rule.mode == "shadow"]})
        cursor.execute(sql.text("alerts_promote"), {"live": [rule.id for rule in running if rule.mode == "live"]})
        cursor.execute("SELECT pg_notify('citynet_alert', '')")
    for rule in rules:
        if rule.id in why:
            _log.warning("rule-in-shadow", rule=rule.id, why=why[rule.id], effect="its alerts are kept and not shown")
        elif rule.mode == "live" and rule.digest in overridden:
            _log.warning("rule-overridden", rule=rule.id, by=overridden[rule.digest])
    return running


def retire_outlived(connection: Connection) -> int:
    """Close alerts that an edited rule does not raise any more; how many."""
    with connection.transaction():
        connection.execute("SELECT lock_transitions()")
        closed = connection.execute(sql.text("alerts_outlived")).rowcount
        if closed:
            connection.execute("SELECT pg_notify('citynet_alert', '')")
    return closed


def decide(connection: Connection, decisions: Iterable[Decision]) -> None:
    """Write decisions down, all or none."""
    rows = [
        _identity(decision.rule)
        | {
            "author": decision.author,
            "reason": decision.reason,
            "override_by": decision.override[0] if decision.override else None,
            "override_reason": decision.override[1] if decision.override else None,
            "refusals": list(decision.refusals),
        }
        for decision in decisions
    ]
    with connection.transaction(), connection.cursor() as cursor:
        cursor.executemany(sql.text("rule_armings_add"), rows)


def overrides(connection: Connection, digests: Sequence[str]) -> dict[str, str]:
    """Of these rules, by digest, who answers for them, and why."""
    rows = connection.execute(sql.text("rule_overrides"), {"digests": list(digests)}).fetchall()
    return {str(digest): f"{by}: {reason}" for digest, _, by, reason in rows}


def kept_scores(connection: Connection, fingerprints: Collection[str]) -> dict[str, KeptScore]:
    """The last kept scores, by fingerprint."""
    rows = connection.execute(sql.text("rule_scores"), {"fingerprints": list(fingerprints)}).fetchall()
    return {str(fingerprint): KeptScore(at, precision, recall) for fingerprint, at, precision, recall in rows}


def keep_scores(
    connection: Connection, scores: Mapping[str, Score], rules: RuleSet, *, span: Span, truth: str, author: str
) -> None:
    """Keep the score of each of these rules; `truth` is the digest of what they were scored against."""
    span_at = {"from_at": _moment(span.from_us), "to_at": _moment(span.to_us), "truth": truth, "author": author}
    rows = [
        {
            "rule": rule.id,
            "version": rule.version,
            "fingerprint": rule.fingerprint,
            "precision": scores[rule.id].precision,
            "recall": scores[rule.id].recall,
            "body": Jsonb(scores[rule.id].to_json()),
            **span_at,
        }
        for rule in rules
        if rule.id in scores
    ]
    with connection.transaction(), connection.cursor() as cursor:
        cursor.executemany(sql.text("rule_score_add"), rows)


def armed(connection: Connection) -> list[ArmedRule]:
    """Every rule that workers evaluate, by id."""
    rows = connection.execute(sql.text("rule_list")).fetchall()
    return [
        ArmedRule(rule, version, mode, since, by, reason, override, why, KeptScore(*score) if score[0] else None)
        for rule, version, mode, since, by, reason, override, why, *score in rows
    ]


def _identity(rule: Rule) -> dict[str, object]:
    return {"rule": rule.id, "version": rule.version, "digest": rule.digest, "mode": rule.mode}


def _row(rule: Rule, why: str | None) -> dict[str, object]:
    return {
        "id": rule.id,
        "version": rule.version,
        "body": Jsonb(rule.model_dump(mode="json")),
        "mode": rule.mode,
        "digest": rule.digest,
        "fingerprint": rule.fingerprint,
        "why": why,
    }


def _moment(time_us: int) -> dt.datetime:
    return _UNIX + dt.timedelta(microseconds=time_us)
