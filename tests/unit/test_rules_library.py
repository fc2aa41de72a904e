"""The shipped rules against the domain reference: numbers, marks, words."""

from __future__ import annotations

from pathlib import Path

import pytest

from citynet_rules.kinds.accumulate import AccumulateRule
from citynet_rules.kinds.iaqi import IaqiRule
from citynet_rules.kinds.limit import LimitRule
from citynet_rules.kinds.relation import RelationRule
from citynet_rules.kinds.spectrum import SpectrumRule
from citynet_rules.kinds.stale import StaleRule
from citynet_rules.kinds.weekly import WeeklyRule
from citynet_rules.rule import Rule
from citynet_rules.spec import library_paths, load_rules

LIBRARY = load_rules(library_paths())
BY_ID = {rule.id: rule for rule in LIBRARY}

# id: metric, unit, direction, levels, on-delay, standard, status: as in the domain reference, sections 2.1 to 2.4 and 2.17
LIMITS = {
    "gas-ch4-void": ("ch4_lel", "%LEL", "high", {"orange": 20, "red": 50}, 30, "CJJ 51", "C"),
    "gas-h2s": ("h2s_mg_m3", "mg/m3", "high", {"yellow": 10, "orange": 28}, 30, "GBZ 2.1", "Q"),
    "gas-o2-low": ("o2_vol", "%", "low", {"yellow": 19.5, "orange": 18}, 30, "confined-space practice", "D"),
    "gas-pressure-low": ("gas_pressure_kpa", "kPa", "low", {"yellow": 2.25, "orange": 2.0}, 60, "house practice", "D"),
    "water-pressure-low": ("water_pressure_mpa", "MPa", "low", {"yellow": 0.14, "orange": 0.1}, 60, "GB 55036", "Q"),
    "water-turbidity": ("turbidity_ntu", "NTU", "high", {"yellow": 1}, 60, "GB 5749", "U"),
    "water-chlorine-low": ("chlorine_mg_l", "mg/L", "low", {"yellow": 0.05}, 60, "GB 5749", "U"),
    "drainage-ponding": (
        "ponding_cm", "cm", "high", {"blue": 5, "yellow": 10, "orange": 15, "red": 25}, 30,
        "house practice, after city rules", "D",
    ),
    "drainage-cover-tilt": ("cover_tilt_deg", "deg", "high", {"orange": 10}, 0, "vendor default", "Q"),
    "drainage-sump-high": ("sump_level_m", "m", "high", {"orange": 3}, 300, "house practice", "D"),
    "device-battery-low": ("battery_pct", "%", "low", {"blue": 20, "yellow": 10}, 0, "house practice", "D"),
}  # fmt: skip
SILENCES = {
    "device-stale-gas": ("ch4_lel", 900, "source", "yellow"),
    "device-stale-water": ("water_pressure_mpa", 900, "source", "blue"),
    "device-stale-drainage": ("level_m", 900, "source", "blue"),
    "gateway-silent": ("gateway_uptime_s", 60, "server", "orange"),
}


def test_the_library_has_what_is_pinned_here() -> None:
    assert set(BY_ID) >= set(LIMITS) | set(SILENCES)


WEEKS = library_paths()[0].parents[1] / "profiles" / "water-week.toml"


def test_every_domain_has_its_pack() -> None:
    domains = {"gas", "water", "drainage", "tunnel", "heating", "bridge", "air", "device"}
    assert {rule.domain for rule in LIBRARY} == domains == {path.stem for path in library_paths()}


def test_the_other_profile_of_gas_loads_and_selects_nothing_by_default() -> None:
    """25/50 %LEL beside 20/50: not armed unless a city names it."""
    path = library_paths()[0].parents[1] / "profiles" / "gas-gbt50493.toml"
    (rule,) = load_rules([path])
    assert isinstance(rule, LimitRule)
    assert (rule.levels, rule.status) == ({"orange": 25, "red": 50}, "U")
    assert path not in library_paths()


def test_the_profile_of_pumps_loads() -> None:
    (rule,) = load_rules([library_paths()[0].parents[1] / "profiles" / "pump-relation.toml"])
    assert isinstance(rule, RelationRule)
    assert list(rule.operands) == ["power", "flow", "head"]


