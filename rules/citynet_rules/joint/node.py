"""Nodes: what is made of series. Each makes one series an object, at whose times rules are judged.

A `Line` is a series as the nodes see it: one that is read, or one that a node makes. The stage offers every new line to every
node; a node that has found the members of an object answers with the line it makes of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from citynet.batch import F64, I32, I64, U8, Bools
from citynet_rules import unit
from citynet_rules.colour import microseconds
from citynet_rules.condition import met_rows
from citynet_rules.derived import Derived
from citynet_rules.evaluate import evaluate, named
from citynet_rules.expression import Name, Past
from citynet_rules.joint.front import Front, Learner
from citynet_rules.joint.join import PAST_MAX, Block, Join, Readings, rank_up_to
from citynet_rules.joint.saved import Kept
from citynet_rules.rule import Rule
from citynet_rules.transition import Event, SeriesInfo

NEVER_US = 1 << 60
"""Waiting without end: the server's clock does not count."""


@dataclass(frozen=True, slots=True)
class Line:
    """A series: its slot among those read or those made, and who it is. `rule` is the id of the one rule it was made for,
    `maker` the number of the node that makes it, `is_gated` whether that is the rule's gate."""

    slot: int
    made: bool
    info: SeriesInfo
    rule: str = ""
    maker: int = -1
    is_gated: bool = False


class Made(NamedTuple):
    """Readings of the series that a node makes, by object and time; `met` is False at times that end what is under way."""

    object: I32
    time_us: I64
    value: F64
    quality: U8
    met: Bools | None


class Node(ABC):
    """One definition. `out` is the slot of the series it makes, by object; `metrics` are those of its members: other lines
    need not be offered."""

    def __init__(self, name: str, fingerprint: str, rule: str, join: Join, metrics: Iterable[str]) -> None:
        self.name = name
        self.metrics = frozenset(metrics)
        self.fingerprint = fingerprint
        self.rule = rule
        self.join = join
        self.kept = Kept(join)
        self.makers: set[int] = set()  # numbers of the nodes that make members of its objects
        self._out: I64 = np.empty(0, np.int64)

    @property
    def out(self) -> I64:
        return self._out[: len(self.join)]

    @abstractmethod
    def offer(self, line: Line) -> SeriesInfo | None:
        """Take a new line as a member if it is one; what the object that is complete with it makes."""

    @abstractmethod
    def make(self, block: Block) -> Made | None:
        """What becomes of released readings."""

    def add(self, info: SeriesInfo, slot: int, members: list[tuple[int, Line]]) -> None:
        """A new object that makes the series `info` in `slot` of these (role, line)."""
        number = self.join.add(info.id)
        if number == len(self._out):
            self._out = np.append(self._out, np.zeros(max(16, number), np.int64))
        self._out[number] = slot
        for role, line in members:
            self._link(number, role, line)
        self.kept.adopt(np.array([number]))

    def _link(self, number: int, role: int, line: Line) -> None:
        self.join.link(number, role, line.slot, made=line.made)
        if line.made:
            self.makers.add(line.maker)

    @abstractmethod
    def members(self, info: SeriesInfo) -> list[tuple[int, Line]]:
        """(role, line) of the members of an object just completed."""


