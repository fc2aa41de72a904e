"""What the engine says: transitions of alerts, with their identity, their evidence and a sentence for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any, Literal

from citynet_rules.condition import described
from citynet_rules.rule import COLOURS, COLOURS_ZH, Rule

Change = Literal["raise", "escalate", "deescalate", "clear", "verdict", "support", "unsupport"]
"""`verdict` changes the verdict only; `support` and `unsupport` are words of witnesses that stay inside the engine."""
NONE_US = -(1 << 62)  # "no such time", in every state and in `Engine.tips`
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class SeriesInfo:
    """One series: its registry id, device and metric, and whose watermark tells its time.

    `source` is the gateway's id, or the device itself where there is no gateway.
    """

    id: int
    device: str
    metric: str
    source: str


@dataclass(frozen=True, slots=True)
class Event:
    """A change of one (rule, series), as a kind reports it; the engine dresses it as a `Transition`.

    `rule` counts within the kind's rules, `slot` is the engine's row of the series. `level` is the level in force
    afterwards, for a clear the one that was in force before. Times are event time in µs since 1970. `severity` is 0..1,
    `expected` the band (low, high) in which the value was expected, for kinds that have them. `reason` is "when" if not the
    value but the rule's conditions ended the alert. `more` is what else the kind puts into the evidence.
    """

    rule: int
    slot: int
    change: Change
    level: int
    time_us: int
    raised_us: int
    value: float | None
    limit: float | None
    pending_since_us: int
    samples: tuple[tuple[int, float | None], ...]
    severity: float | None = None
    expected: tuple[float, float] | None = None
    reason: str = ""
    more: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Opinion:
    """A verdict: sensor fault or city event, and who is to be told.

    `since_us` is the event time from which on it holds. `facts` are the evidence: check, rule, since_us, value, limit, unit,
    samples; empty where nothing speaks. `origin` is where the gas comes from (`citynet_rules.origin`), for alerts of which
    that is asked.
    """

    state: Literal["event", "device", "undecided"]
    audience: Literal["people", "maintenance"]
    since_us: int
    facts: dict[str, Any]
    zh: str
    en: str
    origin: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        origin = {} if self.origin is None else {"origin": self.origin}
        return {
            "state": self.state, "audience": self.audience, **self.facts, **origin,
            "text_zh": self.zh, "text_en": self.en,
        }  # fmt: skip


@dataclass(frozen=True)
class Transition:
    """An alert changed state.

    Attributes:
        alert_id: 32 hex digits computed from rule, object and raise time; all transitions of one alert share it.
        rule, version: the rule that decided.
        object: the device. `series`: the registry id of the series that was watched.
        kind: ``raise``, ``escalate``, ``deescalate``, ``clear`` or ``verdict``.
        opinion: the verdict, for a raise and what revises it; its evidence stands in `evidence` as ``verdict``.
        level: 1 blue .. 4 red, in force afterwards; for a clear the level that was in force.
        time_us: event time, µs since 1970.
        value, limit: in the rule's unit, or None; for silence both are seconds.
        evidence: JSON-serialisable: unit, basis, standard, edition, clause, status, hysteresis, on_delay_s,
            off_delay_s, pending_since_us, samples (``[[time_us, value]…]``, oldest first), what the kind adds, and for
            kinds that have them severity (0..1) and expected (``[low, high]``).
        text_zh, text_en: one sentence each, from the rule's template.
    """

    alert_id: str
    rule: str
    version: str
    object: str
    series: int
    kind: Change
    level: int
    time_us: int
    value: float | None
    limit: float | None
    evidence: dict[str, Any]
    text_zh: str
    text_en: str
    opinion: Opinion | None = None


@dataclass(frozen=True, slots=True)
class OpenAlert:
    """An alert that is in force: enough to compare with what a database believes to be open."""

    alert_id: str
    rule: str
    version: str
    object: str
    series: int
    level: int
    raised_us: int


def alert_id(rule: str, device: str, raised_us: int) -> str:
    """Identity of an alert: 32 hex digits of BLAKE2b over rule, object and raise time. Whoever notices it computes the
    same."""
    return blake2b(f"{rule}\0{device}\0{raised_us}".encode(), digest_size=16).hexdigest()


def order(transition: Transition) -> tuple[int, str, str]:
    """Sort key of the transitions of one feed: event time, then rule, then object."""
    return transition.time_us, transition.rule, transition.object


def standing(rule: Rule, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The part of the evidence that is the same for every transition of a rule; `facts` is what its kind adds."""
    return {
        "unit": rule.unit,
        "basis": rule.basis,
        "standard": rule.standard,
        "edition": rule.edition,
        "clause": rule.clause,
        "jurisdiction": rule.jurisdiction,
        "status": rule.status,
        "source": rule.source,
        **({"when": described(rule.when)} if rule.when else {}),
        **({"override": rule.override.model_dump(mode="json")} if rule.override else {}),
        **facts,
    }


def dress(
    event: Event, rule: Rule, info: SeriesInfo, facts: Mapping[str, Any], templates: tuple[str, str]
) -> Transition:
    """Make a transition of an event.

    Args:
        facts: the rule's `standing` evidence.
        templates: the kind's default sentences, Chinese and English.
    """
    evidence: dict[str, Any] = {
        **facts,
        "pending_since_us": event.pending_since_us,
        "samples": [list(sample) for sample in event.samples],
    }
    if event.severity is not None:
        evidence["severity"] = event.severity
    if event.expected is not None:
        evidence["expected"] = list(event.expected)
    if event.reason:
        evidence["reason"] = event.reason
    if event.more is not None:
        evidence |= event.more
    words = {
        "value": _number(event.value),
        "limit": _number(event.limit),
        "unit": str(facts["unit"]),
        "device": info.device,
        "metric": info.metric,
        "since": utc(event.pending_since_us),
    }
    zh, en = rule.template_zh or templates[0], rule.template_en or templates[1]
    tag_zh, tag_en = _tags(event)
    return Transition(
        alert_id=alert_id(rule.id, info.device, event.raised_us),
        rule=rule.id,
        version=rule.version,
        object=info.device,
        series=info.id,
        kind=event.change,
        level=event.level,
        time_us=event.time_us,
        value=event.value,
        limit=event.limit,
        evidence=evidence,
        text_zh=f"【{tag_zh}】{rule.title_zh}：{zh.format(**words)}",
        text_en=f"[{tag_en}] {rule.title_en}: {en.format(**words)}",
    )


def utc(time_us: int) -> str:
    """Event time for people: ``2026-01-31T08:15:00Z``, to the second; a time no calendar holds stays a number."""
    try:
        return f"{(_EPOCH + timedelta(microseconds=time_us)).isoformat()[:19]}Z"
    except OverflowError:
        return f"{time_us} µs"


def _tags(event: Event) -> tuple[str, str]:
    zh, en = COLOURS_ZH[event.level - 1], COLOURS[event.level - 1]
    if event.change == "clear":
        return f"{zh}解除", f"{en} cleared"
    if event.change == "escalate":
        return f"升为{zh}", f"up to {en}"
    if event.change == "deescalate":
        return f"降为{zh}", f"down to {en}"
    return zh, en


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.6g}"
