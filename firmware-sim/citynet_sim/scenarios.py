"""Scenarios: named choices of incidents."""

from __future__ import annotations

from dataclasses import dataclass

from citynet.errors import ConfigError
from citynet_sim.city import City
from citynet_sim.incidents import GAS_LEAK, PONDING, Course, Incident, gas_leak, ponding


@dataclass(frozen=True, slots=True)
class Scenario:
    """A name, what it is about, and the kinds of incident that it schedules."""

    name: str
    about: str
    kinds: frozenset[str]


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("demo", "a gas leak and a ponding, soon after the start", frozenset({GAS_LEAK, PONDING})),
        Scenario("gas-leak", "methane in one well and its two neighbours", frozenset({GAS_LEAK})),
        Scenario("ponding", "a rain burst; water stands at the lowest manhole", frozenset({PONDING})),
        Scenario("calm", "nothing happens; no alert is right", frozenset()),
    )
}


def find(name: str) -> Scenario:
    """The scenario of that name. ConfigError if there is none."""
    if name not in SCENARIOS:
        raise ConfigError([f"scenario {name[:80]!r}: unknown (known: {', '.join(SCENARIOS)})"])
    return SCENARIOS[name]


def schedule(scenario: Scenario, city: City, leak: Course, pond: Course, origin_us: int) -> tuple[Incident, ...]:
    """The scenario's incidents in this city, for a run that starts at `origin_us` (µs since 1970)."""
    found: list[Incident] = []
    if GAS_LEAK in scenario.kinds:
        found += gas_leak(city, leak, origin_us)
    if PONDING in scenario.kinds:
        found += ponding(city, pond, origin_us)
    return tuple(found)
