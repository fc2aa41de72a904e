"""Every kind of rule that the shipped library does not use, one story each on simulated time."""

from __future__ import annotations

import json
from collections.abc import Callable
from math import nan

import pytest

from citynet_rules.derived import Derived
from citynet_rules.kinds import KINDS
from citynet_rules.spec import RuleSet, library_paths, load_rules

from .timeline import LIBRARY, Timeline, exactly

HOUR = 3600
Story = Callable[[Timeline], None]
STORIES: dict[str, tuple[dict[str, object], Story]] = {}


def story(kind: str, name: str = "", **fields: object) -> Callable[[Story], Story]:
    """Register a story of a rule of that kind."""

    def register(function: Story) -> Story:
        ident = name or kind
        words = {
            "id": ident, "version": 1, "kind": kind, "title_zh": "示例", "title_en": "example", "domain": "water",
            "metric": "x", "unit": "u", "standard": "none", "edition": "1", "status": "D",
        }  # fmt: skip
        STORIES[ident] = (words | fields, function)
        return function

    return register


@story(
    "rate",
    direction="up",
    per="h",
    levels={"yellow": 0.6, "orange": 1.2},
    hysteresis=0.1,
    on_delay_s=300,
    gap_s_max=1800,
)
def _river(city: Timeline) -> None:
    """0.1 m in 5 minutes is 1.2 m/h; across the gap of two hours there is no rate, however much it rose."""
    for minute, level in [
        (0, 1.0),
        (5, 1.01),
        (10, 1.07),
        (15, 1.14),
        (20, 1.25),
        (25, 1.36),
        (30, 1.36),
        (40, 1.36),
        (45, 1.36),
    ]:
        city.at(60 * minute).reading("river-1", level)
    city.at(60 * 165).reading("river-1", 3.0)
    city.at(60 * 170, 60 * 175).reading("river-1", 3.0)
    city.want(exactly(15 * 60)).raised("yellow")
    city.want(exactly(25 * 60)).escalated("orange")
    city.want(exactly(40 * 60)).cleared("orange")


@story("rate", "rate-over", direction="down", per="min", over_s=60, levels={"red": 1.0})
def _noise(city: Timeline) -> None:
    """Steps of 10 s are noise; over a minute the pressure falls by 2."""
    city.at(0, 20, 40, 60).reading("p-1", 10)
    city.at(10, 30, 50).reading("p-1", 9.5)
    city.at(90).reading("p-1", 8.5)
    city.at(120, 180).reading("p-1", 8)
    city.want(exactly(120)).raised("red")
    city.want(exactly(180)).cleared("red")


@story("deviation", levels={"yellow": 4, "red": 8}, alpha=0.05, learn_count=20, sigma_min=0.1)
def _own_baseline(city: Timeline) -> None:
    """Between 9 and 11 is normal here: m = 10 and σ = 1.25 at most; 17 is yellow, 25 red."""
    for n in range(60):
        city.at(60 * n).reading("pump-1", 9 if n % 2 else 11)
    city.at(3600).reading("pump-1", 17)
    city.at(3660).reading("pump-1", 25)
    city.at(3720, 3780).reading("pump-1", 10)
    city.want(exactly(3600)).raised("yellow")
    city.want(exactly(3660)).escalated("red")
    city.want(exactly(3720)).cleared("red")


@story("cusum", levels={"yellow": 5}, learn_count=20, gap_s_max=3600)
def _creep(city: Timeline) -> None:
    """±1 around 10 is learned, σ ≈ 1.03. A shift to 12 (z = 1.95) adds 1.45 a reading: the fourth reaches 5, the
    sixth 8.7; back at 10 it falls by 0.5 a reading, below 5 with the eighth."""
    for n in range(20):
        city.at(60 * n).reading("cl-1", 9 if n % 2 else 11)
    city.every(60, 1200, 1500).reading("cl-1", 12)
    city.every(60, 1560, 2400).reading("cl-1", 10)
    city.want(exactly(1380)).raised("yellow")
    city.want(exactly(1980)).cleared("yellow")


