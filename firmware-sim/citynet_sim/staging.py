"""From settings to a simulation: city, scenario, what its weather brings about."""

from __future__ import annotations

from dataclasses import replace

from citynet_sim import city as layout
from citynet_sim import consequences
from citynet_sim import scenario as scenarios
from citynet_sim.settings import SimSettings
from citynet_sim.simulation import Simulation
from citynet_sim.world import World

LIVE_HORIZON_S = 31 * 86_400.0  # faults at rates are drawn so far ahead in a live run without end


def simulation_of(settings: SimSettings, start_us: int, horizon_s: float = LIVE_HORIZON_S) -> Simulation:
    """The simulation that the settings describe, for a run that starts at `start_us` (µs since 1970)."""
    chosen = scenarios.find(settings.scenario)
    parameters = settings.parameters()
    if chosen.file.climate is not None:
        parameters = replace(parameters, climate=chosen.file.climate)
    city = layout.build(settings.seed, parameters)
    staged = scenarios.schedule(chosen, city, start_us, horizon_s)
    staged += tuple(consequences.ponding(World(city, staged), city, staged))
    return Simulation(city, staged, settings.sampling.period_ms(), texture=settings.texture)
