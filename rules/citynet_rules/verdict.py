"""Sensor fault or city event: the verdict on every alert, who is to be told, and when that changes. Pure, in event time.

What speaks about a series comes as stretches of time (`Mark`): *doubts*, the alerts in force of live rules of the
domain `device` whose kind checks the sensor itself (range, stuck, jump, drift, witness), and *support*, the stretches in
which a witness moves along with it. A verdict is a function of those stretches and of the alert's raise, so it does
not depend on how the input was cut:

- ``event`` at t if a stretch of support holds t; it stays for the rest of the alert;
- ``device`` if no support but a doubt holds t, or has ended less than the rule's `window_s` before t;
- ``undecided`` otherwise.

An event is for people, a device's fault for maintenance. The undecided is for people too, and from its raise on,
unless somebody may still speak (witnesses, or a jump that may yet turn out to be a spike): they have `hold_s`. Nobody
is kept waiting longer than that and the bound of the witnesses' join.

Beside it stands an opinion on where the gas comes from (`citynet_rules.origin`), made of the words of witnesses that `tell`.
It decides nothing: neither state nor audience looks at it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import msgspec

from citynet_rules.kinds.night_flow import DAY_US, RECENT, NightFlowRule
from citynet_rules.kinds.physical import RangeRule
from citynet_rules.kinds.witness import WitnessRule
from citynet_rules.origin import UNASKED, UNKNOWN, Origin, Word, judge
from citynet_rules.rule import COLOURS, COLOURS_ZH, Rule, microseconds
from citynet_rules.snapshot import Part
from citynet_rules.transition import Opinion, Transition, utc

DEVICE = "device"
CHECKS = ("range", "stuck", "jump", "drift", "witness")
LINGER_S = 60.0
MARKS_MAX = 64  # stretches that have ended, a series; the oldest are forgotten
NOTHING: Mapping[str, int] = {}
Side = Literal["doubt", "support", "origin"]
Hold = Callable[[str, int], tuple[int, int]]
"""Of a rule and a series: how far all that can speak has come, and how long it has for it (µs)."""


class Mark(msgspec.Struct):
    """From `from_us` to before `to_us` (None: still) a check spoke about a series. `own` if it needed no other series; `word`
    is what one of side `origin` says."""

    side: Side
    rule: str
    fingerprint: str
    own: bool
    from_us: int
    to_us: int | None
    facts: dict[str, Any]
    zh: str
    en: str
    word: str = ""

    def holds(self, time_us: int, linger_us: int) -> bool:
        """Whether it speaks at this time."""
        return self.from_us <= time_us and (self.to_us is None or time_us < self.over_us(linger_us))

    def over_us(self, linger_us: int) -> int:
        """From when on one that has ended is silent: a doubt goes on while what it doubted is still in a rule's window."""
        if self.to_us is None:
            raise AssertionError("it still speaks")
        return self.to_us + (linger_us if self.side == "doubt" else 0)


class Case(msgspec.Struct):
    """An alert on which a verdict may still change: what was said last, and up to which time it was looked at."""

    alert_id: str
    rule: str
    fingerprint: str
    series: int
    object: str
    levels: list[tuple[int, int]]  # (since µs, level), in order of time
    raised_us: int
    cleared_us: int | None
    seen_us: int
    state: str
    audience: str
    origin: str = UNASKED  # as it is known; a device's fault is told without it

    def level_at(self, time_us: int) -> int:
        return max(step for step in self.levels if step[0] <= time_us)[1]


class _Kept(msgspec.Struct):
    marks: list[tuple[int, list[Mark]]]
    cases: list[Case]


