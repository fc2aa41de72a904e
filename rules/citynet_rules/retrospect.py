"""Hindsight: what alerts there would have been, had readings that came late come in order.

The window around late readings is run twice through the engine, with them and without. What differs is their doing and nothing
else: neither where the window begins, nor that a rule was armed later, changes what one run says and the other does not.
Hindsight adds and never rewrites: an alert that is missing becomes a *retrospective* one, which is over when it is recorded;
one that was, and would have been otherwise or not at all, is *revised* by a note beside it.

Judged again are rules over one series whose kind remembers a bounded time. What was learned over weeks (`deviation`, `cusum`,
`night_flow`), what waits for other series, and silence on the server's clock, which is about arrival, stay as they were.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from citynet.batch import SeriesBatch
from citynet.quality import LATE
from citynet_rules.engine import Engine
from citynet_rules.joint.stage import is_joint
from citynet_rules.kinds import KINDS
from citynet_rules.proof.alerts import Alert, AlertBook
from citynet_rules.proof.compare import compare
from citynet_rules.proof.history import Span
from citynet_rules.rule import COLOURS, COLOURS_ZH, Rule
from citynet_rules.series import SERVER
from citynet_rules.spec import RuleSet
from citynet_rules.transition import SeriesInfo, Transition, alert_id, order, utc

BOUNDED = frozenset({"limit", "rate", "range", "stuck", "jump", "count", "accumulate", "iaqi", "stale"})
MEMORY_US = (3_600_000_000, 172_800_000_000)  # least and most of what is read before late readings
NEW_MAX = 200  # retrospective alerts of one window; a value that flaps for days needs no thousand of them
_CHANGE_US = 60_000_000  # another raise or clear within a minute is no news
_FOREVER = 1 << 62


@dataclass(frozen=True, slots=True)
class Known:
    """An alert as it was recorded, `ident` its id."""

    ident: str
    alert: Alert


@dataclass(frozen=True, slots=True)
class Revision:
    """What is known better of an alert: when it would have been raised and cleared (None: in force at the end of the window)
    and its highest level; `withdrawn` if it would not have been raised."""

    ident: str
    level: int
    raised_us: int
    cleared_us: int | None
    withdrawn: bool
    text_zh: str
    text_en: str


@dataclass(frozen=True, slots=True)
class Hindsight:
    """`raised` are missing alerts, the transitions of each from its raise on; `until_us` is the end of the window; `dropped`
    counts those beyond `NEW_MAX`."""

    raised: list[list[Transition]]
    revised: list[Revision]
    until_us: int
    dropped: int = 0


def rejudged(rules: RuleSet, info: SeriesInfo) -> list[Rule]:
    """The rules that watch a series and that can be judged again."""
    derived = frozenset(each.name for each in rules.derived)
    return [
        rule
        for rule in rules
        if rule.kind in BOUNDED
        and rule.selects(info.device, info.metric)
        and not is_joint(rule, derived)
        and getattr(rule, "clock", "source") != "server"
    ]


def memory_us(rules: Iterable[Rule]) -> int:
    """How far back readings may matter to these rules, µs: the sum of a rule's times, within `MEMORY_US`."""
    longest = 0.0
    for rule in rules:
        facts = {**rule.model_dump(include=type(rule).model_fields.keys() - Rule.model_fields.keys()),
                 **KINDS[rule.kind].facts(rule)}  # fmt: skip
        times = (value for key, value in facts.items() if key.endswith(("_s", "_s_max")))
        longest = max(longest, sum(float(value) for value in times if isinstance(value, int | float)))
    least, most = MEMORY_US
    return min(max(least, round(longest * 1e6)), most)


