"""Derived metrics and conditions against a readable oracle that takes one reading at a time."""

from __future__ import annotations

from functools import cache
from math import isfinite
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from citynet.batch import F64
from citynet.quality import TEST
from citynet_rules.condition import Condition, is_scheduled, scheduled
from citynet_rules.derived import Derived
from citynet_rules.engine import Engine
from citynet_rules.evaluate import evaluate, named
from citynet_rules.expression import Name, Past
from citynet_rules.joint.join import Readings, rank_up_to
from citynet_rules.kinds import KINDS, limit, stale
from citynet_rules.kinds.kind import UNUSABLE
from citynet_rules.kinds.limit import Limits
from citynet_rules.kinds.walk import Found
from citynet_rules.robust import fit
from citynet_rules.rule import Rule, level_of
from citynet_rules.spec import RuleSet
from citynet_rules.transition import NONE_US

from .rules_streams import DERIVED, END, JOINT, SERIES, STREAMS, Mark, Op, Reading, apply, law, several
from .test_rules_kernels import MACHINES

Row = tuple[int, float, int]  # time_us, value, quality


class Oracle:
    """What derived metrics and gates let through, from whole histories: no buffers, no columns.

    A reading counts for a join if it is later than its series' tip and than what watermarks had promised then; how far a join
    has come at the end is the lowest promise of its members.
    """

    def __init__(self, ops: list[Op]) -> None:
        self.rows: dict[int, list[tuple[Row, int, int]]] = {info.id: [] for info in SERIES}
        self.marks: dict[str, int] = {}
        tips = dict.fromkeys(self.rows, NONE_US)
        source = {info.id: info.source for info in SERIES}
        for op in ops:
            if isinstance(op, Mark):
                self.marks[op.source] = max(op.time_us, self.marks.get(op.source, NONE_US))
            elif op.time_us > tips[op.series]:
                tips[op.series] = op.time_us
                promised = (self.marks.get(source[op.series], NONE_US), self.marks.get("", NONE_US))
                self.rows[op.series].append(((op.time_us, op.value, op.quality & UNUSABLE), *promised))
        self.tips = tips
        self.made: dict[tuple[str, str], tuple[list[Row], int]] = {}

    def member(self, device: str, metric: str, wait_us: int) -> tuple[list[Row], int] | None:
        """Readings of a series that a join takes, and how far they are promised."""
        if metric in {each.name for each in DERIVED}:
            return self.made.get((device, metric))
        for info in SERIES:
            if (info.device, info.metric) == (device, metric):
                rows = [r for r, own, server in self.rows[info.id] if r[0] > max(own, late_by(server, wait_us))]
                server_us = late_by(self.marks.get("", NONE_US), wait_us)
                return rows, max(self.tips[info.id], self.marks.get(info.source, NONE_US), server_us)
        return None

    def derive(self, each: Derived) -> None:
        """The values of one derived metric on every device that has its operands."""
        for device in sorted({info.device for info in SERIES}):
            found = {n: self.member(device, o.metric, round(each.wait_s * 1e6)) for n, o in each.operands.items()}
            members = {name: of for name, of in found.items() if of is not None}
            if len(members) < len(found):
                continue
            frontier_us = min(until for _, until in members.values())
            usable = {name: [r for r in rows if is_usable(r)] for name, (rows, _) in members.items()}
            times = sorted({r[0] for rows in usable.values() for r in rows if r[0] <= frontier_us})
            values = [(t, value_at(each, usable, t)) for t in times]
            self.made[device, each.name] = [(t, v, 0) for t, v in values if v is not None], frontier_us

    def gate(self, rule: Rule) -> dict[str, list[tuple[Row, bool]]]:
        """The readings that a rule judges, by device, with whether its conditions were met."""
        wait_us = round(rule.when_wait_s * 1e6) if rule.kind != "stale" else 1 << 60
        found = {}
        for device in sorted({info.device for info in SERIES}):
            primary = self.member(device, rule.metric, wait_us)
            if primary is None or not rule.selects(device, rule.metric):
                continue
            others = [self.member(c.device or device, c.watched or "", wait_us) for c in rule.when]
            frontier_us = min([primary[1], *(of[1] for of in others if of is not None)])
            rows = [row for row in primary[0] if row[0] <= frontier_us]
            known = [
                (c, [r for r in of[0] if is_usable(r)] if of else []) for c, of in zip(rule.when, others, strict=True)
            ]
            found[device] = [(row, all(is_met(rule, c, row, of) for c, of in known)) for row in rows]
        return found