class Docket:
    """Marks by series and cases by alert. Memory: a few hundred bytes an open alert and a stretch of doubt."""

    def __init__(
        self, rules: Iterable[Rule], joint: Callable[[Rule], bool], back_us: Mapping[str, int] = NOTHING
    ) -> None:
        """`joint` tells rules over several series: what a vote finds is not one sensor's fault. `back_us`: how far derived
        metrics look back, by name."""
        self._rules = {rule.id: rule for rule in rules}
        self._joint = frozenset(rule.id for rule in self._rules.values() if joint(rule))
        self._linger_us = {name: _linger_us(rule) + back_us.get(rule.metric, 0) for name, rule in self._rules.items()}
        self._telling = [rule for rule in self._rules.values() if _tells(rule)]
        self._marks: dict[int, list[Mark]] = {}
        self._cases: dict[str, Case] = {}
        self._of_series: dict[int, set[str]] = {}
        self._slow: set[str] = set()  # cases for which something is known that lies ahead of how far all have come

    def take(self, found: Sequence[Transition], hold: Hold) -> list[Transition]:
        """Transitions by time, with their opinion, and what is revised; those that only witness are not passed on."""
        out, touched = [], set[int]()
        for each in sorted(found, key=lambda each: (each.time_us, not self._is_check(each))):
            if self._is_check(each):
                touched.add(self._mark(each))
            if each.kind in ("support", "unsupport"):
                continue
            out.append(self._file(each, hold))
            touched.add(each.series)
        due = set(self._slow).union(*(self._of_series.get(series, ()) for series in touched))
        for name in sorted(due):
            out += self._step(self._cases[name], hold)
        for series in touched & self._marks.keys():
            self._forget(series)
        return out

    # --- what is known ---

    def _is_check(self, transition: Transition) -> bool:
        rule = self._rules[transition.rule]
        is_check = rule.domain == DEVICE and rule.kind in CHECKS and rule.mode == "live"
        return (is_check and transition.kind != "escalate") or _tells(rule)

    def _mark(self, transition: Transition) -> int:
        """Note that a check began or ended to speak; returns the series."""
        rule = self._rules[transition.rule]
        side: Side = "support" if transition.kind in ("support", "unsupport") else "doubt"
        if _tells(rule):
            side = "origin"
        marks = self._marks.setdefault(transition.series, [])
        if transition.kind == "raise" and _is_danger(rule, transition):
            return transition.series
        if transition.kind in ("raise", "support"):
            facts = {  # in order of their names, as they come back from a snapshot
                "check": rule.kind,
                "limit": transition.limit,
                "rule": rule.id,
                "samples": transition.evidence.get("samples", []),
                "since_us": transition.time_us,
                "unit": transition.evidence.get("unit"),
                "value": transition.value,
            }
            own = rule.kind != "witness"
            zh, en = transition.text_zh.partition("：")[2], transition.text_en.partition(": ")[2]
            word = ""
            if side == "origin":
                word, zh, en = (str(transition.evidence[name]) for name in ("origin", "why_zh", "why_en"))
            marks.append(Mark(side, rule.id, rule.fingerprint, own, transition.time_us, None, facts, zh, en, word))
            marks.sort(key=lambda mark: (mark.from_us, mark.rule, mark.side))  # witnesses speak later than the series
        else:
            for mark in marks:
                if (mark.side, mark.rule, mark.to_us) == (side, rule.id, None):
                    mark.to_us = transition.time_us
        return transition.series

    def _forget(self, series: int) -> None:
        """Let the oldest go of what has ended."""
        marks = self._marks[series]
        surplus = sum(mark.to_us is not None for mark in marks) - MARKS_MAX
        for mark in [mark for mark in marks if mark.to_us is not None][: max(0, surplus)]:
            marks.remove(mark)

    # --- alerts ---

    def _file(self, transition: Transition, hold: Hold) -> Transition:
        """A transition with its opinion: a raise has one, the others change none."""
        rule = self._rules[transition.rule]
        if transition.kind != "raise":
            case = self._cases.get(transition.alert_id)
            if case is not None:
                if transition.kind == "clear":
                    case.cleared_us = transition.time_us
                else:
                    case.levels.append((transition.time_us, transition.level))
            return transition
        if rule.domain == DEVICE:
            return _with(transition, _maintenance())
        if rule.id in self._joint:
            return _with(transition, _plain("undecided", "people", transition.time_us))
        is_asked = any(each.selects(transition.object, rule.metric) for each in self._telling)
        at_us = transition.time_us
        own = [mark for mark in self._marks.get(transition.series, ()) if mark.own]
        _, hold_us = hold(rule.id, transition.series)
        opinion = _opinion(own, at_us, "", at_us + hold_us, self._linger_us[rule.id])
        origin = judge((), UNKNOWN) if is_asked else None
        self._open(transition, rule, opinion, UNKNOWN if is_asked else UNASKED)
        return _with(transition, _full(opinion, origin))

    def _open(self, transition: Transition, rule: Rule, opinion: Opinion, origin: str) -> None:
        names = self._of_series.setdefault(transition.series, set())
        for name in [n for n in names if self._cases[n].rule == rule.id and self._cases[n].cleared_us is None]:
            self._close(self._cases[name])  # its clear never came: the rule was edited
        at_us = transition.time_us
        self._cases[transition.alert_id] = Case(
            transition.alert_id, rule.id, rule.fingerprint, transition.series, transition.object,
            [(at_us, transition.level)],
            at_us, None, at_us - 1, opinion.state, opinion.audience, origin,
        )  # fmt: skip
        self._of_series.setdefault(transition.series, set()).add(transition.alert_id)

    def _close(self, case: Case) -> None:
        self._cases.pop(case.alert_id, None)
        self._slow.discard(case.alert_id)
        names = self._of_series.get(case.series, set())
        names.discard(case.alert_id)
        if not names:
            self._of_series.pop(case.series, None)

    def _step(self, case: Case, hold: Hold) -> list[Transition]:
        """Look at a case as far as all that can speak has come."""
        come_us, hold_us = hold(case.rule, case.series)
        until_us = come_us if case.cleared_us is None else min(come_us, case.cleared_us - 1)
        due_us = case.raised_us + hold_us
        linger_us = self._linger_us[case.rule]
        marks = self._marks.get(case.series, [])
        moments = {case.raised_us, due_us, *(mark.from_us for mark in marks)}
        moments |= {mark.over_us(linger_us) for mark in marks if mark.to_us is not None}
        found = []
        for at_us in sorted(moment for moment in moments if case.seen_us < moment <= until_us):
            case.seen_us = at_us
            if at_us < case.raised_us:
                continue
            opinion = _opinion(marks, at_us, case.state, due_us, linger_us)
            origin = None if case.origin == UNASKED else judge(_words(marks, at_us), case.origin)
            told, now = _told(case.state, case.origin), case.origin if origin is None else origin.memory
            is_new = (opinion.audience, _told(opinion.state, now)) != (case.audience, told)
            case.state, case.audience, case.origin = opinion.state, opinion.audience, now
            if is_new:
                found.append(self._revised(case, _full(opinion, origin)))
        if case.cleared_us is not None and come_us >= case.cleared_us:
            self._close(case)
        elif case.cleared_us is not None or any(moment > until_us for moment in moments):
            self._slow.add(case.alert_id)
        else:
            self._slow.discard(case.alert_id)
        return found

    def _revised(self, case: Case, opinion: Opinion) -> Transition:
        rule = self._rules[case.rule]
        level = case.level_at(opinion.since_us)
        zh, en = COLOURS_ZH[level - 1], COLOURS[level - 1]
        return Transition(
            alert_id=case.alert_id,
            rule=rule.id,
            version=rule.version,
            object=case.object,
            series=case.series,
            kind="verdict",
            level=level,
            time_us=opinion.since_us,
            value=None,
            limit=None,
            evidence={"verdict": opinion.to_json()},
            text_zh=f"【{zh}改判】{rule.title_zh}：{opinion.zh}",
            text_en=f"[{en} revised] {rule.title_en}: {opinion.en}",
            opinion=opinion,
        )

    # --- snapshots ---

    def save(self) -> bytes:
        """All marks and cases; equal states give equal bytes."""
        marks = [(series, of) for series, of in sorted(self._marks.items()) if of]
        return msgspec.msgpack.encode(_Kept(marks, [case for _, case in sorted(self._cases.items())]), order="sorted")

    def load(self, parts: Sequence[tuple[Part, bytes]]) -> None:
        """Replace all by what the parts take; what belongs to rules that are gone or changed is left out."""
        prints = {rule.fingerprint for rule in self._rules.values()}
        self._marks, self._cases, self._of_series, self._slow = {}, {}, {}, set()
        for part, state in parts:
            if not state:
                continue
            kept = msgspec.msgpack.decode(state, type=_Kept)
            for series, marks in kept.marks:
                if _takes(part, series) and series not in self._marks:
                    self._marks[series] = [mark for mark in marks if mark.fingerprint in prints]
            for case in kept.cases:
                if _takes(part, case.series) and case.fingerprint in prints:
                    self._cases.setdefault(case.alert_id, case)
        for name, case in self._cases.items():
            self._of_series.setdefault(case.series, set()).add(name)
            self._slow.add(name)


