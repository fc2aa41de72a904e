"""Alerts as spans of time, made of transitions: what a replay keeps of them, and what a database tells of those that were."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from citynet.errors import CitynetError
from citynet_rules.rule import COLOURS
from citynet_rules.transition import Transition, utc

ALERTS_MAX = 1_000_000  # a replay that raises more proves one thing: that nobody wants this rule


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert: `level` is the highest it had (1 blue .. 4 red), times are event time in µs since 1970, `cleared_us` None
    while it is in force; `verdict` is the last one, `people` whether it was ever graded for people; `origin` the last word on
    where the gas comes from, empty where that is not asked."""

    rule: str
    version: str
    object: str
    level: int
    raised_us: int
    cleared_us: int | None = None
    verdict: str = ""
    people: bool = True
    origin: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "rule": self.rule,
            "version": self.version,
            "object": self.object,
            "level": COLOURS[self.level - 1],
            "raised_us": self.raised_us,
            "cleared_us": self.cleared_us,
            "raised": utc(self.raised_us),
            "cleared": None if self.cleared_us is None else utc(self.cleared_us),
            "verdict": self.verdict,
            "people": self.people,
            "origin": self.origin or None,
        }


class AlertBook:
    """Alerts out of transitions, in order of their raise for each rule and object; about 200 bytes each."""

    def __init__(self, alerts_max: int = ALERTS_MAX) -> None:
        self._alerts_max = alerts_max
        self._alerts: dict[str, Alert] = {}

    def __len__(self) -> int:
        return len(self._alerts)

    def take(self, transitions: Iterable[Transition]) -> None:
        """Note what changed.

        Raises:
            CitynetError: more than `alerts_max` alerts; names the rule that raised most of them.
        """
        for transition in transitions:
            ident = transition.alert_id
            if transition.kind == "raise":
                self._alerts[ident] = Alert(
                    transition.rule, transition.version, transition.object, transition.level, transition.time_us,
                    None, *_graded(transition),
                )  # fmt: skip
            elif transition.kind == "verdict" and ident in self._alerts:
                verdict, people, origin = _graded(transition)
                alert = self._alerts[ident]
                self._alerts[ident] = replace(alert, verdict=verdict, people=alert.people or people, origin=origin)
            elif ident in self._alerts:
                alert = self._alerts[ident]
                cleared_us = transition.time_us if transition.kind == "clear" else None
                self._alerts[ident] = replace(alert, level=max(alert.level, transition.level), cleared_us=cleared_us)
        if len(self._alerts) > self._alerts_max:
            raise CitynetError(f"more than {self._alerts_max} alerts, most of them of {self._loudest()}")

    def alerts(self) -> list[Alert]:
        """All alerts by raise, rule and object."""
        return sorted(self._alerts.values(), key=lambda alert: (alert.raised_us, alert.rule, alert.object))

    def _loudest(self) -> str:
        counts: dict[str, int] = {}
        for alert in self._alerts.values():
            counts[alert.rule] = counts.get(alert.rule, 0) + 1
        return max(counts, key=lambda rule: counts[rule])


def _graded(transition: Transition) -> tuple[str, bool, str]:
    """The verdict, whether people are told, and the origin."""
    opinion = transition.opinion
    if opinion is None:
        return "", True, ""
    return opinion.state, opinion.audience == "people", "" if opinion.origin is None else str(opinion.origin["state"])
