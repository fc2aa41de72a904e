"""Alerts against what is known to have happened: precision, recall, delay, false alerts, and how busy they keep people.

A *place* is one device of one incident. An alert is **true** if its rule is of the incident's domain (or the very rule that
the truth expects), its object is one of the incident's devices, and it was raised between the incident's start and the end of
its effect, both widened by a tolerance; else it is **false**. A place is **due** for the rule that the truth expects there, and
for any other rule of the incident's domain that watches the incident's metric at that device. It is **found** by a true alert
there; where the truth expects this rule, only if the alert reached the level that it names.

Precision = true / all alerts, recall = found / due, delay = first raise that found the place less the incident's start, never
below 0. Everything that has no denominator is None.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from citynet_rules.proof.alerts import Alert
from citynet_rules.proof.history import Span
from citynet_rules.proof.truth import Incident, Truth
from citynet_rules.rule import Rule
from citynet_rules.spec import RuleSet

TOLERANCE_US = 60_000_000
DEVICE = "device"  # the domain of rules that say that a device is at fault
_DAY_US = 86_400_000_000
_HOUR_US = 3_600_000_000


@dataclass(frozen=True, slots=True)
class Score:
    """One rule's score, or that of several together. Rates are of the span; an operator-hour is an hour of one operator."""

    due: int
    found: int
    alerts: int
    true: int
    false: int
    precision: float | None
    recall: float | None
    delay_median_s: float | None
    delay_max_s: float | None
    false_per_day: float
    alerts_per_operator_hour: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Report:
    """Scores of each rule, of all together, and of those that speak of people's safety (every domain but `device`)."""

    rules: Mapping[str, Score]
    total: Score
    public: Score
    incidents: int
    incidents_found: int
    sensors: int
    days: float
    missed: Sequence[tuple[str, str]]  # (incident, device) that no rule found

    @property
    def false_public_per_1000_sensor_days(self) -> float | None:
        return 1000 * self.public.false_per_day / self.sensors if self.sensors else None

    def to_json(self) -> dict[str, Any]:
        return {
            "rules": {name: score.to_json() for name, score in self.rules.items()},
            "total": self.total.to_json(),
            "public": self.public.to_json(),
            "incidents": self.incidents,
            "incidents_found": self.incidents_found,
            "sensors": self.sensors,
            "days": self.days,
            "false_public_per_1000_sensor_days": self.false_public_per_1000_sensor_days,
            "missed": [{"incident": incident, "device": device} for incident, device in self.missed],
        }


@dataclass(frozen=True, slots=True)
class _Place:
    incident: Incident
    device: str

    @property
    def name(self) -> tuple[str, str]:
        return self.incident.id, self.device


def score(
    rules: RuleSet,
    alerts: Iterable[Alert],
    truth: Truth,
    span: Span,
    *,
    operators: int = 1,
    tolerance_us: int = TOLERANCE_US,
) -> Report:
    """Score the alerts that were raised in `span` against the incidents that started in it."""
    places = [
        _Place(incident, device)
        for incident in truth.incidents
        if span.from_us <= incident.start_us < span.to_us
        for device in incident.devices
    ]
    by_device: dict[str, list[_Place]] = defaultdict(list)
    for place in places:
        by_device[place.device].append(place)
    of_rule: dict[str, list[tuple[Alert, list[_Place]]]] = {rule.id: [] for rule in rules}
    by_id = {rule.id: rule for rule in rules}
    for alert in alerts:
        if span.from_us <= alert.raised_us < span.to_us and alert.rule in by_id:
            rule = by_id[alert.rule]
            met = [place for place in by_device[alert.object] if _is_met(place, rule, alert, tolerance_us)]
            of_rule[alert.rule].append((alert, met))
    scale = _Scale(span.to_us - span.from_us, operators)
    scores = {
        rule.id: scale.score([place for place in places if _is_due(place, rule)], of_rule[rule.id], rule.id)
        for rule in rules
    }
    everything = [entry for some in of_rule.values() for entry in some]
    found = {place.name for place, at in _firsts(places, everything, None) if at is not None}
    public = [entry for rule in rules if rule.domain != DEVICE for entry in of_rule[rule.id]]
    return Report(
        rules=scores,
        total=scale.score(places, everything, None),
        public=scale.score([place for place in places if place.incident.domain != DEVICE], public, None),
        incidents=len({place.incident.id for place in places}),
        incidents_found=len({name for name, _ in found}),
        sensors=truth.sensors,
        days=(span.to_us - span.from_us) / _DAY_US,
        missed=[place.name for place in places if place.name not in found],
    )


@dataclass(frozen=True, slots=True)
class _Scale:
    span_us: int
    operators: int

    def score(self, due: Sequence[_Place], entries: Sequence[tuple[Alert, list[_Place]]], rule: str | None) -> Score:
        """Of one rule, or (None) of all whose alerts these are."""
        firsts = _firsts(due, entries, rule)
        delays_s = [max(0, at - place.incident.start_us) / 1e6 for place, at in firsts if at is not None]
        true = sum(bool(met) for _, met in entries)
        false = len(entries) - true
        return Score(
            due=len(due),
            found=len(delays_s),
            alerts=len(entries),
            true=true,
            false=false,
            precision=true / len(entries) if entries else None,
            recall=len(delays_s) / len(due) if due else None,
            delay_median_s=median(delays_s) if delays_s else None,
            delay_max_s=max(delays_s) if delays_s else None,
            false_per_day=false * _DAY_US / self.span_us,
            alerts_per_operator_hour=len(entries) * _HOUR_US / self.span_us / self.operators,
        )


def _is_met(place: _Place, rule: Rule, alert: Alert, tolerance_us: int) -> bool:
    """Whether the alert is of this incident."""
    incident = place.incident
    if rule.id != incident.rule and rule.domain != incident.domain:
        return False
    return incident.start_us - tolerance_us <= alert.raised_us <= incident.over_us + tolerance_us


def _is_due(place: _Place, rule: Rule) -> bool:
    incident = place.incident
    return rule.id == incident.rule or (rule.domain == incident.domain and rule.selects(place.device, incident.metric))


def _firsts(
    due: Sequence[_Place], entries: Iterable[tuple[Alert, list[_Place]]], rule: str | None
) -> list[tuple[_Place, int | None]]:
    """When each place was found first, event time; for all rules together the expected level counts, whoever reached it."""
    met_at: dict[tuple[str, str], list[Alert]] = defaultdict(list)
    for alert, met in entries:
        for place in met:
            met_at[place.name].append(alert)
    found: list[tuple[_Place, int | None]] = []
    for place in due:
        level = place.incident.level if rule in (None, place.incident.rule) else 1
        raised = [alert.raised_us for alert in met_at[place.name] if alert.level >= level]
        found.append((place, min(raised, default=None)))
    return found