class DeriveNode(Node):
    """A derived metric, for every device that has all operands."""

    def __init__(self, derived: Derived) -> None:
        self.derived = derived
        self._formula = derived.formula
        self._names = list(derived.operands)
        pasts = [[p.window_us for p in self._formula.pasts if p.name == name] for name in self._names]
        past_us = [max(windows, default=0) for windows in pasts]
        count = len(self._names)
        join = Join(count, count, microseconds(derived.wait_s), past_us)
        metrics = {operand.metric for operand in derived.operands.values()}
        super().__init__(f"derived {derived.name}", derived.fingerprint, "", join, metrics)
        self._units = [unit.parse(operand.unit) for operand in derived.operands.values()]
        self._age_us = [microseconds(operand.max_age_s) for operand in derived.operands.values()]
        self._roles: dict[str, list[int]] = {}
        for role, operand in enumerate(derived.operands.values()):
            self._roles.setdefault(operand.metric, []).append(role)
        self._found: dict[str, dict[int, Line]] = {}

    def offer(self, line: Line) -> SeriesInfo | None:
        roles = self._roles.get(line.info.metric)
        if roles is None or line.rule or not self.derived.selects(line.info.device):
            return None
        found = self._found.setdefault(line.info.device, {})
        found.update(dict.fromkeys(roles, line))
        if len(found) < len(self._names):
            return None
        first = found[0].info
        return SeriesInfo(first.id, first.device, self.derived.name, first.source)

    def members(self, info: SeriesInfo) -> list[tuple[int, Line]]:
        return sorted(self._found.pop(info.device).items(), key=lambda member: member[0])

    def make(self, block: Block) -> Made | None:
        rows, at = block.rows, block.instants
        owner, time_us = rows.object[at], rows.time_us[at]
        values: dict[Name | Past, F64] = {}
        known = np.ones(len(at), np.bool_)
        for role, name in enumerate(self._names):
            when_us, value = block.latest(role, rows.role == role, at)
            known &= when_us >= time_us - self._age_us[role]
            values[named(name)] = self._base(role, value)
        if self._formula.pasts:
            history = self.join.remember(block)
            for past in self._formula.pasts:
                values[past] = self._look_back(history, past, owner, time_us)
                known &= ~np.isnan(values[past])
            self.join.forget()
        result = evaluate(self._formula.node, values, len(at))
        of = unit.parse(self.derived.unit)
        result = (result - float(of.offset)) / float(of.factor)
        kept = known & np.isfinite(result)
        quality = np.zeros(int(kept.sum()), np.uint8)
        return Made(owner[kept], time_us[kept], result[kept], quality, None) if kept.any() else None

    def _base(self, role: int, value: F64) -> F64:
        """In base units."""
        of = self._units[role]
        return value * float(of.factor) + float(of.offset)

    def _look_back(self, history: Readings, past: Past, owner: I32, time_us: I64) -> F64:
        """The past's value at each instant, in base units; NaN where unknown."""
        role = self._names.index(past.name)
        position, start, now = rank_up_to(history, role, owner, time_us)
        values, times = history.value[position], history.time_us[position]
        _, _, then = rank_up_to(history, role, owner, time_us - past.window_us)
        oldest = np.maximum(start, now - PAST_MAX)
        if past.function == "mean":
            return self._base(role, _means(values, np.maximum(oldest, then), now))
        found = then - 1 >= oldest
        place = np.where(found, then - 1, 0)
        if not len(values):
            return np.full(len(owner), np.nan)
        found &= times[place] >= time_us - past.window_us - self._age_us[role]
        before = self._base(role, values[place])
        if past.function == "lag":
            return np.where(found, before, np.nan)
        newest = self._base(role, values[np.maximum(now - 1, 0)])
        return np.where(found & (now > start), newest - before, np.nan)


def _means(values: F64, start: I64, stop: I64) -> F64:
    """Mean of each values[start:stop]; NaN of none."""
    some = stop > start
    found = np.full(len(start), np.nan)
    if some.any():
        bounds = np.column_stack([start[some], stop[some]]).ravel()
        sums = np.add.reduceat(np.append(values, 0.0), bounds)[::2]
        found[some] = sums / (stop - start)[some]
    return found