def late_by(server_us: int, wait_us: int) -> int:
    return NONE_US if server_us == NONE_US else server_us - wait_us


def is_usable(row: Row) -> bool:
    return not row[2] & UNUSABLE and isfinite(row[1])


def newest(rows: list[Row], until_us: int, age_us: int) -> float | None:
    """The newest value up to a time, if it is not older than `age_us`."""
    before = [row for row in rows if row[0] <= until_us]
    return before[-1][1] if before and before[-1][0] >= until_us - age_us else None


def value_at(each: Derived, usable: dict[str, list[Row]], time_us: int) -> float | None:
    values: dict[Name | Past, F64] = {}
    age_us = {name: round(o.max_age_s * 1e6) for name, o in each.operands.items()}
    for name, rows in usable.items():
        value = newest(rows, time_us, age_us[name])
        if value is None:
            return None
        values[named(name)] = np.array([value])
    for past in each.formula.pasts:
        value = past_at(past, usable[past.name], time_us, age_us[past.name])
        if value is None:
            return None
        values[past] = np.array([value])
    result = float(evaluate(each.formula.node, values, 1)[0])
    return result if isfinite(result) else None


def past_at(past: Past, rows: list[Row], time_us: int, age_us: int) -> float | None:
    if past.function == "mean":
        within = [v for t, v, _ in rows if time_us - past.window_us < t <= time_us]
        return float(np.add.reduce(np.array(within))) / len(within) if within else None
    before = newest(rows, time_us - past.window_us, age_us)
    if before is None or past.function == "lag":
        return before
    now = newest(rows, time_us, 1 << 60)
    return None if now is None else now - before


def is_met(rule: Rule, condition: Condition, row: Row, known: list[Row]) -> bool:
    if condition.watched is None:
        return is_scheduled(condition, row[0])
    value = newest(known, row[0], condition.age_us)
    if condition.maintenance is not None:
        return bool(row[2] & TEST or value) == condition.maintenance
    low, high = condition.bounds
    return rule.when_unknown == "met" if value is None else low <= value <= high


class Recorder(Engine):
    """An engine that notes what its nodes make."""

    def __init__(self, rules: RuleSet) -> None:
        super().__init__(rules)
        self.made: dict[tuple[str, str], list[tuple[Row, bool]]] = {}
        for node in self._stage.nodes if self._stage else ():
            self._note(node, node.make)

    def _note(self, node: Any, make: Any) -> None:
        def noting(block: Any) -> Any:
            rows = make(block)
            if rows is not None:
                met = np.ones(len(rows.object), np.bool_) if rows.met is None else rows.met
                columns = (rows.object, rows.time_us, rows.value, rows.quality, met)
                for of, time_us, value, quality, is_met_ in zip(*(c.tolist() for c in columns), strict=True):
                    device = self._stage.info[int(node.out[of])].device  # type: ignore[union-attr]
                    self.made.setdefault((node.name, device), []).append(((time_us, value, quality), is_met_))
            return rows

        node.make = noting


def check_nodes(ops: list[Op], cuts: set[int]) -> None:
    """Nodes make what the oracle says."""
    recorder = Recorder(JOINT)
    recorder.bind(SERIES)
    apply(recorder, [*ops, *(Mark(source, time_us) for source, time_us in END.items())], cuts)
    oracle = Oracle([*ops, *(Mark(source, time_us) for source, time_us in END.items())])
    for each in DERIVED:
        oracle.derive(each)
        for device in {info.device for info in SERIES}:
            rows = [row for row, _ in recorder.made.get((f"derived {each.name}", device), [])]
            assert repr(rows) == repr(oracle.made.get((device, each.name), ([], 0))[0])
    for rule in JOINT:
        if not rule.when or rule.kind in SCORES:
            continue
        for device, expected in oracle.gate(rule).items():
            passed = [(row, met) for row, met in expected if met or rule.when_ends == "clear"]
            assert repr(recorder.made.get((f"when {rule.id}", device), [])) == repr(passed)