def _tells(rule: Rule) -> bool:
    """Whether it says where gas comes from, and so raises no alert; in shadow it says nothing."""
    return isinstance(rule, WitnessRule) and rule.tells is not None and rule.mode == "live"


def _words(marks: Iterable[Mark], at_us: int) -> list[Word]:
    return [
        Word(mark.word, mark.zh, mark.en, mark.facts)
        for mark in marks
        if mark.side == "origin" and mark.holds(at_us, linger_us=0)
    ]


def _told(state: str, origin: str) -> tuple[str, str]:
    """What is told of both: of a device's fault not where its gas comes from."""
    return state, UNASKED if state == "device" else origin


def _full(opinion: Opinion, origin: Origin | None) -> Opinion:
    """The opinion, with what is thought of the origin."""
    if origin is None or opinion.state == "device":
        return opinion
    return replace(opinion, origin=origin.to_json(), zh=f"{opinion.zh}{origin.zh}", en=f"{opinion.en} {origin.en}")


def _is_danger(rule: Rule, transition: Transition) -> bool:
    """Whether a raise is of a value beyond the scale that may well be real, and so doubts nothing."""
    return isinstance(rule, RangeRule) and rule.high_is == "danger" and transition.limit == rule.high


def _linger_us(rule: Rule) -> int:
    """How long after its end a doubt still explains a rule's alert: its window, its off-delay, and a minute."""
    if isinstance(rule, NightFlowRule):
        return microseconds(LINGER_S) + RECENT * DAY_US
    off_s, on_s = getattr(rule, "off_delay_s", None), getattr(rule, "on_delay_s", 0.0)
    return microseconds(LINGER_S + getattr(rule, "window_s", 0.0) + (2 * on_s if off_s is None else off_s))