def test_a_profile_of_weeks_is_not_armed_by_itself() -> None:
    """It takes 12 KB a series: a city names its meters."""
    assert WEEKS not in library_paths()
    assert not any(isinstance(rule, WeeklyRule) for rule in LIBRARY)


def test_bridges_and_districts_are_the_references() -> None:
    """2.6: a shift of 5 to 10 %, 50 Hz or more; 2.3: beyond 3 sigma of the same time of week."""
    shift = BY_ID["bridge-mode-shift"]
    pressure = next(rule for rule in load_rules([WEEKS]) if rule.id == "water-pressure-week")
    assert isinstance(shift, SpectrumRule)
    assert (shift.levels, shift.rate_hz, shift.measure) == ({"yellow": 5, "orange": 10}, 50, "shift")
    assert isinstance(pressure, WeeklyRule)
    assert (pressure.levels["blue"], pressure.direction, pressure.time_zone) == (3, "down", "Asia/Shanghai")


def test_rain_signals_are_the_references() -> None:
    signals = {ident: rule for ident, rule in BY_ID.items() if isinstance(rule, AccumulateRule)}
    assert {ident: (rule.window_s / 3600, rule.levels) for ident, rule in signals.items()} == {
        "drainage-rain-12h": (12, {"blue": 50}),
        "drainage-rain-6h": (6, {"yellow": 50}),
        "drainage-rain-3h": (3, {"orange": 50, "red": 100}),
    }


def test_air_is_graded_by_the_edition_in_force() -> None:
    """Levels begin where an index may be published with pollutants missing."""
    rules = [rule for rule in LIBRARY if isinstance(rule, IaqiRule)]
    assert {rule.table.rsplit("_", 1)[0] for rule in rules} == {"so2", "no2", "co", "o3", "pm10", "pm2_5"}
    assert all(rule.edition == "2026" and min(rule.levels.values()) == 101 for rule in rules)


@pytest.mark.parametrize("ident", LIMITS)
def test_the_thresholds_are_the_references(ident: str) -> None:
    rule = BY_ID[ident]
    assert isinstance(rule, LimitRule)
    got = (rule.metric, rule.unit, rule.direction, rule.levels, rule.on_delay_s, rule.standard, rule.status)
    assert got == LIMITS[ident]


@pytest.mark.parametrize("ident", SILENCES)
def test_the_silences(ident: str) -> None:
    rule = BY_ID[ident]
    assert isinstance(rule, StaleRule)
    assert (rule.metric, rule.max_age_s, rule.clock, rule.level) == SILENCES[ident]


@pytest.mark.parametrize("rule", LIBRARY.rules, ids=lambda rule: rule.id)
def test_every_rule_can_be_acted_on(rule: Rule) -> None:
    """What it means, what to do first, whom to call, in both languages; and where its numbers come from."""
    for word in ("含义：", "先做：", "联系："):
        assert word in rule.guidance_zh
    for word in ("Meaning: ", "First: ", "Call: "):
        assert word in rule.guidance_en
    assert "\n" not in rule.guidance_zh + rule.guidance_en
    assert rule.source
    assert rule.basis


def test_one_pack_a_domain() -> None:
    for rule in LIBRARY:
        assert f"/{rule.domain}.toml:" in LIBRARY.origins[rule.id]


def test_device_faults_are_a_domain_of_their_own() -> None:
    """They make maintenance orders and are never public-safety alerts, so none of them is red."""
    assert all("red" not in rule.levels for rule in LIBRARY if rule.domain == "device" and isinstance(rule, LimitRule))
    assert all(rule.level != "red" for rule in LIBRARY if isinstance(rule, StaleRule))


def test_the_page_lists_the_rules_as_they_are() -> None:
    page = (Path(__file__).parents[2] / "docs" / "rule-packs.md").read_text(encoding="utf-8")
    listed = [line for line in page.splitlines() if line.startswith("| `")]
    assert listed == [
        f"| `{r.id}` | {r.kind} | `{r.metric}` | {r.standard}{f' {r.clause}' if r.clause else ''} | {r.status} |"
        for r in LIBRARY
    ]