@story("count", level="orange", match="at_least", threshold=1.0, n=3, window_s=600)
def _starts(city: Timeline) -> None:
    """Three within ten minutes; the third newest leaves the window at 900. Bad readings are none."""
    city.at(0, 300, 400, 500).reading("ps-1", 1)
    city.at(450).reading("ps-1", nan)
    city.at(460).reading("ps-1", 0)
    city.at(2000, 2300, 2600).reading("ps-1", 1)  # 2000 has just left when 2600 comes
    city.at(2700, 2900).reading("ps-1", 1)  # at 2900 the match of 2300 leaves and another comes
    city.at(3199, 3200).watermark("gw-1")
    city.want(exactly(400)).raised("orange")
    city.want(exactly(900)).cleared("orange")
    city.want(exactly(2700)).raised("orange")
    city.want(exactly(3200)).cleared("orange")


@story("night_flow", level="yellow", legitimate_use=1.0, baseline_nights=7)
def _leak(city: Timeline) -> None:
    """Net 2 for a week; then 2.5, which only the mean of three nights tells (120 % of 2 is 2.4); watermarks judge."""
    for night, flow in enumerate([3.0] * 7 + [3.5, 3.5, 3.5, 3.0]):
        begin = night * 24 * HOUR + 18 * HOUR  # 02:00 at UTC+8
        city.every(900, begin, begin + 2 * HOUR).reading("dma-1", flow)
        city.at(begin + 2.5 * HOUR).watermark("gw-1")
    city.want(exactly(9 * 24 * HOUR + 20 * HOUR)).raised("yellow")
    city.want(exactly(10 * 24 * HOUR + 20 * HOUR)).cleared("yellow")


@story("stuck", level="blue", for_s=3600, count_min=4, tolerance=0.01, gap_s_max=1800)
def _frozen(city: Timeline) -> None:
    """An hour of the same value, begun anew by the silence; a step within the tolerance is none."""
    city.every(900, 0, 2700).reading("lv-1", 1.50)
    city.every(900, 5400, 9900).reading("lv-1", 1.505)
    city.at(10_800).reading("lv-1", 1.52)
    city.every(300, 11_100, 20_000).reading("lv-1", 1.55)
    city.want(exactly(9000)).raised("blue")
    city.want(exactly(10_800)).cleared("blue")
    city.want(exactly(14_700)).raised("blue")


@story("range", level="blue", low=-2.0, high=100.0, off_delay_s=60)
def _impossible(city: Timeline) -> None:
    """The ends belong to the range."""
    city.at(0).reading("gas-1", 100)
    city.at(10).reading("gas-1", 327.67)
    city.at(20, 30).reading("gas-1", -2)
    city.at(40).reading("gas-1", -2.5)
    city.every(10, 50, 200).reading("gas-1", 3)
    city.want(exactly(10)).raised("blue")
    city.want(exactly(110)).cleared("blue")


@story(
    "vote",
    objects={"ring": ["p-1", "p-2", "p-3"]},
    direction="low",
    threshold=0.2,
    within_s=300,
    levels={"orange": 2, "red": 3},
)
def _pressure_falls(city: Timeline) -> None:
    """One low sensor is no event; two within five minutes are. The first vote has lapsed when the third comes."""
    for second, device, value in [
        (0, "p-1", 0.3), (0, "p-2", 0.3), (0, "p-3", 0.3), (60, "p-2", 0.1), (120, "p-1", 0.3), (180, "p-3", 0.15),
        (300, "p-1", 0.3), (360, "p-2", 0.3), (361, "p-3", 0.12), (365, "p-1", 0.1), (600, "p-2", 0.1), (900, "p-1", 0.3),
        (930, "p-2", 0.3), (960, "p-3", 0.3),
    ]:  # fmt: skip
        city.at(second).reading(device, value)
    city.at(1000).watermark("gw-1")
    city.want(exactly(180), "ring").raised("orange")
    city.want(exactly(360), "ring").cleared("orange")
    city.want(exactly(365), "ring").raised("orange")
    city.want(exactly(600), "ring").escalated("red")
    city.want(exactly(900), "ring").cleared("red")


