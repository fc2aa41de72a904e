"""The second stage of the engine: nodes in the order of what they need, and the rules that watch what nodes make.

It exists only where a rule set has a derived metric, a condition or a rule over several series; otherwise the engine asks
once a feed whether there is one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from citynet.batch import F64, I32, I64, Bools
from citynet_rules.derived import Derived
from citynet_rules.group import Group
from citynet_rules.guard import RuleFailedError, advanced, fed, users_of
from citynet_rules.joint.front import JointKind
from citynet_rules.joint.join import Block
from citynet_rules.joint.node import DeriveNode, GateNode, Line, Made, Node, ScoreNode
from citynet_rules.joint.saved import check
from citynet_rules.joint.witness import WitnessNode
from citynet_rules.kinds import KINDS
from citynet_rules.kinds.kind import Progress, Segments, usable_rows
from citynet_rules.kinds.witness import WitnessRule
from citynet_rules.rule import Rule
from citynet_rules.series import SeriesTable
from citynet_rules.snapshot import JoinTable, Part
from citynet_rules.transition import NONE_US, Event, SeriesInfo

Found = list[tuple[Group, list[Event]]]
Near = Mapping[str, Mapping[str, Sequence[str]]]


def is_joint(rule: Rule, derived: Iterable[str]) -> bool:
    """Whether a rule watches what a node makes, and not a series as it is read."""
    return bool(rule.when) or rule.metric in derived or _is_over_several(rule)


def _is_over_several(rule: Rule) -> bool:
    return isinstance(KINDS[rule.kind], JointKind) or isinstance(rule, WitnessRule)


class Stage:
    """Nodes, the series they make (`info` by slot), and the rules on them."""

    def __init__(self, rules: Sequence[Rule], derived: Sequence[Derived], near: Near) -> None:
        """`derived` behind what they are computed from; `near`: neighbouring devices, by metric and device."""
        self._metrics = tuple(derived)
        self._derived = frozenset(each.name for each in derived)
        scores = [
            ScoreNode(rule, kind.front(rule)) for rule in rules if isinstance(kind := KINDS[rule.kind], JointKind)
        ]
        self._learners = {score.rule: score for score in scores if score.learns}
        gates = [_gate(rule) for rule in rules if rule.when]
        witnesses = [WitnessNode(rule, near.get(rule.metric, {})) for rule in rules if isinstance(rule, WitnessRule)]
        self.nodes: list[Node] = [*map(DeriveNode, derived), *scores, *witnesses, *gates]
        self._takers: dict[str, list[tuple[int, Node]]] = defaultdict(list)  # by metric
        for number, node in enumerate(self.nodes):
            for metric in node.metrics:
                self._takers[metric].append((number, node))
        by_kind: dict[str, list[Rule]] = defaultdict(list)
        for rule in rules:
            by_kind[rule.kind].append(rule)
        self.groups = [Group(KINDS[name], of_kind, f"{name}+") for name, of_kind in sorted(by_kind.items())]
        basis = {each.name: {"expression": each.expression, "unit": each.unit} for each in derived}
        for group in self.groups:
            for facts, rule in zip(group.facts, group.rules, strict=True):
                if rule.metric in basis:
                    facts["derived"] = basis[rule.metric]
        self._gated = frozenset(rule.id for rule in rules if rule.when)
        self._alone = self._gated | {rule.id for rule in rules if _is_over_several(rule)}
        self.info: list[SeriesInfo] = []
        self._witnessed: dict[int, list[tuple[WitnessNode, int]]] = {}
        self._lines: dict[tuple[str, int], tuple[Node, int]] = {}

    # --- series ---

    def bind(self, fresh: Iterable[tuple[int, SeriesInfo]]) -> None:
        """Newly bound series; those whose name a derived metric has are not seen here."""
        lines = [Line(slot, False, info) for slot, info in fresh if info.metric not in self._derived]
        while lines:
            lines = [made for line in lines for made in self._offer(line)]

    def _offer(self, line: Line) -> list[Line]:
        found = []
        for number, node in self._takers.get(line.info.metric, ()):
            info = node.offer(line)
            if info is not None:
                is_gate = isinstance(node, GateNode)
                made = Line(len(self.info), True, info, node.rule, number, is_gate)
                self.info.append(info)
                node.add(info, made.slot, node.members(info))
                self._watch(made, is_last=node.rule not in self._gated or is_gate)
                found.append(made)
        return found

    def _watch(self, line: Line, *, is_last: bool) -> None:
        """Make the pairs of a line that a node makes; of the lines made for one rule it watches the last."""
        series: I32 = np.array([line.info.id], np.int32)
        for group in self.groups:
            if line.rule:
                numbers = [n for n, rule in enumerate(group.rules) if is_last and rule.id == line.rule]
            else:
                numbers = [
                    n for n in group.watching(line.info.device, line.info.metric) if not self._own(group.rules[n])
                ]
            for number in numbers:
                group.add(np.array([number], np.int32), np.array([line.slot], np.int64), series)
                node = self.nodes[line.maker]
                self._lines[group.rules[number].id, line.info.id] = node, len(node.join) - 1
                if isinstance(node, WitnessNode):
                    self._witnessed.setdefault(line.info.id, []).append((node, len(node.join) - 1))

    def _own(self, rule: Rule) -> bool:
        """Whether a node makes a series for this rule alone."""
        return rule.id in self._alone

    # --- readings and time ---

    def feed(self, segments: Segments, series: SeriesTable) -> Found:
        """Take the accepted readings of a feed; `series` has moved already."""
        changed = {node.name: _none() for node in self.nodes}
        watermark_us = series.watermark_us(segments.slot)
        for node in self.nodes:
            promised_us = np.maximum(watermark_us, series.waited_us(segments.slot, node.join.wait_us))
            changed[node.name] = node.join.take(segments, promised_us, made=False)
        return self._explained(self._run(series, changed))

    def advance(self, series: SeriesTable) -> Found:
        """Time has come further."""
        found = self._run(series, {node.name: np.arange(len(node.join)) for node in self.nodes})
        progress = self._progress(series)
        found += [(group, advanced(group, progress)) for group in self.groups]
        return self._explained(found)

    def _explained(self, found: Found) -> Found:
        """Events of rules that learn, with what they have learned."""
        if not self._learners:
            return found
        return [(group, [self._explain(group, event) for event in events]) for group, events in found]

    def _explain(self, group: Group, event: Event) -> Event:
        node = self._learners.get(group.rules[event.rule].id)
        return event if node is None else node.explained(event, self.info[event.slot].device)

    def _run(self, series: SeriesTable, changed: Mapping[str, I64]) -> Found:
        """Let every node make what it can, first those the others need."""
        made: dict[int, tuple[Segments, Bools | None]] = {}
        moved: dict[int, I64] = {}
        for number, node in enumerate(self.nodes):
            objects = [changed[node.name]]
            for maker in node.makers & moved.keys():
                objects.append(node.join.owners(moved[maker], made=True))
                if maker in made:
                    segments = made[maker][0]
                    node.join.take(segments, np.full(len(segments), NONE_US, np.int64), made=True)
            touched = np.unique(np.concatenate(objects)) if len(objects) > 1 else objects[0]
            if not len(touched):
                continue
            block = node.join.release(touched, self._frontier_us(node, touched, series))
            moved[number] = node.out[touched]
            rows = self._made(node, block) if block is not None else None
            if rows is not None:
                made[number] = (_segments(node, rows), rows.met)
        return self._judge(*_together(list(made.values()))) if made else []

    def _made(self, node: Node, block: Block) -> Made | None:
        """What a node makes. RuleFailedError: it threw; the rules that need it are named."""
        try:
            return node.make(block)
        except Exception as error:
            rules = [rule for group in self.groups for rule in group.rules]
            name = node.name.partition(" ")[2]
            failed = [node.rule] if node.rule else users_of(name, rules, self._metrics)
            raise RuleFailedError(failed or [rule.id for rule in rules], repr(error)) from error

    def _frontier_us(self, node: Node, objects: I64, series: SeriesTable) -> I64:
        """How far each object has come: as far as the member that is the furthest behind."""
        slot, is_made = node.join.members(objects)
        member_us = np.full(slot.shape, np.iinfo(np.int64).max)
        read = (slot >= 0) & ~is_made
        promised_us = np.maximum(series.tip_us[slot[read]], series.watermark_us(slot[read]))
        member_us[read] = np.maximum(promised_us, series.waited_us(slot[read], node.join.wait_us))
        if is_made.any():
            member_us[is_made] = self._frontiers_us()[slot[is_made]]
        found: I64 = member_us.min(axis=1)
        return found

    def _frontiers_us(self) -> I64:
        """Frontier of every series that is made, by slot."""
        found: I64 = np.full(len(self.info), NONE_US, np.int64)
        for node in self.nodes:
            found[node.out] = node.join.state["frontier_us"]
        return found

    def _progress(self, series: SeriesTable) -> Progress:
        tip_us: I64 = np.full(len(self.info), NONE_US, np.int64)
        tip: F64 = np.full(len(self.info), np.nan)
        for node in self.nodes:
            tip_us[node.out] = node.join.state["tip_us"]
            tip[node.out] = node.join.state["tip"]
        return Progress(tip_us, tip, self._frontiers_us(), series.server_us, self._servers_us(series))

    def _servers_us(self, series: SeriesTable) -> I64 | None:
        """How far the server's watermark goes for every series that is made: as far as for all that it is made of."""
        if not series.is_bounded:
            return None
        found: I64 = np.full(len(self.info), series.server_us)
        for node in self.nodes:
            slot, is_made = node.join.members(np.arange(len(node.join)))
            read = (slot >= 0) & ~is_made
            member_us = np.full(slot.shape, series.server_us)
            member_us[read], member_us[is_made] = series.waited_us(slot[read], 0), found[slot[is_made]]
            found[node.out] = member_us.min(axis=1)
        return found

    def _judge(self, segments: Segments, met: Bools | None) -> Found:
        """Feed the rules what nodes have made: stretch by stretch where conditions come and go."""
        if met is None or met.all():
            return [(group, fed(group, segments)) for group in self.groups]
        found: Found = []
        for stretch, is_met in _stretches(segments, met):
            for group in self.groups:
                if is_met:
                    found.append((group, fed(group, stretch)))
                else:
                    found.append((group, self._end(group, stretch)))
        return found

    def _end(self, group: Group, stretch: Segments) -> list[Event]:
        """At the first reading of each stretch the conditions are no longer met. What became due before comes first: a
        watermark may have told it already."""
        time_us = stretch.time_us[stretch.start]
        now_us: I64 = np.full(len(self.info), NONE_US, np.int64)
        tip_us, tip = now_us.copy(), np.full(len(self.info), np.nan)
        now_us[stretch.slot] = time_us - 1
        tip_us[stretch.slot], tip[stretch.slot] = stretch.before_us, stretch.before
        events = advanced(group, Progress(tip_us, tip, now_us, NONE_US))
        return [*events, *group.release(stretch.slot, time_us, stretch.value[stretch.start])]

    def hold(self, rule: str, series: int) -> tuple[int, int] | None:
        """How far everything has come that can speak about a rule's alert on a series, and how long its witnesses have for it,
        µs. None: nothing over several series speaks."""
        heard = [(node, n) for node, n in self._witnessed.get(series, ()) if n in node.heard]
        own = self._lines.get((rule, series))
        parts: list[tuple[Node, int]] = [*heard, *([own] if own else [])]
        if not parts:
            return None
        frontier_us = min(int(node.join.state["frontier_us"][n]) for node, n in parts)
        return frontier_us, max((node.hold_us for node, _ in heard), default=0)

    def unlearned(self) -> dict[str, tuple[int, int]]:
        """As `Engine.unlearned`."""
        tries = {rule: node.tries() for rule, node in self._learners.items()}
        return {rule: (int(np.count_nonzero(of)), int(of.max())) for rule, of in tries.items() if of.any()}

    # --- snapshots ---

    @property
    def ids(self) -> I32:
        """By which series' id the pairs of a line that is made are known in snapshots."""
        return np.array([info.id for info in self.info], np.int32)

    def save(self) -> list[JoinTable]:
        """States of all nodes."""
        return [node.kept.save(node.name, node.fingerprint) for node in self.nodes]

    def check(self, tables: Iterable[JoinTable]) -> None:
        """Raise `CitynetError` if `load` could not read them."""
        by_name = {node.name: node for node in self.nodes}
        for table in tables:
            if (node := by_name.get(table.name)) is not None and table.fingerprint == node.fingerprint:
                check(table, node.join)

    def load(self, parts: Sequence[tuple[Part, Sequence[JoinTable]]]) -> None:
        """Replace the states of all nodes."""
        for node in self.nodes:
            fitting = []
            for part, tables in parts:
                for table in tables:
                    is_same = (table.name, table.fingerprint) == (node.name, node.fingerprint)
                    if is_same and check(table, node.join):
                        anchor = np.frombuffer(table.anchor, "<i4").astype(np.int32)
                        fitting.append((table, part.has(anchor)))
            node.kept.load(fitting)


