"""Rules of every registered kind, drawn at random, and streams at all their paces: seconds, nights, weeks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from citynet_rules.engine import Engine
from citynet_rules.kinds import KINDS
from citynet_rules.rule import Rule
from citynet_rules.spec import RuleSet

from .rules_streams import CALM, DERIVED, SECOND, SERIES, TELLS, Mark, Op, Reading, rule

HOUR = 3600 * SECOND
DAY = 24 * HOUR
WEEK = 7 * DAY
Fields = dict[str, Any]

one_of = st.sampled_from
LEVELS = one_of([{"blue": 1}, {"blue": 1, "red": 3}, {"yellow": 0.5, "orange": 2, "red": 2.5}])
COLOUR = one_of(["blue", "yellow", "orange", "red"])
SIDE = one_of(["either", "up", "down"])
HIGH_LOW = one_of(["high", "low"])
SHORT = one_of([0, 1, 2, 5])
DOMAIN = one_of(["device", "device", "gas"])
NEIGHBOURS = {"x": {"a-1": ("a-2", "b-1"), "a-2": ("a-1",), "b-1": ("a-1",)}, "y": {"a-1": ("b-1",)}}
NEAR_TELLS = {"along": "leak", "along_zh": "邻近", "along_en": "near"}
GRADED: Fields = {
    "levels": LEVELS, "hysteresis": one_of([0, 0.25]), "on_delay_s": SHORT, "off_delay_s": st.none() | SHORT,
    "gap_s_max": st.none() | one_of([3, 9, 60]),
}  # fmt: skip
PAIRS = {"o-a": ["a-1", "a-1/y"], "o-b": ["b-1/y", "a-2"]}
OPERANDS = {"p": {"metric": "x", "unit": "1", "max_age_s": 30}, "q": {"metric": "y", "unit": "1", "max_age_s": 60}}
JOINT: Fields = {"objects": st.just(PAIRS), "wait_s": one_of([5, 30])}

DRAWN: dict[str, Fields] = {
    "limit": {**GRADED, "direction": st.just("high")},
    "stale": {"level": COLOUR, "max_age_s": one_of([2, 10, 40])},
    "rate": {**GRADED, "direction": SIDE, "per": one_of(["s", "min"]), "over_s": SHORT},
    "stuck": {
        "domain": DOMAIN, "level": COLOUR, "for_s": one_of([2, 4]), "count_min": one_of([2, 3]), "tolerance": one_of([0, 0.5]),
    },
    "range": {
        "domain": DOMAIN, "level": COLOUR, "low": one_of([0.0, 1.0]), "high": one_of([2.0, 4.0]), "off_delay_s": SHORT,
    },
    "jump": {
        "domain": DOMAIN, "level": COLOUR, "shape": one_of(["step", "spike"]), "slew": one_of([0.25, 1.0]),
        "per": one_of(["s", "min"]), "step_min": one_of([0.5, 1.0]), "away_s_max": one_of([2, 6]), "off_delay_s": SHORT,
        "gap_s_max": one_of([3, 900]), "hold_s": one_of([0, 3, 70]),
    },
    "drift": {
        "domain": DOMAIN, "level": COLOUR, "band": one_of([0.5, 1.0]), "step_max": one_of([0.25, 0.5]),
        "onset_s": one_of([2, 9]), "tau_s": one_of([20, 3600]), "believed_s": one_of([5, 600]),
    },
    "count": {
        "level": COLOUR, "match": one_of(["at_least", "at_most"]), "threshold": one_of([1.5, 2.0]), "n": one_of([1, 2, 4]),
        "window_s": one_of([3, 8]),
    },
    "accumulate": {**GRADED, "input": st.just("amount"), "window_s": one_of([72, 144])},
    "iaqi": {
        "edition": one_of(["2026", "2012"]), "table": st.just("co_24h"), "unit": st.just("mg/m3"),
        "levels": one_of([{"blue": 26}, {"blue": 51, "red": 76}]), "hysteresis": one_of([0, 5]), "on_delay_s": SHORT,
    },
    "cusum": {**GRADED, "direction": SIDE, "learn_count": one_of([2, 5]), "sigma_min": one_of([0.25, 1])},
    "deviation": {
        **GRADED, "direction": SIDE, "alpha": one_of([0.1, 0.5]), "learn_count": one_of([2, 5]),
        "sigma_min": one_of([0.25, 1]), "in_alarm": one_of(["clip", "hold"]),
    },
    "weekly": {
        **GRADED, "direction": SIDE, "time_zone": one_of(["UTC", "Europe/Berlin"]), "weeks": one_of([2, 3]),
        "weeks_min": st.just(2), "count_min": one_of([1, 2]), "drift_max": one_of([0, 0.5, 100]), "sigma_min": st.just(0.25),
        "spread_max": st.none() | st.just(1.5),
    },
    "spectrum": {
        **GRADED, "measure": st.just("shift"), "levels": st.just({"blue": 5, "red": 20}), "rate_hz": st.just(1),
        "samples": one_of([8, 12]), "low_hz": one_of([0.0, 0.1]), "high_hz": st.just(0.5), "jitter": one_of([0.1, 0.4]),
        "direction": SIDE, "baseline_hz": st.none() | st.just(0.25), "learn_windows": one_of([1, 2]),
        "learn_spread_pct": st.just(90), "peak_share": one_of([0.0, 0.5]),
    },
    "night_flow": {
        "level": COLOUR, "from_h": st.just(1.0), "to_h": st.just(2.5), "utc_offset_h": one_of([0, 8]),
        "baseline_nights": st.just(7), "legitimate_use": one_of([0, 1]),
    },
    "vote": {**GRADED, **JOINT, "levels": st.just({"blue": 1, "red": 2}), "direction": HIGH_LOW, "threshold": st.just(1.5),
             "within_s": one_of([3, 20]), "hold": st.booleans()},
    "sequence": {**JOINT, "first": st.just({"low": 2.0}), "second": st.just({"high": 1.5}), "within_s": one_of([2, 9]),
                 "hold_s": one_of([2, 9]), "levels": st.just({"red": 1})},
    "residual": {**GRADED, **JOINT, "unit": st.just("1"), "operands": st.just(OPERANDS), "expression": st.just("p - q"),
                 "direction": SIDE},
    "relation": {**GRADED, **JOINT, "unit": st.just("1"), "operands": st.just(OPERANDS), "direction": SIDE,
                 "learn_s": one_of([16, 40]), "learn_count": st.just(16), "sigma_min": one_of([0.25, 1]),
                 "follow_min": one_of([0.5, 0.9])},
    "witness": {
        "domain": DOMAIN, "level": COLOUR, "band": one_of([0.25, 1.0]), "tau_s": one_of([5, 20, 3600]),
        "every_s": one_of([1, 2]), "max_age_s": one_of([9, 900]), "alive_s": one_of([9, 30]), "wait_s": one_of([5, 30]),
        "hold_s": one_of([0, 5, 70]),
        "neighbours": one_of([{"band": 0.5, "contradicts": True, "count_min": 1}, {"band": 0.25}]),
    },
}  # fmt: skip
"""Fields of each kind, each a strategy."""

WHEN = one_of(
    [
        [{"metric": "y", "device": "a-1", "at_least": 1.5, "max_age_s": 40}],
        [{"hours": ["00:00-00:01", "01:00-02:30"], "time_zone": "UTC"}],
        [{"maintenance": False, "device": "a-1"}, {"metric": "xy", "device": "a-1", "at_most": 3, "max_age_s": 60}],
    ]
)


@st.composite
def rules(draw: st.DrawFn, kinds: Sequence[str] = tuple(DRAWN)) -> RuleSet:
    """Two to six rules, some with conditions, some on derived metrics."""
    found: list[Rule] = []
    for number, kind in enumerate(draw(st.lists(one_of(sorted(kinds)), min_size=2, max_size=6))):
        fields = {name: value for name, of in DRAWN[kind].items() if (value := draw(of)) is not None}
        fields["metric"] = "x" if "objects" in fields else draw(one_of(["x", "x", "y", "xy"]))
        if kind == "witness":  # witnesses are read, not made, and have no conditions
            fields["metric"], other = draw(one_of([("x", "y"), ("y", "x")]))
            beside = {
                "metric": other,
                "gain": draw(one_of([1.0, -0.5])),
                "band": 0.25,
                "contradicts": draw(st.booleans()),
            }
            fields["beside"] = draw(one_of([[], [beside]]))
            if draw(one_of([False, False, True])):
                fields |= {"domain": "gas", "hold_s": 0, "tells": draw(one_of([TELLS, NEAR_TELLS]))}
        elif draw(one_of([False, False, True])):
            fields |= {"when": draw(WHEN), "when_ends": draw(one_of(["clear", "hold"])), "when_wait_s": 20}
        found.append(rule(kind, f"{kind}-{number}", **fields))
    return RuleSet(tuple(found), derived=DERIVED, neighbours=NEIGHBOURS)


QUALITIES = one_of([0] * 14 + [2, 128])
IDS = one_of([info.id for info in SERIES])


@st.composite
def steady(draw: st.DrawFn, start_us: int) -> list[Reading]:
    """Two series with a reading a second, nearly always."""
    found = []
    for series in draw(st.lists(one_of([7, 5, 3]), min_size=1, max_size=2, unique=True)):
        time_us = start_us
        for value, gap, quality in draw(
            st.lists(st.tuples(CALM, one_of([1] * 15 + [3]), QUALITIES), min_size=12, max_size=30)
        ):
            time_us += gap * SECOND
            found.append(Reading(series, time_us, value, quality))
    return sorted(found, key=lambda row: row.time_us)


@st.composite
def loose(draw: st.DrawFn, start_us: int) -> list[Reading]:
    """Readings of any series in any order."""
    rows = st.builds(
        lambda series, second, value, quality: Reading(series, start_us + second * SECOND, value, quality),
        IDS, st.integers(0, 40), CALM, QUALITIES,
    )  # fmt: skip
    return draw(st.lists(rows, max_size=40))


@st.composite
def nights(draw: st.DrawFn, start_us: int) -> list[Reading]:
    """Flow of one series, from 00:45 to 03:00 of some nights, by one of two clocks."""
    series, flows = draw(one_of([7, 5])), one_of([3.0, 3.0, 3.0, 3.5, 6.0])
    first_us = -(-start_us // DAY) * DAY - draw(one_of([0, 8])) * HOUR + DAY
    return [
        Reading(series, first_us + night * DAY + quarter * HOUR // 4, flow + quarter % 2, 0)
        for night, flow in enumerate(draw(st.lists(flows, min_size=8, max_size=10)))
        for quarter in range(3, 12)
    ]


@st.composite
def weeks(draw: st.DrawFn, start_us: int) -> list[Reading]:
    """One hour, and the next, of some weeks."""
    series, found = draw(one_of([7, 5])), []
    first_us = -(-start_us // WEEK) * WEEK + 12 * HOUR
    for week in range(draw(st.integers(3, 5))):
        for n, value in enumerate(draw(st.lists(CALM, min_size=2, max_size=6))):
            found.append(Reading(series, first_us + week * WEEK + n * 1200 * SECOND, value, draw(QUALITIES)))
    return found


Bounds = dict[int, int]
UNBOUNDED = {info.id: 0 for info in SERIES}
BOUNDS = st.just(UNBOUNDED) | st.fixed_dictionaries({info.id: one_of([0, 3, 20, 3600]) for info in SERIES}).map(
    lambda bounds: {series: bound * SECOND for series, bound in bounds.items()}
)
"""Lateness bounds by series, µs: none, or several."""


@st.composite
def readings(draw: st.DrawFn) -> list[Reading]:
    """A few stretches, one after the other, each at its pace."""
    found: list[Reading] = []
    for block in draw(st.lists(one_of([steady, steady, loose, nights, weeks]), min_size=1, max_size=3)):
        found += draw(block(max((row.time_us for row in found), default=0)))
    return found


def honest(rows: Sequence[Reading], places: set[int], bounds: Bounds) -> list[Op]:
    """`rows` with watermarks after the positions in `places` (thousandths of the whole), each keeping its promise: what still
    comes is less than its series' bound behind it."""
    ops: list[Op] = []
    chosen = {place * len(rows) // 1000 for place in places}
    of_series = {info.id: info.source for info in SERIES}
    newest_us = max((row.time_us for row in rows), default=0)
    for position, row in enumerate(rows):
        ops.append(row)
        for source in ("", *sorted(set(of_series.values()))) if position in chosen else ():
            coming = [r.time_us + bounds[r.series] for r in rows[position + 1 :] if source in ("", of_series[r.series])]
            ops.append(Mark(source, min(coming, default=newest_us) - 1))
    return ops


END = dict.fromkeys(["", *(info.source for info in SERIES)], 1 << 52)
"""Watermarks past everything."""


def city(of: RuleSet, bounds: Bounds = UNBOUNDED) -> Engine:
    """A fresh engine with the series bound; `bounds` are those of their lateness."""
    fresh = Engine(of, bound_us=None if bounds is UNBOUNDED else lambda info: bounds[info.id])
    fresh.bind(SERIES)
    return fresh


assert DRAWN.keys() == KINDS.keys(), f"kinds that no law knows: {sorted(DRAWN.keys() ^ KINDS.keys())}"