@story(
    "sequence",
    objects={"station": ["ps-1/level", "ps-1/pump_a"]},
    first={"low": 3.0},
    second={"high": 0.1},
    within_s=300,
    hold_s=600,
    levels={"red": 1},
)
def _no_start(city: Timeline) -> None:
    """Above the start level, and then a pump without current: it failed to start. A pump at rest before is none."""
    city.every(60, 0, 180).reading("ps-1/pump_a", 0.0)
    city.at(120).reading("ps-1/level", 2.8)
    city.at(210).reading("ps-1/level", 3.1)
    city.at(240).reading("ps-1/pump_a", 0.0)
    city.at(600, 839, 840).reading("ps-1/level", 2.0)
    city.at(900).watermark("gw-1")
    city.want(exactly(240), "station").raised("red")
    city.want(exactly(840), "station").cleared("red")


@story(
    "residual",
    objects={"dma-1": ["in-1", "out-1", "tank-1"]},
    operands={
        "inflow": {"metric": "flow", "unit": "m3/h", "max_age_s": 900},
        "outflow": {"metric": "flow", "unit": "L/s", "max_age_s": 900},
        "filling": {"metric": "filling", "unit": "m3/h", "max_age_s": 900},
    },
    unit="m3/h",
    expression="inflow - outflow - filling",
    per="max(inflow, 1 [m3/h])",
    direction="up",
    levels={"yellow": 0.1, "orange": 0.3},
)
def _balance(city: Timeline) -> None:
    """36 in, 10 L/s = 36 out: balanced. Then a fifth is missing, then it fills the tank; an old operand says nothing."""
    city.every(300, 0, 1800).reading("in-1/flow", 36.0)
    city.at(0, 300).reading("out-1/flow", 10.0)
    city.at(600, 900).reading("out-1/flow", 8.0)
    city.at(0, 300, 600).reading("tank-1/filling", 0.0)
    city.at(900).reading("tank-1/filling", 7.2)
    city.at(1900).watermark("gw-1")
    city.want(exactly(600), "dma-1").raised("yellow")
    city.want(exactly(900), "dma-1").cleared("yellow")


@story(
    "relation",
    objects={"pump-1": ["p-1", "p-1"]},
    operands={
        "power": {"metric": "power", "unit": "kW", "max_age_s": 900},
        "flow": {"metric": "flow", "unit": "m3/h", "max_age_s": 900},
    },
    unit="kW",
    learn_s=16 * 600,
    learn_count=16,
    sigma_min=0.5,
    levels={"yellow": 4, "orange": 8},
)
def _off_its_curve(city: Timeline) -> None:
    """16 pairs teach 5 kW + 0.1 kW/(m³/h), the three wild ones among them aside; then 3 kW too much (6 σ), then 5 (10 σ)."""
    for n in range(24):
        flow = 100 + 10 * (n % 4)
        extra = {3: 40, 7: 40, 11: -20, 20: 3, 21: 5}.get(n, 0)
        city.at(600 * n).reading("p-1/flow", flow)
        city.at(600 * n).reading("p-1/power", 5 + 0.1 * flow + extra)
    city.at(600 * 24).watermark("gw-1")
    city.want(exactly(600 * 20), "pump-1").raised("yellow")
    city.want(exactly(600 * 21), "pump-1").escalated("orange")
    city.want(exactly(600 * 22), "pump-1").cleared("orange")


def test_a_relation_is_named_in_the_evidence() -> None:
    fields, tell = STORIES["relation"]
    city = Timeline("relation", RuleSet((KINDS["relation"].model.model_validate(fields),)))
    tell(city)
    evidence = city.play()[0].evidence
    assert evidence["relation"].startswith("power = 5")
    assert evidence["coefficients"] == pytest.approx({"constant": 5, "flow": 0.1})
    assert (evidence["sigma"], evidence["expected"], evidence["learned_us"]) == (0.5, [-2.0, 2.0], 9_000_000_000)


@pytest.mark.parametrize("ident", sorted(STORIES))
def test_the_kind_tells_its_story(ident: str) -> None:
    fields, tell = STORIES[ident]
    city = Timeline(ident, RuleSet((KINDS[str(fields["kind"])].model.model_validate(fields),)))
    tell(city)
    for t in city.play():
        assert t.object in t.text_zh
        assert t.object in t.text_en
        assert json.loads(json.dumps(t.evidence, allow_nan=False)) == t.evidence
        assert t.evidence["samples"]
        assert 0 <= t.evidence.get("severity", 0) <= 1


