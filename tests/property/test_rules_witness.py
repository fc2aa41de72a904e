"""The node of kind `witness` against a readable one, and how the stretches of time thin readings out."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from math import copysign

from hypothesis import given
from hypothesis import strategies as st

from citynet_rules.engine import Engine, SeriesInfo
from citynet_rules.kinds.witness import CONTRADICTED, SUPPORTED, WitnessRule
from citynet_rules.spec import RuleSet

from .rules_streams import SECOND, Reading, feed, law, rule

RULE = rule(
    "witness", "w", domain="device", level="blue", band=2.0, hold_s=0, tau_s=40, every_s=3, max_age_s=12, alive_s=25,
    smooth_s=5,
    beside=[{"metric": "y", "gain": -0.5, "band": 0.4}, {"metric": "z", "gain": 2.0, "band": 1.0, "contradicts": False}],
    neighbours={"band": 0.7, "contradicts": True, "count_min": 2},
)  # fmt: skip
SERIES = (
    SeriesInfo(1, "a", "x", "gw"),
    SeriesInfo(2, "a", "y", "gw"),
    SeriesInfo(3, "a", "z", "gw"),
    SeriesInfo(4, "b", "x", "gw"),
    SeriesInfo(5, "c", "x", "gw"),
)
NEAR = {"x": {"a": ("b", "c")}}


@dataclass
class Role:
    """One member as the formula sees it; times in s."""

    gain: float
    band: float
    share: float
    first: int = -1
    when: int = -1
    value: float = 0.0
    smooth: float = 0.0
    base: float = 0.0
    changed: int = -1

    def take(self, now: int, value: float, own_band: float | None) -> None:
        assert isinstance(RULE, WitnessRule)
        if self.first < 0:
            self.first, self.base, self.smooth = now, value, value
        else:
            far = own_band is not None and abs(value - self.base) >= own_band
            span = RULE.tau_s if far else min(RULE.tau_s, max(now - self.first, 1e-6))
            self.base += (value - self.base) * min(1.0, (now - self.when) / span)
            self.smooth += (value - self.smooth) * min(1.0, (now - self.when) / RULE.smooth_s)
        if self.changed < 0 or value != self.value:
            self.changed = now
        self.when, self.value = now, value

    def lives(self, now: int) -> bool:
        assert isinstance(RULE, WitnessRule)
        return self.when >= 0 and now - self.when <= RULE.max_age_s and now - self.changed <= RULE.alive_s


@dataclass
class Court:
    """The oracle: all readings of all members in order of time and role."""

    own: Role = field(default_factory=lambda: Role(1.0, 0.7, 0.3))
    others: list[Role] = field(
        default_factory=lambda: [Role(-0.5, 0.4, 0.5), Role(2.0, 1.0, 0.5), Role(1.0, 0.7, 0.3), Role(1.0, 0.7, 0.3)]
    )
    said: int = 0
    since: int = -1

    def say(self, now: int) -> int:
        assert isinstance(RULE, WitnessRule)
        if self.own.when < 0 or now - self.own.when > RULE.max_age_s:
            return self.said
        ease = 0.75 if self.said == CONTRADICTED else 1.0
        off = self.own.smooth - self.own.base
        if abs(off) < ease * RULE.band:
            self.since = -1
            return 0
        self.since = self.own.when if self.since < 0 else self.since
        accused, quiet_neighbours = False, 0
        for number, other in enumerate(self.others):
            if not other.lives(now):
                continue
            wanted = other.gain * off
            if (other.smooth - other.base) * copysign(1.0, wanted) >= max(other.band, other.share * abs(wanted)):
                return SUPPORTED
            if other.when < self.since:
                continue
            accused |= number == 0 and abs(wanted) >= 2 * ease * other.band
            quiet_neighbours += number >= 2
        return CONTRADICTED if accused or quiet_neighbours >= 2 else 0


def oracle(rows: list[Reading]) -> list[tuple[int, int]]:
    """(time in s, what is said from then on), where it changes."""
    court, found = Court(), []
    first_of = {(row.series, row.time_us // SECOND // 3): row for row in reversed(rows)}
    kept = sorted(first_of.values(), key=lambda row: (row.time_us, row.series))
    for place, row in enumerate(kept):
        now = row.time_us // SECOND
        role = [court.own, *court.others][row.series - 1]
        role.take(now, row.value, 2.0 if row.series == 1 else None)
        if place + 1 == len(kept) or kept[place + 1].time_us != row.time_us:
            said = court.say(now)
            if said != court.said:
                found.append((now, said))
            court.said = said
    return found


STEPS = st.sampled_from([0.0, 0.0, 0.25, 0.5, 1.0, 3.0, -0.5, -1.5, -3.0])
ROWS = st.lists(st.tuples(st.integers(1, 5), st.integers(0, 4), STEPS), max_size=80)


def readings(draws: list[tuple[int, int, float]]) -> list[Reading]:
    """Walks of all series on one clock, strictly rising a series."""
    now, newest, value, rows = 0, dict[int, int](), dict[int, float](), []
    for series, gap, step in draws:
        now += gap
        if newest.get(series, -1) < now:
            newest[series], value[series] = now, value.get(series, 1.0) + step
            rows.append(Reading(series, now * SECOND, value[series], 0))
    return rows


@law
@given(ROWS, st.sets(st.integers(0, 80), max_size=6))
def test_the_node_is_the_formula(draws: list[tuple[int, int, float]], cuts: set[int]) -> None:
    rows = readings(draws)
    target = Engine(RuleSet((RULE,), neighbours=NEAR))
    target.bind(SERIES)
    stage = target._stage
    assert stage is not None
    heard: list[tuple[int, int]] = []
    node = stage.nodes[0]
    make = node.make

    def listened(block):  # type: ignore[no-untyped-def]
        made = make(block)
        if made is not None:
            heard.extend(zip((made.time_us // SECOND).tolist(), made.quality.tolist(), strict=True))
        return made

    node.make = listened  # type: ignore[method-assign]
    borders = sorted({0, len(rows), *(cut for cut in cuts if cut < len(rows))})
    for first, last in pairwise(borders):
        feed(target, rows[first:last])
    target.advance({"gw": 10_000 * SECOND})
    assert heard == oracle(rows)
