"""The rules engine: accepted readings and watermarks in, transitions of alerts out. Pure; time is in the data.

Event time only. A reading is LATE when its time is at or before the newest time of its series among the readings
accepted before it, in acceptance order, across batches and inside one. Late readings get the flag and are not
evaluated; they are stored by others. So what is evaluated per series is strictly rising in time, and from that follow
the laws:

- duplicates change nothing (law 3): a repeated reading is late;
- cutting the input into other batches changes nothing (law 2);
- after a crash, `restore` of the last snapshot and `feed` of the stored rows with time above the series' tip and
  without the LATE flag, in time order, gives the same state and, again, the same transitions with the same ids (law 5);
- history fed through it gives what it gave live, as long as the watermarks keep their promise (law 6).

Of a series with a lateness bound readings are put in order first (`citynet_rules.reorder`): order within the bound changes
nothing (law 4). Its readings get no flags of rules: they are stored before they are evaluated.

A watermark W of a source promises that no reading of its series at or before W, less its bound, is still to come.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from citynet.batch import F64, I32, I64, U8, Bools, SeriesBatch
from citynet.errors import CitynetError
from citynet.quality import LATE
from citynet_rules import reorder
from citynet_rules.derived import in_order
from citynet_rules.group import Group
from citynet_rules.guard import advanced, fed
from citynet_rules.joint.front import JointKind
from citynet_rules.joint.spread import Spread, may_spread, spread
from citynet_rules.joint.stage import Stage, is_joint
from citynet_rules.kinds import KINDS
from citynet_rules.kinds.jump import JumpRule
from citynet_rules.kinds.kind import Segments, usable_rows
from citynet_rules.late import check_grouped, late_rows
from citynet_rules.reorder import Held, Reorder
from citynet_rules.rule import Rule, microseconds
from citynet_rules.series import SERVER, SeriesTable
from citynet_rules.snapshot import Part, Snapshot, decode, encode
from citynet_rules.spec import RuleSet
from citynet_rules.transition import NONE_US, Event, OpenAlert, SeriesInfo, Transition, alert_id, dress, order
from citynet_rules.verdict import Docket

WAIT_US = 60_000_000  # a source that is silent for longer, by the server's clock, is not waited for with a verdict

__all__ = ["Engine", "Fed", "OpenAlert", "Part", "SeriesInfo", "Transition"]


@dataclass(frozen=True)
class Fed:
    """What one batch came to.

    `quality` is uint8, one entry a row of the batch and in its order: the batch's own with `LATE` set exactly where
    late (the engine alone decides; a LATE flag that came in is dropped), and with the flags that rules of kinds `range`
    and `stuck` put on readings that are not late. `transitions` are sorted by (time_us, rule,
    object).
    """

    quality: U8
    transitions: list[Transition]


Found = list[list[Transition]]


class Engine:
    """Evaluates a rule set on any number of series.

    Memory: about 30 bytes a series and 200 bytes a (rule, series) pair (with a window or a week to keep, up to 12 KB), plus
    the `SeriesInfo`s. Cost: vector work per reading; scalar steps only for (rule, series) pairs whose readings of a batch
    may change something.
    """

    def __init__(
        self,
        rules: RuleSet,
        is_joined: Callable[[SeriesInfo], bool] = lambda _: True,
        bound_us: Callable[[SeriesInfo], int] | None = None,
    ) -> None:
        """`is_joined` says of which series the readings come here: joins would wait for others in vain. `bound_us` says of
        each how late readings may come and change nothing (None: of none; history that is read in order has no need)."""
        self._is_joined = is_joined
        self._bound_us = bound_us
        self._reorder = None if bound_us is None else Reorder()
        self._may_spread = may_spread(rules, rules.neighbours)
        self._rules = rules
        self._series = SeriesTable()
        self._series.order = self._reorder
        derived, _ = in_order(rules.derived)
        names = frozenset(each.name for each in derived)
        joint = [rule for rule in rules if is_joint(rule, names)]
        self._stage = Stage(joint, derived, rules.neighbours) if joint else None
        by_kind: dict[tuple[str, str], list[Rule]] = defaultdict(list)
        for rule in rules:
            if not is_joint(rule, names):
                by_kind[rule.kind, rule.mode].append(rule)
        self._groups = [Group(KINDS[name], of_kind) for (name, _), of_kind in sorted(by_kind.items())]
        waits_us = [] if self._stage is None else [node.join.wait_us for node in self._stage.nodes]
        self._wait_us = min([WAIT_US, *waits_us])  # so much behind the server's watermark nothing waits for its order
        back_us = {each.name: max((past.window_us for past in each.formula.pasts), default=0) for each in derived}
        self._docket = Docket(rules, lambda rule: isinstance(KINDS[rule.kind], JointKind), back_us)
        self._jumps = [rule for rule in rules if isinstance(rule, JumpRule) and rule.mode == "live"]
        self._spikes: dict[int, int] = {}
        self._ids: dict[tuple[str, str], int] = {}
        self._names: dict[int, tuple[str, str]] = {}

    def bind(self, series: Iterable[SeriesInfo]) -> None:
        """Make series known; rules watch those they select from here on. New series may appear at any time.

        Binding the same series again changes nothing but, where it differs, its source. Bind a series before its
        readings are fed: what was fed earlier counts for its tip only.

        Raises:
            CitynetError: an id is bound to another name already, or the name (device, metric) to another id: a rule has
                one series an object. Nothing has been bound then.
        """
        given = list(series)
        if not given:
            return
        self._check_names(given)
        infos = {info.id: info for info in given}
        slots = self._series.slots(np.fromiter(infos, np.int32, len(infos)))
        fresh: list[tuple[int, SeriesInfo]] = []
        for slot, info in zip(slots.tolist(), infos.values(), strict=True):
            if self._series.info[slot] is None:
                fresh.append((slot, info))
                if self._reorder is not None and self._bound_us is not None:
                    self._series.set_bound(slot, bound_us := self._bound_us(info))
                    if not bound_us:
                        self._reorder.drop(slot)
            self._series.info[slot] = info
            self._series.set_source(slot, info.source)
            name = (info.device, info.metric)
            self._ids[name] = info.id
            self._names[info.id] = name
        self._watch(fresh)

    def feed(self, batch: SeriesBatch) -> Fed:
        """Take accepted readings, grouped by series, in acceptance order inside a series; times within ±2^61 µs.

        Raises:
            CitynetError: a series has two runs of rows (nothing has been taken then).
            RuleFailedError: rules threw; so does `advance`. This engine is of no use any more.
        """
        quality = batch.quality & np.uint8(~LATE & 0xFF)
        if not len(batch):
            return Fed(quality, [])
        start = batch.starts()
        ids = batch.series[start]
        check_grouped(ids)
        slot = self._series.slots(ids)
        if self._series.is_bounded and (waits := self._series.bound_us[slot] > 0).any():
            found = self._feed_some_in_order(batch, quality, slot, waits)
        else:
            found = self._feed_as_they_come(batch, quality, slot)
        return Fed(quality, self._judged(found) if found else [])

    def _feed_as_they_come(self, batch: SeriesBatch, quality: U8, slot: I64) -> Found:
        """Evaluate readings of series without a bound; `quality` gets its flags."""
        start = batch.starts()
        late = late_rows(batch.time_us, start, self._series.tip_us[slot])
        if late is not None:
            quality[late] |= LATE
        segments = self._segments(batch, start, slot, late)
        found = self._evaluate(segments)
        quality[slice(None) if late is None else ~late] |= segments.flags
        return found

    def _feed_some_in_order(self, batch: SeriesBatch, quality: U8, slot: I64, waits: Bools) -> Found:
        """The same where series that `waits` names have a bound."""
        rows = np.repeat(waits, np.diff(batch.starts(), append=len(batch)))
        part, rest = batch.picked(rows), batch.picked(~rows)
        if self._reorder is None:
            raise AssertionError("bounds without order")
        slots = slot[waits]
        part = replace(part, quality=quality[rows])
        tip_us, bound_us, reached_us = (column[slots] for column in self._columns_of_order())
        late, released = self._reorder.take(slots, part, tip_us, bound_us, reached_us)
        quality[rows] |= np.where(late, np.uint8(LATE), np.uint8(0))
        found = self._release(released)
        if len(rest):
            own = quality[~rows]
            found += self._feed_as_they_come(rest, own, slot[~waits])
            quality[~rows] = own
        return found

    def _columns_of_order(self, marks: Mapping[str, int] | None = None) -> tuple[I64, I64, I64]:
        """By slot newest evaluated reading, bound, and how far watermarks have come, or will have with `marks`."""
        series = self._series
        return series.tip_us, series.bound_us, series.reach_us(marks or {}, self._wait_us)

    def _release(self, rows: Held) -> Found:
        """Evaluate readings that waited, by slot and time."""
        start = np.flatnonzero(np.diff(rows["slot"], prepend=-1)).astype(np.int64)
        batch = SeriesBatch(rows["slot"], rows["time_us"], rows["value"], rows["quality"])
        return self._evaluate(self._segments(batch, start, rows["slot"][start], None))

    def _evaluate(self, segments: Segments) -> Found:
        """What rules say to accepted readings; their series move on."""
        if not len(segments):
            return []
        muted = replace(
            segments, flags=np.zeros_like(segments.flags)
        )  # rules in shadow leave no mark on what is stored
        found = [self._dress(group, fed(group, muted if group.is_shadow else segments)) for group in self._groups]
        self._series.move(segments)
        if self._stage is not None:
            found += self._dress_made(self._stage.feed(segments, self._series))
        return found

    def advance(self, watermarks: Mapping[str, int]) -> list[Transition]:
        """Event time has come this far, per source (µs since 1970; key "" is the server's own); lower values are
        ignored.

        Sources need not be known; each costs a dict entry, so their number is bounded by the fleet's.
        """
        found: Found = []
        if self._reorder:  # before watermarks have passed it: joins pass over what is behind them
            _, bound_us, reached_us = self._columns_of_order(watermarks)
            found += self._release(self._reorder.due(reached_us, bound_us))
        for source, watermark_us in watermarks.items():
            self._series.pass_time(source, watermark_us)
        if self._reorder is not None:
            self._reorder.settle()
        progress = self._series.progress()
        found += [self._dress(group, advanced(group, progress)) for group in self._groups]
        if self._stage is not None:
            found += self._dress_made(self._stage.advance(self._series))
        return self._judged(found)

    def tips(self) -> tuple[I32, I64]:
        """Ids (int32) of all series that were bound, fed or restored, and the event time behind which stored readings may be
        unknown to each: the newest that was evaluated, or the frontier of one of which all wait (int64 µs, -2**62 where
        there is neither)."""
        tip_us = self._series.tip_us.copy()
        if self._reorder:
            tip_us = np.where(tip_us == NONE_US, self._reorder.frontier_us(self._series.bound_us), tip_us)
        return self._series.ids.copy(), tip_us

    def bounded(self) -> I32:
        """Ids of the series that have a lateness bound, rising."""
        if not self._series.is_bounded:
            return np.empty(0, np.int32)
        return np.sort(self._series.ids[self._series.bound_us > 0])

    def hear(self, time_us: int) -> None:
        """What waits was heard at this time by the clock of watermarks: after a restart, which nobody could tell of."""
        if self._reorder is not None:
            self._reorder.hear(time_us)

    @property
    def held(self) -> tuple[int, int]:
        """Readings that wait for their order, and how many were released too early because too many waited."""
        return (0, 0) if self._reorder is None else (len(self._reorder), self._reorder.hurried)

    @property
    def pairs(self) -> int:
        """How many (rule, object) pairs are evaluated."""
        return sum(len(group.pairs) for group, _ in self._tables())

    def joins(self) -> dict[str, tuple[int, int]]:
        """By join (``derived NAME``, ``score RULE``, ``when RULE``): readings that wait, and that were let go because too many
        waited since this engine was made."""
        nodes = [] if self._stage is None else self._stage.nodes
        return {node.name: (len(node.join.waiting.object), node.join.dropped) for node in nodes}

    def spread(self) -> list[Spread]:
        """What is not evaluated as it is written because readings come elsewhere, by rule; for bound series."""
        if not self._may_spread:
            return []
        is_here = {info.device: self._is_joined(info) for info in self._series.info if info is not None}
        return spread(self._rules, is_here, self._rules.neighbours)

    def unlearned(self) -> dict[str, tuple[int, int]]:
        """Rules that learn and have found nothing to learn: how many of their objects, and the most often that one of them
        began anew."""
        return {} if self._stage is None else self._stage.unlearned()

    def open_alerts(self) -> list[OpenAlert]:
        """What is in force, by rule and object. A database that believes in more (its rule is gone or was changed) may
        close the rest."""
        known: list[tuple[Group, Sequence[SeriesInfo | None]]]
        known = [(group, self._series.info) for group in self._groups]
        if self._stage is not None:
            known += [(group, self._stage.info) for group in self._stage.groups]
        found = [alert for group, info in known for alert in _open(group, info)]
        return sorted(found, key=lambda alert: (alert.rule, alert.object))

    def snapshot(self) -> bytes:
        """The whole state: tips, watermarks, and every (rule, version, series) state. Equal states give equal bytes."""
        ids, tip_us, tip = self._series.ids, self._series.tip_us, self._series.tip
        fed = np.flatnonzero(tip_us != NONE_US)
        fed = fed[np.argsort(ids[fed], kind="stable")]
        return encode(
            Snapshot(
                ids=ids[fed].astype("<i4").tobytes(),
                tip_us=tip_us[fed].astype("<i8").tobytes(),
                tip=tip[fed].astype("<f8").tobytes(),
                watermarks=self._series.watermarks(),
                tables=[group.save(slots) for group, slots in self._tables()],
                joins=[] if self._stage is None else self._stage.save(),
                docket=self._docket.save(),
                held=b"" if self._reorder is None else self._reorder.save(ids),
            )
        )

    def restore(self, state: bytes) -> None:
        """Replace the whole state by a snapshot's; may come before or after `bind`.

        A rule starts fresh when its id, version, metric, limits or delays differ from the snapshot's. States of series
        that are not bound yet wait until they are, and stay in later snapshots.

        Raises:
            CitynetError: not a snapshot, damaged, or of another format version; the engine is as it was then.
        """
        self.restore_parts([Part(state)])

    def restore_parts(self, parts: Sequence[Part]) -> None:
        """Replace the whole state by parts of several snapshots, as when series come together that were evaluated in
        different places. Of a series that several parts have, the first one's counts.

        A watermark that several parts have is the lowest of theirs, and the server's own counts only where every part
        has it: a lower promise is kept by whoever kept a higher one.

        Raises:
            CitynetError: as `restore`; the engine is as it was then.
        """
        snapshots = [decode(part.state) for part in parts]
        fed = [np.frombuffer(snapshot.ids, "<i4").astype(np.int32) for snapshot in snapshots]
        if any(len(np.unique(ids)) != len(ids) for ids in fed):
            raise CitynetError("rules snapshot: a series stands twice")
        for snapshot in snapshots:
            for group, _ in self._tables():
                for table in snapshot.of_kind(group.name):
                    group.check(table)
            if self._stage is not None:
                self._stage.check(snapshot.joins)
        held = [reorder.read(snapshot.held) for snapshot in snapshots]
        self._series.reset()
        for part, snapshot, ids in reversed(list(zip(parts, snapshots, fed, strict=True))):
            taken = part.has(ids)
            tip_us, tip = np.frombuffer(snapshot.tip_us, "<i8"), np.frombuffer(snapshot.tip, "<f8")
            self._series.put(ids[taken], tip_us[taken], tip[taken])
        for source, watermark_us in _lowest_watermarks(parts, snapshots).items():
            self._series.pass_time(source, watermark_us)
        self._load_held([rows[part.has(rows["series"])] for part, rows in zip(parts, held, strict=True)])
        for group, slots in self._tables():
            kept = [
                (part, table)
                for part, snapshot in zip(parts, snapshots, strict=True)
                for table in snapshot.of_kind(group.name)
            ]
            group.load(kept, slots)
        if self._stage is not None:
            self._stage.load([(part, snapshot.joins) for part, snapshot in zip(parts, snapshots, strict=True)])
        self._docket.load([(part, snapshot.docket) for part, snapshot in zip(parts, snapshots, strict=True)])

    def _load_held(self, held: Sequence[Held]) -> None:
        """Readings that wait, of all parts: each of them was stored, wherever it is known from."""
        if self._reorder is None:
            return
        rows = reorder.joined(held)
        ids, of = np.unique(rows["series"].astype(np.int32), return_inverse=True)
        slot = self._series.slots(ids)[of]
        known = np.array(
            [self._series.info[s] is None or self._series.bound_us[s] > 0 for s in slot.tolist()], np.bool_
        )
        tip_us, _, reached_us = (column[slot[known]] for column in self._columns_of_order())
        self._reorder.load(slot[known], rows[known], tip_us, reached_us)

    def _tables(self) -> list[tuple[Group, I32]]:
        """All groups, each with the ids by which its slots are known in snapshots."""
        found = [(group, self._series.ids) for group in self._groups]
        if self._stage is not None:
            found += [(group, self._stage.ids) for group in self._stage.groups]
        return found

    def _check_names(self, given: Iterable[SeriesInfo]) -> None:
        """One id a name and one name an id, among the known series and the new ones."""
        claimed: dict[tuple[str, str], int] = {}
        claimed_names: dict[int, tuple[str, str]] = {}
        for info in given:
            name = (info.device, info.metric)
            before = self._names.get(info.id, claimed_names.setdefault(info.id, name))
            if before != name:
                raise CitynetError(f"series {info.id} is {'/'.join(before)}, it cannot become {'/'.join(name)}")
            owner = self._ids.get(name, claimed.setdefault(name, info.id))
            if owner != info.id:
                raise CitynetError(f"{'/'.join(name)} is series {owner}, it cannot be series {info.id} as well")

    def _watch(self, fresh: list[tuple[int, SeriesInfo]]) -> None:
        """Make the pairs of newly bound series."""
        bound: I32 = np.array([info.id for _, info in fresh], np.int32)
        by_metric: dict[str, list[tuple[int, SeriesInfo]]] = defaultdict(list)
        for slot, info in fresh:
            by_metric[info.metric].append((slot, info))
        for group in self._groups:
            rows = [
                (slot, n, info.id)
                for metric in by_metric.keys() & group.metrics
                for slot, info in by_metric[metric]
                for n in group.watching(info.device, metric)
            ]
            if rows:
                columns = np.array(sorted(rows), np.int64)
                group.add(columns[:, 1].astype(np.int32), columns[:, 0], columns[:, 2].astype(np.int32))
            group.drop_waiting(bound)
        if self._stage is not None:
            self._stage.bind((slot, info) for slot, info in fresh if self._is_joined(info))

    def _segments(self, batch: SeriesBatch, start: I64, slot: I64, late: Bools | None) -> Segments:
        """The accepted readings of a batch, without the late ones."""
        time_us, value, quality = batch.time_us, batch.value, batch.quality
        stop = np.append(start[1:], len(batch))
        if late is not None:
            kept = np.concatenate([[0], np.cumsum(~late)])
            start, stop = kept[start], kept[stop]
            full = start < stop
            start, stop, slot = start[full], stop[full], slot[full]
            time_us, value, quality = time_us[~late], value[~late], quality[~late]
        before_us: I64 = self._series.tip_us[slot]
        before: F64 = self._series.tip[slot]
        usable = usable_rows(value, quality)
        flags = np.zeros(len(time_us), np.uint8)
        return Segments(slot, start, stop, before_us, before, time_us, value, quality, usable, flags)

    def _judged(self, found: Iterable[Sequence[Transition]]) -> list[Transition]:
        """Transitions in order, with the verdicts and what is revised."""
        ordered = sorted((t for some in found for t in some), key=order)
        return sorted(self._docket.take(ordered, self._hold), key=order)

    def _hold(self, rule: str, series: int) -> tuple[int, int]:
        """As `verdict.Hold`: the series itself, its witnesses, and whether a jump may still turn out to be a spike."""
        come_us, hold_us = self._series.come_us(series, WAIT_US), self._spike_us(series)
        held = None if self._stage is None else self._stage.hold(rule, series)
        return (come_us, hold_us) if held is None else (min(come_us, held[0]), max(hold_us, held[1]))

    def _spike_us(self, series: int) -> int:
        found = self._spikes.get(series)
        if found is None:
            device, metric = self._names[series]
            holds = [rule.hold_s for rule in self._jumps if rule.selects(device, metric)]
            found = self._spikes[series] = microseconds(max(holds, default=0.0))
        return found

    def _dress(self, group: Group, events: list[Event]) -> list[Transition]:
        return [_dressed(group, event, self._info(event.slot)) for event in events]

    def _dress_made(self, found: Iterable[tuple[Group, list[Event]]]) -> list[list[Transition]]:
        """Transitions of rules on what is made of several series."""
        info = self._stage.info if self._stage is not None else []
        return [[_dressed(group, event, info[event.slot]) for event in events] for group, events in found]

    def _info(self, slot: int) -> SeriesInfo:
        info = self._series.info[slot]
        if info is None:
            raise AssertionError(f"slot {slot} has a pair but was never bound")
        return info


def _dressed(group: Group, event: Event, info: SeriesInfo) -> Transition:
    return dress(event, group.rules[event.rule], info, group.facts[event.rule], group.kind.templates)


def _open(group: Group, infos: Sequence[SeriesInfo | None]) -> list[OpenAlert]:
    """What is in force of one kind."""
    found = []
    state = group.pairs.state
    for pair in np.flatnonzero(state["raised_us"] != NONE_US).tolist():
        info = infos[int(group.pairs.slot[pair])]
        if info is None:
            raise AssertionError("a pair of a series that was never bound")
        rule = group.rules[int(group.pairs.rule[pair])]
        raised_us, level = int(state["raised_us"][pair]), int(state["level"][pair])
        ident = alert_id(rule.id, info.device, raised_us)
        found.append(OpenAlert(ident, rule.id, rule.version, info.device, info.id, level, raised_us))
    return found


def _lowest_watermarks(parts: Sequence[Part], snapshots: Sequence[Snapshot]) -> dict[str, int]:
    lowest: dict[str, int] = {}
    for part, snapshot in zip(parts, snapshots, strict=True):
        for source, watermark_us in snapshot.watermarks.items():
            if source == SERVER or part.sources is None or source in part.sources:
                lowest[source] = min(watermark_us, lowest.get(source, watermark_us))
    if not all(SERVER in snapshot.watermarks for snapshot in snapshots):
        lowest.pop(SERVER, None)
    return lowest