CONDITIONS = st.builds(
    Condition,
    days=st.none() | st.lists(st.sampled_from(["mon", "wed", "sat", "sun"]), min_size=1, max_size=3, unique=True),
    hours=st.lists(
        st.sampled_from(["22:00-06:00", "01:30-03:00", "00:00-24:00", "23:59-00:01"]), min_size=1, max_size=2
    ),
    dates=st.none() | st.lists(st.sampled_from(["11-15/02-10", "2026-03-29/2026-03-29", "10-25/10-25"]), min_size=1),
    time_zone=st.sampled_from(["UTC", "Asia/Shanghai", "Europe/Berlin", "Australia/Lord_Howe"]),
)
DAY_US = 86_400_000_000
MOMENTS = st.one_of(
    st.integers(1_700_000_000_000_000, 1_900_000_000_000_000),
    st.integers(0, 1 << 20).map(lambda n: 1_774_728_000_000_000 + n * 60_000_000 // 7),  # about a change to summer time
    st.integers(-(1 << 61), 1 << 61),
)


@law
@given(CONDITIONS, st.lists(MOMENTS, min_size=1, max_size=20))
def test_schedules_are_the_definition(condition: Condition, times: list[int]) -> None:
    got = scheduled(condition, np.array(times, np.int64)).tolist()
    assert got == [is_scheduled(condition, time_us) for time_us in times]


def votes(rule: Any, members: list[list[Row]], time_us: int) -> float:
    """The definition of `vote`."""

    def beyond(value: float) -> bool:
        return value >= rule.threshold if rule.direction == "high" else value <= rule.threshold

    within_us = round(rule.within_s * 1e6)
    count = 0
    for rows in members:
        past = [row for row in rows if row[0] <= time_us]
        counted = [row for row in past if beyond(row[1])] if rule.hold else past[-1:]
        count += any(beyond(value) and time_us - t < within_us for t, value, _ in counted)
    return float(count)


def happened(rule: Any, members: list[list[Row]], time_us: int) -> float:
    """The definition of `sequence`."""
    first, second = ([r for r in rows if r[0] <= time_us] for rows in members)
    firsts = [t for t, value, _ in first if rule.first.rows(np.array([value]))[0]]
    seconds = [t for t, value, _ in second if rule.second.rows(np.array([value]))[0]]
    done = [b for b in seconds for a in firsts if 0 <= b - a <= round(rule.within_s * 1e6)]
    return float(bool(done) and time_us < max(done) + round(rule.hold_s * 1e6))


def residual(rule: Any, members: list[list[Row]], time_us: int) -> float | None:
    """The definition of `residual`, for the one rule that is tried."""
    values = [
        newest(rows, time_us, round(o.max_age_s * 1e6)) for rows, o in zip(members, rule.operands.values(), strict=True)
    ]
    if values[0] is None or values[1] is None:
        return None
    return abs((values[0] - 100 * (values[1] * 0.01)) / abs(max(values[0], 0.5)))


def related(rule: Any, members: list[list[Row]], time_us: int) -> float | None:
    """The definition of `relation`, for the one rule that is tried, which has direction "either"."""
    instants = sorted({row[0] for rows in members for row in rows if row[0] <= time_us})
    ages = [round(of.max_age_s * 1e6) for of in rule.operands.values()]
    kept: list[tuple[float, ...]] = []
    next_us, learned = NONE_US, None
    for now_us in instants:
        values = [newest(rows, now_us, age_us) for rows, age_us in zip(members, ages, strict=True)]
        if None in values:
            continue
        if learned is not None:
            if now_us == time_us:
                coefficient, sigma = learned
                return abs(values[0] - (coefficient[0] + coefficient[1] * values[1])) / sigma  # type: ignore[operator]
        elif now_us >= next_us:
            kept.append(tuple(values))  # type: ignore[arg-type]
            next_us = now_us + round(rule.learn_s * 1e6) // rule.learn_count
            if len(kept) == rule.learn_count:
                learned, kept = relation(tuple(kept), rule.sigma_min, rule.follow_min), []
    return None


@cache
def relation(
    kept: tuple[tuple[float, ...], ...], sigma_min: float, follow_min: float
) -> tuple[list[float], float] | None:
    """What is learned of these samples."""
    sample = np.array(kept)
    found = fit(sample[:, 1:], sample[:, 0])
    sigma = max(found.sigma, sigma_min)
    return (found.coefficient.tolist(), sigma) if found.followed >= follow_min and sigma > 0 else None


SCORES: dict[str, Any] = {"vote": votes, "sequence": happened, "residual": residual, "relation": related}


def check_scores(ops: list[Op], cuts: set[int]) -> None:
    """Scores are their definition."""
    every = [*ops, *(Mark(source, time_us) for source, time_us in END.items())]
    recorder = Recorder(JOINT)
    recorder.bind(SERIES)
    apply(recorder, every, cuts)
    oracle = Oracle(every)
    for each in DERIVED:
        oracle.derive(each)
    for rule in JOINT:
        if rule.kind not in SCORES:
            continue
        for name, series in rule.series().items():  # type: ignore[attr-defined]
            wait_us = round(rule.wait_s * 1e6)  # type: ignore[attr-defined]
            found = [
                of for of in (oracle.member(device, metric, wait_us) for device, metric in series) if of is not None
            ]
            frontier_us = min(until for _, until in found)
            members = [[row for row in rows if is_usable(row)] for rows, _ in found]
            times = sorted({row[0] for rows in members for row in rows if row[0] <= frontier_us})
            scores = [(t, SCORES[rule.kind](rule, members, t)) for t in times]
            rows = [row for row, _ in recorder.made.get((f"score {rule.id}", name), [])]
            assert [(t, value) for t, value, _ in rows] == [(t, score) for t, score in scores if score is not None]


class LimitSteps:
    """The functions of `limit` as a machine."""

    def __init__(self, rule: Any) -> None:
        self.limits = Limits.of(rule)

    def initial(self) -> Any:
        return limit.initial(self.limits)

    def step(self, state: Any, time_us: int, value: float, quality: int) -> Any:
        return limit.step(self.limits, state, time_us, value, quality)

    def pack(self, state: Any) -> Any:
        return limit.pack(self.limits, state)

    def unpack(self, row: Any) -> Any:
        return limit.unpack(self.limits, row)


class StaleSteps:
    """The functions of `stale` as a machine."""

    def __init__(self, rule: Any) -> None:
        self.age_us = round(rule.max_age_s * 1e6)
        self.level = level_of(rule.level)

    def initial(self) -> Any:
        return stale.StaleState(NONE_US, NONE_US)

    def step(self, state: Any, time_us: int, value: float, quality: int) -> Any:
        state, events = stale.step(self.age_us, state, time_us)
        return state, [self.found(event) for event in events]

    def due(self, state: Any, now_us: int) -> Any:
        state, events = stale.due(self.age_us, state, now_us)
        return state, [self.found(event) for event in events]

    def found(self, event: Any) -> Found:
        silent_s = event.silent_us / 1e6
        return Found(event.change, self.level, event.time_us, event.raised_us, silent_s, None, event.time_us, ())

    def pack(self, state: Any) -> Any:
        return state.raised_us, self.level

    def unpack(self, row: Any) -> Any:
        return self.initial()


def told(rule: Any, rows: list[tuple[Row, bool]]) -> list[tuple[Any, ...]]:
    """What a rule with conditions says about these readings, one by one: the definition of `when_ends`."""
    machine = (MACHINES | {"limit": LimitSteps, "stale": StaleSteps})[rule.kind](rule)
    kind = KINDS[rule.kind]
    state, found = machine.initial(), []
    for (time_us, value, quality), met in rows:
        if met:
            state, changes = machine.step(state, time_us, value, quality)
            found += [(c.change, c.level, c.time_us, c.value) for c in changes]
        elif rule.when_ends == "clear":
            if hasattr(machine, "due"):
                state, changes = machine.due(state, time_us - 1)
                found += [(c.change, c.level, c.time_us, c.value) for c in changes]
            before, after = (np.array([machine.pack(s)], kind.state) for s in (state, machine.initial()))
            if before["raised_us"][0] != NONE_US:
                found.append(("clear", int(before["level"][0]), time_us, None))
            for name in kind.learned:
                after[name] = before[name]
            state = machine.unpack(after[0].item())
    if hasattr(machine, "due"):
        found += [(c.change, c.level, c.time_us, c.value) for c in machine.due(state, END[""])[1]]
    return found


def check_conditions(ops: list[Op], cuts: set[int]) -> None:
    """Conditions end what is under way."""
    every = [*ops, *(Mark(source, time_us) for source, time_us in END.items())]
    city = Engine(JOINT)
    city.bind(SERIES)
    found = [t for t in apply(city, every, cuts) if t.kind != "verdict"]
    oracle = Oracle(every)
    for each in DERIVED:
        oracle.derive(each)
    for rule in JOINT:
        if not rule.when or rule.kind in SCORES:
            continue
        for device, rows in oracle.gate(rule).items():
            of_pair = sorted((t for t in found if (t.rule, t.object) == (rule.id, device)), key=lambda t: t.time_us)
            got = [(t.kind, t.level, t.time_us, t.value) for t in of_pair]
            assert sorted(got, key=repr) == sorted(told(rule, rows), key=repr)


CHECKS = [check_nodes, check_scores, check_conditions]


@pytest.mark.parametrize("check", CHECKS)
def test_the_oracle_agrees(check: Any) -> None:
    @several
    @given(STREAMS, st.sets(st.integers(0, 60), max_size=8))
    def agrees(ops: list[Op], cuts: set[int]) -> None:
        check(ops, cuts)

    agrees()


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("seed", range(4))
def test_the_oracle_agrees_on_dense_streams(check: Any, seed: int) -> None:
    """Long streams in which every object has all of its members: drawn at random, they are rare."""
    draw = np.random.default_rng(seed)
    rows = [
        Reading(int(series), int(time_s) * 1_000_000, float(value), int(quality))
        for time_s, series, value, quality in zip(
            np.sort(draw.integers(0, 500 if seed % 2 else 150, 400)),
            draw.choice([7, 3, 12, 5, 40, 9], 400),
            draw.choice([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0], 400),
            draw.choice([0, 0, 0, 0, 0, 0, 2, 128], 400),
            strict=True,
        )
    ]
    for place in draw.integers(0, 390, 60).tolist():  # neighbours change places
        rows[place], rows[place + 7] = rows[place + 7], rows[place]
    ops: list[Op] = list(rows)
    for place in draw.integers(0, 400, 8).tolist():
        of = str(draw.choice(["gw-1", "gw-2", "b-1", ""]))
        ops.insert(place, Mark(of, rows[place].time_us - int(draw.integers(0, 40)) * 1_000_000))
    check(ops, set(draw.integers(0, 408, 60).tolist()))


MOMENTS = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 1), st.integers(-5, 5), st.sampled_from([1, 1 << 59])), max_size=30
)


@law
@given(MOMENTS, st.integers(0, 1))
def test_how_much_of_a_past_has_been(moments: list[tuple[int, int, int, int]], role: int) -> None:
    """Counted one by one, at times that lie close together and at such as one number cannot hold with their object."""
    kept = sorted({(owner, of, near * scale) for owner, of, near, scale in moments[::2]})
    asked = [(owner, near * scale) for owner, _, near, scale in moments[1::2]]
    owner, of, time_us = (np.array([row[k] for row in kept], np.int64) for k in range(3))
    rows = Readings(owner.astype(np.int32), of.astype(np.int32), time_us, time_us * 1.0, np.zeros(len(kept), np.uint8))
    objects, moment_us = (np.array([query[k] for query in asked], np.int64) for k in range(2))
    position, start, now = rank_up_to(rows, role, objects.astype(np.int32), moment_us)
    own = [(row[0], row[2]) for row in kept if row[1] == role]
    assert position.tolist() == [n for n, row in enumerate(kept) if row[1] == role]
    assert start.tolist() == [sum(one[0] < query[0] for one in own) for query in asked]
    assert now.tolist() == [sum(one <= query for one in own) for query in asked]
