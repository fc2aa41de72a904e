"""Which alerts would have been against which were.

Two alerts of one rule and object are the same one if they were raised at the same time, else if their spans touch within a
tolerance; each is paired once, in order of time. A pair is equal if raise, clear and highest level are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from citynet_rules.proof.alerts import Alert
from citynet_rules.proof.history import Span

TOLERANCE_US = 60_000_000
_FOREVER = 1 << 62


@dataclass(slots=True)
class Difference:
    """Alerts that were raised within the span, on either side."""

    same: list[Alert] = field(default_factory=list)
    only_new: list[Alert] = field(default_factory=list)
    only_old: list[Alert] = field(default_factory=list)
    changed: list[tuple[Alert, Alert]] = field(default_factory=list)  # (old, new)

    @property
    def is_none(self) -> bool:
        return not (self.only_new or self.only_old or self.changed)

    def to_json(self) -> dict[str, Any]:
        return {
            "same": len(self.same),
            "only_new": [alert.to_json() for alert in self.only_new],
            "only_old": [alert.to_json() for alert in self.only_old],
            "changed": [{"old": old.to_json(), "new": new.to_json()} for old, new in self.changed],
        }


def compare(old: Iterable[Alert], new: Iterable[Alert], span: Span, tolerance_us: int = TOLERANCE_US) -> Difference:
    """The difference within `span`; a clear after its end counts as none, for the replay did not see it."""
    olds, news = _by_place(old, span), _by_place(new, span)
    found = Difference()
    for place in sorted(olds.keys() | news.keys()):
        for before, after in _paired(olds.get(place, []), news.get(place, []), tolerance_us):
            raised = [alert.raised_us for alert in (before, after) if alert is not None]
            if not any(span.from_us <= at < span.to_us for at in raised):
                continue
            if before is None:
                found.only_new += [after] if after is not None else []
            elif after is None:
                found.only_old.append(before)
            elif _facts(before) == _facts(after):
                found.same.append(after)
            else:
                found.changed.append((before, after))
    return found


def _by_place(alerts: Iterable[Alert], span: Span) -> dict[tuple[str, str], list[Alert]]:
    """By rule and object, in order of time, as they were known at the end of the span."""
    found: dict[tuple[str, str], list[Alert]] = defaultdict(list)
    for alert in alerts:
        if alert.raised_us < span.to_us:
            found[alert.rule, alert.object].append(alert)
    return {
        place: [_until(alert, span.to_us) for alert in sorted(some, key=lambda alert: alert.raised_us)]
        for place, some in found.items()
    }


def _until(alert: Alert, to_us: int) -> Alert:
    if alert.cleared_us is None or alert.cleared_us < to_us:
        return alert
    return replace(alert, cleared_us=None)


def _facts(alert: Alert) -> tuple[int, int | None, int]:
    return alert.raised_us, alert.cleared_us, alert.level


def _paired(old: list[Alert], new: list[Alert], tolerance_us: int) -> Iterator[tuple[Alert | None, Alert | None]]:
    """Each alert once: with its equal in time, else with one that touches it, else alone."""
    by_raise = {alert.raised_us: alert for alert in new}
    twins = {alert.raised_us for alert in old if alert.raised_us in by_raise}
    yield from ((alert, by_raise[alert.raised_us]) for alert in old if alert.raised_us in twins)
    rest = [alert for alert in new if alert.raised_us not in twins]
    place = 0
    for alert in (alert for alert in old if alert.raised_us not in twins):
        while place < len(rest) and _end(rest[place]) + tolerance_us < alert.raised_us:
            yield None, rest[place]
            place += 1
        if place < len(rest) and rest[place].raised_us <= _end(alert) + tolerance_us:
            yield alert, rest[place]
            place += 1
        else:
            yield alert, None
    yield from ((None, alert) for alert in rest[place:])


def _end(alert: Alert) -> int:
    return _FOREVER if alert.cleared_us is None else alert.cleared_us