WORDS = {
    "id": "r", "version": 1, "kind": "limit", "title_zh": "示例", "title_en": "example", "domain": "water", "metric": "x",
    "unit": "u", "standard": "none", "edition": "1", "status": "D", "direction": "high", "levels": {"red": 10},
}  # fmt: skip


def test_a_rule_with_conditions_tells_its_story() -> None:
    """Only with the pump running, not under maintenance, and not between 02:00 and 04:00 in Shanghai (18:00-20:00 UTC)."""
    when = [
        {"metric": "running", "equal": 1, "max_age_s": 600},
        {"maintenance": False},
        {"hours": ["04:00-02:00"], "time_zone": "Asia/Shanghai"},
    ]
    rule = KINDS["limit"].model.model_validate({**WORDS, "on_delay_s": 60, "off_delay_s": 0, "when": when})
    city = Timeline("r", RuleSet((rule,)))
    begin = 17 * HOUR + 1800
    city.every(60, begin, begin + 2400).reading("ps-1", 12.0)  # to 18:10
    city.at(begin, begin + 900, begin + 1500).reading("ps-1/running", 1)
    city.at(begin + 300, begin + 1000).reading("ps-1/running", 0)
    city.at(begin + 1600).reading("ps-1/maintenance", 1)
    city.at(begin + 1630).reading("ps-1/maintenance", 0)
    city.at(begin + 2500).watermark("gw-1")
    city.want(exactly(begin + 60), "ps-1").raised("red")
    city.want(exactly(begin + 300), "ps-1").cleared("red")
    city.want(exactly(begin + 960), "ps-1").raised("red")
    city.want(exactly(begin + 1020), "ps-1").cleared("red")
    city.want(exactly(begin + 1560), "ps-1").raised("red")
    city.want(exactly(begin + 1620), "ps-1").cleared("red")
    city.want(exactly(begin + 1740), "ps-1").raised("red")
    city.want(exactly(begin + 1800), "ps-1").cleared("red")
    last = city.play()[-1]
    assert last.evidence["reason"] == "when"
    assert last.evidence["when"] == [*when[:2], {**when[2], "hours": ["04:00-02:00"]}]


def test_a_derived_metric_tells_its_story() -> None:
    """Efficiency of a pump: ρ g Q H over its electric power; 36 m³/h by 20 m is 1.962 kW."""
    operands = {
        "q": {"metric": "flow", "unit": "m3/h", "max_age_s": 120},
        "h": {"metric": "head", "unit": "m", "max_age_s": 120},
        "p": {"metric": "power", "unit": "kW", "max_age_s": 120},
    }
    derived = Derived.model_validate(
        {
            "name": "efficiency",
            "unit": "%",
            "operands": operands,
            "expression": "1000 [kg/m3] * 9.81 [m/s2] * q * h / p",
        }
    )
    words = {**WORDS, "metric": "efficiency", "unit": "%", "direction": "low", "levels": {"yellow": 50}}
    rule = KINDS["limit"].model.model_validate(words)
    city = Timeline("r", RuleSet((rule,), derived=(derived,)))
    city.every(60, 0, 600).reading("pump-1/flow", 36.0)
    city.at(0, 120, 240).reading("pump-1/head", 20.0)
    city.at(1, 121, 241).reading("pump-1/power", 3.0)
    city.at(200).reading("pump-1/power", 5.0)
    city.at(700).watermark("gw-1")
    city.want(exactly(200), "pump-1").raised("yellow")
    city.want(exactly(241), "pump-1").cleared("yellow")
    raised = city.play()[0]
    assert raised.value is not None
    assert abs(raised.value - 39.24) < 1e-9
    assert raised.evidence["derived"]["expression"] == derived.expression


def test_every_kind_has_a_story() -> None:
    profiles = load_rules(
        [library_paths()[0].parents[1] / "profiles" / "water-week.toml"]
    )  # its cases: test_rules_packs
    assert {rule.kind for rule in (*LIBRARY, *profiles)} | {
        str(fields["kind"]) for fields, _ in STORIES.values()
    } == set(KINDS)