class GateNode(Node):
    """The readings that a rule with conditions judges."""

    def __init__(self, rule: Rule, *, is_joint: bool, waits: bool) -> None:
        self._rule = rule
        self._is_joint = is_joint
        self._watched = [condition.watched for condition in rule.when]
        roles = 1 + len(rule.when)
        wait_us = microseconds(rule.when_wait_s) if waits else NEVER_US
        join = Join(roles, roles, wait_us, as_is=frozenset({0}))
        metrics = {rule.metric, *(metric for metric in self._watched if metric is not None)}
        super().__init__(f"when {rule.id}", rule.fingerprint, rule.id, join, metrics)
        self._seen: list[dict[str, Line]] = [{} for _ in rule.when]
        self._objects: dict[str, int] = {}
        self._primary: Line | None = None

    def offer(self, line: Line) -> SeriesInfo | None:
        for number, (condition, metric) in enumerate(zip(self._rule.when, self._watched, strict=True)):
            is_member = metric == line.info.metric and not line.rule
            if is_member and condition.device in {None, line.info.device}:
                self._condition(number, line, everywhere=condition.device is not None)
        if not self._is_primary(line):
            return None
        self._primary = line
        return line.info

    def _is_primary(self, line: Line) -> bool:
        if self._is_joint:
            return line.rule == self._rule.id and not line.is_gated
        return not line.rule and self._rule.selects(line.info.device, line.info.metric)

    def _condition(self, number: int, line: Line, *, everywhere: bool) -> None:
        """A condition's series is there: give it to the objects that wait for it."""
        key = "" if everywhere else line.info.device
        self._seen[number][key] = line
        objects = list(self._objects.values()) if everywhere else [self._objects.get(key, -1)]
        for of in objects:
            if of >= 0:
                self._link(of, 1 + number, line)

    def members(self, info: SeriesInfo) -> list[tuple[int, Line]]:
        primary = self._primary
        if primary is None:
            raise AssertionError("no primary")
        self._objects[info.device] = len(self.join)
        found = [(0, primary)]
        for number, condition in enumerate(self._rule.when):
            line = self._seen[number].get(info.device if condition.device is None else "")
            if line is not None:
                found.append((1 + number, line))
        return found

    def make(self, block: Block) -> Made | None:
        rows = block.rows
        at = np.flatnonzero(rows.role == 0)
        time_us, quality = rows.time_us[at], rows.quality[at]
        met = np.ones(len(at), np.bool_)
        for number, condition in enumerate(self._rule.when):
            role = 1 + number
            known_us, known = block.latest(role, rows.role == role, block.end[at])
            unknown_is_met = self._rule.when_unknown == "met"
            met &= met_rows(condition, time_us, quality, known_us, known, unknown_is_met=unknown_is_met)
        if self._rule.when_ends == "hold":
            at, met = at[met], met[met]
        if not len(at):
            return None
        return Made(rows.object[at], rows.time_us[at], rows.value[at], rows.quality[at], met)


class ScoreNode(Node):
    """The score of a rule over several series, for each of its objects."""

    def __init__(self, rule: Rule, front: Front) -> None:
        roles = max(len(members) for members in front.objects.values())
        memory = front.memory if isinstance(front, Learner) else ()
        join = Join(roles, front.channels(roles), front.wait_us, memory=memory)
        metrics = {metric for members in front.objects.values() for _, metric in members}
        super().__init__(f"score {rule.id}", rule.fingerprint, rule.id, join, metrics)
        self._rule, self._front = rule, front
        self._wanted: dict[tuple[str, str], list[tuple[str, int]]] = {}
        for name, members in front.objects.items():
            for role, member in enumerate(members):
                self._wanted.setdefault(member, []).append((name, role))
        self._found: dict[str, dict[int, Line]] = {name: {} for name in front.objects}
        self._number: dict[str, int] = {}
        self.learns = isinstance(front, Learner)

    def offer(self, line: Line) -> SeriesInfo | None:
        places = [] if line.rule else self._wanted.get((line.info.device, line.info.metric), [])
        for name, role in places:
            found = self._found[name]
            found[role] = line
            if len(found) == len(self._front.objects[name]):
                return SeriesInfo(found[0].info.id, name, self._rule.metric, found[0].info.source)
        return None

    def members(self, info: SeriesInfo) -> list[tuple[int, Line]]:
        self._number[info.device] = len(self.join)
        return sorted(self._found[info.device].items(), key=lambda member: member[0])

    def explained(self, event: Event, name: str) -> Event:
        """`event` of the object `name` with what the front has learned of it."""
        if not isinstance(self._front, Learner):
            return event
        number = self._number[name]
        expected, more = self._front.explain(self.join.state[number : number + 1])
        return replace(event, expected=expected, more=more)

    def tries(self) -> I64:
        """How often each object learned in vain; 0 where there is something learned, or not yet."""
        front = self._front
        return front.tries(self.join.state) if isinstance(front, Learner) else np.zeros(len(self.join), np.int64)

    def make(self, block: Block) -> Made | None:
        at = block.instants
        score = self._front.score(block, at)
        kept = np.isfinite(score)
        at, score = at[kept], score[kept]
        if not len(at):
            return None
        return Made(block.rows.object[at], block.rows.time_us[at], score, np.zeros(len(at), np.uint8), None)
