"""From settings to a simulation: city, scenario, what its weather brings about."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from citynet.errors import ConfigError
from citynet_sim import city as layout
from citynet_sim import consequences, surveyed
from citynet_sim import scenario as scenarios
from citynet_sim.city import City
from citynet_sim.scenario import Scenario, ScenarioError
from citynet_sim.settings import SimSettings
from citynet_sim.simulation import Simulation
from citynet_sim.world import World

LIVE_HORIZON_S = 31 * 86_400.0  # faults at rates are drawn so far ahead in a live run without end


def simulation_of(settings: SimSettings, start_us: int, horizon_s: float = LIVE_HORIZON_S) -> Simulation:
    """The simulation that the settings describe, for a run that starts at `start_us` (µs since 1970).

    Raises:
        ConfigError: every mistake of the scenario, and of the files that its city is read from, one line each.
    """
    try:
        chosen = scenarios.find(settings.scenario)
    except ScenarioError as error:
        told = {_key(problem) for problem in error.problems}
        more = [problem for problem in _found_by_city(settings, error.sound) if _key(problem) not in told]
        raise ConfigError([*error.problems, *more]) from None
    city = city_of(settings, chosen)
    staged = scenarios.schedule(chosen, city, start_us, horizon_s)
    staged += tuple(consequences.ponding(World(city, staged), city, staged))
    return Simulation(city, staged, settings.sampling.period_ms(), texture=settings.texture)


def _key(problem: str) -> str:
    """File and key of a mistake."""
    return ": ".join(problem.split(": ")[:2])


def _found_by_city(settings: SimSettings, sound: Scenario | None) -> list[str]:
    """What the city finds wrong with the entries of a scenario that can be understood."""
    if sound is not None:
        try:
            scenarios.schedule(sound, city_of(settings, sound), 0, 0.0)
        except ConfigError as error:
            return error.problems
    return []


def city_of(settings: SimSettings, chosen: Scenario | None = None) -> City:
    """The city that the settings describe: from files if they name some, or else the scenario does; or invented."""
    parameters, files = settings.parameters(), settings.city.files
    if chosen is not None and chosen.file.climate is not None:
        parameters = replace(parameters, climate=chosen.file.climate)
    if not files.is_given and chosen is not None and chosen.file.city is not None:
        files = chosen.file.city.beside(Path(chosen.source).parent)
    if not files.is_given:
        return layout.build(settings.seed, parameters)
    return surveyed.build(settings.seed, parameters, files)
