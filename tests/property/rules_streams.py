"""A small city of rules and series for the properties of the engine, and streams of readings and watermarks through it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, nan

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from pydantic import BaseModel

from citynet.batch import SeriesBatch
from citynet.quality import LATE
from citynet_rules.derived import Derived
from citynet_rules.engine import Engine, Fed, SeriesInfo, Transition
from citynet_rules.kinds import KINDS
from citynet_rules.kinds.limit import LimitRule
from citynet_rules.kinds.stale import StaleRule
from citynet_rules.rule import Rule
from citynet_rules.spec import RuleSet

SECOND = 1_000_000
law = settings(deadline=None, print_blob=True)
"""Settings of every property here: no time limit an example (the machine may be busy), the failing case printed."""

several = settings(law, max_examples=30)
"""For properties that build and feed several whole cities an example."""


def limit_rule(ident: str, **fields: object) -> LimitRule:
    """A limit rule with the words filled in; `fields` set or replace the rest."""
    given: dict[str, object] = {
        "id": ident, "version": 1, "kind": "limit", "title_zh": "测试", "title_en": "test", "domain": "gas", "metric": "x",
        "unit": "u", "standard": "none", "edition": "1", "status": "D", "direction": "high", "levels": {"red": 1.0},
    }  # fmt: skip
    return LimitRule.model_validate(given | fields)


def stale_rule(ident: str, **fields: object) -> StaleRule:
    """A stale rule with the words filled in; `fields` set or replace the rest."""
    given: dict[str, object] = {
        "id": ident, "version": 1, "kind": "stale", "title_zh": "测试", "title_en": "test", "domain": "device", "metric": "x",
        "unit": "u", "standard": "none", "edition": "1", "status": "D", "level": "yellow", "max_age_s": 10,
    }  # fmt: skip
    return StaleRule.model_validate(given | fields)


def rule(kind: str, ident: str, **fields: object) -> Rule:
    """A rule of any kind with the words filled in; `fields` set or replace the rest."""
    given: dict[str, object] = {
        "id": ident, "version": 1, "kind": kind, "title_zh": "测试", "title_en": "test", "domain": "gas", "metric": "x",
        "unit": "u", "standard": "none", "edition": "1", "status": "D",
    }  # fmt: skip
    return KINDS[kind].model.model_validate(given | fields)


RULES = RuleSet(
    (
        limit_rule("x-graded", levels={"blue": 1, "yellow": 2, "red": 4}, hysteresis=0.5, on_delay_s=5, gap_s_max=12),
        limit_rule("x-low", direction="low", levels={"yellow": 1, "orange": 0}),
        limit_rule("x-some", devices=["a-*"], levels={"orange": 3}, hysteresis=1, on_delay_s=2, off_delay_s=0),
        limit_rule("y-graded", metric="y", levels={"blue": 2, "orange": 3, "red": 4}, on_delay_s=0, off_delay_s=6),
        stale_rule("x-stale"),
        stale_rule("y-stale", metric="y", clock="server", max_age_s=15),
        rule(
            "rate",
            "x-rate",
            direction="either",
            per="s",
            levels={"yellow": 0.5, "red": 1},
            hysteresis=0.25,
            gap_s_max=9,
        ),
        rule("rate", "y-rate", metric="y", direction="down", per="min", over_s=4, levels={"blue": 9}, on_delay_s=3),
        rule("stuck", "x-stuck", domain="device", level="blue", for_s=4, count_min=3, tolerance=0.5),
        rule("stuck", "y-stuck", metric="y", level="blue", for_s=2, count_min=2, gap_s_max=20),
        rule("range", "x-range", domain="device", level="blue", low=0.0, high=4.0),
        rule("range", "y-range", metric="y", level="yellow", high=3.5, off_delay_s=5),
        rule(
            "jump",
            "x-jump",
            domain="device",
            level="blue",
            shape="step",
            slew=1.0,
            per="s",
            step_min=1.0,
            away_s_max=6,
            off_delay_s=4,
            gap_s_max=9,
        ),
        rule(
            "jump",
            "y-jump",
            domain="device",
            metric="y",
            level="blue",
            shape="spike",
            slew=15.0,
            per="min",
            step_min=1.0,
            away_s_max=9,
            off_delay_s=5,
            hold_s=3,
        ),
        rule("drift", "x-drift", domain="device", level="blue", band=1.0, step_max=1.0, onset_s=6, tau_s=600, believed_s=20),
        rule("drift", "y-drift", metric="y", level="blue", band=0.5, step_max=0.25, onset_s=2, tau_s=60, believed_s=9),
        rule("count", "x-count", level="yellow", match="at_least", threshold=3.0, n=3, window_s=9),
        rule("count", "y-count", metric="y", level="orange", match="any", n=2, window_s=6),
        rule(
            "iaqi",
            "x-iaqi",
            edition="2026",
            table="co_24h",
            unit="mg/m3",
            levels={"blue": 51, "red": 101},
            hysteresis=9,
        ),
        rule("accumulate", "x-sum", input="amount", window_s=72, levels={"blue": 6, "orange": 9}, hysteresis=1),
        rule(
            "accumulate",
            "y-sum",
            metric="y",
            input="rate",
            per="min",
            window_s=144,
            levels={"blue": 0.5},
            on_delay_s=2,
            off_delay_s=0,
            gap_s_max=9,
        ),
        rule("cusum", "x-cusum", levels={"blue": 1, "red": 2}, hysteresis=0.5, learn_count=3, gap_s_max=15),
        rule(
            "cusum",
            "y-cusum",
            metric="y",
            direction="down",
            levels={"blue": 1},
            learn_count=2,
            learn_s=4,
            sigma_min=0.5,
        ),
        rule("deviation", "x-dev", levels={"blue": 1, "red": 2}, alpha=0.25, learn_count=3, clip=2, in_alarm="hold"),
        rule(
            "deviation",
            "y-dev",
            metric="y",
            direction="up",
            levels={"blue": 1},
            alpha=0.5,
            learn_count=2,
            sigma_min=0.25,
        ),
        rule("spectrum", "x-rms", measure="rms", rate_hz=1, samples=8, low_hz=0.1, high_hz=0.5,
             levels={"blue": 0.25, "red": 1}, hysteresis=0.1),
        rule("spectrum", "y-shift", metric="y", measure="shift", rate_hz=1, samples=10, low_hz=0.1, high_hz=0.5,
             jitter=0.3, peak_share=0.1, learn_windows=2, learn_s=12, learn_spread_pct=80, levels={"blue": 5, "red": 20},
             unit="%"),
    )
)  # fmt: skip
UTC = {"time_zone": "UTC"}


def derived(name: str, expression: str, wait_s: float = 30, **ages: float) -> Derived:
    """A derived metric without units; operands are named like their metrics, each with its max_age_s."""
    operands = {metric: {"metric": metric, "unit": "1", "max_age_s": age} for metric, age in ages.items()}
    fields = {"name": name, "unit": "1", "operands": operands, "expression": expression, "wait_s": wait_s}
    return Derived.model_validate(fields)


DERIVED = (
    derived("xy", "where(x > 1.25, x - y, abs(y))", x=9, y=25),
    derived("past", "delta(x, 5 [s]) + mean(y, 8 [s]) - lag(x, 2 [s]) / 4", x=12, y=30),
    derived("deep", "max(xy, past) * 2 ** sqrt(x)", wait_s=40, xy=20, past=20, x=20),
)
TELLS = {
    "along": "biogas", "along_zh": "同动", "along_en": "along",
    "against": "leak", "against_zh": "不动", "against_en": "still",
}  # fmt: skip
JOINT = RuleSet(
    (
        limit_rule("xy-limit", metric="xy", levels={"blue": 0.5, "yellow": 1, "red": 3}, on_delay_s=2, off_delay_s=1),
        limit_rule("past-limit", metric="past", direction="low", levels={"blue": 1, "orange": -1}),
        limit_rule("deep-limit", metric="deep", levels={"blue": 4, "red": 9}),
        rule("count", "xy-count", metric="xy", level="yellow", match="at_least", threshold=1.0, n=2, window_s=7),
        rule("cusum", "xy-cusum", metric="xy", levels={"blue": 1}, learn_count=2, gap_s_max=15),
        stale_rule("xy-stale", metric="xy", max_age_s=12),
        limit_rule(
            "x-if-y",
            levels={"blue": 1, "red": 3},
            on_delay_s=2,
            off_delay_s=0,
            when=[{"metric": "y", "at_least": 1.5, "max_age_s": 20}],
            when_wait_s=25,
        ),
        rule("deviation", "x-dev-if", levels={"blue": 1}, alpha=0.5, learn_count=3, sigma_min=0.25, when_ends="hold",
             when=[{"metric": "xy", "at_most": 2, "max_age_s": 30}, {"hours": ["00:00-00:07", "23:00-24:00"], **UTC}],
             when_unknown="met"),
        rule("cusum", "y-cusum-if", metric="y", levels={"blue": 1}, learn_count=2, sigma_min=0.5,
             when=[{"metric": "x", "device": "a-1", "at_most": 4, "max_age_s": 30}]),
        rule("count", "x-count-if", level="blue", match="any", n=2, window_s=6, when=[{"maintenance": False}]),
        rule("stuck", "x-stuck-if", level="blue", for_s=3, count_min=2, tolerance=0.25,
             when=[{"maintenance": False, "metric": "y", "max_age_s": 9}], when_ends="clear"),
        stale_rule("x-stale-if", when=[{"metric": "y", "at_least": 1, "max_age_s": 50}]),
        rule("rate", "xy-rate-if", metric="xy", direction="either", per="s", levels={"blue": 0.5},
             when=[{"metric": "x", "equal": 3, "max_age_s": 30}, {"days": ["thu"], **UTC}], when_ends="hold"),
        rule("vote", "vote", objects={"three": ["a-1", "a-2", "b-1"]}, direction="high", threshold=2.0, within_s=12,
             levels={"blue": 1, "yellow": 2, "red": 3}, off_delay_s=4, wait_s=20),
        rule("vote", "vote-now", objects={"v-a": ["a-1", "a-1/y"], "v-b": ["b-1", "b-1/xy"]}, direction="low", threshold=1.0,
             within_s=20, hold=False, levels={"blue": 2}),
        rule("sequence", "sequence", objects={"s-a": ["a-1", "a-1/y"], "s-b": ["b-1/y", "a-2"]}, first={"low": 3.0},
             second={"high": 1.0}, within_s=15, hold_s=4, levels={"orange": 1}),
        rule("residual", "residual", unit="1", objects={"r-a": ["a-1", "a-1"], "r-b": ["b-1/x", "a-2/x"]},
             operands={"p": {"metric": "x", "unit": "1", "max_age_s": 9}, "q": {"metric": "y", "unit": "%", "max_age_s": 20}},
             expression="p - 100 * q", per="max(p, 0.5)", levels={"blue": 0.5, "red": 2}, gap_s_max=30,
             when=[{"metric": "y", "device": "a-1", "at_most": 3, "max_age_s": 60}]),
        rule("spectrum", "x-rms-if", measure="rms", rate_hz=1, samples=8, low_hz=0.1, high_hz=0.5, levels={"blue": 0.5},
             when=[{"metric": "y", "at_most": 3, "max_age_s": 30}]),
        rule("relation", "relation", unit="1", objects={"l-a": ["a-1/y", "a-1"], "l-b": ["b-1/y", "a-2/x"]},
             operands={"p": {"metric": "y", "unit": "1", "max_age_s": 30}, "q": {"metric": "x", "unit": "%", "max_age_s": 20}},
             learn_s=24, learn_count=16, sigma_min=0.25, follow_min=0.5, levels={"blue": 1, "red": 3}, wait_s=30),
        rule("witness", "x-witness", domain="device", level="blue", band=1.0, tau_s=20, every_s=2, max_age_s=9, alive_s=30,
             beside=[{"metric": "y", "gain": -0.5, "band": 0.25}], wait_s=25, hold_s=5,
             neighbours={"band": 0.5, "contradicts": True, "count_min": 1}),
        rule("witness", "x-origin", level="blue", band=1.0, tau_s=20, every_s=2, max_age_s=9, alive_s=30, wait_s=25, hold_s=0,
             beside=[{"metric": "y", "gain": 0.5, "band": 0.25}], tells=TELLS),
    ),
    derived=DERIVED,
    neighbours={"x": {"a-1": ("a-2", "b-1"), "a-2": ("a-1",)}},
)  # fmt: skip
ALL = RuleSet((*RULES.rules, *JOINT.rules), derived=DERIVED, neighbours=JOINT.neighbours)


def _at_one_source(table: BaseModel) -> dict[str, object]:
    return {**table.model_dump(exclude_unset=True), "devices": ["a-*"]}


LOCAL = RuleSet(
    (*RULES.rules, *(type(r).model_validate(_at_one_source(r)) for r in JOINT if not hasattr(r, "objects"))),
    derived=tuple(Derived.model_validate(_at_one_source(each)) for each in DERIVED),
)
"""All rules whose joins need the series of one source only."""
SERIES = (
    SeriesInfo(7, "a-1", "x", "gw-1"),
    SeriesInfo(3, "a-2", "x", "gw-2"),
    SeriesInfo(12, "b-1", "x", "b-1"),
    SeriesInfo(5, "a-1", "y", "gw-1"),
    SeriesInfo(40, "b-1", "y", "gw-2"),
    SeriesInfo(9, "b-1", "unwatched", "gw-2"),
)
IDS = [info.id for info in SERIES]


@dataclass(frozen=True)
class Reading:
    """One accepted reading; `time_us` in µs."""

    series: int
    time_us: int
    value: float
    quality: int


@dataclass(frozen=True)
class Mark:
    """A watermark of one source."""

    source: str
    time_us: int


Op = Reading | Mark

VALUES = st.sampled_from([-1.0, 0.0, 0.5, 1.0, 1.4, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 5.0, nan, inf, -inf])
QUALITIES = st.sampled_from([0, 0, 0, 0, 0, 1, 2, 3, 64, 128, 66])
READINGS = st.builds(Reading, st.sampled_from(IDS), st.integers(0, 60).map(lambda s: s * SECOND), VALUES, QUALITIES)
MARKS = st.builds(
    Mark, st.sampled_from(["", "gw-1", "gw-2", "b-1", "nobody"]), st.integers(0, 90).map(lambda s: s * SECOND)
)
SORTED_ISH = st.lists(READINGS, max_size=60).map(lambda rows: sorted(rows, key=lambda row: row.time_us))
ANY_ORDER = st.lists(READINGS, max_size=60)
CALM = st.sampled_from([1.5, 1.5, 1.5, 1.5, 1.25, 1.75, 2.0, 1.0, 3.0, 5.0, nan])
GAPS = st.sampled_from([1, 1, 1, 2, 3, 4, 4, 5, 9, 10, 21])


def run(series: int, rows: list[tuple[int, float, int]]) -> list[Reading]:
    """Readings of one series: (seconds after the one before, value, quality)."""
    time_s, found = 0, []
    for gap_s, value, quality in rows:
        time_s += gap_s
        found.append(Reading(series, time_s * SECOND, value, quality))
    return found


RUNS = st.builds(
    run,
    st.sampled_from([7, 5]),
    st.lists(st.tuples(GAPS, CALM, st.sampled_from([0, 0, 0, 0, 0, 0, 2])), min_size=10, max_size=40),
)
"""One series that is mostly calm, so that what the kernels do without stepping matters."""
STEADY = st.builds(
    run,
    st.sampled_from([7, 5]),
    st.lists(
        st.tuples(st.sampled_from([*[1] * 15, 2]), CALM, st.sampled_from([*[0] * 15, 2])), min_size=20, max_size=60
    ),
)
"""One series with a reading a second, nearly always: what is judged by windows of them."""
READING_STREAMS = st.one_of(SORTED_ISH, ANY_ORDER, RUNS, STEADY)
"""Accepted readings: in order of time, in any order with repetitions, or a calm or steady run of one series."""
STREAMS = st.one_of(st.lists(st.one_of(READINGS, READINGS, READINGS, MARKS), max_size=60), RUNS, STEADY)
"""Readings and watermarks in any order (the watermarks keep no promise), or a calm or steady run."""


def engine(rules: RuleSet = RULES, series: Iterable[SeriesInfo] = SERIES) -> Engine:
    """A fresh engine with the series bound."""
    fresh = Engine(rules)
    fresh.bind(series)
    return fresh


def city(series: Iterable[SeriesInfo] = SERIES) -> Engine:
    """A fresh engine with all rules and the series bound."""
    return engine(ALL, series)


def batch(readings: Sequence[Reading]) -> SeriesBatch:
    """Readings in acceptance order as a batch."""
    return SeriesBatch.group(
        np.array([r.series for r in readings], np.int32),
        np.array([r.time_us for r in readings], np.int64),
        np.array([r.value for r in readings], np.float64),
        np.array([r.quality for r in readings], np.uint8),
    )


def feed(target: Engine, readings: Sequence[Reading]) -> tuple[list[Transition], list[int]]:
    """Feed readings; the transitions, and the quality of every reading in the order given."""
    fed: Fed = target.feed(batch(readings))
    order = np.argsort(np.array([r.series for r in readings], np.int32), kind="stable")
    quality = np.empty(len(readings), np.uint8)
    quality[order] = fed.quality
    return fed.transitions, quality.tolist()


def key(transition: Transition) -> tuple[object, ...]:
    """What makes a transition the same, wherever it was noticed: everything in it."""
    t = transition
    words = (t.alert_id, t.rule, t.version, t.object, t.series, t.kind, t.level, t.time_us, t.value, t.limit)
    return (*words, repr(t.evidence), t.text_zh, t.text_en)


def keys(transitions: Iterable[Transition]) -> list[tuple[object, ...]]:
    """All of them, in an order of their own."""
    return sorted((key(t) for t in transitions), key=repr)


def apply(target: Engine, ops: Sequence[Op], cuts: Iterable[int] = ()) -> list[Transition]:
    """Run a stream; readings between two marks travel in one batch, cut further before the positions in `cuts`."""
    found: list[Transition] = []
    waiting: list[Reading] = []
    borders = set(cuts)
    for position, op in enumerate(ops):
        if waiting and (isinstance(op, Mark) or position in borders):
            found += feed(target, waiting)[0]
            waiting = []
        if isinstance(op, Mark):
            found += target.advance({op.source: op.time_us})
        else:
            waiting.append(op)
    return found + (feed(target, waiting)[0] if waiting else [])


def replayed(
    live: Engine, replay: Engine, ops: Sequence[Op], end: Mapping[str, int], cuts: Callable[[int], set[int]]
) -> None:
    """Law 6: history through `replay` gives what `ops` give live. History is what is stored, without the late rows, in order of
    time and without the watermarks on the way; `cuts` are the places where it is cut, of so many rows."""
    stored: list[Reading] = []
    found: list[Transition] = []
    for op in ops:
        if isinstance(op, Mark):
            found += live.advance({op.source: op.time_us})
        else:
            transitions, quality = feed(live, [op])
            found += transitions
            stored.append(Reading(op.series, op.time_us, op.value, quality[0]))
    found += live.advance(end)
    history = sorted((row for row in stored if not row.quality & LATE), key=lambda row: row.time_us)
    assert keys(apply(replay, history, cuts(len(history))) + replay.advance(end)) == keys(found)
    assert replay.snapshot() == live.snapshot()


def honest(readings: Sequence[Reading], places: Iterable[int]) -> list[Op]:
    """`readings` with watermarks put in after the positions in `places`, each keeping its promise: for every source, as far
    as no reading of it that is still to come would be at or before it."""
    ops: list[Op] = []
    chosen = set(places)
    watched = {info.id: info.source for info in SERIES}
    for position, row in enumerate(readings):
        ops.append(row)
        if position not in chosen:
            continue
        coming = [(watched[r.series], r.time_us) for r in readings[position + 1 :]]
        for source in ("", *sorted({info.source for info in SERIES})):
            times = [time_us for owner, time_us in coming if source in ("", owner)]
            ops.append(Mark(source, min(times, default=60 * SECOND) - 1))
    return ops


END = {"": 1000 * SECOND} | {info.source: 1000 * SECOND for info in SERIES}
"""Watermarks past everything."""
