"""What a rule must bring to be armed live: guidance for whoever gets its alerts, and a score above its own floor.

What is lacking can be overridden by somebody who answers for it; else the rule runs in shadow.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from citynet_rules.rule import Rule
from citynet_rules.spec import RuleSet


@dataclass(frozen=True, slots=True)
class KeptScore:
    """A rule's last kept score; None where there was nothing to divide by."""

    at: datetime
    precision: float | None
    recall: float | None


@dataclass(frozen=True, slots=True)
class Decision:
    """Somebody arms a rule. `override` is (who answers for it, why), where `refusals` had to be overridden."""

    rule: Rule
    author: str
    reason: str
    override: tuple[str, str] | None = None
    refusals: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ArmedRule:
    """A rule as workers evaluate it. `why` tells why it is in shadow although its file says live."""

    rule: str
    version: str
    mode: str
    since: datetime
    author: str | None
    reason: str | None
    override: str | None
    why: str | None
    score: KeptScore | None


def refusals(rule: Rule, score: KeptScore | None) -> list[str]:
    """Why this rule may not be armed live; empty if it may. `score` is the last one kept for what the rule decides by."""
    found = [
        f"has no guidance in {language}"
        for language, text in (("Chinese", rule.guidance_zh), ("English", rule.guidance_en))
        if not text.strip()
    ]
    floor = rule.score_floor
    if floor is None:
        return found
    if score is None:
        return [*found, "has a score_floor and no kept score"]
    reached = (("precision", floor.precision, score.precision), ("recall", floor.recall, score.recall))
    for name, least, value in reached:
        if least is not None and value is None:
            found.append(f"its last score has no {name}, its floor is {least:g}")
        elif least is not None and value is not None and value < least:
            found.append(f"its last {name} is {value:.3g}, its floor is {least:g}")
    return found


def effective(
    rules: RuleSet, scores: Mapping[str, KeptScore], overridden: Collection[str]
) -> tuple[RuleSet, dict[str, str]]:
    """The rules as they may run, unproved ones in shadow, and by id why those are.

    Args:
        scores: last kept scores, by fingerprint.
        overridden: digests of rules that somebody answers for.
    """
    why = {
        rule.id: "; ".join(found)
        for rule in rules
        if rule.mode == "live"
        and rule.digest not in overridden
        and (found := refusals(rule, scores.get(rule.fingerprint)))
    }
    kept = tuple(rule.model_copy(update={"mode": "shadow"}) if rule.id in why else rule for rule in rules)
    return replace(rules, rules=kept), why