def _gate(rule: Rule) -> GateNode:
    is_over_several = isinstance(KINDS[rule.kind], JointKind)
    return GateNode(rule, is_joint=is_over_several, waits=rule.kind != "stale")


def _none() -> I64:
    return np.empty(0, np.int64)


def _together(made: Sequence[tuple[Segments, Bools | None]]) -> tuple[Segments, Bools | None]:
    """What several nodes have made as one: each series is made by one node."""
    if len(made) == 1:
        return made[0]
    every = [segments for segments, _ in made]
    count = [len(segments.time_us) for segments in every]
    shift = np.repeat(np.cumsum([0, *count[:-1]]), [len(segments) for segments in every])

    def joined(name: str) -> Any:
        return np.concatenate([getattr(segments, name) for segments in every])

    usable = None
    if any(segments.usable is not None for segments in every):
        usable = np.concatenate([_or_true(segments.usable, n) for segments, n in zip(every, count, strict=True)])
    met = None
    if any(of is not None for _, of in made):
        met = np.concatenate([_or_true(of, n) for (_, of), n in zip(made, count, strict=True)])
    whole = Segments(
        joined("slot"), joined("start") + shift, joined("stop") + shift, joined("before_us"), joined("before"),
        joined("time_us"), joined("value"), joined("quality"), usable, joined("flags"),
    )  # fmt: skip
    return whole, met