def judge(
    rules: Sequence[Rule], info: SeriesInfo, rows: SeriesBatch, known: Sequence[Known], known_us: int
) -> Hindsight:
    """What late readings change.

    Args:
        rules: as `rejudged` gives them.
        rows: the stored readings of the window, late ones flagged; any order.
        known: recorded alerts of these rules and the device that were in force within the window.
        known_us: when the late readings were learned of.
    """
    is_late = (rows.quality & LATE) != 0
    order = np.lexsort((is_late, rows.time_us))  # of two readings of one time the one that was evaluated counts
    rows, is_late = rows.picked(order), is_late[order]
    until_us = int(rows.time_us[-1]) if len(rows) else 0
    without, _ = _run(rules, info, rows.picked(~is_late), until_us)
    together, transitions = _run(rules, info, rows, until_us)
    start_us = int(rows.time_us[0]) if len(rows) else 0
    found = compare(without, together, Span(start_us, until_us + 1))
    raised = [
        [_learned(t, known_us) for t in transitions[alert_id(alert.rule, alert.object, alert.raised_us)]]
        for alert in found.only_new
        if not _touching(alert, known)
    ]
    revised = [
        _revision(each, new, known_us, withdrawn=False)
        for old, new in found.changed
        if _is_news(old, new)
        for each in _touching(old, known)[:1]
    ]
    revised += [
        _revision(each, old, known_us, withdrawn=True) for old in found.only_old for each in _touching(old, known)[:1]
    ]
    return Hindsight(raised[:NEW_MAX], revised, until_us, max(0, len(raised) - NEW_MAX))


def _run(
    rules: Sequence[Rule], info: SeriesInfo, rows: SeriesBatch, until_us: int
) -> tuple[list[Alert], dict[str, list[Transition]]]:
    """The alerts of a fresh engine, and the transitions of each in order of time by its id."""
    engine, book = Engine(RuleSet(tuple(rules))), AlertBook()
    engine.bind([info])
    found = engine.feed(rows).transitions + engine.advance({SERVER: until_us, info.source: until_us})
    book.take(found)
    by_alert: dict[str, list[Transition]] = defaultdict(list)
    for transition in sorted(found, key=order):  # a verdict may be known later than the clear it comes before
        by_alert[transition.alert_id].append(transition)
    return book.alerts(), by_alert


def _touching(alert: Alert, known: Sequence[Known]) -> list[Known]:
    """Recorded alerts of its rule and object that were in force at some moment of it."""
    return [
        each
        for each in known
        if (each.alert.rule, each.alert.object) == (alert.rule, alert.object)
        and each.alert.raised_us <= _end(alert)
        and alert.raised_us <= _end(each.alert)
    ]


def _end(alert: Alert) -> int:
    return _FOREVER if alert.cleared_us is None else alert.cleared_us


def _is_news(old: Alert, new: Alert) -> bool:
    return (
        old.level != new.level
        or abs(old.raised_us - new.raised_us) > _CHANGE_US
        or abs(_end(old) - _end(new)) > _CHANGE_US
    )


def _learned(transition: Transition, known_us: int) -> Transition:
    """The transition, saying when it happened and when that was learned."""
    happened, learned = utc(transition.time_us), utc(known_us)
    return replace(
        transition,
        evidence={**transition.evidence, "retrospective": True, "known_us": known_us},
        text_zh=f"{transition.text_zh}（补判：{happened} 发生，{learned} 获知）",
        text_en=f"{transition.text_en} (in hindsight: happened {happened}, learned {learned})",
    )


def _revision(known: Known, alert: Alert, known_us: int, *, withdrawn: bool) -> Revision:
    learned = utc(known_us)
    if withdrawn:
        zh, en = f"据迟到数据，本告警本不会发生（{learned} 获知）", "with what came late it would not have been raised"
        en = f"{en} (learned {learned})"
        return Revision(known.ident, known.alert.level, alert.raised_us, alert.cleared_us, True, zh, en)
    colour_zh, colour = COLOURS_ZH[alert.level - 1], COLOURS[alert.level - 1]
    raised, cleared = utc(alert.raised_us), None if alert.cleared_us is None else utc(alert.cleared_us)
    zh = f"据迟到数据：{raised} 发生，{f'{cleared} 解除' if cleared else '未解除'}，最高{colour_zh}（{learned} 获知）"
    en = f"with what came late: raised {raised}, {f'cleared {cleared}' if cleared else 'not cleared'}, highest {colour}"
    return Revision(known.ident, alert.level, alert.raised_us, alert.cleared_us, False, zh, f"{en} (learned {learned})")