def _takes(part: Part, series: int) -> bool:
    return part.series is None or series in part.series


def _with(transition: Transition, opinion: Opinion) -> Transition:
    return replace(transition, evidence={**transition.evidence, "verdict": opinion.to_json()}, opinion=opinion)


def _opinion(marks: Iterable[Mark], at_us: int, before: str, due_us: int, linger_us: int) -> Opinion:
    """What is to be thought at `at_us`. `before`: the state so far; `due_us`: when the undecided goes to people."""
    speaking = [mark for mark in marks if mark.holds(at_us, linger_us)]
    support = next((mark for mark in speaking if mark.side == "support"), None)
    if support is not None:
        zh, en = "见证测点随之变化，判为真实事件。", "its witnesses move with it: an event."
        return Opinion("event", "people", at_us, support.facts, zh, en)
    if before == "event":
        return _plain("event", "people", at_us)
    doubt = next((mark for mark in speaking if mark.side == "doubt"), None)
    if doubt is not None:
        zh, en = f"疑似设备故障，转维护核查：{doubt.zh}", f"probably a fault of the device, for maintenance: {doubt.en}"
        return Opinion("device", "maintenance", at_us, doubt.facts, zh, en)
    if at_us < due_us:
        zh = f"见证测点核实中，至 {utc(due_us)}；届时无定论即按真实事件处置。"
        en = f"its witnesses have until {utc(due_us)} to speak; undecided then, it is treated as real."
        return Opinion("undecided", "maintenance", at_us, {}, zh, en)
    return _plain("undecided", "people", at_us)


def _plain(state: Literal["event", "undecided"], audience: Literal["people", "maintenance"], at_us: int) -> Opinion:
    if state == "event":
        return Opinion(
            state, audience, at_us, {}, "此前已有佐证，维持真实事件。", "confirmed before; it stays an event."
        )
    zh, en = "没有证据表明设备故障，按真实事件处置。", "nothing speaks against the device; treat it as real."
    return Opinion(state, audience, at_us, {}, zh, en)


def _maintenance() -> Opinion:
    return Opinion(
        "device", "maintenance", 0, {}, "设备健康规则，转维护处置。", "a rule on the device's health: for maintenance."
    )