def _or_true(mask: Bools | None, count: int) -> Bools:
    return np.ones(count, np.bool_) if mask is None else mask


def _segments(node: Node, rows: Made) -> Segments:
    """Made readings as segments; the series' tips move on."""
    count = len(rows.object)
    start = np.flatnonzero(np.append(True, rows.object[1:] != rows.object[:-1]))
    stop = np.append(start[1:], count)
    owner = rows.object[start]
    state = node.join.state
    before_us, before = state["tip_us"][owner], state["tip"][owner]
    last_met = np.ones(len(stop), np.bool_) if rows.met is None else rows.met[stop - 1]
    state["tip_us"][owner] = np.where(last_met, rows.time_us[stop - 1], NONE_US)
    state["tip"][owner] = np.where(last_met, rows.value[stop - 1], np.nan)
    usable = usable_rows(rows.value, rows.quality)
    flags = np.zeros(count, np.uint8)
    columns = (rows.time_us, rows.value, rows.quality, usable, flags)
    return Segments(node.out[owner], start, stop, before_us, before, *columns)


def _stretches(segments: Segments, met: Bools) -> Iterable[tuple[Segments, bool]]:
    """Segments cut where `met` changes: the first stretch of all series, met ones and others, then the second, …"""
    of = np.repeat(np.arange(len(segments)), segments.stop - segments.start)
    begins = np.append(True, (met[1:] != met[:-1]) | (of[1:] != of[:-1]))
    run = np.cumsum(begins) - 1
    first = np.flatnonzero(begins)
    first_of = np.searchsorted(of[first], np.arange(len(segments)))
    ordinal = np.arange(len(first)) - first_of[of[first]]
    for number in range(int(ordinal.max()) + 1):
        for is_met in (True, False):
            runs = np.flatnonzero((ordinal == number) & (met[first] == is_met))
            if len(runs):
                stretch = _picked(segments, of, run, runs, first[runs], is_first=number == 0)
                yield (_alone(stretch) if is_met and number else stretch), is_met


def _alone(segments: Segments) -> Segments:
    """Without anything before: what came before has been ended."""
    count = len(segments)
    return replace(segments, before_us=np.full(count, NONE_US, np.int64), before=np.full(count, np.nan))


def _picked(segments: Segments, of: I64, run: I64, runs: I64, first: I64, *, is_first: bool) -> Segments:
    """These runs of rows, which begin at the rows `first`, as segments of their own."""
    rows = np.flatnonzero(np.isin(run, runs))
    start = np.flatnonzero(np.append(True, run[rows][1:] != run[rows][:-1]))
    stop = np.append(start[1:], len(rows))
    owner = of[first]
    if is_first:
        before_us, before = segments.before_us[owner], segments.before[owner]
    else:
        before_us, before = segments.time_us[first - 1], segments.value[first - 1]
    usable = None if segments.usable is None else segments.usable[rows]
    columns = (segments.time_us[rows], segments.value[rows], segments.quality[rows])
    return Segments(segments.slot[owner], start, stop, before_us, before, *columns, usable, segments.flags[rows])
